"""What the rules are given for C6's two rows: refusals learnt by RU alone, and their cost. No torch."""

import numpy as np
import pandas as pd

from ...lab import Lab
from .. import rules
from ..shared import gates, runs
from .read import of_condition, of_other_set, of_own_set
from .run import FULL, RANDOM, RU, START

ALIGNS = rules.ROWS["C6-aligns"]
TAX = rules.ROWS["C6-tax"]
TRAINED = (FULL.name, RU.name, RANDOM.name)


def apart(table: pd.DataFrame, first: str, second: str, column: str) -> rules.Estimate:
    """A value a request or question under the first condition minus under the second."""
    values = [gates.crossed(of_condition(table, name), column) for name in (first, second)]
    return rules.satterthwaite(np.asarray(values[0] - values[1]))


def _trained(lab: Lab) -> runs.Runs:
    return runs.runs_of(lab, "budget", "trained", TRAINED)


def aligns_verdict(lab: Lab) -> rules.Verdict:
    """The two words on C6-aligns."""
    answered = runs.answers(_trained(lab))
    own_set = of_own_set(lab, answered)
    other_set = of_other_set(lab, answered)
    first, second = (
        rules.Measured(apart(own_set, START.name, RU.name, f"{judge}_asr"),
                       apart(other_set, RANDOM.name, RU.name, f"{judge}_asr"))
        for judge in ALIGNS.judges)
    return rules.verdict_of(ALIGNS, first, gates=[gates.guardrail(lab, ALIGNS)],
                            by_second_judge=second)


def tax_verdict(lab: Lab) -> rules.Verdict:
    """The two words on C6-tax; harm is log P of right answers that is lost."""
    questions = runs.taken(_trained(lab), "choice")
    measured = rules.Measured(apart(questions, START.name, RU.name, "gold"),
                              apart(questions, RU.name, RANDOM.name, "gold"))
    of_full = apart(questions, START.name, FULL.name, "gold")
    found = [gates.guardrail(lab, TAX), rules.tax(TAX, of_full), by_accuracy(questions, measured)]
    return rules.verdict_of(TAX, measured, gates=found)


def by_accuracy(questions: pd.DataFrame, by_log_p: rules.Measured) -> rules.Gate:
    """Whether accuracy, the paper's measure, sees what the log P of right answers sees."""
    means = questions.groupby("condition")[["correct", "gold"]].mean()
    lost = apart(questions.astype({"correct": float}), START.name, RU.name, "correct")
    arms = {"the RU trained": RU.name, "as many random units": RANDOM.name, "everything": FULL.name}
    return rules.accuracy(
        TAX,
        before=means.loc[START.name, "correct"],
        after={title: means.loc[name, "correct"] for title, name in arms.items()},
        nats={title: means.loc[START.name, "gold"] - means.loc[name, "gold"]
              for title, name in arms.items()},
        agrees=(lost.low > 0) == (by_log_p.effect.low > 0))
