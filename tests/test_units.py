"""The unit index: order, shared value rows, counts of weights, random controls."""

from itertools import combinations

import numpy as np
import pytest
from conftest import FAMILIES, random_model

from ssah.errors import SsahError
from ssah.families import blocks
from ssah.units import UnitIndex, matched_importance

SMALL = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=1, head_dim=2, n_mlp=3, hidden=5)
WIDE = UnitIndex(n_blocks=3, n_heads=4, n_kv_heads=2, head_dim=4, n_mlp=24, hidden=8)


def test_order_is_block_then_attention_before_mlp_then_channel():
    rows = list(SMALL.table.itertuples(index=False, name=None))
    assert rows == [
        (0, "attn", 0),
        (0, "attn", 1),
        (0, "attn", 2),
        (0, "attn", 3),
        (0, "mlp", 0),
        (0, "mlp", 1),
        (0, "mlp", 2),
        (1, "attn", 0),
        (1, "attn", 1),
        (1, "attn", 2),
        (1, "attn", 3),
        (1, "mlp", 0),
        (1, "mlp", 1),
        (1, "mlp", 2),
    ]
    assert len(SMALL) == 14


def test_modules_are_slices_of_that_order():
    assert list(SMALL.modules()) == [
        (0, "attn", slice(0, 4)),
        (0, "mlp", slice(4, 7)),
        (1, "attn", slice(7, 11)),
        (1, "mlp", slice(11, 14)),
    ]
    for block, kind, where in WIDE.modules():
        part = WIDE.table[where]
        assert (part["block"] == block).all() and (part["kind"] == kind).all()
        assert part["channel"].tolist() == list(range(len(part)))


def test_sizes_come_from_the_config(family_chat):
    model = family_chat.model
    index = UnitIndex.of(model)
    assert index == UnitIndex.of(model.config) == UnitIndex.of(family_chat)
    assert index.n_blocks == len(blocks(model))
    for block in blocks(model):
        assert index.n_attn == block.attn_out.in_features
        assert index.n_mlp == block.mlp_out.in_features
        assert index.hidden == block.mlp_out.out_features
        assert index.n_kv_heads * index.head_dim == len(block.value)


def test_sizes_survive_a_round_trip():
    assert UnitIndex.from_dict(WIDE.to_dict()) == WIDE


@pytest.mark.parametrize(
    "columns, rows",
    [
        ([0, 1], []),  # head 0 alone: head 1 needs the same rows
        ([0, 2], [0]),  # channel 0 of heads 0 and 1: their row 0
        ([0, 1, 2, 3], [0, 1]),  # heads 0 and 1 whole
        ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2]),  # head 2's channel 1 is there, head 3's is not
        ([5, 7], [3]),  # the second group's channel 1
        (range(8), [0, 1, 2, 3]),
        ([], []),
    ],
)
def test_a_value_row_needs_all_its_columns(columns, rows):
    """Four heads of size 2, two of them a group: columns 0-1 and 2-3 share rows 0-1; 4-5 and 6-7
    share rows 2-3.
    """
    index = UnitIndex(n_blocks=1, n_heads=4, n_kv_heads=2, head_dim=2, n_mlp=3, hidden=5)
    mask = np.zeros(8, bool)
    mask[list(columns)] = True
    assert np.flatnonzero(index.value_rows(mask)).tolist() == rows


def test_value_rows_are_those_that_feed_the_columns(model):
    """Raising one value row alone must change exactly the o_proj inputs that the index says it
    feeds.
    """
    import torch

    index, block = UnitIndex.of(model), blocks(model)[0]
    ids, seen = torch.tensor([[5, 9, 30]]), []
    block.attn_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        model(ids)
        for row in range(len(block.value)):
            before = block.value.weight[row].clone()
            block.value.weight[row] += 1
            model(ids)
            block.value.weight[row] = before
    for row, changed in enumerate(seen[1:]):
        fed = (changed != seen[0]).any(dim=(0, 1)).numpy()
        assert np.flatnonzero(index.value_rows(fed)).tolist() == [row]
        assert fed.sum() == index.n_heads // index.n_kv_heads


def test_all_units_own_the_weights_of_their_five_matrices(model):
    matrices = [
        weight
        for block in blocks(model)
        for weight in (
            block.value.weight,
            block.attn_out.weight,
            block.gate.weight,
            block.up.weight,
            block.mlp_out.weight,
        )
    ]
    index = UnitIndex.of(model)
    everything = np.ones(len(index), bool)
    assert index.weights_in(everything) == sum(weight.numel() for weight in matrices)
    assert index.parameter_share(everything) == 1


def test_weights_of_some_units_are_counted_by_hand():
    """SMALL: 5 weights an o column, 15 an mlp unit, and 5 a value row once both its columns are in.
    """
    mask = np.zeros(len(SMALL), bool)
    mask[[0, 4]] = True  # a column of block 0, an mlp unit of block 0
    assert SMALL.weights_in(mask) == 5 + 15
    mask[2] = True  # the other column of the same value row
    assert SMALL.weights_in(mask) == 2 * 5 + 5 + 15
    assert SMALL.parameter_share(mask) == 30 / (2 * (4 * 5 + 2 * 5 + 3 * 15))
    assert SMALL.weights_in(np.zeros(len(SMALL), bool)) == 0


def counts(mask: np.ndarray) -> list[int]:
    return [int(mask[where].sum()) for _, _, where in WIDE.modules()]


@pytest.fixture
def uneven():
    """More units in later modules, none in the first."""
    mask = np.zeros(len(WIDE), bool)
    for n, (_, _, where) in enumerate(WIDE.modules()):
        mask[where.start : where.start + n] = True
    return mask


def test_matched_random_has_the_same_counts_and_no_unit_of_the_mask(uneven):
    for seed in range(20):
        chosen = WIDE.matched_random(uneven, seed)
        assert counts(chosen) == counts(uneven) == [0, 1, 2, 3, 4, 5]
        assert not (chosen & uneven).any()


def test_matched_random_is_fixed_by_its_seed(uneven):
    first = WIDE.matched_random(uneven, 1)
    assert np.array_equal(first, WIDE.matched_random(uneven, 1))
    assert not np.array_equal(first, WIDE.matched_random(uneven, 2))


def test_matched_random_can_reach_every_free_unit(uneven):
    reached = np.any([WIDE.matched_random(uneven, seed) for seed in range(200)], axis=0)
    free = ~uneven
    free[: WIDE.n_attn] = False  # nothing is wanted in the first module
    assert np.array_equal(reached, free)


def test_matched_random_can_exclude_other_units(uneven):
    allowed = np.zeros(len(WIDE), bool)
    for _, _, where in WIDE.modules():
        allowed[where.stop - 5 : where.stop] = True  # the last five of every module
    for seed in range(20):
        chosen = WIDE.matched_random(uneven, seed, exclude=~allowed)
        assert counts(chosen) == counts(uneven)
        assert not (chosen & ~allowed).any()


def test_matched_random_refuses_when_too_few_units_are_free():
    mask = np.zeros(len(WIDE), bool)
    mask[:9] = True  # 9 of the 16 attention units of block 0: 7 are left
    with pytest.raises(
        SsahError, match="block 0 attn: 9 random units wanted, 7 are free; take a smaller share"
    ):
        WIDE.matched_random(mask, 0)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros(14, int),
        np.zeros(14),
        np.zeros(13, bool),
        np.zeros(15, bool),
        np.zeros((14, 1), bool),
        np.arange(3),
        ["SCU"] * 14,
        None,
    ],
    ids=["integers", "floats", "short", "long", "two axes", "indices", "labels", "nothing"],
)
def test_a_mask_is_boolean_and_as_long_as_the_index(mask):
    with pytest.raises(SsahError, match="Boolean of length 14"):
        SMALL.check_mask(mask)
    with pytest.raises(SsahError):
        SMALL.weights_in(mask)


def test_a_list_of_booleans_is_a_mask():
    assert SMALL.check_mask([True] * 14).sum() == 14


def test_models_of_different_shape_have_different_indexes():
    indexes = {
        UnitIndex.of(random_model(FAMILIES[name]())) for name in ("Llama", "Llama GQA", "Qwen3")
    }
    assert len(indexes) == 3


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_disjoint_twin_has_as_many_units_and_weights(n_kv_heads, share):
    index = UnitIndex(n_blocks=3, n_heads=4, head_dim=8, n_mlp=40, hidden=16, n_kv_heads=n_kv_heads)
    random = np.random.default_rng(1)
    mask = random.random(len(index)) < share
    # some whole value rows: all channels that one of them feeds
    heads = np.arange(4).reshape(n_kv_heads, -1)[0]
    mask[[head * 8 + 2 for head in heads]] = True
    twins = [index.disjoint_random(mask, seed) for seed in range(3)]
    for twin in twins:
        assert not (twin & mask).any()
        assert index.weights_in(twin) == index.weights_in(mask)
        for _, _, where in index.modules():
            assert twin[where].sum() == mask[where].sum()
    assert (twins[0] != twins[1]).any()


def test_a_twin_that_has_no_room_is_refused():
    index = UnitIndex(n_blocks=1, n_heads=2, head_dim=4, n_mlp=10, hidden=8, n_kv_heads=2)
    with pytest.raises(SsahError, match="block 0 attn: 8 other units wanted"):
        index.disjoint_random(np.ones(len(index), bool), 0)


def test_a_twin_with_too_few_whole_value_rows_is_refused():
    """Three heads share six value rows: two are taken whole, three touched, and one is free."""
    index = UnitIndex(n_blocks=1, n_heads=3, n_kv_heads=1, head_dim=6, n_mlp=4, hidden=18)
    mask = np.zeros(len(index), bool)
    for row in (0, 1):
        mask[[row, 6 + row, 12 + row]] = True
    mask[[2, 3, 4]] = True
    with pytest.raises(SsahError, match="block 0 attn: 9 other units wanted, with as many whole"):
        index.disjoint_random(mask, 0)


# ---- random units that matter as much --------------------------------------------------------


def nearest_ratios(index, mask, importance) -> list[float]:
    """Of every module with masked units: the sum nearest to theirs, over theirs; by trying all."""
    ratios = []
    for _, _, where in index.modules():
        inside = mask[where]
        if not inside.any():
            continue
        target = importance[where][inside].sum()
        free = importance[where][~inside]
        sums = [sum(values) for values in combinations(free, int(inside.sum()))]
        ratios.append(min((total / target for total in sums), key=lambda ratio: abs(ratio - 1)))
    return ratios


def module_sums(index, mask, importance) -> np.ndarray:
    return np.array([importance[where][mask[where]].sum() for _, _, where in index.modules()])


@pytest.mark.parametrize("seed", range(8))
def test_a_match_is_found_in_every_module_that_has_one(seed):
    """Against all subsets: 2 of 14 attention units and 3 of 22 MLP units a block."""
    random = np.random.default_rng(seed)
    importance = random.lognormal(sigma=1.5, size=len(WIDE))
    mask = np.zeros(len(WIDE), bool)
    for _, kind, where in WIDE.modules():
        width = where.stop - where.start
        mask[where.start + random.choice(width, 2 if kind == "attn" else 3, replace=False)] = True
    drawn = matched_importance(WIDE, mask, importance, seed)
    possible = np.abs(np.array(nearest_ratios(WIDE, mask, importance)) - 1) <= 0.1
    ratios = module_sums(WIDE, drawn.mask, importance) / module_sums(WIDE, mask, importance)
    found = np.abs(ratios - 1) <= 0.1
    np.testing.assert_array_equal(found, possible)
    assert drawn.missed == (~possible).sum() and drawn.modules == 6
    assert drawn.matched == possible.all()


def test_a_match_has_as_many_in_every_module_and_none_of_the_mask():
    random = np.random.default_rng(3)
    importance = random.lognormal(size=len(WIDE))
    mask = random.uniform(size=len(WIDE)) < 0.1
    drawn = matched_importance(WIDE, mask, importance, seed=0)
    assert not (drawn.mask & mask).any()
    for _, _, where in WIDE.modules():
        assert drawn.mask[where].sum() == mask[where].sum()
    assert drawn.ratio == pytest.approx(importance[drawn.mask].sum() / importance[mask].sum())


def test_matches_of_other_seeds_are_other_units():
    importance = np.random.default_rng(3).uniform(1, 2, size=len(WIDE))
    mask = np.zeros(len(WIDE), bool)
    mask[[3, 20, 30, 60]] = True
    draws = [matched_importance(WIDE, mask, importance, seed) for seed in (0, 0, 1)]
    assert all(drawn.matched for drawn in draws)
    np.testing.assert_array_equal(draws[0].mask, draws[1].mask)
    assert not np.array_equal(draws[0].mask, draws[2].mask)


def test_where_nothing_is_as_important_there_is_no_match():
    """One unit of 100 among units of 1: the nearest ratio is 1 %."""
    importance = np.ones(len(WIDE))
    mask = np.zeros(len(WIDE), bool)
    importance[20] = 100
    mask[20] = True
    drawn = matched_importance(WIDE, mask, importance, seed=0)
    assert not drawn.matched and drawn.missed == drawn.modules == 1
    assert drawn.ratio == pytest.approx(0.01)


def test_importance_of_another_index_is_refused():
    mask = np.zeros(len(WIDE), bool)
    for wrong in (np.ones(3), np.full(len(WIDE), -1.0), np.full(len(WIDE), np.nan)):
        with pytest.raises(SsahError, match="numbers that are not negative"):
            matched_importance(WIDE, mask, wrong, seed=0)
