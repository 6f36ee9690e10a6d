"""What the rules are given for C4: damage avoided by freezing, at equal loss. No torch."""

import pandas as pd

from ...lab import Lab
from .. import rules
from ..shared import gates, runs
from .run import ARMS

ROW = rules.ROWS["C4"]
#: Who is frozen in the paper's comparison, and the two disjoint sets of the second question.
FROZEN, CHOSEN, REMAINDER = ARMS


def avoided(answers: pd.DataFrame, judge: str) -> rules.Estimate | None:
    """Share of the added attack success that freezing avoids; None where little was added.

    `answers`: see `gates.attack`.
    """
    by_condition = dict(list(answers.groupby("condition")))
    before, full, frozen = (gates.crossed(by_condition[name], f"{judge}_asr")
                            for name in ("start", "full", FROZEN))
    return rules.ratio(rules.satterthwaite(full - frozen), rules.satterthwaite(full - before))


def which_units(answers: pd.DataFrame) -> rules.Estimate:
    """Refusal log-odds (nats) with the chosen units frozen, minus with the remainder frozen."""
    by_condition = dict(list(answers.groupby("condition")))
    chosen, remainder = (gates.crossed(by_condition[name], "log_odds")
                         for name in (CHOSEN, REMAINDER))
    return rules.satterthwaite(chosen - remainder)


def verdict(lab: Lab) -> rules.Verdict:
    """The two words on C4."""
    tuned = runs.tuned(lab, ("full", *ARMS), runs.seeds_of_tunings(lab))
    answers = runs.harmful_answers(tuned)
    contrast = which_units(answers)
    first, second = (rules.Measured(avoided(answers, judge), contrast) for judge in ROW.judges)
    reached = runs.facts(tuned).groupby("condition")["reached"].mean()
    arms = {name: float(reached[name]) for name in ARMS}
    found = [gates.guardrail(lab, ROW), gates.attack(lab, ROW, answers, arms),
             gates.labels(lab, ROW), gates.training_runs(lab, ROW)]
    return rules.verdict_of(ROW, first, gates=found, by_second_judge=second)
