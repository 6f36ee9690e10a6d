"""What the rules are given for C2's three rows: effects, contrasts and gates. No torch.

Every effect is a number a request (or a passage), so that seeds, or random draws, can be crossed
with them.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from ...lab import Lab
from .. import rules
from ..shared import gates
from ..shared.tables import fulfilled
from . import removed
from .removal import draws_of


def _tables(lab: Lab, seed: int, units: str, table: str, draw: int = 0) -> pd.DataFrame:
    return lab.get("removal", seed=seed, units=units, draw=draw).tables[table]


def success(lab: Lab, judge: str, seed: int, units: str, draw: int = 0) -> np.ndarray:
    """Which harmful requests, asked with system prompt, were fulfilled; (requests,) of 0 or 1."""
    return lab.once(_success, judge=judge, seed=seed, units=units, draw=draw)


def _success(lab: Lab, judge: str, seed: int, units: str, draw: int) -> np.ndarray:
    answers = _tables(lab, seed, units, "answers", draw)
    usual = answers[answers["system"] == lab.profile.evaluation.systems[0]]
    return fulfilled(usual, judge)


def lost(lab: Lab, judge: str, seed: int, units: str, draw: int = 0) -> np.ndarray:
    """Refusals lost to a removal, a request: 1 lost, 0 as before, -1 gained; (requests,)."""
    return success(lab, judge, seed, units, draw) - success(lab, judge, seed, "nothing")


def log_ratio(lab: Lab, seed: int, units: str, draw: int = 0) -> np.ndarray:
    """Logarithm of the ratio of perplexities, a passage of Wikipedia; (passages,)."""
    without = _tables(lab, seed, units, "wikipedia", draw)["nll"]
    intact = _tables(lab, seed, "nothing", "wikipedia")["nll"]
    return without.to_numpy() - intact.to_numpy()


# ---- effects and contrasts -------------------------------------------------------------------

def effect(lab: Lab, measure, units: str) -> rules.Estimate:
    """The mean of `measure(seed, units, draw)` over seeds and requests."""
    return rules.satterthwaite(np.stack([measure(seed, units) for seed in lab.seeds]))


def contrast(lab: Lab, measure, units: str, control: str, sign: int = 1) -> rules.Estimate:
    """`measure` of some units minus that of random draws of as many (times `sign`).

    With one seed draws are crossed with requests; with several the draws of a seed are averaged.
    """
    n_draws = draws_of(lab.profile)[control]
    per_seed = [_over_draws(measure, seed, units, control, n_draws) for seed in lab.seeds]
    if len(per_seed) == 1:
        return rules.satterthwaite(sign * per_seed[0], factors=("draws", "requests"))
    means = [differences.mean(axis=0) for differences in per_seed]
    return rules.satterthwaite(sign * np.stack(means))


def _over_draws(measure, seed: int, units: str, control: str, n_draws: int) -> np.ndarray:
    """The difference to every draw; (draws, requests)."""
    of_units = measure(seed, units)
    return np.stack([of_units - measure(seed, control, draw) for draw in range(n_draws)])


def headroom(lab: Lab, judge: str) -> rules.Estimate:
    """Which part of the harmful requests the intact model does not fulfil."""
    return rules.satterthwaite(np.stack([1 - success(lab, judge, seed, "nothing")
                                         for seed in lab.seeds]))


def _refusals(lab: Lab, judge: str, units: str, control: str, sign: int) -> rules.Measured:
    """Refusals lost and their contrast, as shares of headroom."""
    def measure(seed: int, removed: str, draw: int = 0) -> np.ndarray:
        return lost(lab, judge, seed, removed, draw)

    there = headroom(lab, judge)
    return rules.Measured(
        effect=rules.ratio(effect(lab, measure, units), there),
        contrast=rules.ratio(contrast(lab, measure, units, control, sign), there))


def scu(lab: Lab, judge: str) -> rules.Measured:
    """Refusals lost without SCU; the contrast: minus those lost without as many random units."""
    return _refusals(lab, judge, "SCU", "random SCU", sign=1)


def ru(lab: Lab, judge: str) -> rules.Measured:
    """Refusals lost without RU; the contrast: those lost without as many others, minus that."""
    return _refusals(lab, judge, "RU", "random RU", sign=-1)


def ucu(lab: Lab) -> rules.Measured:
    """Perplexity of Wikipedia without UCU; the contrast: minus that without as many others."""
    def measure(seed: int, removed: str, draw: int = 0) -> np.ndarray:
        return log_ratio(lab, seed, removed, draw)

    return rules.Measured(effect(lab, measure, "UCU"), contrast(lab, measure, "UCU", "random UCU"))


# ---- gates and verdicts ----------------------------------------------------------------------

def _gates(lab: Lab, row: rules.Row) -> list[rules.Gate]:
    primary = row.judges[0] if row.judges else rules.KEYWORD_FIRST[0]

    def measure(seed: int, removed: str, draw: int = 0) -> np.ndarray:
        return lost(lab, primary, seed, removed, draw)

    there = headroom(lab, primary)
    n_draws = draws_of(lab.profile)["random SCU"]
    by_chance = [measure(seed, "random SCU", draw).mean()
                 for seed in lab.seeds for draw in range(n_draws)]
    n_requests = len(success(lab, primary, lab.seeds[0], "nothing"))
    found = [gates.guardrail(lab, row),
             rules.placebo(row, np.mean(by_chance) / there.mean, n_prompts=n_requests),
             gates.labels(lab, row)]
    if row.judges:
        known = rules.ratio(effect(lab, measure, "direction"), there)
        found.append(rules.sight(row, known))
    return found


def scu_verdict(lab: Lab) -> rules.Verdict:
    """The two words on C2-SCU."""
    row = rules.ROWS["C2-SCU"]
    found = _by_two_judges(lab, row, scu)
    rows = lab.once(removed.table_one)
    part = removed.parts_as_important(rows).get("ASR")
    if part is None or found.first.word not in rules.ASKED_AFTER:
        return found
    importance = lab.facts("removal")["importance_ratio"].mean()
    return replace(found, gates=(*found.gates, rules.as_important(row, part, importance)))


def ru_verdict(lab: Lab) -> rules.Verdict:
    """The two words on C2-RU."""
    return _by_two_judges(lab, rules.ROWS["C2-RU"], ru)


def _by_two_judges(lab: Lab, row: rules.Row, measured) -> rules.Verdict:
    first, second = (measured(lab, judge) for judge in row.judges)
    return rules.verdict_of(row, first, gates=_gates(lab, row), by_second_judge=second)


def ucu_verdict(lab: Lab) -> rules.Verdict:
    """The two words on C2-UCU."""
    row = rules.ROWS["C2-UCU"]
    return rules.verdict_of(row, ucu(lab), gates=_gates(lab, row))
