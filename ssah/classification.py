"""Four kinds of units from two importance scores (paper, Sec. 4 and Table 1). NumPy only.

The paper adds and subtracts I_S and I_U; how the two are put on one scale is not stated in what
we have, so it is a named choice here (`SCALES`), and notebook 02 shows what it moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .errors import SsahError
from .units import UnitIndex

LABELS = ("SCU", "UCU", "CU", "RU")
SCALES = ("log-z", "z", "rank", "raw", "log-z-global", "z-global")

#: Added to a score before its logarithm, as a share of its module's median: zeros stay finite.
FLOOR = 1e-12


@dataclass(frozen=True)
class Units:
    """The four kinds of units (paper, Sec. 4); every array is (len(index),)."""

    #: "SCU", "UCU", "CU" or "RU"
    labels: np.ndarray
    index: UnitIndex
    #: scaled I_S
    safety: np.ndarray
    #: scaled I_U
    utility: np.ndarray
    #: how many units each pair of sets shared before they were resolved, such as "RU&SCU"
    overlaps: dict

    def mask(self, *labels: str) -> np.ndarray:
        """Boolean mask (len(index),) of the units with one of these labels.

        Raises `SsahError` for an unknown label.
        """
        for label in labels:
            if label not in LABELS:
                raise SsahError(f"unknown label {label!r}; known: {', '.join(LABELS)}")
        return np.isin(self.labels, labels)

    def shares(self) -> pd.DataFrame:
        """One row a label: units (a count), share of units, share of parameters (0 to 1)."""
        rows = []
        for label in LABELS:
            mask = self.mask(label)
            rows.append({
                "label": label,
                "units": int(mask.sum()),
                "share": mask.mean(),
                "parameter_share": self.index.parameter_share(mask),
            })
        return pd.DataFrame(rows).set_index("label")


def classify(
    I_safety,
    I_utility,
    *,
    index: UnitIndex,
    scale: str = "log-z",
    scu: float = 0.013,
    ucu: float = 0.133,
    ru: float = 0.15,
) -> Units:
    """Label every unit (paper, Sec. 4).

    - RU, redundant: the lowest I_S + I_U;
    - SCU, safety-critical: the highest I_S - I_U;
    - UCU, utility-critical: the lowest I_S - I_U;
    - CU, complex: the rest.

    `scu`, `ucu`, `ru` are shares of all units, n = round(share x len(index)). Order of resolution:
    RU first, then SCU, then UCU among those left; ties go to the lower index. Raises `SsahError`
    for shares that are negative or exceed 1 in sum, and for scores that `scaled` refuses.
    """
    _check_shares(scu, ucu, ru)
    safety = scaled(I_safety, index, scale)
    utility = scaled(I_utility, index, scale)
    # each kind: all units, its own first
    ranked = {
        "RU": _lowest_first(safety + utility),
        "SCU": _lowest_first(utility - safety),
        "UCU": _lowest_first(safety - utility),
    }
    count = {
        "RU": round(ru * len(index)),
        "SCU": round(scu * len(index)),
        "UCU": round(ucu * len(index)),
    }
    labels = np.full(len(index), "CU", dtype="<U3")
    for label in ("RU", "SCU", "UCU"):
        free = ranked[label][labels[ranked[label]] == "CU"]
        labels[free[:count[label]]] = label
    return Units(labels, index, safety, utility, _overlaps(ranked, count))


def _lowest_first(values: np.ndarray) -> np.ndarray:
    return np.argsort(values, kind="stable")


def _overlaps(ranked: dict, count: dict) -> dict:
    """How many units two kinds would share if none came first."""
    alone = {label: set(ranked[label][:count[label]]) for label in ranked}
    pairs = (("RU", "SCU"), ("RU", "UCU"), ("SCU", "UCU"))
    return {f"{first}&{second}": len(alone[first] & alone[second]) for first, second in pairs}


def _check_shares(scu: float, ucu: float, ru: float) -> None:
    # written so that NaN is refused
    if not (min(scu, ucu, ru) >= 0 and scu + ucu + ru <= 1 + 1e-9):
        raise SsahError(
            "shares must be at least 0 and at most 1 in sum; "
            f"got scu={scu}, ucu={ucu}, ru={ru}"
        )


# ---- scales ----------------------------------------------------------------------------------

def scaled(importance, index: UnitIndex, scale: str = "log-z") -> np.ndarray:
    """Importance on a scale on which safety and utility can be added and subtracted.

    - ``log-z``: z-score of log(I + 1e-12 x the module's median) within each block x kind (where the
      median is 0, the smallest float is added);
    - ``z``: z-score of I; ``rank``: rank from 0 to 1; both within each block x kind;
    - ``raw``: I itself; ``log-z-global``, ``z-global``: one z-score over the whole model.

    Takes and returns (len(index),). Raises `SsahError` for an unknown scale, for scores of another
    index, negative or not finite, or a module all zero.
    """
    if scale not in SCALES:
        raise SsahError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    scores = _checked(importance, index)
    result = scores.copy()
    for _, _, where in index.modules():
        result[where] = _scaled_module(scores[where], scale)
    if scale.endswith("global"):
        return _standardized(result)
    return result


def _scaled_module(scores: np.ndarray, scale: str) -> np.ndarray:
    """One module's scores; those of a global scale are standardized later, all together."""
    if scale == "rank":
        return (pd.Series(scores).rank().to_numpy() - 0.5) / len(scores)
    if scale.startswith("log"):
        scores = np.log(scores + FLOOR * np.median(scores) + np.finfo(float).tiny)
    if scale in ("z", "log-z"):
        return _standardized(scores)
    return scores


def _standardized(values: np.ndarray) -> np.ndarray:
    if np.ptp(values) == 0:     # its standard deviation may be a rounding error above 0
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def two_by_two(scores: Mapping[str, np.ndarray], index: UnitIndex) -> np.ndarray:
    """S = log I(h, r) - log I(h, f) - log I(b, r) + log I(b, f), a z-score in each block x kind.

    `scores`: importance (len(index),) by name: ``"harmful refusal"``, ``"harmful fulfilment"``,
    ``"benign refusal"``, ``"benign fulfilment"`` (requests, and openings of an answer to them).
    S is high where a unit matters for refusing harmful requests more than those words (after benign
    requests) and those requests (before fulfilment) explain. Raises `SsahError` as `scaled` does.
    """
    logarithms = {name: _logarithms(importance, index) for name, importance in scores.items()}
    of_harmful = logarithms["harmful refusal"] - logarithms["harmful fulfilment"]
    of_benign = logarithms["benign refusal"] - logarithms["benign fulfilment"]
    difference = of_harmful - of_benign
    for _, _, where in index.modules():
        difference[where] = _standardized(difference[where])
    return difference


def _logarithms(importance, index: UnitIndex) -> np.ndarray:
    """log I with the floor of ``log-z``; (len(index),)."""
    scores = _checked(importance, index)
    result = np.empty_like(scores)
    for _, _, where in index.modules():
        floor = FLOOR * np.median(scores[where]) + np.finfo(float).tiny
        result[where] = np.log(scores[where] + floor)
    return result


def _checked(importance, index: UnitIndex) -> np.ndarray:
    if hasattr(importance, "detach"):       # a tensor, of which NumPy does not know every type
        importance = importance.detach().cpu().double()
    scores = np.asarray(importance, dtype=float)
    if scores.shape != (len(index),):
        raise SsahError(
            f"scores have shape {scores.shape}, the index has {len(index)} units: "
            "another model's scores?"
        )
    if not np.isfinite(scores).all():
        raise SsahError(
            f"{(~np.isfinite(scores)).sum()} scores are NaN or infinite; "
            'compute them again with the model loaded with dtype="bfloat16" or "float32"'
        )
    if (scores < 0).any():
        raise SsahError("importance must not be negative")
    for block, kind, where in index.modules():
        if not scores[where].any():
            raise SsahError(
                f"all scores of block {block} {kind} are zero; "
                "was the module dead or the prompt set empty?"
            )
    return scores


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two Boolean masks of one shape; NaN if both are empty.

    Independent draws of share p expect p / (2 - p). Raises `SsahError` for anything else.
    """
    a = np.asarray(a)
    b = np.asarray(b)
    if not (a.dtype == b.dtype == bool and a.shape == b.shape):
        raise SsahError("iou takes two Boolean masks of one shape; got "
                        f"{a.dtype} {a.shape} and {b.dtype} {b.shape}")
    union = (a | b).sum()
    if union == 0:
        return float("nan")
    return float((a & b).sum() / union)
