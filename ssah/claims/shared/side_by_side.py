"""The paper's printed numbers and ours as points of one picture, in the unit of the printed table.

A room that has a printed table says in its `paper` which points there are, and
`pictures.paper_and_ours` draws them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...lab.statistics import Estimate

PAPER = "paper"
OURS = "ours"


class Point(NamedTuple):
    """One mark: in which panel and row it stands, whose it is, what it marks, and its value.

    Rows of a `group` stand under its name. `low` and `high` are the ends of an interval, or nan:
    the paper prints none.
    """

    panel: str
    group: str
    row: str
    source: str         # PAPER or OURS
    mark: str
    value: float
    low: float = np.nan
    high: float = np.nan


def table_of(points: Iterable[Point]) -> pd.DataFrame:
    """Points as a table, a row a point, with the fields of `Point` as columns."""
    return pd.DataFrame(list(points), columns=Point._fields)


def ends(row: pd.Series, column: str) -> tuple[float, float, float]:
    """A fraction of a table with intervals as per cents: mean, low and high."""
    return row[column] * 100, row[f"{column} low"] * 100, row[f"{column} high"] * 100


def share_of(difference: Estimate, whole: float) -> tuple[float, float, float]:
    """A difference and its interval in per cent of `whole`, which is taken as exact.

    nan where there is nothing of which it could be a share.
    """
    if whole <= 0:
        return np.nan, np.nan, np.nan
    mean, low, high = (value / whole * 100 for value in difference)
    return mean, low, high
