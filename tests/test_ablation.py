"""Temporary edits of a model, against hooks on the activations that they stand for; and back bit
for bit.
"""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, random_model, unit_elements

from ssah.ablation import ablated, rounded, transplanted, without_direction
from ssah.attribution import activation_moments, linear_weights, unit_outputs
from ssah.errors import SsahError
from ssah.families import blocks
from ssah.models import save_weights, tiny_chat
from ssah.units import UnitIndex

IDS = torch.tensor([[5, 9, 30, 41, 7, 22], [60, 2, 3, 9, 9, 12]])


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def some_units(index: UnitIndex, share: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(len(index)) < share


def held_logits(model, index, mask, values):
    """Logits of a forward pass in which the activations of the masked units are set to `values` by
    hooks.
    """

    def hold(where):
        chosen, held = (
            torch.tensor(mask[where]),
            torch.as_tensor(values[where], dtype=torch.float32),
        )
        return lambda module, inputs: (torch.where(chosen, held, inputs[0]),)

    hooks = [
        linear.register_forward_pre_hook(hold(where))
        for linear, (_, _, where) in zip(unit_outputs(model), index.modules())
    ]
    result = logits(model)
    for hook in hooks:
        hook.remove()
    return result


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, before) -> bool:
    """Bit for bit: also the sign of zeros."""
    return all(
        torch.equal(tensor.view(torch.int32), before[name].view(torch.int32))
        for name, tensor in model.state_dict().items()
    )


def edits(model):
    """One of every kind of edit, as functions that return a fresh context manager."""
    index, draw = UnitIndex.of(model), np.random.default_rng(1)
    mask, means, direction = (
        some_units(index),
        draw.normal(size=len(index)),
        draw.normal(size=index.hidden),
    )
    donor = random_model(model.config, seed=9)
    return {
        "zero": lambda: ablated(model, index, mask),
        "mean": lambda: ablated(model, index, mask, "mean", means),
        "transplant": lambda: transplanted(model, donor, index, mask),
        "direction": lambda: without_direction(model, direction),
    }


EDITS = ("zero", "mean", "transplant", "direction")


# ---- ablated ---------------------------------------------------------------------------------


def test_zero_takes_the_activations_out(model):
    index = UnitIndex.of(model)
    mask = some_units(index)
    expected = held_logits(model, index, mask, np.zeros(len(index)))
    with ablated(model, index, mask):
        found = logits(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, logits(model), atol=0.1)


def test_mean_holds_the_activations_there(model, batches):
    index = UnitIndex.of(model)
    mask = some_units(index)
    means = torch.cat([m.mean for m in activation_moments(model, batches)]).numpy()
    expected = held_logits(model, index, mask, means)
    with ablated(model, index, mask, "mean", means):
        found = logits(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        found, held_logits(model, index, mask, np.zeros(len(index))), atol=0.01
    )


def test_only_outgoing_columns_are_touched(model):
    """Not even the v row of a whole head, or the gate and up rows."""
    index, before = UnitIndex.of(model), weights(model)
    with ablated(model, index, np.ones(len(index), bool)):
        changed = {
            name
            for name, tensor in model.state_dict().items()
            if not torch.equal(tensor, before[name])
        }
    assert changed == {
        name for name in before if name.endswith(("o_proj.weight", "down_proj.weight"))
    }


def test_an_empty_mask_changes_nothing(model):
    index, before = UnitIndex.of(model), logits(model)
    with ablated(model, index, np.zeros(len(index), bool)):
        assert torch.equal(logits(model), before)


def test_nested_masks_add_up(model):
    index = UnitIndex.of(model)
    first, second = some_units(index, seed=1), some_units(index, seed=2)
    start, nothing = weights(model), np.zeros(len(index))
    with ablated(model, index, first):
        with ablated(model, index, second):
            torch.testing.assert_close(
                logits(model),
                held_logits(model, index, first | second, nothing),
                rtol=1e-4,
                atol=1e-5,
            )
        torch.testing.assert_close(
            logits(model), held_logits(model, index, first, nothing), rtol=1e-4, atol=1e-5
        )
    assert unchanged(model, start)


def test_an_unknown_value_is_refused(chat):
    index = UnitIndex.of(chat.model)
    with (
        pytest.raises(SsahError, match="unknown value 'median'; known: zero, mean"),
        ablated(chat.model, index, some_units(index), "median"),
    ):
        pass


@pytest.mark.parametrize("means", (None, np.zeros(3)), ids=("none", "too few"))
def test_mean_needs_means(chat, means):
    index = UnitIndex.of(chat.model)
    with (
        pytest.raises(SsahError, match=f"length {len(index)}"),
        ablated(chat.model, index, some_units(index), "mean", means),
    ):
        pass


def test_means_that_are_not_finite_are_refused(chat):
    index = UnitIndex.of(chat.model)
    means = np.zeros(len(index))
    means[3] = np.nan
    with pytest.raises(SsahError, match="means are not finite; compute them with dtype="):
        ablated(chat.model, index, some_units(index), "mean", means).__enter__()


# ---- all edits -------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("broken", (False, True), ids=("left in order", "left by an exception"))
def test_the_model_comes_back_bit_for_bit(model, edit, broken):
    with torch.no_grad():
        unit_outputs(model)[0].weight[0] = -0.0
    before, before_logits = weights(model), logits(model)
    make = edits(model)[edit]
    try:
        with make():
            assert not torch.allclose(logits(model), before_logits, atol=0.01)
            if broken:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert unchanged(model, before)
    assert torch.equal(logits(model), before_logits)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("inner", EDITS)
@pytest.mark.parametrize("outer", EDITS)
def test_edits_may_be_nested(chat, outer, inner):
    before, make = weights(chat.model), edits(chat.model)
    with make[outer]():
        between = logits(chat.model)
        with make[inner]():
            pass
        assert torch.equal(logits(chat.model), between)
    assert unchanged(chat.model, before)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_model_cannot_be_saved(chat, edit, tmp_path):
    with edits(chat.model)[edit]():
        with pytest.raises(SsahError, match="leave the `with` block before saving"):
            chat.model.save_pretrained(tmp_path / "model")
        with pytest.raises(SsahError, match="leave the `with` block before saving"):
            save_weights(chat, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []
    save_weights(chat, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("edit", EDITS)
def test_after_an_inner_edit_the_outer_one_still_refuses_to_save(chat, edit, tmp_path):
    make = edits(chat.model)
    with make["zero"]():
        with make[edit]():
            pass
        with pytest.raises(SsahError, match="leave the `with` block before saving"):
            chat.model.save_pretrained(tmp_path / "model")
    chat.model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "edit",
    (ablated, lambda model, index, mask: transplanted(model, model, index, mask)),
    ids=("ablated", "transplanted"),
)
def test_masks_and_indexes_of_another_model_are_refused(chat, edit):
    own, other = UnitIndex.of(chat.model), UnitIndex.of(tiny_chat(layers=3).model)
    for index, mask, message in (
        (other, np.zeros(len(other), bool), "another shape"),
        (own, np.zeros(len(other), bool), "mask must be Boolean"),
        (own, np.zeros(len(own)), "mask must be Boolean"),
    ):
        with pytest.raises(SsahError, match=message), edit(chat.model, index, mask):
            pass


# ---- transplanted ----------------------------------------------------------------------------

@pytest.mark.parametrize("share", (1.0, 0.6), ids=("all units", "some units"))
def test_units_bring_all_their_own_weights_and_nothing_else(model, share):
    """Every element is looked up by itself: its unit decides where it is from."""
    donor, index = random_model(model.config, seed=9), UnitIndex.of(model)
    mask = some_units(index, share)
    moved = unit_elements(model, mask, rest=False)
    own, other = weights(model), weights(donor)
    with transplanted(model, donor, index, mask):
        for name, found in model.named_parameters():
            assert torch.equal(found, torch.where(moved[name], other[name], own[name])), name
    assert sum(int(part.sum()) for part in moved.values()) == (
        index.weights_in(mask) + sum(int(p.sum()) for n, p in moved.items() if n.endswith("bias"))
    )
    assert unchanged(model, own) and unchanged(donor, other)


def test_a_shared_value_row_comes_only_with_all_its_columns():
    """Two query heads of size 8 a group: columns 0 and 8 share row 0, columns 16 and 24 row 8."""
    chat, donor = tiny_chat(), tiny_chat(9)
    index = UnitIndex.of(chat.model)
    mask = np.zeros(len(index), bool)
    mask[[0, 8, 16]] = True
    own = weights(chat.model)
    with transplanted(chat.model, donor.model, index, mask):
        name = "model.layers.0.self_attn.v_proj.weight"
        changed = (chat.model.state_dict()[name] != own[name]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [0]


def test_a_transplant_of_everything_that_differs_makes_the_donor(chat):
    donor = tiny_chat()
    with torch.no_grad():
        for block in blocks(donor.model):
            block.up.weight.normal_(generator=torch.Generator().manual_seed(3))
    index = UnitIndex.of(chat.model)
    mask = (index.table["kind"] == "mlp").to_numpy()
    with transplanted(chat.model, donor.model, index, mask):
        assert torch.equal(logits(chat.model), logits(donor.model))


def test_a_donor_with_fused_maps_gives_values_and_no_queries():
    """Of the fused map values stand behind queries and keys, and ups behind gates."""
    separate, fused = (random_model(FAMILIES[name](), seed)
                       for seed, name in enumerate(("Llama GQA", "Phi-3")))
    index = UnitIndex.of(separate)
    assert index == UnitIndex.of(fused)
    everything = np.ones(len(index), bool)
    donor = fused.model.layers[0]
    n_rows = index.n_kv_heads * index.head_dim
    with transplanted(separate, fused, index, everything):
        layer = separate.model.layers[0]
        values = donor.self_attn.qkv_proj.weight[-n_rows:]
        gates, ups = donor.mlp.gate_up_proj.weight.chunk(2)
        assert torch.equal(layer.self_attn.v_proj.weight, values)
        assert torch.equal(layer.mlp.gate_proj.weight, gates)
        assert torch.equal(layer.mlp.up_proj.weight, ups)


@pytest.mark.parametrize("names", [("Llama GQA", "Qwen2"), ("Qwen2", "Llama GQA")])
def test_a_donor_that_alone_has_biases_or_none_is_refused(names):
    model, donor = (random_model(FAMILIES[name]()) for name in names)
    index = UnitIndex.of(model)
    before = weights(model)
    with (
        pytest.raises(SsahError, match="has biases where the other has none"),
        transplanted(model, donor, index, np.ones(len(index), bool)),
    ):
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())


def test_a_donor_of_another_shape_is_refused(chat):
    index = UnitIndex.of(chat.model)
    with (
        pytest.raises(SsahError, match="two models of the same architecture"),
        transplanted(chat.model, tiny_chat(kv_heads=4).model, index, some_units(index)),
    ):
        pass


# ---- without_direction -----------------------------------------------------------------------


@pytest.mark.parametrize("given", (
    lambda direction: direction.tolist(), lambda direction: torch.nn.Parameter(direction),
    lambda direction: direction.double().numpy()), ids=("list", "parameter", "float64"))
def test_a_direction_may_be_any_list_of_numbers(model, given):
    # all of them numbers of bfloat16, so that each says the same
    direction = torch.arange(1.0, 33.0)
    with without_direction(model, direction.bfloat16()):
        expected = logits(model)
    with without_direction(model, given(direction)):
        assert torch.equal(logits(model), expected)


def test_the_residual_stream_has_nothing_left_along_the_direction(model):
    direction = torch.randn(32, generator=torch.Generator().manual_seed(2))
    unit = direction / direction.norm()
    streams = [block_input for block_input in model.base_model.layers]
    seen = []
    hooks = [
        layer.register_forward_hook(
            lambda module, inputs, output: seen.extend(
                [inputs[0], output[0] if isinstance(output, tuple) else output]
            )
        )
        for layer in streams
    ]
    before = logits(model)
    along = [(state @ unit).abs().max() for state in seen]
    assert min(along) > 0.01
    seen.clear()
    with without_direction(model, direction.numpy()):
        after = logits(model)
    assert len(seen) == 2 * len(streams)  # before and after every block
    for state in seen:
        assert (state @ unit).abs().max() < 1e-5
        assert state.abs().max() > 0.1  # the rest is still there
    assert not torch.allclose(before, after, atol=0.01)
    for hook in hooks:
        hook.remove()


def test_neither_length_nor_sign_of_the_direction_matters(chat):
    direction, found = np.random.default_rng(0).normal(size=32), []
    for factor in (1, -1000, 1e-3):
        with without_direction(chat.model, factor * direction):
            found.append(logits(chat.model))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "direction, message",
    [
        (np.ones(31), "the direction has shape"),
        (np.ones((1, 32)), "the direction has shape"),
        (np.zeros(32), "direction"),
        (np.full(32, np.nan), "direction"),
    ],
    ids=["short", "two axes", "zero", "NaN"],
)
def test_what_is_no_direction_is_refused(chat, direction, message):
    """A zero vector would silently turn every output into NaN."""
    with pytest.raises(SsahError, match=message), without_direction(chat.model, direction):
        pass


# ---- rounding --------------------------------------------------------------------------------


def test_weights_are_rounded_by_hand():
    """At 3 bits a row has seven values, from minus to plus its largest weight, in thirds of it."""
    chat = tiny_chat()
    weight = next(iter(linear_weights(chat.model).values()))
    with torch.no_grad():
        weight[0] = 0.0
        weight[0, :5] = torch.tensor([0.9, -0.44, 0.46, 0.1, -0.2])
        weight[1] = 0.0
    before = weights(chat.model)
    with rounded(chat.model, 3):
        expected = torch.tensor([0.9, -0.3, 0.6, 0.0, -0.3])
        torch.testing.assert_close(weight[0, :5], expected)
        assert not weight[1].any()
        with pytest.raises(SsahError, match="rounded to 3 bits; leave the `with` block"):
            chat.model.save_pretrained("nowhere")
    assert unchanged(chat.model, before)


@pytest.mark.parametrize("bits", (2, 4, 8, 16))
def test_rounding_stays_within_half_a_step_and_touches_linear_maps_alone(bits):
    chat = tiny_chat()
    before = weights(chat.model)
    with rounded(chat.model, bits):
        after = weights(chat.model)
        inside = linear_weights(chat.model)
        for name, old in before.items():
            if name not in inside:
                assert torch.equal(after[name], old)
                continue
            steps = old.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            # a hundredth more: float32 has 24 bits
            assert ((after[name] - old).abs() <= 0.505 * steps).all()
            levels = [len(row.unique()) for row in after[name]]
            assert max(levels) <= 2**bits - 1
            assert bits == 16 or not torch.equal(after[name], old)


@pytest.mark.parametrize("bits", (1, 17, 4.0, True, "4"))
def test_bits_that_cannot_be_meant_are_refused(bits):
    with pytest.raises(SsahError, match="a whole number from 2 to 16"), rounded(tiny_chat().model, bits):
        pass
