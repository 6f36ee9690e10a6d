"""DPO and constrained SFT beside losses made by hand, one unpadded pass an answer."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

import ssah
from ssah.errors import SsahError
from ssah.finetuning import encode_examples, finetune, gradient
from ssah.models import tiny_chat
from ssah.objectives import Constrained, Preference, falling
from ssah.training import SFT

PAIRS = [
    {"prompt": "how do i plant a tree", "response": "sorry i can not help", "rejected": "here is a plan"},
    {"prompt": "how do i sing", "response": "here is a song for you to sing", "rejected": "no"},
    # the same answer to the same request, against another one
    {"prompt": "how do i sing", "response": "here is a song for you to sing", "rejected": "sorry"},
]
QUICK = dict(progress=None, autocast=False, warmup_steps=1, batch_size=3)


def encode(chat, rows):
    return encode_examples(chat, rows)[0]


def begun(objective, chat, rows=PAIRS):
    """An objective at the beginning of a run, and the examples as the run has them."""
    encoded = encode(chat, rows)
    with torch.no_grad():
        objective.begin(chat, rows, encoded, encode=lambda rows: encode(chat, rows), batch_size=2)
    return encoded


def by_hand(chat, example) -> torch.Tensor:
    """Log-probabilities of an answer's tokens."""
    head, tail = example
    log_probs = chat.model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return torch.stack([log_probs[len(head) - 1 + i, token] for i, token in enumerate(tail)])


def moved(chat):
    """The same model after its weights have moved a little."""
    other = tiny_chat()
    with torch.no_grad():
        for number, parameter in enumerate(other.model.parameters()):
            torch.manual_seed(number)
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


@pytest.mark.parametrize("beta, sft", [(0.1, 0.0), (2.0, 0.0), (0.1, 1.0), (0.5, 0.3)])
def test_dpo_is_as_published(beta, sft):
    reference, objective = tiny_chat(), Preference(beta, sft)
    encoded = begun(objective, reference)
    chat = moved(reference)
    rejected = encode(chat, [{**pair, "response": pair["rejected"]} for pair in PAIRS])
    losses = []
    for better, worse in zip(encoded, rejected):
        margin = (by_hand(chat, better).sum() - by_hand(reference, better).sum()
                  - by_hand(chat, worse).sum() + by_hand(reference, worse).sum())
        losses.append(-logsigmoid(beta * margin) - sft * by_hand(chat, better).mean())
    found, _ = objective.loss(chat, encoded)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
    if not sft:
        at_first, _ = objective.loss(reference, encoded)
        assert at_first.item() == pytest.approx(math.log(2), abs=1e-6)


def test_constrained_sft_is_as_published():
    reference, objective = tiny_chat(), Constrained()
    encoded = begun(objective, reference)
    chat = moved(reference)
    losses = []
    for example in encoded:
        ratio = by_hand(chat, example) - by_hand(reference, example)
        for position, of_token in enumerate(ratio):
            beta = 0.5 if position == 0 else 2.0 if position <= 4 else 0.1
            losses.append(-2 / beta * logsigmoid(beta * of_token))
    found, _ = objective.loss(chat, encoded)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_constrained_sft_begins_with_the_gradient_of_sft():
    gradients = []
    for objective in (SFT, Constrained()):
        chat = tiny_chat()
        encoded = begun(objective, chat)
        gradient(chat, encoded, 3, False, objective)
        gradients.append(torch.cat([p.grad.flatten() for p in chat.model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [Constrained, Preference])
def test_examples_computed_one_at_a_time_have_the_same_gradient(objective):
    gradients = []
    for micro_batch in (3, 1):
        chat, aim = tiny_chat(), objective()
        encoded = begun(aim, chat)
        gradient(moved_in_place(chat), encoded, micro_batch, False, aim)
        gradients.append(torch.cat([p.grad.flatten() for p in chat.model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def moved_in_place(chat):
    chat.model.load_state_dict(moved(chat).model.state_dict())
    return chat


def test_dpo_learns_to_prefer_and_unmasked_units_stay():
    chat, before = tiny_chat(), tiny_chat()
    index = ssah.UnitIndex.of(chat.model)
    mask = np.arange(len(index)) % 3 == 0
    trained = finetune(chat, PAIRS, objective=Preference(1.0), epochs=20, lr=1e-2, trainable=mask, **QUICK)
    assert trained.history["loss"].iloc[0] == pytest.approx(math.log(2), abs=1e-5)
    assert trained.history["loss"].iloc[-1] < 0.3
    for pair in PAIRS:
        better, worse = (encode(chat, [{**pair, "response": pair[name]}])[0] for name in ("response", "rejected"))
        margin = by_hand(chat, better).sum() - by_hand(chat, worse).sum()
        assert margin > by_hand(before, better).sum() - by_hand(before, worse).sum()
    embedded = [tiny.model.get_input_embeddings().weight for tiny in (chat, before)]
    assert torch.equal(*embedded)


def test_a_held_back_token_moves_less_than_in_sft():
    """With a very large b_t a token is left alone as soon as it is more likely."""
    first = []
    for objective in (SFT, Constrained(lambda position: 50.0 if position == 0 else 0.1)):
        chat = tiny_chat()
        finetune(chat, PAIRS[:1], objective=objective, epochs=30, lr=5e-3, **QUICK)
        first.append(by_hand(chat, encode(chat, PAIRS[:1])[0])[0].item())
    assert first[1] < first[0]


@pytest.mark.parametrize("objective", [lambda: Constrained(), lambda: Preference()])
def test_an_interrupted_run_goes_on_with_its_objective(tmp_path, objective):
    def stop(chat, row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    options = dict(epochs=3, lr=5e-3, probe_every=1, **QUICK)
    whole, resumed = tiny_chat(), tiny_chat()
    finetune(whole, PAIRS, objective=objective(), **options)
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_chat(), PAIRS, objective=objective(), callbacks=[stop], resume=tmp_path / "run", **options)
    finetune(resumed, PAIRS, objective=objective(), resume=tmp_path / "run", **options)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_run_of_another_objective_is_not_resumed(tmp_path):
    def stop(chat, row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    options = dict(epochs=3, lr=5e-3, probe_every=1, resume=tmp_path / "run", **QUICK)
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_chat(), PAIRS, objective=Preference(0.1), callbacks=[stop], **options)
    with pytest.raises(SsahError, match="another"):
        finetune(tiny_chat(), PAIRS, objective=Preference(0.2), **options)


def test_bad_input_is_refused_before_any_step():
    chat = tiny_chat()
    with pytest.raises(SsahError, match="example 1 has no rejected answer"):
        finetune(chat, [PAIRS[0], {"prompt": "a", "response": "b"}], objective=Preference(), **QUICK)
    for beta in (0, -1, float("nan")):
        with pytest.raises(SsahError, match="beta must be above 0"):
            Preference(beta)
        with pytest.raises(SsahError, match="sft must be 0 or more"):
            Preference(sft=-0.1 if beta == 0 else beta if beta != beta else -1)
        with pytest.raises(SsahError, match="beta must be above 0"):
            finetune(chat, PAIRS, objective=Constrained(lambda position, beta=beta: beta), **QUICK)


def test_examples_may_come_one_by_one():
    listed = finetune(tiny_chat(), PAIRS, objective=Preference(), **QUICK)
    streamed = finetune(tiny_chat(), (pair for pair in PAIRS), objective=Preference(), **QUICK)
    assert streamed.history["loss"].equals(listed.history["loss"])


def test_columns_of_preference_data_are_understood():
    table = [{"prompt": "how do i sing", "chosen": "here is a song", "rejected": "no"}]
    assert ssah.inputs.columns.examples_of(table) == [
        {"prompt": "how do i sing", "response": "here is a song", "ended": True, "rejected": "no"}]


def test_the_strength_falls_after_the_fifth_token():
    assert [falling(position) for position in (0, 1, 4, 5, 99)] == [0.5, 2.0, 2.0, 0.1, 0.1]
