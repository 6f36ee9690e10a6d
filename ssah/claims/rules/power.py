"""How probable each word is at a planned size, by simulation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...errors import SsahError
from .estimates import Estimate, mean_squares, satterthwaite
from .rows import Row
from .verdicts import (
    FIRST_WORDS,
    NO_COMPARISON,
    SECOND_WORDS,
    first_answer,
    second_answer,
)


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a crossed layout: between seeds, between prompts, and the rest."""

    seeds: float
    prompts: float
    rest: float


def spread_of(values) -> Spread:
    """The spread of a trial's (seeds, prompts) values; a negative component of variance is 0."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise SsahError("a spread needs two seeds and two prompts, or more")
    n_seeds, n_prompts = values.shape
    of_seeds, of_prompts, of_rest = mean_squares(values)
    between_seeds = max(of_seeds - of_rest, 0) / n_prompts
    between_prompts = max(of_prompts - of_rest, 0) / n_seeds
    return Spread(between_seeds**0.5, between_prompts**0.5, of_rest**0.5)


def simulated(mean: float, spread: Spread, n_seeds: int, n_prompts: int,
              rng: np.random.Generator) -> np.ndarray:
    """One (seeds, prompts) layout with this true mean and these normal deviations."""
    between_seeds = spread.seeds * rng.standard_normal((n_seeds, 1))
    between_prompts = spread.prompts * rng.standard_normal((1, n_prompts))
    rest = spread.rest * rng.standard_normal((n_seeds, n_prompts))
    return mean + between_seeds + between_prompts + rest


def probability_of_words(row: Row, effect: float, contrast: float, *, n_seeds: int,
                         n_prompts: int, spread: Spread, contrast_spread: Spread,
                         rng: np.random.Generator, draws: int = 1000) -> pd.DataFrame:
    """How probable each word is at a planned size, if the truth is `effect` and `contrast`.

    Both are in the units of the row's questions, and so are the spreads (`spread_of` a trial).
    The answer has `question`, `word` and `probability`, for every word that the question
    allows; the probabilities of a question sum to 1. Gates are taken as passed. Deviations are
    normal and those of effect and contrast independent: for yes-or-no outcomes that is fair
    once the spreads are theirs, since only means over prompts enter.
    """
    def estimate(mean: float, deviations: Spread) -> Estimate:
        return satterthwaite(simulated(mean, deviations, n_seeds, n_prompts, rng))

    firsts = []
    seconds = []
    for _ in range(draws):
        first = first_answer(row, estimate(effect, spread))
        second = second_answer(row, first, estimate(contrast, contrast_spread))
        firsts.append(first.word)
        seconds.append(second.word)
    allowed = FIRST_WORDS if row.first else (NO_COMPARISON,)
    return pd.concat([_frequencies("first", firsts, allowed),
                      _frequencies("second", seconds, SECOND_WORDS)], ignore_index=True)


def _frequencies(question: str, words: Sequence[str], allowed: Sequence[str]) -> pd.DataFrame:
    shares = pd.Series(words).value_counts(normalize=True).reindex(allowed, fill_value=0.0)
    return pd.DataFrame({"question": question, "word": list(allowed),
                         "probability": shares.to_numpy()})
