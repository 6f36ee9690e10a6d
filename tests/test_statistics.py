"""Intervals against textbook values and simulation."""

import numpy as np
import pandas as pd
import pytest

from ssah.statistics import bootstrap, difference, wilson


def table(values: np.ndarray) -> pd.DataFrame:
    """Long form of (units, seeds)."""
    return pd.DataFrame([{"id": i, "seed": s, "x": values[i, s]} for i in range(values.shape[0]) for s in range(values.shape[1])])


def test_wilson_matches_the_published_formula():
    n, k, z = 100, 7, 1.959963984540054
    p = k / n
    centre, half = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


def test_wilson_at_zero_reaches_above_zero():
    low, high = wilson(0, 100)
    assert low == 0 and 0.03 < high < 0.04


def test_bootstrap_mean_is_the_mean_over_seeds():
    values = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert bootstrap(table(values), "x")[0] == pytest.approx((1 / 3 + 1) / 2)


def test_bootstrap_with_one_seed_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(size=(400, 1))
    mean, low, high = bootstrap(table(values), "x")
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)


def test_disagreeing_seeds_widen_the_interval():
    same = np.tile(np.random.default_rng(0).integers(0, 2, size=(100, 1)), 3).astype(float)
    apart = np.stack([np.zeros(100), np.full(100, 0.5), np.ones(100)], axis=1)
    assert np.ptp(bootstrap(table(apart), "x")[1:]) > 2 * np.ptp(bootstrap(table(same), "x")[1:])


def test_difference_is_paired():
    """A constant shift on noisy values has an interval of width zero only if pairs are kept."""
    noise = np.random.default_rng(0).normal(size=(50, 2))
    assert difference(table(noise + 1), table(noise), "x") == pytest.approx((1.0, 1.0, 1.0))


def test_difference_refuses_repeated_prompts():
    values = table(np.zeros((3, 1)))
    with pytest.raises(pd.errors.MergeError):
        difference(pd.concat([values, values]), values, "x")
