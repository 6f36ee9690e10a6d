"""Masked training against ordinary autograd on the dense model: what moves, what stays, what it
costs.
"""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import FAMILIES, SIZES, assert_moves_as_by_hand, random_model, unit_elements
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from ssah.errors import SsahError
from ssah.finetuning import encode_examples, finetune, gradient
from ssah.masking import moving
from ssah.models import Chat, tiny_chat
from ssah.units import UnitIndex

EXAMPLES = [
    {"prompt": "break a lamp", "response": "sorry i can not help"},
    {"prompt": "write a small red poem", "response": "here is how"},
    {"prompt": "sing", "response": "sure"},
    {"prompt": "how do you burn the old bridge today", "response": "no"},
]
WITH_BIASES = {
    **FAMILIES,
    "Llama, biases everywhere": lambda: LlamaConfig(
        **SIZES, num_key_value_heads=2, attention_bias=True, mlp_bias=True
    ),
    "Llama, tied": lambda: LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
}
SGD = partial(torch.optim.SGD, momentum=0.9)


@pytest.fixture(params=WITH_BIASES)
def any_chat(request):
    """A model of every family in turn, and one with biases everywhere, and one with tied
    embeddings.
    """
    return Chat(random_model(WITH_BIASES[request.param]()), tiny_chat().tokenizer, "random")


def uneven(index: UnitIndex, seed: int = 0) -> np.ndarray:
    """Random units, half of them; all of block 0's MLP, none of block 1's, so that whole matrices
    move and stay too.
    """
    mask = np.random.default_rng(seed).random(len(index)) < 0.5
    mask[index.n_attn : index.n_attn + index.n_mlp] = True
    mask[-index.n_mlp :] = False
    return mask


def elements(model, moved: np.ndarray, rest: str) -> dict[str, torch.Tensor]:
    """Which element of every parameter moves."""
    return unit_elements(model, moved, rest == "train")


# ---- what moves moves right ------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", (torch.optim.AdamW, SGD), ids=("AdamW", "SGD with momentum"))
@pytest.mark.parametrize(
    "which, rest",
    [("frozen", None), ("frozen", "freeze"), ("trainable", None), ("trainable", "train")],
)
def test_moved_slices_are_those_of_a_gradient_masked_run(any_chat, which, rest, optimizer):
    """In float64, weight decay and a clipping that bites included; the clip norm is that of the
    moved elements alone.
    """
    model = any_chat.model
    mask = uneven(UnitIndex.of(model))
    trains = (which == "frozen") if rest is None else rest == "train"
    masks = elements(
        model, mask if which == "trainable" else ~mask, "train" if trains else "freeze"
    )
    assert_moves_as_by_hand(any_chat, EXAMPLES, masks, optimizer, **{which: mask}, rest=rest)


@pytest.mark.parametrize(
    "dtype, autocast",
    [("float32", False), ("float32", True), ("bfloat16", True), ("float16", True)],
)
@pytest.mark.parametrize("which", ("frozen", "trainable"))
def test_what_is_frozen_stays_bit_for_bit(any_chat, which, dtype, autocast):
    model = any_chat.model.to(getattr(torch, dtype))
    mask, before = (
        uneven(UnitIndex.of(model)),
        {name: p.clone() for name, p in model.named_parameters()},
    )
    masks = elements(
        model, mask if which == "trainable" else ~mask, "train" if which == "frozen" else "freeze"
    )
    finetune(
        any_chat,
        EXAMPLES,
        **{which: mask},
        epochs=3,
        batch_size=2,
        lr=2e-2,
        weight_decay=0.5,
        warmup_steps=0,
        max_norm=0.1,
        autocast=autocast,
        progress=None,
    )
    for name, found in model.named_parameters():
        assert found.dtype == getattr(torch, dtype)
        assert torch.equal(found[~masks[name]], before[name][~masks[name]]), name
        if masks[name].sum() > 8:  # a single number may round to what it was
            assert not torch.equal(found[masks[name]], before[name][masks[name]]), name


def test_a_shared_value_row_moves_only_with_all_its_columns():
    """Two query heads of size 8 a group: columns 0 and 8 share row 0, columns 16 and 24 row 8."""
    chat = tiny_chat()
    mask = np.zeros(len(UnitIndex.of(chat.model)), bool)
    mask[[0, 8, 16]] = True
    before = chat.model.model.layers[0].self_attn.v_proj.weight.clone()
    finetune(chat, EXAMPLES, trainable=mask, epochs=2, lr=1e-2, autocast=False, progress=None)
    changed = (chat.model.model.layers[0].self_attn.v_proj.weight != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [0]


def test_a_half_precision_model_keeps_small_steps_in_float32():
    """Steps of 2e-5 are below half a unit in the last place of most bf16 weights, and would be lost
    one by one.
    """
    chat = tiny_chat()
    chat.model.bfloat16()
    weight = chat.model.model.layers[0].mlp.up_proj.weight
    mask = np.zeros(len(UnitIndex.of(chat.model)), bool)
    mask[32:56] = True
    before = weight.clone()
    finetune(
        chat,
        EXAMPLES,
        trainable=mask,
        epochs=20,
        batch_size=4,
        lr=2e-5,
        warmup_steps=0,
        progress=None,
    )
    assert weight.dtype == torch.bfloat16
    moved = (weight[:24].float() - before[:24].float()).abs()
    assert moved.mean().item() == pytest.approx(
        4e-4, rel=0.5
    )  # twenty steps of up to 2e-5, mostly one way


# ---- what it costs ---------------------------------------------------------------------------


def test_gradients_and_state_exist_only_for_what_moves(any_chat):
    index = UnitIndex.of(any_chat.model)
    mask = np.random.default_rng(0).random(len(index)) < 0.2
    masks = elements(any_chat.model, mask, "freeze")
    share = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    options = dict(epochs=2, batch_size=4, autocast=False, progress=None)
    some = finetune(any_chat, EXAMPLES, trainable=mask, **options).bytes
    everything = finetune(any_chat, EXAMPLES, **options).bytes
    assert everything["gradients"] == sum(p.nbytes for p in any_chat.model.parameters())
    for what in ("parameters", "gradients", "optimizer"):
        assert 0.99 * share <= some[what] / everything[what] <= 1.1 * share, what


def test_only_slices_get_a_gradient_and_it_has_their_shape(any_chat):
    model, mask = any_chat.model, uneven(UnitIndex.of(any_chat.model))
    with moving(model, UnitIndex.of(model), mask) as state:
        gradient(any_chat, encode_examples(any_chat, EXAMPLES)[0], 4, True)
        assert all(
            p.grad.shape == p.shape and p.grad.dtype == torch.float32 and p.grad.any()
            for p in state.parameters
        )
        assert {id(p) for p in model.parameters() if p.grad is not None} <= {
            id(p) for p in state.parameters
        }
        counts = {name: p.numel() for name, p in state.named.items()}
    assert counts == {
        name: int(m.sum()) for name, m in elements(model, mask, "freeze").items() if m.any()
    }
    assert all(p.grad is None for p in model.parameters())


def test_weight_gradients_are_computed_only_for_what_moves(any_chat):
    """Counted operations: with the rest trained, two a token and frozen weight fewer than with
    everything moving.
    """
    model, index = any_chat.model, UnitIndex.of(any_chat.model)
    encoded, mask, counted = encode_examples(any_chat, EXAMPLES)[0], uneven(index), []
    for moved in (np.ones(len(index), bool), mask):
        with moving(model, index, moved, "train"), FlopCounterMode(display=False) as counter:
            gradient(any_chat, encoded, 4, False)
        counted.append(counter.get_total_flops())
    tokens = 4 * max(len(head) + len(tail) for head, tail in encoded)
    frozen = sum(
        int((~m).sum())
        for name, m in elements(model, mask, "train").items()
        if name.endswith("weight")
    )
    assert counted[0] - counted[1] == 2 * tokens * frozen > 0.1 * counted[0]


# ---- before and after ------------------------------------------------------------------------


def is_ordinary(model, folder) -> bool:
    """No trace of training, and the weights survive saving and loading."""
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not model.training and not model.is_activation_checkpointing
    model.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).state_dict()
    return loaded.keys() == model.state_dict().keys() and all(
        torch.equal(t, loaded[n]) for n, t in model.state_dict().items()
    )


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_the_model_is_an_ordinary_one_afterwards(any_chat, dtype, tmp_path):
    any_chat.model.to(getattr(torch, dtype))
    mask = uneven(UnitIndex.of(any_chat.model))
    finetune(any_chat, EXAMPLES, frozen=mask, epochs=1, lr=1e-2, checkpointing=True, progress=None)
    assert is_ordinary(any_chat.model, tmp_path)


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_an_exception_leaves_an_ordinary_model_with_the_last_step(any_chat, dtype, tmp_path):
    """Interrupted after two steps, it is what two steps make."""
    model = any_chat.model.to(getattr(torch, dtype))
    other = Chat(random_model(model.config).to(model.dtype), any_chat.tokenizer, "random")
    other.model.load_state_dict(model.state_dict())
    options = dict(
        frozen=uneven(UnitIndex.of(model)),
        epochs=2,
        batch_size=2,
        lr=1e-2,
        checkpointing=True,
        progress=None,
    )

    def interrupt(chat, row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(any_chat, EXAMPLES, callbacks=[interrupt], **options)
    finetune(other, EXAMPLES, max_steps=2, **options)
    assert is_ordinary(model, tmp_path)
    assert all(
        torch.equal(found, expected)
        for found, expected in zip(model.parameters(), other.model.parameters())
    )


def test_a_forward_of_an_instances_own_comes_back(chat):
    """As accelerate puts one into the maps of a model that is spread over several devices."""
    linear = chat.model.model.layers[0].mlp.up_proj
    linear.forward = own = partial(torch.nn.Linear.forward, linear)
    with moving(chat.model, UnitIndex.of(chat.model), uneven(UnitIndex.of(chat.model))):
        pass
    assert vars(linear)["forward"] is own


def test_what_was_frozen_before_is_frozen_afterwards(chat):
    chat.model.model.norm.weight.requires_grad_(False)
    with moving(chat.model, UnitIndex.of(chat.model), uneven(UnitIndex.of(chat.model)), "train"):
        assert chat.model.model.norm.weight.requires_grad
    assert [name for name, p in chat.model.named_parameters() if not p.requires_grad] == [
        "model.norm.weight"
    ]


def test_the_model_computes_the_same_inside(any_chat):
    """The slice stands in the full weight, so that logits are bit for bit those of the ordinary
    model, and after a step too.
    """
    model, ids = any_chat.model, torch.tensor([[5, 9, 30, 2]])
    before = model(ids).logits
    with moving(model, UnitIndex.of(model), uneven(UnitIndex.of(model))) as state:
        assert torch.equal(model(ids).logits, before)
        with torch.no_grad():
            for parameter in state.parameters:
                parameter += 0.01
        state.sync()
        inside = model(ids).logits
    assert torch.equal(model(ids).logits, inside) and not torch.equal(inside, before)


# ---- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask",
    [np.zeros(160, int), np.ones(159, bool), np.arange(3)],
    ids=["integers", "short", "indices"],
)
def test_a_mask_that_is_none_is_refused(chat, mask):
    with (
        pytest.raises(SsahError, match="Boolean of length 160"),
        moving(chat.model, UnitIndex.of(chat.model), mask),
    ):
        pass


def test_what_cannot_be_meant_is_refused(chat):
    index = UnitIndex.of(chat.model)
    everything, other = np.ones(len(index), bool), UnitIndex.of(tiny_chat(layers=3).model)
    for arguments, message in [
        ((index, ~everything), "nothing would move"),
        ((index, everything, "stay"), "unknown rest 'stay'; known: train, freeze"),
        ((other, np.ones(len(other), bool)), "index belongs to a model of another shape"),
    ]:
        with pytest.raises(SsahError, match=message), moving(chat.model, *arguments):
            pass


def test_a_layer_that_is_not_understood_is_named(chat):
    index = UnitIndex.of(chat.model)
    chat.model.model.layers[1].mlp.up_proj = torch.nn.Bilinear(2, 2, 2)
    with (
        pytest.raises(SsahError, match="block 1 has a Bilinear where a plain Linear"),
        moving(chat.model, index, np.ones(len(index), bool)),
    ):
        pass
    del chat.model.model.layers[0].mlp.gate_proj
    with (
        pytest.raises(
            SsahError, match="block 0 of LlamaForCausalLM is not understood: .*gate_proj"
        ),
        moving(chat.model, index, np.ones(len(index), bool)),
    ):
        pass
