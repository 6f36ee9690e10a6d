"""What the rules are given for C5, LoRA beside full fine-tuning, and C7, units or weights. No torch."""

import pandas as pd

from ...lab import Lab, Need
from .. import rules
from ..shared import gates, runs
from ..shared.conditions import FULL, UNIT_SHARES, WEIGHT_SHARES, names
from ..shared.tuning import MILDER

C5 = rules.ROWS["C5"]
LORA = "LoRA"


def adapter_minus_full(answers: pd.DataFrame, judge: str) -> rules.Estimate | None:
    """Attack success of LoRA minus that of full fine-tuning, a share of headroom before both.

    None where there is little headroom. `answers`: see `gates.attack`.
    """
    by_condition = dict(list(answers.groupby("condition")))
    before, full, adapter = (gates.crossed(by_condition[name], f"{judge}_asr")
                             for name in ("start", "full", LORA))
    return rules.ratio(rules.satterthwaite(adapter - full), rules.satterthwaite(1 - before))


def adapter_verdict(lab: Lab) -> rules.Verdict:
    """The two words on C5: after equal epochs, and at equal loss."""
    seeds = runs.seeds_of_tunings(lab)
    tuned = {**runs.tuned(lab, ("full",), seeds),
             **runs.runs_of(lab, "adapter_tuning", "method", [LORA], seeds)}
    at_equal_epochs = runs.harmful_answers(tuned, "equal epochs")
    at_equal_loss = runs.harmful_answers(tuned, "equal loss")
    first, second = (rules.Measured(adapter_minus_full(at_equal_epochs, judge),
                                    adapter_minus_full(at_equal_loss, judge))
                     for judge in C5.judges)
    reached = runs.facts(tuned).query("condition == @LORA")["reached"].mean()
    found = [gates.guardrail(lab, C5),
             gates.attack(lab, C5, at_equal_loss, {LORA: float(reached)}),
             gates.training_runs(lab, C5)]
    return rules.verdict_of(C5, first, gates=found, by_second_judge=second)


# ---- C7 --------------------------------------------------------------------------------------

C7 = rules.ROWS["C7"]
#: The arms: nothing frozen and shares of the units, and as many single weights.
UNITS = (FULL.name, *names(UNIT_SHARES))
WEIGHTS = names(WEIGHT_SHARES)
MILDER_WEIGHTS = "milder_weight_tuning"     # the step of the latter


def units_minus_weights(answers: pd.DataFrame) -> rules.Estimate:
    """Refusal log-odds (nats), units frozen minus as many single weights: mean of both shares."""
    by_condition = dict(list(answers.groupby("condition")))

    def log_odds(rows) -> pd.DataFrame:
        return sum(gates.crossed(by_condition[name], "log_odds") for name in names(rows)) / len(rows)

    return rules.satterthwaite(log_odds(UNIT_SHARES) - log_odds(WEIGHT_SHARES))


def weight_runs(lab: Lab, seeds: tuple[int, ...]) -> runs.Runs:
    """Fine-tuning at the milder dose: nothing frozen, shares of the units, and as many weights."""
    return {
        **runs.runs_of(lab, MILDER, "condition", UNITS, seeds),
        **runs.runs_of(lab, MILDER_WEIGHTS, "region", WEIGHTS, seeds)}


def finished_seeds(lab: Lab) -> tuple[int, ...]:
    """The seeds with which all of these ran."""
    def arms(seed: int) -> list[Need]:
        units = [Need(MILDER, {"seed": seed, "condition": name}) for name in UNITS]
        weights = [Need(MILDER_WEIGHTS, {"seed": seed, "region": name}) for name in WEIGHTS]
        return [*units, *weights]

    return runs.finished_seeds(lab, arms)


def weight_verdict(lab: Lab) -> rules.Verdict:
    """The word on C7: the paper has no comparison, so the second question alone is asked.

    Of the seeds that are finished; raises `NotStored` where none is.
    """
    seeds = finished_seeds(lab) or runs.seeds_of_tunings(lab)
    models = gates.models_behind(lab, seeds)
    tuned = weight_runs(lab, seeds)
    answers = runs.harmful_answers(tuned)
    reached = runs.facts(tuned).groupby("condition")["reached"].mean()
    arms = {name: float(reached[name]) for name in names((*UNIT_SHARES, *WEIGHT_SHARES))}
    found = [gates.guardrail(lab, C7, models), gates.attack(lab, C7, answers, arms),
             *gates.milder_runs(lab, C7, seeds)]
    return rules.verdict_of(C7, rules.Measured(None, units_minus_weights(answers)), gates=found)
