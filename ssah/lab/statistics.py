"""Intervals: Wilson on one rate, bootstraps over seeds and prompts (and wordings), AUROC.

NumPy and SciPy only. Every bootstrap starts from the same random state, so that the same numbers
have the same interval on every machine.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import SsahError

#: Of all intervals.
LEVEL = 0.95
#: The quantiles at which a percentile interval ends.
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
#: How often a bootstrap resamples.
DRAWS = 2000


class Estimate(NamedTuple):
    """A number with the ends of its interval, or of a range."""

    mean: float
    low: float
    high: float


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval (low, high) of one rate, as fractions.

    For one seed: answers of several seeds to the same prompts are never pooled.
    """
    from scipy.stats import binomtest       # a second to import, for few

    interval = binomtest(int(successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


# ---- seeds and prompts -----------------------------------------------------------------------

def bootstrap(table: pd.DataFrame, value: str) -> Estimate:
    """Mean over seeds of a column's mean; the 95 % interval resamples seeds, and prompts.

    `table` has a row a prompt and seed (columns seed, id, `value`), every prompt at every seed.
    With one seed only the prompts are resampled, and the interval says nothing about other seeds.
    A draw takes the same prompts for all seeds, since all were asked the same ones. Where three
    seeds differ much the interval is too narrow: it ends near the lowest and the highest of them,
    and three seeds span the true mean three times in four.

    Raises `SsahError` for a prompt that some seed lacks.
    """
    wide = table.pivot(index="id", columns="seed", values=value).to_numpy(dtype=float)
    if np.isnan(wide).any():
        raise SsahError(f"{value}: some ids have no value in some seed, so seeds cannot be paired")
    prompts, seeds = _resampled(*wide.shape)
    of_seeds = np.take(wide, prompts, axis=0).mean(axis=0)                  # (draws, seeds)
    means = np.take_along_axis(of_seeds, seeds, axis=1).mean(axis=1)        # (draws,)
    low, high = np.quantile(means, ENDS)
    return Estimate(float(wide.mean()), float(low), float(high))


@lru_cache(maxsize=8)       # hundreds of bootstraps have one and the same shape
def _resampled(n_prompts: int, n_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """What every draw of a bootstrap takes: prompts (prompts, draws) and seeds (draws, seeds).

    The draws of the prompts stand last: adding up rows is several times as fast as within a row.
    """
    random = np.random.default_rng(0)
    prompts = random.integers(n_prompts, size=(DRAWS, n_prompts))
    seeds = random.integers(n_seeds, size=(DRAWS, n_seeds))
    return np.ascontiguousarray(prompts.T), seeds


def difference(first: pd.DataFrame, second: pd.DataFrame, value: str) -> Estimate:
    """`bootstrap` of first - second, paired by seed and prompt.

    A prompt that a side lacks in every seed is left out; one that stands twice is a `MergeError`.
    """
    paired = first.merge(second, on=["seed", "id"], suffixes=("", " of the other"),
                         validate="one_to_one")
    of_first = paired[value].astype(float)
    of_second = paired[f"{value} of the other"].astype(float)
    return bootstrap(paired.assign(difference=of_first - of_second), "difference")


# ---- crossed designs -------------------------------------------------------------------------

def crossed_bootstrap(values: np.ndarray, axes: int, *,
                      draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) over the first `axes` axes, each resampled by itself; the rest stay.

    For crossed designs, in which every prompt meets every wording at every seed. An axis of length
    1 is not resampled; with few members on an axis the interval is somewhat too narrow, as
    percentile bootstraps are.
    """
    first, *others = _weights(values.shape[:axes], draws)
    # three seeds can be drawn in ten ways only: each is averaged once, for all draws that have it
    distinct, which = np.unique(first, axis=0, return_inverse=True)
    means = np.empty((draws, *values.shape[axes:]))
    for outcome, weights in enumerate(distinct):
        over_first = _weighted(weights, values)
        for draw in np.flatnonzero(which == outcome):
            mean = over_first
            for weights_of_axis in others:
                mean = _weighted(weights_of_axis[draw], mean)
            means[draw] = mean
    low, high = np.quantile(means, ENDS, axis=0)
    return values.mean(axis=tuple(range(axes))), low, high


@lru_cache(maxsize=8)
def _weights(sizes: tuple[int, ...], draws: int) -> list[np.ndarray]:
    """The weights (draws, size) of every axis's members: how often each was drawn, as a part."""
    random = np.random.default_rng(0)
    weights = [np.empty((draws, size)) for size in sizes]
    for draw in range(draws):
        for of_axis, size in zip(weights, sizes):
            evenly = np.full(size, 1 / size)
            of_axis[draw] = random.multinomial(size, evenly) / size
    return weights


def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean over the first axis."""
    rows = values.reshape(len(values), -1)
    return (weights @ rows).reshape(values.shape[1:])


# ---- ranks -----------------------------------------------------------------------------------

def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive outranks a negative (ties count a half).

    `scores` and `positive` (bool) are (n,); nan if there are no positives or no negatives,
    or if a score is missing.
    """
    positive = np.asarray(positive, bool)
    return float(aurocs(np.asarray(scores)[None], positive[None])[0])


def aurocs(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """`auroc` of every row: `scores` and `positive` (bool) are (rows, n), the result (rows,)."""
    n_positive = positive.sum(axis=1)
    n_negative = (~positive).sum(axis=1)
    ranks = pd.DataFrame(scores).rank(axis=1).to_numpy()
    rank_sums = np.where(positive, ranks, 0).sum(axis=1)
    pairs_won = rank_sums - n_positive * (n_positive + 1) / 2
    is_whole = ~np.isnan(np.asarray(scores, float)).any(axis=1)
    n_pairs = np.where(is_whole, n_positive * n_negative, 0)
    return np.divide(pairs_won, n_pairs, out=np.full(len(scores), np.nan), where=n_pairs > 0)
