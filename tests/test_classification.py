"""Four kinds of units, on numbers small enough to do by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from ssah.classification import LABELS, SCALES, classify, iou, scaled
from ssah.errors import SsahError
from ssah.units import UnitIndex

TEN = UnitIndex(
    n_blocks=1, n_heads=1, n_kv_heads=1, head_dim=4, n_mlp=6, hidden=3
)  # 4 attention, 6 MLP units
SIX = UnitIndex(n_blocks=1, n_heads=1, n_kv_heads=1, head_dim=3, n_mlp=3, hidden=2)
DEEP = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=1, head_dim=5, n_mlp=40, hidden=8)  # 100 units

POSITIVE = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 100.0])


# ---- labels ----------------------------------------------------------------------------------


def test_the_four_kinds_on_a_case_done_by_hand():
    """
    unit       0   1   2   3   4   5   6   7   8   9
    I_S        9   1   5   2   8   1   6   0   4   7
    I_U        1   9   5   1   8   0   2   1   4   6
    sum       10  10  10   3  16   1   8   1   8  13      RU, 2 lowest:   5, 7
    diff       8  -8   0   1   0   1   4  -1   0   1      SCU, 2 highest: 0, 6;  UCU, 1 lowest: 1
    """
    units = classify(
        [9, 1, 5, 2, 8, 1, 6, 0, 4, 7],
        [1, 9, 5, 1, 8, 0, 2, 1, 4, 6],
        index=TEN,
        scale="raw",
        ru=0.2,
        scu=0.2,
        ucu=0.1,
    )
    assert units.labels.tolist() == ["SCU", "UCU", "CU", "CU", "CU", "RU", "SCU", "RU", "CU", "CU"]
    assert units.overlaps == {"RU&SCU": 0, "RU&UCU": 0, "SCU&UCU": 0}


def test_redundant_comes_first_then_safety_then_utility():
    """
    unit     0  1  2  3  4  5
    I_S      3  0  9  9  8  7
    I_U      0  1  9  9  8  7
    sum      3  1 18 18 16 14     RU, 2 lowest:  1, 0
    diff     3 -1  0  0  0  0     SCU would be 0 and 2; 0 is taken, so 2 and 3.
                                  UCU would be 1 and 2; both are taken, so 4, 5.
    """
    units = classify(
        [3, 0, 9, 9, 8, 7],
        [0, 1, 9, 9, 8, 7],
        index=SIX,
        scale="raw",
        ru=2 / 6,
        scu=2 / 6,
        ucu=2 / 6,
    )
    assert units.labels.tolist() == ["RU", "RU", "SCU", "SCU", "UCU", "UCU"]
    assert units.overlaps == {"RU&SCU": 1, "RU&UCU": 1, "SCU&UCU": 1}


def test_ties_go_to_the_lower_index():
    """A hundred units with three different scores, ranked as Python's (stable) sort does it."""
    safety, utility = np.random.default_rng(0).integers(1, 4, (2, 100))
    units = classify(safety, utility, index=DEEP, scale="raw", ru=0.2, scu=0.3, ucu=0.1)
    expected = {}
    for label, count, key in (
        ("RU", 20, safety + utility),
        ("SCU", 30, utility - safety),
        ("UCU", 10, safety - utility),
    ):
        free = [i for i in range(100) if i not in expected]
        expected |= {i: label for i in sorted(free, key=lambda i: key[i])[:count]}
    assert units.labels.tolist() == [expected.get(i, "CU") for i in range(100)]


def test_shares_of_zero_leave_common_units_only():
    units = classify(np.arange(10), np.arange(10)[::-1], index=TEN, scale="raw", ru=0, scu=0, ucu=0)
    assert set(units.labels) == {"CU"}


@pytest.mark.parametrize("share, count", [(0.04, 0), (0.06, 1), (0.14, 1), (0.16, 2), (1.0, 10)])
def test_a_share_is_rounded_to_whole_units(share, count):
    units = classify(np.arange(10), np.ones(10), index=TEN, scale="raw", ru=share, scu=0, ucu=0)
    assert units.mask("RU").sum() == count


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", SCALES)
def test_counts_are_always_the_rounded_shares(seed, scale):
    draw = np.random.default_rng(seed)
    shares = dict(zip(("ru", "scu", "ucu"), draw.dirichlet(np.ones(4))[:3]))
    units = classify(
        draw.gamma(0.5, size=100), draw.gamma(0.5, size=100), index=DEEP, scale=scale, **shares
    )
    wanted = {name.upper(): round(share * 100) for name, share in shares.items()}
    wanted["CU"] = 100 - sum(wanted.values())
    assert {label: int(units.mask(label).sum()) for label in LABELS} == wanted


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_is_what_its_name_says(seed):
    """No unit left over has a lower sum than an RU, a higher difference than an SCU, a lower one
    than a UCU.
    """
    draw = np.random.default_rng(seed)
    units = classify(draw.random(100), draw.random(100), index=DEEP, ru=0.2, scu=0.1, ucu=0.15)
    total, difference = units.safety + units.utility, units.safety - units.utility
    ru, scu, ucu, cu = (units.mask(label) for label in ("RU", "SCU", "UCU", "CU"))
    assert total[ru].max() <= total[~ru].min()
    assert difference[scu].min() >= difference[ucu | cu].max()
    assert difference[ucu].max() <= difference[cu].min()


def test_masks_of_several_labels_add_up():
    units = classify(
        [9, 1, 5, 2, 8, 1, 6, 0, 4, 7],
        [1, 9, 5, 1, 8, 0, 2, 1, 4, 6],
        index=TEN,
        scale="raw",
        ru=0.2,
        scu=0.2,
        ucu=0.1,
    )
    assert np.flatnonzero(units.mask("SCU", "RU")).tolist() == [0, 5, 6, 7]
    assert units.mask(*LABELS).all()
    assert units.mask("CU").dtype == bool


def test_shares_of_units_and_of_parameters_are_given_side_by_side():
    """TEN: 3 weights an o column and 3 its value row, 9 an mlp unit, 4 x 6 + 6 x 9 = 78 in all. SCU
    = 0 (attn), 6 (mlp).
    """
    units = classify(
        [9, 1, 5, 2, 8, 1, 6, 0, 4, 7],
        [1, 9, 5, 1, 8, 0, 2, 1, 4, 6],
        index=TEN,
        scale="raw",
        ru=0.2,
        scu=0.2,
        ucu=0.1,
    )
    table = units.shares()
    assert table.index.tolist() == list(LABELS)
    assert table.loc["SCU"].tolist() == [2, 0.2, pytest.approx(15 / 78)]
    assert table["units"].sum() == 10
    assert table["parameter_share"].sum() == pytest.approx(1)


def test_an_unknown_label_is_refused():
    units = classify(np.ones(10), np.ones(10), index=TEN)
    with pytest.raises(SsahError, match="unknown label 'ESU'; known: SCU, UCU, CU, RU"):
        units.mask("ESU")


def test_intersection_over_union():
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert iou(a, b) == 0.5
    assert iou(a, a) == 1 and iou(a, ~a) == 0
    assert np.isnan(iou(a & ~a, a & ~a))
    for other in (a[:1], a.astype(int), a[None]):       # would be broadcast, or taken bit by bit
        with pytest.raises(SsahError, match="two Boolean masks of one shape"):
            iou(a, other)


# ---- scales ----------------------------------------------------------------------------------


def standardized(values):
    values = np.array(values, dtype=float)
    return ((values - values.mean()) / values.std()).tolist()


@pytest.mark.parametrize(
    "scale, expected",
    [
        ("raw", [1, 2, 4, 3, 5, 100]),
        # within a module: (1, 2, 4) has mean 7/3 and variance 14/9,
        # (3, 5, 100) has mean 36 and variance 6146/3
        (
            "z",
            [
                (1 - 7 / 3) / (14 / 9) ** 0.5,
                (2 - 7 / 3) / (14 / 9) ** 0.5,
                (4 - 7 / 3) / (14 / 9) ** 0.5,
                -33 / (6146 / 3) ** 0.5,
                -31 / (6146 / 3) ** 0.5,
                64 / (6146 / 3) ** 0.5,
            ],
        ),
        ("z-global", standardized([1, 2, 4, 3, 5, 100])),
        # logarithms to base 2 of 1, 2, 4 are 0, 1, 2; the base does not matter to a z-score
        ("log-z", [-(1.5**0.5), 0, 1.5**0.5, *standardized(np.log([3, 5, 100]))]),
        ("log-z-global", standardized(np.log([1, 2, 4, 3, 5, 100]))),
        ("rank", [1 / 6, 3 / 6, 5 / 6, 1 / 6, 3 / 6, 5 / 6]),
    ],
)
def test_every_scale_by_hand(scale, expected):
    np.testing.assert_allclose(scaled(POSITIVE, SIX, scale), expected, rtol=1e-9, atol=1e-9)


def test_ties_share_their_mean_rank():
    scores = np.array([5, 1, 5, 2, 9, 9, 9, 0, 1, 0], dtype=float)
    expected = [*((rankdata(scores[:4]) - 0.5) / 4), *((rankdata(scores[4:]) - 0.5) / 6)]
    np.testing.assert_allclose(scaled(scores, TEN, "rank"), expected)


@pytest.mark.parametrize("scale", ("log-z", "rank"))
def test_only_order_matters_to_ranks_and_only_ratios_to_logarithms(scale):
    """A factor for a whole module, as a deeper block has it, changes nothing; to z-global it does.
    """
    factors = np.array([1000.0] * 3 + [1e-3] * 3)
    np.testing.assert_allclose(
        scaled(POSITIVE * factors, SIX, scale), scaled(POSITIVE, SIX, scale), atol=1e-9
    )
    assert not np.allclose(
        scaled(POSITIVE * factors, SIX, "z-global"), scaled(POSITIVE, SIX, "z-global")
    )


@pytest.mark.parametrize("scale", SCALES)
def test_a_zero_among_others_stays_finite_and_lowest(scale):
    values = scaled([0, 2, 4, 3, 5, 100], SIX, scale)
    assert np.isfinite(values).all()
    assert values[0] == values[:3].min() and values[0] < values[1]


@pytest.mark.parametrize("constant", (0.1, 1.0, 1 / 3))
@pytest.mark.parametrize("scale", ("z", "log-z"))
def test_a_module_of_equal_scores_is_average_everywhere(scale, constant):
    """Its spread is zero up to rounding, which must not be blown up to a whole standard deviation.
    """
    assert scaled([constant] * 3 + [3, 5, 100], SIX, scale)[:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", SCALES)
def test_scaling_leaves_the_scores_alone(scale):
    scores = POSITIVE.copy()
    scaled(scores, SIX, scale)[:] = -1
    assert np.array_equal(scores, POSITIVE)


# ---- errors ----------------------------------------------------------------------------------

BAD_SHARES = {
    "negative": dict(scu=-0.01),
    "more than all": dict(scu=0.5, ucu=0.4, ru=0.2),
    "above one": dict(ru=1.5),
    "not a number": dict(ru=float("nan")),
    "infinite": dict(ucu=float("inf")),
}


@pytest.mark.parametrize("shares", BAD_SHARES.values(), ids=BAD_SHARES)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(SsahError, match="shares must be"):
        classify(np.ones(10), np.ones(10), index=TEN, **shares)


@pytest.mark.parametrize("scu, ucu, ru", [(0.2, 0.1, 0.7), (0.2, 0.684, 0.116)])
def test_shares_of_one_in_all_are_allowed(scu, ucu, ru):
    """The second sum is 1.0000000000000002 in floating point."""
    units = classify(
        np.arange(10), np.arange(10)[::-1], index=TEN, scale="raw", scu=scu, ucu=ucu, ru=ru
    )
    assert not units.mask("CU").any()


BAD_SCORES = {
    "NaN": ([1, 2, np.nan, 3, 4, 5], "1 scores are NaN or infinite"),
    "infinite": ([1, 2, np.inf, 3, np.inf, 5], "2 scores are NaN or infinite"),
    "negative": ([1, 2, -1e-9, 3, 4, 5], "must not be negative"),
    "another model's": (np.ones(7), "the index has 6 units"),
    "a table": (np.ones((6, 1)), "the index has 6 units"),
    "a dead module": ([1, 2, 3, 0, 0, 0], "all scores of block 0 mlp are zero"),
}


@pytest.mark.parametrize("scale", ("log-z", "z", "rank", "log-z-global", "z-global"))
@pytest.mark.parametrize("scores, message", BAD_SCORES.values(), ids=BAD_SCORES)
def test_bad_scores_are_refused(scores, message, scale):
    with pytest.raises(SsahError, match=message):
        scaled(scores, SIX, scale)
    for pair in ((scores, POSITIVE), (POSITIVE, scores)):
        with pytest.raises(SsahError, match=message):
            classify(*pair, index=SIX, scale=scale)


@pytest.mark.parametrize("scores, message", BAD_SCORES.values(), ids=BAD_SCORES)
def test_bad_scores_are_refused_unscaled_too(scores, message):
    with pytest.raises(SsahError, match=message):
        scaled(scores, SIX, "raw")


def test_an_unknown_scale_is_refused_with_the_known_ones():
    with pytest.raises(SsahError, match="unknown scale 'log'; known: log-z, z, rank, raw"):
        classify(POSITIVE, POSITIVE, index=SIX, scale="log")


# ---- torch -----------------------------------------------------------------------------------

TORCH_FREE = (
    "units",
    "classification",
    "judging",
    "inputs.archives",
    "inputs.prompts",
    "lab.store",
    "claims",
    "claims.profiles",
)


def test_what_notebooks_import_live_needs_no_torch():
    """A cached notebook opens in a moment: none of these import torch, transformers or datasets."""
    code = f"""
import importlib, sys
for name in {TORCH_FREE}:
    importlib.import_module(f"ssah.{{name}}")
    heavy = {{"torch", "transformers", "datasets"}} & set(sys.modules)
    print(name, sorted(heavy))
"""
    root = Path(__file__).resolve().parent.parent
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == [f"{name} []" for name in TORCH_FREE]
