"""C4 on the second bench: what fine-tuning did to each model, as runs and sentences. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ...lab import Lab
from ...lab.words import say
from ..shared.conditions import CONSTRAINED, FULL, NAMES
from ..shared.runs import Runs, runs_of, seeds_of_tunings, table_two
from ..shared.tables import learned, number_of
from .decide import finished_seeds, rate
from .read import WORDS
from .run import ARMS, MILDER, USUAL


@dataclass(frozen=True)
class Dose:
    """A model's runs of fine-tuning at one dose, with the seeds that each arm has."""

    lab: Lab
    step: str       # that ran them
    runs: Runs
    seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        """The model, and the rate where it is the milder one."""
        title = self.lab.profile.title
        return f"{title}, milder dose" if self.step == MILDER else title


def doses(lab: Lab) -> list[Dose]:
    """The usual dose, then the milder one: those of which full fine-tuning is stored."""
    every = seeds_of_tunings(lab)
    # of the milder one the finished seeds are shown, and before there are any those that began
    begun_seeds = {params["seed"] for params, _ in lab.stored(MILDER)
                   if params["condition"] == FULL.name}
    milder = finished_seeds(lab) or tuple(seed for seed in every if seed in begun_seeds)
    found = []
    for step, seeds in ((USUAL, every), (MILDER, milder)):
        runs = _arms(lab, step, seeds)
        if runs:
            found.append(Dose(lab, step, runs, seeds))
    return found


def begun(labs: Iterable[Lab]) -> list[Dose]:
    """The doses of several models."""
    return [dose for lab in labs for dose in doses(lab)]


def _arms(lab: Lab, step: str, seeds: tuple[int, ...]) -> Runs:
    """The arms of which every run is stored, in the order of the plan; none without the full."""
    stored = {(params["condition"], params["seed"]) for params, _ in lab.stored(step)}
    complete = [name for name in (FULL.name, *ARMS, CONSTRAINED.name)
                if seeds and all((name, seed) in stored for seed in seeds)]
    return runs_of(lab, step, "condition", complete, seeds) if FULL.name in complete else {}


def in_numbers(lab: Lab) -> str:
    """What fine-tuning did to keyword ASR, and with which units frozen: a line a dose."""
    return "\n".join(_in_numbers(dose, table_two(dose.runs)) for dose in doses(lab))


def seen(dose: Dose, rows: pd.DataFrame) -> str:
    """What one sees of a dose in the figure: `in_numbers`, under its title.

    `rows`: of `runs.table_two`, of its runs.
    """
    return say(WORDS, "bench_seen", model=dose.title, seeds=number_of(dose.seeds),
               requests=dose.lab.profile.evaluation.harmful, numbers=_in_numbers(dose, rows))


def _in_numbers(dose: Dose, rows: pd.DataFrame) -> str:
    return say(WORDS, "bench_numbers", rows=rows, titles=NAMES, options=dose.lab.profile.freezing,
               rate=rate(dose.lab, dose.step), seeds=number_of(dose.seeds), milder=dose.step == MILDER,
               frozen=[name for name in ARMS if name in rows.index],
               rival=CONSTRAINED.name if CONSTRAINED.name in rows.index else "",
               learned=learned(rows, NAMES), missed=(rows["reached"] < 1).any())
