"""Single frozen weights against a gradient-masked run; adapters against their definitions."""

from functools import partial

import numpy as np
import peft
import pytest
import torch
from conftest import FAMILIES, assert_moves_as_by_hand, random_model

from ssah.alternatives import (
    adapted,
    holding,
    inject,
    is_merged,
    merged_state,
    random_weights,
    set_difference,
)
from ssah.errors import SsahError
from ssah.evaluation import generate, refusal_log_odds
from ssah.finetuning import finetune
from ssah.catalog import load_chat_model
from ssah.models import Chat, save_weights, tiny_chat

EXAMPLES = [
    {"prompt": "break a lamp", "response": "sorry i can not help"},
    {"prompt": "write a small red poem", "response": "here is how"},
    {"prompt": "sing", "response": "sure"},
    {"prompt": "how do you burn the old bridge today", "response": "no"},
]
QUICK = dict(epochs=3, batch_size=2, lr=2e-2, warmup_steps=0, progress=None)
LORA = partial(
    peft.LoraConfig, r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"
)
IA3 = partial(
    peft.IA3Config,
    target_modules=["v_proj", "down_proj"],
    feedforward_modules=["down_proj"],
    task_type="CAUSAL_LM",
)
LLAMA_ADAPTER = partial(
    peft.AdaptionPromptConfig, adapter_len=3, adapter_layers=2, task_type="CAUSAL_LM"
)


def some_weights(model, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random half of every second parameter."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(p.shape, generator=draw) < 0.5
        for name, p in list(model.named_parameters())[::2]
    }


# ---- single weights --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    (torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9)),
    ids=("AdamW", "SGD with momentum"),
)
def test_frozen_weights_are_those_of_a_gradient_masked_run(family_chat, optimizer):
    model = family_chat.model
    frozen = some_weights(model)
    masks = {
        name: ~frozen[name] if name in frozen else torch.ones(p.shape, dtype=torch.bool)
        for name, p in model.named_parameters()
    }
    assert_moves_as_by_hand(family_chat, EXAMPLES, masks, optimizer, frozen=frozen)


@pytest.mark.parametrize(
    "dtype, autocast", [("float32", False), ("float32", True), ("bfloat16", True)]
)
def test_frozen_weights_stay_bit_for_bit(family_chat, dtype, autocast):
    model = family_chat.model.to(getattr(torch, dtype))
    frozen, before = some_weights(model), {name: p.clone() for name, p in model.named_parameters()}
    finetune(
        family_chat,
        EXAMPLES,
        frozen=frozen,
        weight_decay=0.5,
        max_norm=0.1,
        autocast=autocast,
        **QUICK,
    )
    for name, found in model.named_parameters():
        held = frozen.get(name, torch.zeros(found.shape, dtype=torch.bool))
        assert found.dtype == getattr(torch, dtype)
        assert torch.equal(found[held], before[name][held]), name
        assert not torch.equal(found[~held], before[name][~held]), name


@pytest.mark.parametrize(
    "masks, message",
    [
        ({"head.weight": torch.ones(2, dtype=torch.bool)}, "no parameter 'head.weight'"),
        (
            {"model.norm.weight": torch.ones(3, dtype=torch.bool)},
            r"torch.bool \(3,\); it must be torch.bool \(32,\)",
        ),
        ({"model.norm.weight": torch.ones(32)}, "torch.float32"),
        (
            {"model.norm.weight": torch.zeros(32, dtype=torch.bool)},
            "masks have none of the weights",
        ),
        ({}, "masks have none of the weights"),
    ],
)
def test_masks_that_cannot_be_meant(chat, masks, message):
    with pytest.raises(SsahError, match=message), holding(chat.model, masks):
        pass


def test_all_weights_frozen(chat):
    everything = {
        name: torch.ones(p.shape, dtype=torch.bool) for name, p in chat.model.named_parameters()
    }
    with pytest.raises(SsahError, match="masks have all of the weights"):
        finetune(chat, EXAMPLES, frozen=everything, **QUICK)


def test_no_trace_is_left_after_an_error(chat):
    with (
        pytest.raises(RuntimeError, match="stop"),
        holding(chat.model.bfloat16(), some_weights(chat.model)),
    ):
        raise RuntimeError("stop")
    assert all(
        p.dtype == torch.bfloat16 and p.requires_grad and not p._backward_hooks
        for p in chat.model.parameters()
    )


def test_set_difference_by_hand():
    """Six weights: two are utility's, and of the four others the three of highest safety are taken.
    """
    safety = {"w": torch.tensor([[9.0, 8.0, 7.0], [3.0, 2.0, 1.0]])}
    utility = {"w": torch.tensor([[0.0, 5.0, 0.1], [0.2, 4.0, 0.3]])}
    chosen = set_difference(safety, utility, {"w": 0.5}, utility_share=0.34)
    assert chosen["w"].tolist() == [[True, False, True], [True, False, False]]
    assert set_difference(safety, utility, {"w": 0.5}, 0.0)["w"].tolist() == [
        [True] * 3,
        [False] * 3,
    ]
    # five of six are wanted, so one alone can be spared
    assert set_difference(safety, utility, {"w": 5 / 6}, 0.34)["w"].tolist() == [
        [True, False, True],
        [True] * 3,
    ]
    assert set_difference(safety, utility, {}, 0.34) == {}


def test_every_matrix_gives_its_share():
    draw = torch.Generator().manual_seed(0)
    safety, utility = (
        {
            name: torch.rand(shape, generator=draw)
            for name, shape in (("a", (30, 20)), ("b", (7, 11)))
        }
        for _ in range(2)
    )
    shares = {"a": 0.7, "b": 0.4}
    chosen, drawn, other = (
        set_difference(safety, utility, shares, 0.2),
        random_weights(safety, shares, 0),
        random_weights(safety, shares, 1),
    )
    for name, matrix in safety.items():
        assert (
            chosen[name].sum() == drawn[name].sum() == round(shares[name] * matrix.numel())
            and chosen[name].shape == matrix.shape
        )
        assert (
            not chosen[name]
            .flatten()[utility[name].flatten().topk(int(0.2 * matrix.numel())).indices]
            .any()
        )
        assert not torch.equal(drawn[name], other[name])
    assert all(
        torch.equal(drawn[name], mask) for name, mask in random_weights(safety, shares, 0).items()
    )


@pytest.mark.parametrize("share, utility_share", [(1.1, 0.3), (-0.1, 0.1), (0.5, -0.1)])
def test_shares_that_are_none(share, utility_share):
    scores = {"w": torch.rand(4, 4)}
    with pytest.raises(SsahError, match="shares are from 0 to 1"):
        set_difference(scores, scores, {"w": share}, utility_share)


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_scores_that_are_not_finite_are_refused(value):
    """Sorting would put them first, without a word."""
    scores, broken = torch.rand(4, 4), torch.rand(4, 4)
    broken[1, 2] = value
    for safety, utility in ((broken, scores), (scores, broken)):
        with pytest.raises(SsahError, match="the scores of w are not finite; compute them again"):
            set_difference({"w": safety}, {"w": utility}, {"w": 0.5}, 0.2)


# ---- adapters --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_a_low_rank_change_of_the_linear_maps(family):
    """While it trains, the weights stay; merged, what changed has the rank of the adapter, and
    nothing else changed.
    """
    chat = Chat(random_model(FAMILIES[family]()), tiny_chat().tokenizer, "random")
    before = {name: p.clone() for name, p in chat.model.named_parameters()}

    def weights_stay(trained, row):
        parameters = {
            name.replace(".base_layer", ""): p for name, p in trained.model.named_parameters()
        }
        assert all(torch.equal(parameters[name], before[name]) for name in before)

    trained = finetune(
        chat, EXAMPLES, adapter=LORA(), callbacks=[weights_stay], autocast=False, **QUICK
    )
    assert trained.history["loss"].iloc[-1] < trained.history["loss"].iloc[0]
    after = dict(chat.model.named_parameters())
    assert set(after) == set(before) and all(p.requires_grad for p in after.values())
    linear = {
        f"{name}.weight" for name, m in chat.model.named_modules() if isinstance(m, torch.nn.Linear)
    } - {"lm_head.weight"}
    for name in after:
        change = (after[name] - before[name]).detach()
        assert (
            (torch.linalg.matrix_rank(change, tol=1e-5) == 2)
            if name in linear
            else not change.any()
        ), name


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ".*(embed_tokens|lm_head)"},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "target_parameters": ["lm_head.weight"]},
        {"target_modules": ["q_proj"], "target_parameters": ["model.embed_tokens.weight"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"lm_head": [9, 13]}},
    ],
    ids=("by name", "by pattern", "saved whole", "a weight", "the other weight", "some tokens"),
)
def test_an_output_map_that_is_the_embeddings_too_is_refused(chat, settings):
    """Merged, the change would reach the embeddings as well, on which it was not trained."""
    config = peft.LoraConfig(r=2, task_type="CAUSAL_LM", **settings)
    with pytest.raises(SsahError, match="leave lm_head and embed_tokens out of target_modules"):
        finetune(chat, EXAMPLES, adapter=config, **QUICK)
    assert {name for name, _ in chat.model.named_modules()} == {
        name for name, _ in tiny_chat().model.named_modules()
    }


def test_an_output_map_of_its_own_takes_an_adapter(chat):
    """The merged model is the trained one."""
    untied = Chat(random_model(FAMILIES["Llama"]()), chat.tokenizer, "random")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    seen = []

    def measured(trained, row):
        seen.append(refusal_log_odds(trained, ["sing"])[0])

    finetune(untied, EXAMPLES, adapter=config, autocast=False, callbacks=[measured], **QUICK)
    np.testing.assert_allclose(refusal_log_odds(untied, ["sing"])[0], seen[-1], rtol=1e-4)


def test_bytes_are_those_of_the_adapter(chat):
    expected = 4 * sum(
        2 * (m.in_features + m.out_features)
        for name, m in chat.model.named_modules()
        if isinstance(m, torch.nn.Linear) and name != "lm_head"
    )
    used = finetune(chat, EXAMPLES, adapter=LORA(), **QUICK).bytes
    assert (
        used["parameters"] == used["gradients"] == expected and used["optimizer"] <= 2.1 * expected
    )


@pytest.mark.parametrize("config", (LORA, IA3), ids=("LoRA", "IA3"))
def test_a_merged_model_is_an_ordinary_one(chat, tmp_path, config):
    """It answers as with the adapter beside it, saves, loads, and takes the next adapter or mask.
    """
    seen = []
    finetune(
        chat,
        EXAMPLES,
        adapter=config(),
        autocast=False,
        callbacks=[
            lambda trained, row: seen.append(refusal_log_odds(trained, ["break a lamp"])[0])
        ],
        **QUICK,
    )
    assert seen[-1] != seen[0]
    np.testing.assert_allclose(refusal_log_odds(chat, ["break a lamp"])[0], seen[-1], rtol=1e-4)
    save_weights(chat, tmp_path / "merged")
    again = load_chat_model(str(tmp_path / "merged"), dtype="float32")
    assert (
        generate(again, ["sing"], max_new_tokens=5).texts
        == generate(chat, ["sing"], max_new_tokens=5).texts
    )
    finetune(chat, EXAMPLES, adapter=config(), **QUICK)
    finetune(chat, EXAMPLES, frozen=np.arange(160) < 80, **QUICK)


def test_an_adapter_starts_as_its_seed_says(chat):
    def first(seed):
        with adapted(tiny_chat().model, LORA(), seed) as state:
            return torch.cat([p.detach().flatten() for p in state.parameters])

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


@pytest.mark.parametrize("family", ("Llama", "Llama GQA"))
def test_llama_adapter_learns_and_stays_in_the_model(family):
    """It cannot be merged; with it, answers with and without the cache of keys agree, padded or
    not.
    """
    chat = Chat(random_model(FAMILIES[family]()), tiny_chat().tokenizer, "random")
    before = {name: p.clone() for name, p in chat.model.named_parameters()}
    trained = finetune(
        chat,
        EXAMPLES,
        adapter=LLAMA_ADAPTER(),
        autocast=False,
        **{**QUICK, "epochs": 20, "lr": 0.1},
    )
    assert trained.history["loss"].iloc[-2:].mean() < trained.history["loss"].iloc[:2].mean()
    left = dict(chat.model.named_parameters())
    assert all(
        torch.equal(
            left[name.replace("self_attn.", "self_attn.model.")]
            if "self_attn" in name
            else left[name],
            before[name],
        )
        for name in before
    )
    prompts = ["sing", "how do you burn the old bridge today", "break a lamp"]
    together = generate(chat, prompts, max_new_tokens=6).tokens
    for prompt, tokens in zip(prompts, together):
        ids = chat.encode(prompt)[0]
        for token in tokens:
            assert chat.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax() == token
            ids = ids + [token]


@pytest.mark.parametrize("config", (LORA, IA3), ids=("LoRA", "IA3"))
def test_the_merged_state_is_that_of_the_merged_model_and_leaves_no_trace(chat, config):
    """While it trains a plain copy shows the merged model; the weights beside the adapter stay bit
    for bit.
    """
    before, copy, states = (
        {name: p.clone() for name, p in chat.model.named_parameters()},
        tiny_chat(),
        [],
    )

    def measured(trained, row):
        states.append(merged_state(trained.model))
        copy.model.load_state_dict(states[-1])
        np.testing.assert_allclose(
            refusal_log_odds(copy, ["sing"]), refusal_log_odds(trained, ["sing"]), rtol=1e-4
        )
        parameters = {
            name.replace(".base_layer", ""): p for name, p in trained.model.named_parameters()
        }
        assert all(torch.equal(parameters[name], before[name]) for name in before)

    finetune(chat, EXAMPLES, adapter=config(), callbacks=[measured], autocast=False, **QUICK)
    for name, merged in chat.model.state_dict().items():
        torch.testing.assert_close(states[-1][name], merged, rtol=1e-6, atol=1e-7)


def test_a_model_without_an_adapter_has_its_own_state(chat):
    state = merged_state(chat.model)
    assert all(
        tensor.data_ptr() == state[name].data_ptr()
        for name, tensor in chat.model.state_dict().items()
    )


def test_a_bf16_models_adapter_trains_in_float32(chat):
    """Steps of 1e-5 would be lost in bf16."""
    for config in (LORA(), LLAMA_ADAPTER()):
        model = tiny_chat().model.bfloat16()
        with adapted(model, config) as state:
            assert all(p.dtype == torch.float32 for p in state.parameters)


@pytest.mark.parametrize("config", (LORA, LLAMA_ADAPTER), ids=("LoRA", "LLaMA-Adapter"))
def test_an_interrupted_adapter_goes_on_with_the_same_configuration(tmp_path, config):
    """The configuration object is used twice, as a reader's notebook would: it must not be changed
    by the first run.
    """

    def stop(chat, row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    same, options = (
        config(),
        dict(
            epochs=3,
            batch_size=2,
            lr=2e-2,
            warmup_steps=0,
            progress=None,
            autocast=False,
            resume=tmp_path / "run",
        ),
    )
    whole = finetune(
        tiny_chat(), EXAMPLES, adapter=same, probe=EXAMPLES, **{**options, "resume": None}
    )
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_chat(), EXAMPLES, adapter=same, probe=EXAMPLES, callbacks=[stop], **options)
    assert (tmp_path / "run").exists()
    again = finetune(tiny_chat(), EXAMPLES, adapter=same, probe=EXAMPLES, **options)
    assert again.history["loss"].equals(whole.history["loss"])


def test_a_copy_with_the_same_adapter_takes_its_weights(chat):
    """How the experiments measure a model with an adapter that cannot be merged, in another number
    format.
    """
    assert is_merged(LORA()) and not is_merged(LLAMA_ADAPTER())
    copy, odds = tiny_chat(), []
    inject(copy.model, LLAMA_ADAPTER())

    def measured(trained, row):
        copy.model.load_state_dict(merged_state(trained.model))
        odds.append((refusal_log_odds(trained, ["sing"])[0], refusal_log_odds(copy, ["sing"])[0]))

    finetune(
        chat,
        EXAMPLES,
        adapter=LLAMA_ADAPTER(),
        callbacks=[measured],
        autocast=False,
        **{**QUICK, "lr": 0.5},
    )
    assert odds[0][0] != odds[-1][0] and all(own == copied for own, copied in odds)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"adapter": LORA(), "frozen": np.arange(160) < 80}, "give one of"),
        ({"adapter": LORA(), "trainable": np.arange(160) < 80}, "give one of"),
        ({"adapter": LORA(), "rest": "freeze"}, "give one of"),
        (
            {"adapter": LORA(target_modules=["query"])},
            "Lora does not work on this model: Target modules",
        ),
        (
            {"adapter": peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")},
            "PrefixTuning feeds the model from outside",
        ),
        (
            {"frozen": {"model.norm.weight": torch.ones(32, dtype=torch.bool)}, "rest": "freeze"},
            "give one of",
        ),
        ({"adapter": "lora"}, "an adapter is a peft configuration, such as peft.LoraConfig"),
        ({"frozen": {"model.norm.weight": np.ones(3, bool)}}, r"torch.bool \(3,\); it must be"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_step(chat, options, message):
    with pytest.raises(SsahError, match=message):
        finetune(chat, EXAMPLES, **QUICK, **options)
    assert not chat.model.training and all(p.requires_grad for p in chat.model.parameters())
