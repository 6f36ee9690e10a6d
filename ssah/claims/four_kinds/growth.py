"""Does the effect grow with the model? Refusals lost to three removals, beside the size. No torch."""

import numpy as np
import pandas as pd

from ...lab import Lab
from ...lab.words import say
from .. import rules
from ..shared.memory import billions
from . import decide, removed
from .read import WORDS
from .removal import draws_of

#: What is removed: the units, as many others, and the edit that must be seen.
COMPARED = ("SCU", "random SCU", "direction")


def by_size(labs: list[Lab]) -> pd.DataFrame:
    """A row a model and removal (`COMPARED`), the smallest model first; those that are complete.

    Columns: model, billions (of weights, by the model's name), removed, lost with low and high
    (refusals by keyword, a share of what could be lost; 95 %), overlap (IoU of the SCU that are
    found on two halves of the texts; mean over seeds) and the gate on it.
    """
    rows = []
    for lab in labs:
        if not all(removed.is_complete(lab, name) for name in COMPARED):
            continue
        about = {"model": lab.profile.model.label, "billions": billions(lab.profile.model.name),
                 "overlap": _overlap(lab), "gate": rules.SCU_OVERLAP_LEAST}
        for name in COMPARED:
            lost = _lost(lab, name)
            rows.append({**about, "removed": name, "lost": lost.mean,
                         "low": lost.low, "high": lost.high})
    columns = ["model", "billions", "overlap", "gate", "removed", "lost", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("billions", kind="stable")


def _lost(lab: Lab, units: str) -> rules.Estimate:
    """Refusals lost to a removal as a share of headroom; the draws of a seed are averaged."""
    judge = rules.KEYWORD_FIRST[0]
    n_draws = draws_of(lab.profile).get(units, 1)
    by_seed = [np.mean([decide.lost(lab, judge, seed, units, draw) for draw in range(n_draws)],
                       axis=0)
               for seed in lab.seeds]
    there = decide.headroom(lab, judge)
    return rules.satterthwaite(np.stack(by_seed)).over(there.mean)


def _overlap(lab: Lab) -> float:
    halves = [lab.get("labels", seed=seed).tables["halves"] for seed in lab.seeds]
    table = pd.concat(halves).query("scale == 'log-z' and label == 'SCU'")
    return float(table["iou"].mean())


def seen(table: pd.DataFrame) -> str:
    """What one sees in the figure of `by_size`; empty where fewer than two models are complete."""
    if table["model"].nunique() < 2:
        return ""
    lost = table.pivot(index="billions", columns="removed", values="lost")
    overlap = table.groupby("billions")["overlap"].first()
    without_scu = table[table["removed"] == "SCU"].set_index("billions")
    low, high = without_scu["low"], without_scu["high"]
    millions = [f"{1000 * size:.0f}" for size in lost.index]
    grown = [f"{millions[i]} to {millions[i + 1]}" for i in range(len(lost) - 1)
             if low.iloc[i + 1] > high.iloc[i]]
    unclear = [name for name, least in zip(millions, low) if least <= 0]
    return say(WORDS, "grows_seen", lost=lost, low=low, high=high, grown=grown, unclear=unclear,
               overlap=overlap)
