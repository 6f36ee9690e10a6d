"""Flows: how units change their label from one scoring to another (Fig. 5 and 6).

A *flow* counts units by their label before (rows) and after (columns). A *comparison* has one flow
a run: a seed, or a pair of seeds.
"""

import numpy as np
import pandas as pd

from ...classification import LABELS
from ...errors import SsahError
from ...lab import Result
from ...lab.statistics import Estimate
from .measuring import paper_kinds

#: Disjoint parts of the calibration texts of which scores are kept.
HALVES = ("first half", "last half")
#: How a comparison is called where people read it.
NAMES = {"halves": "noise: two halves of the texts", "seeds": "two seeds' aligned models", "full": "nothing frozen",
         "SCU + all CU": "SCU + all CU frozen", "random large without SCU": "as many random units frozen",
         "base": "base to aligned",
         "base of two kinds": "base (UCU and RU alone, as in Fig. 6) to aligned"}


def labels_of(profile, scored: Result, scale: str | None = None) -> np.ndarray:
    """Labels (len(index),) of a scored model by the shares of the freezing experiment, or those that were kept.

    `scale`: another one than the profile's; where labels alone were kept, there is no other (`SsahError`).
    """
    if "labels" not in scored.arrays:
        return paper_kinds(profile, scored, scale).labels
    if scale not in (None, profile.classification.scale):
        raise SsahError(f"labels on the scale {scale!r} need scores, and this result keeps labels alone; "
                        f"take one that keeps scores: {', '.join(HALVES)}")
    return np.array(LABELS)[scored.arrays["labels"]]


def flow(before, after) -> pd.DataFrame:
    """Units by label before (rows) and after (columns), in the order of `LABELS`; two arrays of labels (units,).

    Its row sums are the sizes of the kinds before, its column sums those after. Raises `SsahError` for arrays of
    different length, or labels that are none.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape:
        raise SsahError(f"labels of {before.size} and of {after.size} units cannot be compared: two models' labels?")
    if unknown := (set(before) | set(after)) - set(LABELS):
        raise SsahError(f"unknown labels {', '.join(sorted(map(str, unknown)))}; known: {', '.join(LABELS)}")
    counts = [[int(((before == source) & (after == target)).sum()) for target in LABELS] for source in LABELS]
    return pd.DataFrame(counts, index=pd.Index(LABELS, name="before"), columns=pd.Index(LABELS, name="after"))


def flows(pairs: dict[str, tuple[dict, dict]], profile, scale: str | None = None) -> pd.DataFrame:
    """All flows as rows: comparison, run, before, after, units, share (of all units).

    `pairs`: comparison -> (before, after), each run -> scored result; only runs that both have are compared. Raises
    `SsahError` where there is none, or where two results are of different units.
    """
    rows = []
    for name, (before, after) in pairs.items():
        for run in common_runs(name, before, after):
            counts = flow(labels_of(profile, before[run], scale), labels_of(profile, after[run], scale))
            rows.append(as_rows(counts, comparison=name, run=run))
    return pd.concat(rows, ignore_index=True)


def common_runs(name: str, before: dict[str, Result], after: dict[str, Result]) -> list[str]:
    """The runs that both sides of a comparison have, all of one unit index; `SsahError` otherwise."""
    runs = [run for run in before if run in after]
    if not runs:
        raise SsahError(f"{name}: no common run to compare; before: {', '.join(before) or 'none'}; after: "
                        f"{', '.join(after) or 'none'}")
    for run in runs:
        first, second = before[run].values["index"], after[run].values["index"]
        if first != second:
            raise SsahError(f"{name}, {run}: units of different models cannot be compared; index {first} before, "
                            f"{second} after")
    return runs


def as_rows(counts: pd.DataFrame, **named) -> pd.DataFrame:
    """A flow as rows before, after, units, share, with the columns in `named`."""
    table = counts.stack().rename("units").reset_index()
    return table.assign(share=table["units"] / table["units"].sum(), **named)


def mean_flow(table: pd.DataFrame, comparison: str) -> pd.DataFrame:
    """One comparison's flow as shares of all units, mean over its runs; before (rows) x after (columns)."""
    own = table[table["comparison"] == comparison]
    return own.pivot_table(index="before", columns="after", values="share", sort=False).loc[[*LABELS], [*LABELS]]


def panels(table: pd.DataFrame, *comparisons: str) -> dict[str, pd.DataFrame]:
    """Title -> `mean_flow` of some comparisons, as the figures take them."""
    return {NAMES[name]: mean_flow(table, name) for name in comparisons}


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """What every flow says of every kind: comparison, run, label, left, iou, chance (fractions).

    ``left``: the part of its units before that have another label after. ``iou``: overlap of before and after.
    ``chance``: the overlap of two independent sets of these sizes (p / (2 - p) if both are a share p).
    """
    rows = []
    for (comparison, run), own in table.groupby(["comparison", "run"], sort=False):
        counts, n = own.pivot(index="before", columns="after", values="units"), own["units"].sum()
        for label in LABELS:
            stayed, before, after = counts.loc[label, label], counts.loc[label].sum(), counts[label].sum()
            by_chance = before * after / n
            rows.append({"comparison": comparison, "run": run, "label": label,
                         "left": 1 - stayed / before if before else np.nan,
                         "iou": stayed / (before + after - stayed) if before + after else np.nan,
                         "chance": by_chance / (before + after - by_chance) if before + after else np.nan})
    return pd.DataFrame(rows)


def spread(values) -> Estimate:
    """(mean, lowest, highest) over runs. With three seeds that is what a 95 % bootstrap over seeds would give.

    Units are not resampled: they are all that the model has, and not independent of each other.
    """
    values = np.asarray(values, dtype=float)
    return Estimate(float(values.mean()), float(values.min()), float(values.max()))


def said(values, factor: float = 100, digits: int = 0, unit: str = "%") -> str:
    """`spread` as text: ``12% [10, 15]``."""
    mean, low, high = (f"{x * factor:.{digits}f}" for x in spread(values))
    return f"{mean}{unit} [{low}, {high}]" if len(values) > 1 else f"{mean}{unit}"
