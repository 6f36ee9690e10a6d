"""Intervals against textbook values, brute force and simulation."""

import numpy as np
import pandas as pd
import pytest

from ssah.errors import SsahError
from ssah.lab.statistics import (
    DRAWS,
    auroc,
    aurocs,
    bootstrap,
    crossed_bootstrap,
    difference,
    wilson,
)


def table(values: np.ndarray) -> pd.DataFrame:
    """Long form of (prompts, seeds)."""
    wide = pd.DataFrame(values).rename_axis(index="id", columns="seed")
    return wide.stack().rename("x").reset_index()


# ---- one rate --------------------------------------------------------------------------------

def test_wilson_matches_the_published_formula():
    n, k, z = 100, 7, 1.959963984540054
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


def test_wilson_at_zero_reaches_above_zero():
    low, high = wilson(0, 100)
    assert low == 0 and 0.03 < high < 0.04


# ---- seeds and prompts -----------------------------------------------------------------------

def test_bootstrap_mean_is_the_mean_over_seeds():
    values = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert bootstrap(table(values), "x").mean == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("shape", [(12, 3), (7, 2), (12, 3), (9, 1)])
def test_bootstrap_is_its_definition(shape):
    """Draw by draw: the same prompts for every seed, then seeds; also where a shape comes again."""
    values = np.random.default_rng(1).normal(size=shape)
    n_prompts, n_seeds = shape
    random = np.random.default_rng(0)
    prompts = random.integers(n_prompts, size=(DRAWS, n_prompts))
    seeds = random.integers(n_seeds, size=(DRAWS, n_seeds))
    means = [np.mean([values[drawn, seed].mean() for seed in chosen])
             for drawn, chosen in zip(prompts, seeds)]
    expected = np.quantile(means, [0.025, 0.975])
    found = bootstrap(table(values), "x")
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-12)


def test_bootstrap_with_one_seed_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(size=(400, 1))
    mean, low, high = bootstrap(table(values), "x")
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)


def test_disagreeing_seeds_widen_the_interval():
    answers = np.random.default_rng(0).integers(0, 2, size=(100, 1))
    same = bootstrap(table(np.tile(answers, 3).astype(float)), "x")
    levels = [np.zeros(100), np.full(100, 0.5), np.ones(100)]
    apart = bootstrap(table(np.stack(levels, axis=1)), "x")
    assert apart.high - apart.low > 2 * (same.high - same.low)


def test_a_prompt_that_a_seed_lacks_is_refused():
    with pytest.raises(SsahError, match="x: some ids have no value in some seed"):
        bootstrap(table(np.zeros((3, 2))).iloc[1:], "x")


def test_difference_is_paired():
    """A constant shift on noisy values has an interval of width zero only if pairs are kept."""
    noise = np.random.default_rng(0).normal(size=(50, 2))
    found = difference(table(noise + 1), table(noise), "x")
    assert found == pytest.approx((1.0, 1.0, 1.0))


def test_difference_refuses_repeated_prompts():
    values = table(np.zeros((3, 1)))
    with pytest.raises(pd.errors.MergeError):
        difference(pd.concat([values, values]), values, "x")


# ---- crossed designs -------------------------------------------------------------------------

def test_crossed_bootstrap_of_one_axis_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(size=400)
    mean, low, high = crossed_bootstrap(values, 1, draws=2000)
    half = 1.96 * values.std() / 20
    assert mean == values.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)


@pytest.mark.parametrize("shape, axes", [((3, 5, 4), 3), ((3, 5, 4), 2), ((6, 2, 3), 1)])
def test_crossed_bootstrap_is_its_definition(shape, axes):
    """Draw by draw, axis by axis: every member weighs as often as it was drawn."""
    values = np.random.default_rng(1).normal(size=shape)
    random = np.random.default_rng(0)
    means = []
    for _ in range(50):
        mean = values
        for size in shape[:axes]:
            times = random.multinomial(size, np.full(size, 1 / size))
            mean = sum(n * member for n, member in zip(times, mean)) / size
        means.append(mean)
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    _, low, high = crossed_bootstrap(values, axes, draws=50)
    np.testing.assert_allclose([low, high], expected, rtol=1e-12)


def test_crossed_bootstrap_resamples_each_axis_and_keeps_the_rest():
    """Rows differ, columns do not: only the rows' axis gives width. Trailing axes stay apart."""
    rows = np.random.default_rng(0).normal(size=50)
    values = np.stack([np.tile(rows[:, None], (1, 6)), np.ones((50, 6))], axis=-1)   # (50, 6, 2)
    mean, low, high = crossed_bootstrap(values, 2)
    assert mean.shape == low.shape == high.shape == (2,)
    half = 1.96 * rows.std() / 50**0.5
    expected = (rows.mean() - half, rows.mean() + half)
    assert (low[0], high[0]) == pytest.approx(expected, abs=0.06)
    assert (low[1], high[1]) == pytest.approx((1.0, 1.0))


def test_wordings_that_disagree_widen_the_interval():
    """Two axes of variance add up: sqrt(var / n + var / m), as of independent effects."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(80, 1))
    columns = random.normal(size=(1, 80))
    _, low, high = crossed_bootstrap(rows + columns, 2, draws=3000)
    expected = 2 * 1.96 * (rows.var() / 80 + columns.var() / 80) ** 0.5
    assert high - low == pytest.approx(expected, rel=0.1)


# ---- ranks -----------------------------------------------------------------------------------

@pytest.mark.parametrize("scores, positive, expected", [
    ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
    ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
    ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
    ([1, 2, 3], [0, 1, 0], 0.5),
    ([1, 2, 2], [0, 0, 1], 0.75)])
def test_auroc_by_hand(scores, positive, expected):
    assert auroc(np.array(scores), np.array(positive)) == expected


def test_auroc_counts_pairs():
    random = np.random.default_rng(0)
    scores = random.integers(0, 5, 60)
    positive = random.random(60) < 0.4
    won = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(won))


def test_rows_of_aurocs_are_each_by_itself():
    """One row has no positive at all."""
    draw = np.random.default_rng(1)
    scores = draw.integers(9, size=(5, 30))
    positive = draw.random((5, 30)) < 0.3
    positive[2] = False
    expected = [auroc(*row) for row in zip(scores, positive)]
    np.testing.assert_array_equal(aurocs(scores, positive), expected)
    assert np.isnan(expected[2])


def test_a_missing_score_is_no_number():
    assert np.isnan(auroc(np.array([np.nan, 1.0]), np.array([False, True])))


def test_auroc_needs_both_kinds():
    assert np.isnan(auroc(np.array([1.0, 2.0]), np.array([True, True])))
