"""A sentence a question of the reviewers, with its number, from tables of other rooms. No torch."""

import pandas as pd

from ...lab.statistics import Estimate
from ...lab.words import say
from .. import rules
from ..shared import runs
from ..shared.conditions import FULL
from .read import WORDS

#: Rates of attack success, as people read them.
RATES = {title: f"{judge}_asr" for judge, title in rules.BY_JUDGE.items()}
#: Who may protect as well as the paper's units: title, and the condition.
RIVALS = {"as many random units": runs.WHICH_UNITS[0], "a lower rate": "full slower"}
FROZEN = runs.WHICH_UNITS[1]


def stable(overlaps: pd.DataFrame, by_size: pd.DataFrame) -> str:
    """Question 1. `overlaps`: of C3's `stability`; `by_size`: of C2's `growth` (may be empty)."""
    scu = overlaps[overlaps["label"] == "SCU"]
    sizes = by_size.groupby("billions")["overlap"].first()
    # kinds of harm are of one seed, so they stand beside the sixths of that seed
    runs_of_kinds = scu.loc[scu["comparison"] == "categories", "run"].unique()
    is_beside = (scu["comparison"] == "sixths") & scu["run"].isin(runs_of_kinds)
    return say(WORDS, "stable", iou=scu.groupby("comparison")["iou"].mean(),
               sixths=scu.loc[is_beside, "iou"].mean(), run=" and ".join(runs_of_kinds),
               chance=scu["chance"].mean(), sizes=sizes)


def protects(tuned: runs.Runs) -> str:
    """Question 2: rivals minus the paper's units, at equal loss, in points of attack success."""
    answered = runs.harmful_answers(tuned)
    apart = {}
    for title, condition in RIVALS.items():
        for judge, column in RATES.items():
            gap = runs.gap(answered, condition, FROZEN, column)
            apart[title, judge] = Estimate(*(100 * end for end in gap))
    worse = [f"{title} ({judge})" for (title, judge), gap in apart.items() if gap.low > 0]
    return say(WORDS, "protects", apart=apart, rivals=list(RIVALS), judges=list(RATES), worse=worse)


def aligned_by_a_part(table: pd.DataFrame) -> str:
    """Questions 3 and 4. `table`: of C6's `table_four`, fractions, a row a condition."""
    return say(WORDS, "aligned_by_a_part", rows=table, full=FULL.name)


def separates(moves: pd.DataFrame, measures: pd.DataFrame) -> str:
    """Question 5. `moves`: of C3's `changes`; `measures`: of C4's `further_measures`, as text."""
    left = moves.query("comparison == 'halves'").groupby("label")["left"].mean()
    return say(WORDS, "separates", left=left, accuracy=measures["accuracy %"])


def intent(residual: pd.DataFrame, predictions: pd.DataFrame) -> str:
    """Question 6. Both tables: of C1's `doubts`."""
    of_aligned = residual.query("role == 'aligned'").groupby("line")["mean"].mean()
    usable = predictions[predictions["enough"]]
    return say(WORDS, "intent", means=of_aligned, auroc=usable[["direction", "log-odds"]].mean(),
               rows=len(usable))


def unseen_prefills(refused: pd.DataFrame) -> str:
    """Question 11, of our own model. `refused`: of C1's `doubts.refused_after`."""
    rows = refused.query("role == 'aligned'").set_index("prefilled")["mean"]
    return say(WORDS, "unseen_prefills", rows=rows)
