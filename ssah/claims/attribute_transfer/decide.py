"""What the rules are given for C3: the SCU that are none on other texts, after fine-tuning. No torch."""

import numpy as np
import pandas as pd

from ...lab import Lab, Need
from .. import rules
from ..shared import gates, runs
from ..shared.tuning import MILDER
from .run import ALIGNED, PLACEBO, TUNED

ROW = rules.ROWS["C3"]


def finished_seeds(lab: Lab) -> tuple[int, ...]:
    """The seeds whose turnover is there."""
    return runs.finished_seeds(lab, lambda seed: [Need("turnover", {"seed": seed})])


def turnover(lab: Lab, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The share of the SCU with another label on the other half of the texts.

    A row a seed, a column a model whose units these are; means of both halves.
    """
    parts = []
    for seed in seeds:
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


def tuned(lab: Lab, seeds: tuple[int, ...]) -> runs.Runs:
    """Full fine-tuning at the milder dose, and the control."""
    control = {seed: lab.get("placebo_tuning", seed=seed) for seed in seeds}
    return {**runs.runs_of(lab, MILDER, "condition", (TUNED,), seeds), PLACEBO: control}


def attack_gates(lab: Lab, seeds: tuple[int, ...]) -> list[rules.Gate]:
    """Whether fine-tuning did a fair amount of harm, and the control's did none."""
    compared = tuned(lab, seeds)
    answers = runs.harmful_answers(compared)
    reached = runs.facts(compared).groupby("condition")["reached"].mean()
    rates = answers.groupby("condition")["keyword_asr"].mean()
    added = float(rates[PLACEBO] - rates["start"])
    return [gates.attack(lab, ROW, answers, {PLACEBO: float(reached[PLACEBO])}),
            rules.placebo_tuning(ROW, added)]


def verdict(lab: Lab) -> rules.Verdict:
    """The two words on C3, of the seeds that are finished.

    Raises `NotStored` where none is.
    """
    seeds = finished_seeds(lab) or runs.seeds_of_tunings(lab)
    models = gates.models_behind(lab, seeds)
    shares = turnover(lab, seeds)
    measured = rules.Measured(beyond(shares, ALIGNED), beyond(shares, PLACEBO))
    found = [gates.guardrail(lab, ROW, models), gates.labels(lab, ROW, models),
             *attack_gates(lab, seeds), *gates.milder_runs(lab, ROW, seeds)]
    return rules.verdict_of(ROW, measured, gates=found)
