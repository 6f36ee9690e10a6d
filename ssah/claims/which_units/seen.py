"""What one sees in the figures of notebook 05, in numbers."""

import pandas as pd

from ...lab.words import say
from ..shared.conditions import NAMES, UNIT_SHARES, WEIGHT_SHARES, names
from ..shared.runs import Runs
from ..shared.seen import at_equal_loss
from ..shared.tables import learned
from .read import WORDS

#: The lines of `pictures.along_training` that matter.
MAIN = ("full", "LoRA", "LLaMA-Adapter", "SCU + all CU")


def table_seen(table: pd.DataFrame) -> str:
    """Table 3 as points. `table`: of `runs.table_two` on `read.adapters`."""
    return say(WORDS, "table_seen", rows=table, learned=learned(table, NAMES))


def few_seen(table: pd.DataFrame) -> str:
    """Attack success against the part that trains. `table`: that of `table_seen`."""
    tuned = table.drop(index="start").sort_values("trained")
    return say(WORDS, "few_seen", rows=tuned, names=NAMES)


def along_seen(runs: Runs) -> str:
    """The lines where they cross the dotted line, for those that get there in every seed."""
    at_loss, missed = at_equal_loss(runs, MAIN)
    return say(WORDS, "along_seen", at_loss=at_loss, missed=missed)


def weights_seen(table: pd.DataFrame) -> str:
    """Units beside single weights. `table`: of `runs.table_two` on `read.weights`."""
    return say(WORDS, "weights_seen", rows=table)


def grain_seen(label: str, table: pd.DataFrame) -> str:
    """Random units beside as many random weights, of a model. `table`: of `runs.table_two`."""
    pairs = list(zip(names(UNIT_SHARES), names(WEIGHT_SHARES)))
    return say(WORDS, "grain_seen", model=label, rows=table, pairs=pairs, names=NAMES,
               learned=learned(table, NAMES))
