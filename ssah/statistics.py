"""Intervals: Wilson on one rate, two-level bootstrap over seeds and prompts. NumPy and SciPy only."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import binomtest

LEVEL = 0.95


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of one rate."""
    interval = binomtest(int(successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(table: pd.DataFrame, value: str, *, unit: str = "id", statistic: Callable = np.mean,
              draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over seeds of `statistic` of a column, with a 95 % interval that resamples seeds, then units within each seed.

    `table` has a row a unit and seed (columns seed, `unit`, `value`). With one seed only the units are resampled. The
    same units are drawn for every seed, since all seeds were asked the same prompts.
    """
    wide = table.pivot(index=unit, columns="seed", values=value).to_numpy(dtype=float)      # (units, seeds)
    random = np.random.default_rng(seed)
    samples = np.empty(draws)
    for i in range(draws):
        rows = random.integers(len(wide), size=len(wide))
        columns = random.integers(wide.shape[1], size=wide.shape[1])
        samples[i] = np.mean([statistic(wide[rows, c]) for c in columns])
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(np.mean([statistic(wide[:, c]) for c in range(wide.shape[1])])), float(low), float(high)


def difference(first: pd.DataFrame, second: pd.DataFrame, value: str, *, unit: str = "id", **options) -> tuple[float, float, float]:
    """`bootstrap` of first - second, paired by seed and unit."""
    paired = first.merge(second, on=["seed", unit], suffixes=("", " of the other"), validate="one_to_one")
    paired["difference"] = paired[value].astype(float) - paired[f"{value} of the other"].astype(float)
    return bootstrap(paired, "difference", unit=unit, **options)
