"""What the rules are given for C3: the SCU that are none on other texts, after fine-tuning. No torch."""

import numpy as np
import pandas as pd

from ...lab import Lab
from .. import rules
from ..shared import gates, runs
from .run import ALIGNED, PLACEBO, TUNED

ROW = rules.ROWS["C3"]


def turnover(lab: Lab) -> pd.DataFrame:
    """The share of the SCU with another label on the other half of the texts.

    A row a seed, a column a model whose units these are; means of both halves.
    """
    parts = []
    for seed in runs.seeds_of_tunings(lab):
        found = lab.get("turnover", seed=seed).tables["turnover"].query("label == 'SCU'")
        stayed = found.groupby("model")["share"].mean()
        parts.append((1 - stayed).rename(seed))
    return pd.DataFrame(parts)


def beyond(shares: pd.DataFrame, control: str) -> rules.Estimate | None:
    """How much more the tuned model's turnover is than a control's; over seeds.

    None with one seed, of which no interval can be formed.
    """
    differences = shares[TUNED] - shares[control]
    if len(differences) < 2:
        return None
    return rules.satterthwaite(np.asarray(differences)[:, None], ("seeds", "pair of halves"))


def attack_gates(lab: Lab) -> list[rules.Gate]:
    """Whether fine-tuning did a fair amount of harm, and the control's did none."""
    seeds = runs.seeds_of_tunings(lab)
    tuned = {**runs.tuned(lab, ("full",), seeds),
             PLACEBO: {seed: lab.get("placebo_tuning", seed=seed) for seed in seeds}}
    answers = runs.harmful_answers(tuned)
    reached = runs.facts(tuned).groupby("condition")["reached"].mean()
    rates = answers.groupby("condition")["keyword_asr"].mean()
    added = float(rates[PLACEBO] - rates["start"])
    return [gates.attack(lab, ROW, answers, {PLACEBO: float(reached[PLACEBO])}),
            rules.placebo_tuning(ROW, added), gates.training_runs(lab, ROW)]


def verdict(lab: Lab) -> rules.Verdict:
    """The two words on C3."""
    shares = turnover(lab)
    measured = rules.Measured(beyond(shares, ALIGNED), beyond(shares, PLACEBO))
    found = [gates.guardrail(lab, ROW), gates.labels(lab, ROW), *attack_gates(lab)]
    return rules.verdict_of(ROW, measured, gates=found)
