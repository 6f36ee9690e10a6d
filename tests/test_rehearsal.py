"""What a run would take: against runs that were made, counted operations, and published counts."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, SIZES, random_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

import ssah
from ssah.bench import plan, table
from ssah.errors import SsahError
from ssah.finetuning import encode_examples, finetune, gradient
from ssah.masking import moving
from ssah.models import Chat, tiny_chat
from ssah.rehearsal import plan_memory
from ssah.units import UnitIndex

EXAMPLES = [
    {"prompt": "break a lamp", "response": "sorry i can not help"},
    {"prompt": "write a small red poem", "response": "here is how"},
]
CONFIGS = {
    "Llama GQA": FAMILIES["Llama GQA"],
    "Phi-3": FAMILIES["Phi-3"],
    "Llama, tied": lambda: LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
}
#: How many weights the files of these models have.
PUBLISHED = {
    "SmolLM2-135M": 134_515_008,
    "Llama-2-7B": 6_738_415_616,
    "Llama-3-8B": 8_030_261_248,
    "Llama-3-70B": 70_553_706_496,
}


def a_fifth(config) -> np.ndarray:
    index = UnitIndex.of(config)
    return np.random.default_rng(0).random(len(index)) < 0.2


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_the_rehearsal_has_the_bytes_of_the_run(family, dtype):
    config = CONFIGS[family]()
    model = random_model(config).to(getattr(torch, dtype))
    chat = Chat(model, tiny_chat().tokenizer, "random")
    options = dict(epochs=1, batch_size=2, autocast=dtype != "float32", progress=None)
    for part in ({}, {"trainable": a_fifth(config)}, {"frozen": a_fifth(config)}):
        found = plan_memory(config, **part, dtype=dtype)
        made = finetune(chat, EXAMPLES, **part, **options).bytes
        assert made == {name: getattr(found, name) for name in made}


def test_weights_are_in_their_own_format_and_what_moves_in_float32():
    config = CONFIGS["Llama GQA"]()
    n_weights = sum(parameter.numel() for parameter in random_model(config).parameters())
    assert plan_memory(config).weights == 4 * n_weights
    found = plan_memory(config, trainable=a_fifth(config))
    assert found.parameters < n_weights
    assert found.weights == 2 * n_weights + found.parameters


def test_operations_are_those_that_a_step_makes():
    """All matrix products with weights, counted; the output map is read at the answers alone."""
    config = CONFIGS["Llama GQA"]()
    chat = Chat(random_model(config), tiny_chat().tokenizer, "random")
    encoded, _ = encode_examples(chat, EXAMPLES[:1])
    (head, tail), = encoded
    mask = a_fifth(config)
    with moving(chat.model, UnitIndex.of(config), ~mask, "train"):
        with FlopCounterMode(display=False) as counter:
            gradient(chat, encoded, 1, False)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    of_output_map = 6 * chat.model.lm_head.weight.numel()
    found = plan_memory(config, frozen=mask)
    n_read = len(head) + len(tail)
    assert products == n_read * found.flops - (n_read - len(tail)) * of_output_map


@pytest.mark.parametrize("rest", ["train", "freeze"])
def test_what_is_kept_of_a_token_is_the_inputs_of_all_blocks(rest):
    """In a bfloat16 model they are float32 where the embeddings train, and else bfloat16."""
    config = CONFIGS["Llama GQA"]()
    chat = Chat(random_model(config).bfloat16(), tiny_chat().tokenizer, "random")
    encoded, _ = encode_examples(chat, EXAMPLES[:1])
    mask = a_fifth(config)
    sizes = []
    for block in chat.model.model.layers:
        block.register_forward_pre_hook(
            lambda module, inputs: sizes.append(inputs[0][0, 0].nbytes))
    with moving(chat.model, UnitIndex.of(config), mask, rest):
        gradient(chat, encoded, 1, True)
    found = plan_memory(config, trainable=mask, rest=rest)
    assert found.token == sum(sizes[:config.num_hidden_layers])


def test_a_config_a_chat_and_a_model_have_one_plan():
    chat = tiny_chat()
    assert plan_memory(chat.model) == plan_memory(chat.model.config)
    assert ssah.plan_memory is plan_memory
    with pytest.raises(SsahError, match='no files are read here; give dtype="bfloat16"'):
        plan_memory(chat.model, dtype="auto")


def test_the_plan_of_today_is_the_stored_one():
    """The smallest shape; its stored run moved what was planned."""
    name = "SmolLM2-135M"
    first, second = [row for row in table.load_plan().rows if row.model == name]
    config = plan.SHAPES[name]
    fifth = plan.random_units(UnitIndex.of(config), plan.SHARE)
    assert plan._row(name, 1.0, plan_memory(config)) == first
    assert plan._row(name, plan.SHARE, plan_memory(config, trainable=fifth)) == second
    assert first.moving_stored == first.moving
    assert second.moving_stored == pytest.approx(second.moving, rel=0.05)


@pytest.mark.extended
def test_the_whole_plan_of_today_is_the_stored_one():
    assert plan.computed() == table.load_plan()


def test_planned_shapes_have_as_many_weights_as_the_published_models():
    for row in table.load_plan().rows:
        if row.share == 1:
            assert row.weights == pytest.approx(4 * PUBLISHED[row.model] / 2**30, abs=1e-3)
            assert row.optimizer == pytest.approx(2 * row.weights, abs=2e-3)
