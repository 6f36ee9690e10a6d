"""Where families keep their units, checked by what activations do; and what is refused."""

import numpy as np
import peft
import pytest
import torch
import transformers
from conftest import FAMILIES, SIZES, random_model
from transformers import AutoModelForCausalLM

from ssah.ablation import ablated, transplanted, without_direction
from ssah.attribution import importance, weight_importance
from ssah.errors import SsahError
from ssah.families import blocks, check_same_index, stream_writers
from ssah.masking import moving
from ssah.models import Chat, tiny_chat
from ssah.units import UnitIndex

IDS = torch.tensor([[5, 9, 30, 41, 7, 22]])

#: Other families that are understood, by the names of their configs.
OTHERS = (
    "CwmConfig Ernie4_5Config Exaone4Config GemmaConfig GlmConfig GraniteConfig HeliumConfig "
    "HunYuanDenseV1Config HyperCLOVAXConfig MinistralConfig Ministral3Config OlmoConfig "
    "SeedOssConfig StableLmConfig"
).split()
EVERY_FAMILY = {**FAMILIES, **{name.removesuffix("Config"): name for name in OTHERS}}


def config_of(name: str, **sizes):
    """A tiny config of some class of transformers."""
    return getattr(transformers, name)(**{**SIZES, "num_key_value_heads": 2, **sizes})


@pytest.fixture(params=EVERY_FAMILY)
def any_model(request):
    """A random model of every family that is understood."""
    made = EVERY_FAMILY[request.param]
    return random_model(config_of(made, head_dim=8) if isinstance(made, str) else made())


def states_of(model, *, watch=()) -> tuple[list, list]:
    """The residual stream before and after every block, and what the watched modules give out."""
    states, outputs = [], [None] * len(watch)

    def keep_state(module, inputs, output):
        states.append((inputs[0], output[0] if isinstance(output, tuple) else output))

    def keep_output(number):
        return lambda module, inputs, output: outputs.__setitem__(number, output)

    handles = [layer.register_forward_hook(keep_state) for layer in model.base_model.layers]
    handles += [module.register_forward_hook(keep_output(i)) for i, module in enumerate(watch)]
    with torch.no_grad():
        model(IDS)
    for handle in handles:
        handle.remove()
    return states, outputs


@torch.no_grad()
def test_blocks_add_the_outputs_of_their_two_modules_to_the_stream(any_model):
    """So nothing else writes to it, and a norm that follows a module is counted to the module."""
    states, outputs = states_of(any_model, watch=stream_writers(any_model))
    for number, (before, after) in enumerate(states):
        added = outputs[1 + 2 * number] + outputs[2 + 2 * number]
        torch.testing.assert_close(before + added, after, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_units_in_the_stream_add_up_to_what_their_module_writes(any_model):
    """sum_j X_j / rms * (g * W_j), with rms and g only where a norm follows."""
    for block in blocks(any_model):
        for linear, norm in block.outputs:
            activations = torch.randn(3, linear.in_features)
            output = linear(activations)
            if norm is None:
                expected = output
                units = activations[:, None] * linear.weight            # (position, hidden, unit)
            else:
                expected = norm.module(output)
                units = norm.scale(output)[:, None] * activations[:, None] * (
                    norm.gain()[:, None] * linear.weight
                )
            bias = 0 if linear.bias is None else linear(torch.zeros(linear.in_features))
            assert norm is None or linear.bias is None
            torch.testing.assert_close(units.sum(-1) + bias, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_nothing_is_left_along_a_direction_in_any_family(any_model):
    direction = np.random.default_rng(0).normal(size=32)
    unit = torch.tensor(direction / np.linalg.norm(direction)).float()
    with without_direction(any_model, direction):
        states, _ = states_of(any_model)
    for state in sum(states, ()):
        assert ((state @ unit).abs() / state.norm(dim=-1)).max() < 1e-6


@torch.no_grad()
def test_value_rows_feed_the_columns_that_the_index_says(any_model):
    index, block, seen = UnitIndex.of(any_model), blocks(any_model)[0], []
    block.attn_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    any_model(IDS)
    for row in range(len(block.value)):
        before = block.value.weight[row].clone()
        block.value.weight[row] += 1
        any_model(IDS)
        block.value.weight[row] = before
        fed = (seen[-1] != seen[0]).any(dim=(0, 1)).numpy()
        assert np.flatnonzero(index.value_rows(fed)).tolist() == [row]
        assert fed.sum() == index.n_heads // index.n_kv_heads


@torch.no_grad()
def test_gate_and_up_rows_feed_the_columns_of_their_own_unit(any_model):
    block, seen = blocks(any_model)[0], []
    block.mlp_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    any_model(IDS)
    for rows in (block.gate, block.up):
        for row in (0, 7, len(rows) - 1):
            before = rows.weight[row].clone()
            rows.weight[row] += 1
            any_model(IDS)
            rows.weight[row] = before
            assert (seen[-1] != seen[0]).any(dim=(0, 1)).nonzero().flatten().tolist() == [row]


@pytest.mark.parametrize("family", ("Gemma 3", "OLMo 2", "OLMo 3", "GLM 4"))
def test_behind_a_norm_the_size_of_a_map_does_not_matter(family, batches):
    """The norm takes it out again: the model is the same, and so are the scores."""
    model = random_model(FAMILIES[family]())

    @torch.no_grad()
    def enlarge():
        for block in blocks(model):
            block.attn_out.weight *= 100
            block.mlp_out.weight *= 100
        return model(IDS).logits

    logits = enlarge()      # and the norm's epsilon, beside such outputs, does not count
    before = {method: importance(model, batches, method) for method in ("variance", "wanda")}
    torch.testing.assert_close(enlarge(), logits, rtol=1e-4, atol=1e-4)
    for method, expected in before.items():
        np.testing.assert_allclose(importance(model, batches, method), expected, rtol=1e-3)


# ---- what is refused -------------------------------------------------------------------------

#: A model, and what its refusal says.
REFUSED = {
    "GPT2Config": (dict(n_embd=8, n_layer=1, n_head=2), "has no `layers`"),
    "MixtralConfig": (
        dict(num_local_experts=2, num_experts_per_tok=1),
        "block 0 of MixtralForCausalLM is not understood: MixtralSparseMoeBlock is a mixture of "
        "experts and has no gate_proj; take a dense model",
    ),
    "MambaConfig": (dict(state_size=4), "block 0 .*MambaBlock has no self_attn; take a model"),
    "NemotronConfig": (dict(), "block 0 .*NemotronMLP has no gate_proj; take a model that is"),
    "DiffLlamaConfig": (dict(), "DiffLlamaAttention has groupnorm, which may change"),
    "DogeConfig": (dict(), "DogeAttention has dt_proj, which may change"),
    "BitNetConfig": (dict(), "BitNetAttention has attn_sub_norm, which may change"),
    "Gemma2Config": (dict(), "rescales its logits .final_logit_softcapping.*take a model of"),
    "BailingHybridConfig": (
        dict(first_k_dense_replace=9, q_lora_rank=8, kv_lora_rank=8, moe_intermediate_size=8,
             num_experts=4, head_dim=8),
        "block 0 of BailingHybridForCausalLM is not understood: ",
    ),
    "Gemma4TextConfig": (
        dict(head_dim=8, global_head_dim=8, vocab_size_per_layer_input=80,
             hidden_size_per_layer_input=8),
        "block 0 of Gemma4ForCausalLM is not understood: ",
    ),
    "Gemma4TextConfig, heads of two sizes": (
        dict(head_dim=8, vocab_size_per_layer_input=80, hidden_size_per_layer_input=8),
        "has no single head_dim",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_in_one_line(name):
    """Naming the layer, and what to do instead; by every function alike."""
    sizes, message = REFUSED[name]
    model = AutoModelForCausalLM.from_config(config_of(name.split(",")[0], **sizes))
    for function in (blocks, lambda model: importance(model, []), stream_writers):
        with pytest.raises(SsahError, match=message) as refusal:
            function(model)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name, setting", [
    ("Gemma2Config", {}), ("CohereConfig", {"logit_scale": 0.0625}),
    ("GraniteConfig", {"logits_scaling": 8.0})])
def test_a_model_that_rescales_its_logits_is_no_chat(name, setting):
    """What is said of its answers would be wrong: the head alone is read."""
    model = AutoModelForCausalLM.from_config(config_of(name, **setting))
    with pytest.raises(SsahError, match="rescales its logits"):
        Chat(model, tiny_chat().tokenizer, "rescaled")


class Linear4bit(torch.nn.Linear):
    """As bitsandbytes makes them: a linear map whose weight is not what it multiplies with."""


def quantize(model) -> None:
    mlp = model.model.layers[1].mlp
    mlp.up_proj = Linear4bit(32, 48, bias=False)


def adapt(model) -> None:
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))


@pytest.mark.parametrize("change, message", [
    (quantize, "block 1 has a Linear4bit where a plain Linear is understood .up_proj .*dequantize"),
    (adapt, "block 0 has a Linear where a plain Linear is understood .q_proj .*merge_and_unload"),
])
def test_a_map_that_is_not_a_plain_one_is_refused_everywhere(chat, batches, change, message):
    """An adapter beside any of the maps too: the weights are not what the model computes with."""
    index = UnitIndex.of(chat.model)
    change(chat.model)
    everything = np.ones(len(index), bool)
    uses = [
        lambda: importance(chat.model, batches),
        lambda: importance(chat.model, batches, "magnitude"),
        lambda: weight_importance(chat.model, batches),
        lambda: ablated(chat.model, index, everything).__enter__(),
        lambda: transplanted(chat.model, tiny_chat().model, index, everything).__enter__(),
        lambda: without_direction(chat.model, np.ones(32)).__enter__(),
        lambda: moving(chat.model, index, everything).__enter__(),
    ]
    for use in uses:
        with pytest.raises(SsahError, match=message):
            use()


def test_an_adapter_that_cannot_be_merged_is_named(chat):
    config = peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=2, task_type="CAUSAL_LM")
    peft.get_peft_model(chat.model, config)
    with pytest.raises(SsahError, match="an adapter .AdaptedAttention. stands before its v_proj"):
        blocks(chat.model)


def test_a_model_that_an_adapter_wraps_is_refused(chat):
    """Its layers can be reached through the wrapper, which the weights do not show."""
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(chat.model, config)
    with pytest.raises(SsahError, match="wrapped in an adapter .PeftModelForCausalLM.; merge it"):
        blocks(wrapped)


@pytest.mark.parametrize("thing", ("smollm2-135m", None, torch.nn.Linear(2, 2)))
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(SsahError, match="is no causal LM of transformers; give chat.model"):
        blocks(thing)


def test_blocks_that_are_not_alike_are_refused(chat):
    mlp = chat.model.model.layers[1].mlp
    mlp.gate_proj, mlp.up_proj = torch.nn.Linear(32, 40), torch.nn.Linear(32, 40)
    mlp.down_proj = torch.nn.Linear(40, 32)
    with pytest.raises(SsahError, match="block 1 .*take a model whose blocks are all alike"):
        blocks(chat.model)


def test_a_chat_has_no_direction_to_take_out(chat):
    with pytest.raises(SsahError, match="give the model itself, not the chat"):
        with without_direction(chat, np.ones(32)):
            pass


def test_a_chat_is_not_a_model(chat):
    with pytest.raises(SsahError, match="give the model itself, not the chat: chat.model"):
        importance(chat, [])


def test_an_index_of_another_model_is_refused(chat):
    check_same_index(chat.model, UnitIndex.of(chat))
    with pytest.raises(SsahError, match="belongs to a model of another shape"):
        check_same_index(chat.model, UnitIndex.of(tiny_chat(layers=3)))


@pytest.mark.parametrize("thing", ("smollm2-135m", None, transformers.GPT2Config(), {}))
def test_what_has_no_units_has_no_index(thing):
    with pytest.raises(SsahError, match="give a causal LM, its config or a chat"):
        UnitIndex.of(thing)
