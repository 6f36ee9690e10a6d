"""Intervals: Wilson on one rate, bootstraps over seeds and prompts (and wordings), AUROC. NumPy and SciPy only."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, rankdata

from ..errors import SsahError

LEVEL, DRAWS = 0.95, 2000


class Estimate(NamedTuple):
    """A number with the ends of its interval, or of a range."""

    mean: float
    low: float
    high: float


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval (low, high) of one rate, as fractions; for one seed, never pooled over several."""
    interval = binomtest(int(successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(table: pd.DataFrame, value: str) -> Estimate:
    """(mean, low, high): mean over seeds of a column's mean; the 95 % interval resamples seeds, and prompts.

    `table` has a row a prompt and seed (columns seed, id, `value`), every prompt at every seed. With one seed only
    the prompts are resampled, and the interval says nothing about other seeds. A draw takes the same prompts for all
    seeds, since all were asked the same ones. Where three seeds differ much the interval is too narrow: it ends near
    the lowest and the highest of them, and three seeds span the true mean three times in four.
    """
    wide = table.pivot(index="id", columns="seed", values=value).to_numpy(dtype=float)      # (prompts, seeds)
    if np.isnan(wide).any():
        raise SsahError(f"{value}: some ids have no value in some seed, so seeds cannot be paired")
    random = np.random.default_rng(0)
    means = wide[random.integers(len(wide), size=(DRAWS, len(wide)))].mean(axis=1)         # (draws, seeds)
    seeds = random.integers(wide.shape[1], size=means.shape)
    low, high = np.quantile(np.take_along_axis(means, seeds, axis=1).mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(wide.mean()), float(low), float(high))


def difference(first: pd.DataFrame, second: pd.DataFrame, value: str) -> Estimate:
    """`bootstrap` of first - second, paired by seed and prompt; one that a side lacks in every seed is left out."""
    paired = first.merge(second, on=["seed", "id"], suffixes=("", " of the other"), validate="one_to_one")
    paired["difference"] = paired[value].astype(float) - paired[f"{value} of the other"].astype(float)
    return bootstrap(paired, "difference")


def crossed_bootstrap(values: np.ndarray, axes: int, *,
                      draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) over the first `axes` axes, each resampled by itself (seeds, prompts, wordings); the rest stay.

    For crossed designs, in which every prompt meets every wording at every seed. An axis of length 1 is not resampled;
    with few members on an axis the interval is somewhat too narrow, as percentile bootstraps are.
    """
    random, sizes = np.random.default_rng(0), values.shape[:axes]
    means = np.empty((draws, *values.shape[axes:]))
    for draw in range(draws):
        mean = values
        for size in sizes:      # weights of the first axis that is left: how often each member was drawn
            mean = np.tensordot(random.multinomial(size, np.full(size, 1 / size)) / size, mean, axes=1)
        means[draw] = mean
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return values.mean(axis=tuple(range(axes))), low, high


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive outranks a negative (ties count a half); nan if one of them is missing."""
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")
