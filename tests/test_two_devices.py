"""Models that are spread over devices: all that is done with them is as on one device."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, random_model
from two_devices import ELSEWHERE, HERE, spread

from ssah import probing
from ssah.ablation import ablated, without_direction
from ssah.attribution import METHODS, importance
from ssah.evaluation import divergence, generate, perplexity, refusal_log_odds
from ssah.finetuning import finetune
from ssah.models import Chat, tiny_chat
from ssah.reevaluation import generate_reevaluating
from ssah.units import UnitIndex

PROMPTS = ["break a lamp", "write a small red poem", "sing"]
EXAMPLES = [
    {"prompt": "break a lamp", "response": "sorry i can not help"},
    {"prompt": "sing", "response": "sure"},
]


def random_chat() -> Chat:
    """A random model of two blocks."""
    return Chat(random_model(FAMILIES["Llama GQA"]()), tiny_chat().tokenizer, "random")


@pytest.fixture
def whole() -> Chat:
    """A model on one device."""
    return random_chat()


@pytest.fixture
def parts():
    """The same model on two."""
    chat = random_chat()
    with spread(chat.model, 1):
        yield chat


def weights(chat: Chat) -> dict[str, torch.Tensor]:
    """All weights, on one device."""
    return {name: weight.detach().to(HERE) for name, weight in chat.model.named_parameters()}


def half(chat: Chat) -> np.ndarray:
    """Random units, half of them."""
    return np.random.default_rng(0).random(len(UnitIndex.of(chat))) < 0.5


def test_tensors_of_two_devices_do_not_mix(parts):
    """The second device is one: what would fail between two GPUs fails here."""
    here = torch.ones(2)
    away = here.to(ELSEWHERE)
    assert away.device == ELSEWHERE and away.to(HERE).tolist() == [1, 1]
    for mixed in (lambda: here + away, lambda: away[here.bool()], lambda: here @ away):
        with pytest.raises(RuntimeError, match="on tensors of two devices"):
            mixed()
    devices = {weight.device for weight in parts.model.parameters()}
    assert devices == {HERE, ELSEWHERE}


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_as_on_one_device(whole, parts, batches, method):
    expected = importance(whole.model, batches, method)
    np.testing.assert_allclose(importance(parts.model, batches, method), expected, rtol=1e-4)


def test_removals_are_as_on_one_device_and_undone(whole, parts):
    before = weights(parts)
    index = UnitIndex.of(whole)
    direction = np.random.default_rng(1).normal(size=index.hidden)
    edits = (
        lambda model: ablated(model, index, half(whole)),
        lambda model: ablated(model, index, half(whole), "mean", np.ones(len(index))),
        lambda model: without_direction(model, direction),
    )
    for edit in edits:
        with edit(whole.model), edit(parts.model):
            expected = refusal_log_odds(whole, PROMPTS)
            np.testing.assert_allclose(refusal_log_odds(parts, PROMPTS), expected, rtol=1e-4)
    assert all(torch.equal(before[name], weight) for name, weight in weights(parts).items())


def test_answers_are_as_on_one_device(whole, parts):
    options = {"max_new_tokens": 6}
    assert generate(parts, PROMPTS, **options).tokens == generate(whole, PROMPTS, **options).tokens
    asked = generate_reevaluating(parts, PROMPTS, every=2, **options)
    expected = generate_reevaluating(whole, PROMPTS, every=2, **options)
    assert asked.tokens == expected.tokens
    np.testing.assert_allclose(asked.looks["log_odds"], expected.looks["log_odds"], rtol=1e-3)
    text = ["write a small red poem", "sing"]
    found = perplexity(parts, text, n_tokens=6)
    assert found == pytest.approx(perplexity(whole, text, n_tokens=6), rel=1e-4)


def test_the_probe_and_divergences_are_as_on_one_device(whole, parts):
    openings = {"refusal": [[10, 11], [13]], "fulfilment": [[20, 21], [22]]}
    expected = probing.branch(whole, PROMPTS, openings, (1, 2))
    for kind, found in probing.branch(parts, PROMPTS, openings, (1, 2)).items():
        np.testing.assert_allclose(found, expected[kind], atol=1e-5)
    expected = probing.static(whole, PROMPTS, openings, (1,))
    for kind, found in probing.static(parts, PROMPTS, openings, (1,)).items():
        np.testing.assert_allclose(found, expected[kind], atol=1e-5)
    texts = ["sure", "no", "sorry i can not"]
    other = Chat(random_model(FAMILIES["Llama GQA"](), 1), whole.tokenizer, "other")
    expected = divergence(whole, other, PROMPTS, texts)
    np.testing.assert_allclose(divergence(parts, other, PROMPTS, texts), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "which, checkpointing", ((None, False), ("trainable", True), ("frozen", True))
)
def test_training_is_as_on_one_device(whole, parts, which, checkpointing):
    part = {} if which is None else {which: half(whole)}
    options = dict(
        epochs=2,
        lr=0.1,
        warmup_steps=0,
        optimizer=torch.optim.SGD,
        autocast=False,
        checkpointing=checkpointing,
        probe=EXAMPLES,
        progress=None,
    )
    before = weights(parts)
    expected = finetune(whole, EXAMPLES, **part, **options)
    found = finetune(parts, EXAMPLES, **part, **options)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-4)
    assert found.bytes == expected.bytes
    after = weights(parts)
    for name, weight in whole.model.named_parameters():
        torch.testing.assert_close(after[name], weight.detach(), rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert {weight.device for weight in parts.model.parameters()} == {HERE, ELSEWHERE}
