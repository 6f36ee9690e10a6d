"""Four kinds of units from two importance scores (paper, Sec. 4 and Table 1). NumPy only.

The paper adds and subtracts I_S and I_U; how the two are put on one scale is not stated in what
we have, so it is a named choice here (`SCALES`), and notebook 02 shows what it moves.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .errors import SsahError
from .units import UnitIndex

LABELS = ("SCU", "UCU", "CU", "RU")
SCALES = ("log-z", "z", "rank", "raw", "log-z-global", "z-global")


def scaled(importance, index: UnitIndex, scale: str = "log-z") -> np.ndarray:
    """Importance (len(index),) on a scale on which safety and utility can be added and subtracted; same shape.

    - ``log-z``: z-score of log(I + 1e-12 x the module's median) within each block x kind;
    - ``z``: z-score of I; ``rank``: rank from 0 to 1; both within each block x kind;
    - ``raw``: I itself; ``log-z-global``, ``z-global``: one z-score over the whole model.

    Raises `SsahError` for an unknown scale, for scores of another index, negative or not finite, or a module all zero.
    """
    if scale not in SCALES:
        raise SsahError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    scores = _checked(importance, index)
    result = scores.copy()
    for block, kind, where in index.modules():
        module = scores[where]
        if not module.any():
            raise SsahError(f"all scores of block {block} {kind} are zero; "
                            "was the module dead or the prompt set empty?")
        if scale == "raw":
            continue
        if scale == "rank":
            result[where] = (rankdata(module) - 0.5) / len(module)
        else:
            result[where] = np.log(module + 1e-12 * np.median(module) + np.finfo(float).tiny) \
                if scale.startswith("log") else module
            if not scale.endswith("global"):
                result[where] = _standardized(result[where])
    return _standardized(result) if scale.endswith("global") else result


def _standardized(values: np.ndarray) -> np.ndarray:
    if np.ptp(values) == 0:     # its standard deviation may be a rounding error above 0
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def _checked(importance, index: UnitIndex) -> np.ndarray:
    scores = np.asarray(importance, dtype=float)
    if scores.shape != (len(index),):
        raise SsahError(f"scores have shape {scores.shape}, the index has {len(index)} units: another model's scores?")
    if not np.isfinite(scores).all():
        raise SsahError(f"{(~np.isfinite(scores)).sum()} scores are NaN or infinite")
    if (scores < 0).any():
        raise SsahError("importance must not be negative")
    return scores


@dataclass(frozen=True)
class Units:
    """The four kinds of units (paper, Sec. 4): `labels`, `safety` and `utility` are arrays (len(index),)."""

    labels: np.ndarray      # "SCU", "UCU", "CU" or "RU"
    index: UnitIndex
    safety: np.ndarray      # scaled I_S
    utility: np.ndarray     # scaled I_U
    overlaps: dict          # how many units each pair of sets shared before they were resolved

    def mask(self, *labels: str) -> np.ndarray:
        """Boolean mask (len(index),) of the units with one of these labels; `SsahError` for an unknown one."""
        for label in labels:
            if label not in LABELS:
                raise SsahError(f"unknown label {label!r}; known: {', '.join(LABELS)}")
        return np.isin(self.labels, labels)

    def shares(self) -> pd.DataFrame:
        """One row a label: units (a count), share of units, share of parameters (both from 0 to 1)."""
        return pd.DataFrame([{"label": label, "units": int(mask.sum()), "share": mask.mean(),
                              "parameter_share": self.index.parameter_share(mask)}
                             for label in LABELS for mask in [self.mask(label)]]).set_index("label")


def classify(I_safety, I_utility, *, index: UnitIndex, scale: str = "log-z",
             scu: float = 0.013, ucu: float = 0.133, ru: float = 0.15) -> Units:
    """Label every unit (paper, Sec. 4): RU lowest I_S + I_U; SCU highest I_S - I_U; UCU lowest; CU the rest.

    `scu`, `ucu`, `ru` are shares of all units, n = round(share x len(index)). Order of resolution: RU
    first, then SCU, then UCU among those left; ties go to the lower index. Raises `SsahError` for
    shares that are negative or exceed 1 in sum, and for scores that `scaled` refuses.
    """
    if not (min(scu, ucu, ru) >= 0 and scu + ucu + ru <= 1 + 1e-9):      # written so that NaN is refused
        raise SsahError(f"shares must be at least 0 and at most 1 in sum; got scu={scu}, ucu={ucu}, ru={ru}")
    safety, utility = scaled(I_safety, index, scale), scaled(I_utility, index, scale)
    n = len(index)
    orders = {"RU": (safety + utility, round(ru * n)),
              "SCU": (utility - safety, round(scu * n)),
              "UCU": (safety - utility, round(ucu * n))}     # each: lowest first
    labels = np.full(n, "CU", dtype="<U3")
    for label, (order, count) in orders.items():
        ranked = np.argsort(order, kind="stable")
        labels[ranked[labels[ranked] == "CU"][:count]] = label
    unresolved = {label: set(np.argsort(order, kind="stable")[:count]) for label, (order, count) in orders.items()}
    overlaps = {f"{a}&{b}": len(unresolved[a] & unresolved[b])
                for a, b in (("RU", "SCU"), ("RU", "UCU"), ("SCU", "UCU"))}
    return Units(labels, index, safety, utility, overlaps)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two Boolean masks; independent draws of share p expect p / (2 - p); NaN if empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else float("nan")
