"""C4 on the second bench: what fine-tuning did to each model, as runs and sentences. No torch."""

from collections.abc import Iterable

import pandas as pd

from ...lab import Lab
from ...lab.words import say
from ..shared.conditions import FULL, NAMES
from ..shared.runs import Runs, seeds_of_tunings, table_two, tuned
from ..shared.tables import learned, number_of
from .read import WORDS
from .run import ARMS


def arms(lab: Lab) -> Runs:
    """The arms of which every run is stored, in the order of the plan; none without the full."""
    seeds = seeds_of_tunings(lab)
    stored = {(params["condition"], params["seed"]) for params, _ in lab.stored("tuning")}
    complete = [name for name in (FULL.name, *ARMS)
                if all((name, seed) in stored for seed in seeds)]
    return tuned(lab, complete, seeds) if FULL.name in complete else {}


def begun(labs: Iterable[Lab]) -> list[Lab]:
    """Those of which full fine-tuning is stored."""
    return [lab for lab in labs if arms(lab)]


def in_numbers(lab: Lab) -> str:
    """What fine-tuning did to keyword ASR, and with which units frozen; empty where none ran."""
    tried = arms(lab)
    return _in_numbers(lab, table_two(tried)) if tried else ""


def seen(lab: Lab, rows: pd.DataFrame) -> str:
    """What one sees of a model in the figure: `in_numbers`, under the model's name.

    `rows`: of `runs.table_two`, of its `arms`.
    """
    return say(WORDS, "bench_seen", model=lab.profile.model.label, seeds=number_of(seeds_of_tunings(lab)),
               requests=lab.profile.evaluation.harmful, numbers=_in_numbers(lab, rows))


def _in_numbers(lab: Lab, rows: pd.DataFrame) -> str:
    return say(WORDS, "bench_numbers", rows=rows, titles=NAMES, options=lab.profile.freezing,
               frozen=[name for name in ARMS if name in rows.index],
               learned=learned(rows, NAMES), missed=(rows["reached"] < 1).any())
