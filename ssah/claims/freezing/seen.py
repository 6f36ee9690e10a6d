"""What one sees in the figures of notebook 04, in numbers."""

import pandas as pd

from ...lab.words import say
from ..shared.conditions import NAMES
from ..shared.runs import Runs
from ..shared.seen import at_equal_loss
from ..shared.tables import learned
from .read import WORDS

#: The lines of `pictures.along_training` that matter: the attack, its rival, freezing, its twin.
MAIN = ("full", "full slower", "SCU + all CU", "random large without SCU")


def table_seen(table: pd.DataFrame) -> str:
    """Table 2 as points. `table`: of `runs.table_two`."""
    return say(WORDS, "table_seen", rows=table, learned=learned(table, NAMES))


def along_seen(runs: Runs) -> str:
    """The lines at the dotted line, where all have the same training loss."""
    at_loss, missed = at_equal_loss(runs, MAIN)
    return say(WORDS, "along_seen", at_loss=at_loss, missed=missed)
