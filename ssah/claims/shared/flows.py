"""Flows: how units change their label from one scoring to another (Fig. 5 and 6).

A *flow* counts units by their label before and after. A *comparison* says which scores these labels
come from; it has one flow a run: a seed, or a pair of seeds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...classification import LABELS
from ...errors import SsahError
from ...lab import Lab, Need, Result
from ...lab.statistics import Estimate
from .measuring import paper_kinds

#: Disjoint parts of the calibration texts of which scores are kept.
HALVES = ("first half", "last half")


# ---- what is compared ------------------------------------------------------------------------

class Run(NamedTuple):
    """One flow of a comparison: the seeds of its two sides."""

    name: str
    before: int
    after: int


def every_seed(lab: Lab) -> list[Run]:
    """A run a seed of the lab."""
    return [Run(f"seed {seed}", seed, seed) for seed in lab.seeds]


def first_seed(lab: Lab) -> list[Run]:
    """For what is computed for the first seed alone."""
    seed = lab.profile.seeds[0]
    return [Run(f"seed {seed}", seed, seed)]


def two_seeds(lab: Lab) -> list[Run]:
    """A run a pair of seeds of the lab; none where it has one seed."""
    return [Run(f"seeds {first} and {second}", first, second)
            for first, second in combinations(lab.seeds, 2)]


@dataclass(frozen=True)
class Comparison:
    """Two scored results whose labels are compared, both named without their seeds."""

    name: str                                           # in tables
    title: str                                          # where people read it
    before: Need
    after: Need
    runs: Callable[[Lab], list[Run]] = every_seed
    group: str = ""                                     # of comparisons that are drawn alike

    def results(self, lab: Lab, run: Run) -> tuple[Result, Result]:
        """The results before and after; `SsahError` if they are of different units."""
        before = lab.get(self.before.step, seed=run.before, **self.before.params)
        after = lab.get(self.after.step, seed=run.after, **self.after.params)
        first_index = before.values.get("index")
        second_index = after.values.get("index")
        if first_index != second_index:
            raise SsahError(f"{self.name}, {run.name}: units of different models cannot be "
                            f"compared; index {first_index} before, {second_index} after")
        return before, after


def labels_of(profile, scored: Result, scale: str | None = None) -> np.ndarray:
    """Labels (len(index),) of a scored model by the shares of the freezing experiment.

    Those that were kept, where labels alone were kept. `scale`: another one than the profile's;
    kept labels have no other (`SsahError`).
    """
    if "labels" not in scored.arrays:
        return paper_kinds(profile, scored, scale).labels
    if scale not in (None, profile.classification.scale):
        raise SsahError(f"labels on the scale {scale!r} need scores, and this result keeps labels "
                        f"alone; take one that keeps scores: {', '.join(HALVES)}")
    codes = scored.arrays["labels"]
    return np.array(LABELS)[codes]


def labels_of_both(profile, before: Result, after: Result,
                   scale: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`labels_of` the two sides of a comparison: kinds keep their sizes."""
    return labels_of(profile, before, scale), labels_of(profile, after, scale)


# ---- flows -----------------------------------------------------------------------------------

def flow(before, after) -> pd.DataFrame:
    """Units by label before (rows) and after (columns), in the order of `LABELS`.

    `before`, `after`: labels (units,). Row sums are the sizes of the kinds before, column sums
    those after. Raises `SsahError` for arrays of different length, or labels that are none.
    """
    before = np.asarray(before)
    after = np.asarray(after)
    require_labels(before, after)
    counts = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    for row, label in enumerate(LABELS):
        counts[row] = [(after[before == label] == other).sum() for other in LABELS]
    return pd.DataFrame(counts, index=pd.Index(LABELS, name="before"),
                        columns=pd.Index(LABELS, name="after"))


def require_labels(before: np.ndarray, after: np.ndarray) -> None:
    """`SsahError` for arrays that are no labels of the same units."""
    if before.shape != after.shape:
        raise SsahError(f"labels of {before.size} and of {after.size} units cannot be compared: "
                        "two models' labels?")
    known = np.isin(before, LABELS) & np.isin(after, LABELS)
    if not known.all():
        unknown = (set(before) | set(after)) - set(LABELS)
        names = ", ".join(sorted(map(str, unknown)))
        raise SsahError(f"unknown labels {names}; known: {', '.join(LABELS)}")


def tidy_flow(counts: pd.DataFrame, **columns) -> pd.DataFrame:
    """A flow as rows before, after, units, share (of all units), and the same `columns` in each."""
    table = counts.stack().rename("units").reset_index()
    share = table["units"] / table["units"].sum()
    return table.assign(share=share, **columns)


def flows(comparisons: Iterable[Comparison], lab: Lab, labels=labels_of_both) -> pd.DataFrame:
    """All flows as rows: comparison, title, group, run, texts, before, after, units, share.

    ``texts``: how many refusals the first side was scored on; ``share``: of all units. `labels`
    gives the labels before and after from a profile and two results. What a step left out (its
    result says so) is left out here too. Raises `SsahError` where nothing is left, and where two
    results are of different units.
    """
    tables = []
    for comparison in comparisons:
        for run in comparison.runs(lab):
            before, after = comparison.results(lab, run)
            if "left out" in before.values:
                continue
            labels_before, labels_after = labels(lab.profile, before, after)
            tables.append(tidy_flow(
                flow(labels_before, labels_after),
                comparison=comparison.name,
                title=comparison.title,
                group=comparison.group,
                run=run.name,
                texts=before.values["examples"]["harmful"]))
    if not tables:
        raise SsahError("no run to compare: two seeds' models take two seeds (`-p n_seeds=2`)")
    return pd.concat(tables, ignore_index=True)


# ---- what flows say --------------------------------------------------------------------------

def mean_flow(table: pd.DataFrame, comparison: str) -> pd.DataFrame:
    """One comparison's flow as shares of all units, mean over its runs: before x after."""
    rows = table[table["comparison"] == comparison]
    shares = rows.pivot_table(index="before", columns="after", values="share")
    return shares.reindex(index=LABELS, columns=LABELS)


def panels(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Title -> `mean_flow` of every comparison in a table of `flows`, as the figures take them."""
    titles = table.drop_duplicates("comparison").set_index("comparison")["title"]
    return {title: mean_flow(table, name) for name, title in titles.items()}


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """What every flow says of every kind: a row a comparison, run and label, with fractions.

    ``left``: the part of its units before that have another label after. ``iou``: overlap of
    before and after. ``chance``: the overlap of two independent sets of these sizes (p / (2 - p)
    if both are a share p). nan where a kind has no unit.
    """
    run = ["comparison", "run"]
    before = table.groupby([*run, "before"])["units"].transform("sum")
    after = table.groupby([*run, "after"])["units"].transform("sum")
    total = table.groupby(run)["units"].transform("sum")
    stayed = table["units"]
    by_chance = before * after / total
    every_pair = table.assign(
        label=table["before"],
        left=1 - stayed / before,
        iou=stayed / (before + after - stayed),
        chance=by_chance / (before + after - by_chance))
    # where both labels are one, these numbers are those of that kind
    kinds = every_pair.query("before == after")
    return kinds.drop(columns=["before", "after", "units", "share"]).reset_index(drop=True)


def mean_and_range(values) -> Estimate:
    """Mean, lowest and highest over runs.

    With three seeds that is what a 95 % bootstrap over seeds would give. Units are not resampled:
    they are all that the model has, and not independent of each other.
    """
    values = np.asarray(values, dtype=float)
    return Estimate(float(values.mean()), float(values.min()), float(values.max()))


def mean_and_range_text(values, factor: float = 100, digits: int = 0, unit: str = "%") -> str:
    """`mean_and_range` as text: ``12% [10, 15]``; without brackets where there is one run."""
    mean, low, high = (f"{value * factor:.{digits}f}" for value in mean_and_range(values))
    if len(values) == 1:
        return f"{mean}{unit}"
    return f"{mean}{unit} [{low}, {high}]"
