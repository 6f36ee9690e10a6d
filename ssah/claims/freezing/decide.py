"""What the rules are given for C4: damage avoided by freezing, at equal loss. No torch.

There may be two doses of fine-tuning. The words stand on the milder one whose attack is fair; what
the other one gave is a caveat.
"""

from dataclasses import replace

import pandas as pd

from ...lab import Lab, Need
from .. import rules
from ..shared import gates, runs
from ..shared.conditions import FULL
from .run import ARMS, MILDER, USUAL

ROW = rules.ROWS["C4"]
#: Who is frozen in the paper's comparison, and the two disjoint sets of the second question.
FROZEN, CHOSEN, REMAINDER = ARMS
COMPARED = (FULL.name, *ARMS)


def damage(answers: pd.DataFrame, judge: str) -> tuple[rules.Estimate, rules.Estimate]:
    """Attack success that freezing avoids, and that fine-tuning adds with nothing frozen.

    `answers`: see `gates.attack`.
    """
    by_condition = dict(list(answers.groupby("condition")))
    before, full, frozen = (gates.crossed(by_condition[name], f"{judge}_asr")
                            for name in ("start", "full", FROZEN))
    return rules.satterthwaite(full - frozen), rules.satterthwaite(full - before)


def avoided(answers: pd.DataFrame, judge: str) -> rules.Estimate | None:
    """Share of the added attack success that freezing avoids; None where little was added."""
    return rules.ratio(*damage(answers, judge))


def which_units(answers: pd.DataFrame) -> rules.Estimate:
    """Refusal log-odds (nats) with the chosen units frozen, minus with the remainder frozen."""
    by_condition = dict(list(answers.groupby("condition")))
    chosen, remainder = (gates.crossed(by_condition[name], "log_odds")
                         for name in (CHOSEN, REMAINDER))
    return rules.satterthwaite(chosen - remainder)


def verdict(lab: Lab) -> rules.Verdict:
    """The two words on C4: by the milder dose if no gate blocks it, else by the usual one."""
    found = by_dose(lab)
    decides = USUAL
    if USUAL not in found or MILDER in found and not found[MILDER].is_blocked:
        decides = MILDER
    others = [rules.other_dose(ROW, f"a learning rate of {rate(lab, dose):g}", other)
              for dose, other in found.items() if dose != decides]
    return replace(found[decides], gates=(*found[decides].gates, *others))


def by_dose(lab: Lab) -> dict[str, rules.Verdict]:
    """The two words by each dose: the usual one, and the milder one once a seed of it is finished.

    Raises `NotStored` where a run of the usual one is missing, and where the milder one is alone
    and no seed of it is finished.
    """
    found = {}
    if not lab.profile.milder_alone:
        found[USUAL] = lab.once(_of_dose, dose=USUAL, seeds=runs.seeds_of_tunings(lab))
    finished = finished_seeds(lab)
    if lab.profile.milder_alone and not finished:
        finished = runs.seeds_of_tunings(lab)       # which says what is missing
    if finished:
        found[MILDER] = lab.once(_of_dose, dose=MILDER, seeds=finished)
    return found


def finished_seeds(lab: Lab) -> tuple[int, ...]:
    """The seeds with which all arms of the milder dose ran."""
    def arms(seed: int) -> list[Need]:
        return [Need(MILDER, {"seed": seed, "condition": name}) for name in COMPARED]

    return runs.finished_seeds(lab, arms)


def rate(lab: Lab, dose: str) -> float:
    """The learning rate of a dose."""
    return lab.profile.milder.lr if dose == MILDER else lab.profile.freezing.lr


def _of_dose(lab: Lab, dose: str, seeds: tuple[int, ...]) -> rules.Verdict:
    """The two words by the runs of one dose."""
    tuned = runs.runs_of(lab, dose, "condition", COMPARED, seeds)
    answers = runs.harmful_answers(tuned)
    contrast = which_units(answers)
    first, second = (rules.Measured(avoided(answers, judge), contrast) for judge in ROW.judges)
    reached = runs.facts(tuned).groupby("condition")["reached"].mean()
    arms = {name: float(reached[name]) for name in ARMS}
    models = gates.models_behind(lab, seeds)
    enough = [gates.training_runs(lab, ROW)]
    if dose == MILDER:
        enough = gates.milder_runs(lab, ROW, seeds)
    found = [gates.guardrail(lab, ROW, models), gates.attack(lab, ROW, answers, arms),
             gates.labels(lab, ROW, models), *enough,
             rules.share(ROW, *damage(answers, ROW.judges[0]))]
    return rules.verdict_of(ROW, first, gates=found, by_second_judge=second)
