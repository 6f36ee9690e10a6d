"""What one sees in figures that several claims draw, as numbers for their words."""

import pandas as pd

from .conditions import NAMES
from .runs import Runs, log_odds_at_loss


def at_equal_loss(runs: Runs, conditions: tuple[str, ...]) -> tuple[pd.Series, list[str]]:
    """Refusal log-odds where the training loss is that of full fine-tuning, mean over seeds.

    A value a condition, by its title; and the titles of those that do not get there in every seed.
    """
    table = log_odds_at_loss(runs)[list(conditions)]
    means = table.mean(skipna=False).rename(NAMES)
    return means.dropna(), list(means.index[means.isna()])
