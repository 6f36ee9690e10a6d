"""What one sees in the figures of notebook 06, in numbers."""

import pandas as pd

from ...lab.words import say
from .read import WORDS


def table_seen(table: pd.DataFrame) -> str:
    """Table 4 as points. `table`: of `read.table_four`."""
    return say(WORDS, "table_seen", rows=table)


def flows_seen(flows: dict[str, pd.DataFrame]) -> str:
    """How many SCU of the base model stay SCU. `flows`: of `read.flows`."""
    stay = {}
    for title, shares in flows.items():
        stay[title] = shares.loc["SCU", "SCU"] / shares.loc["SCU"].sum()
    return say(WORDS, "flows_seen", stay=stay)
