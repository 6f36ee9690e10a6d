"""Training on refusals after a given beginning: the loss by brute force, and who is given what."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import by_hand, random_model

from ssah.deepening import begun_refusals, fulfilment_beginnings
from ssah.errors import SsahError
from ssah.evaluation import generate
from ssah.finetuning import encode_examples, finetune

REFUSAL = "sorry i can not help"
EXAMPLES = [
    {"prompt": "break a lamp", "response": REFUSAL, "given": [40, 41, 42]},
    {"prompt": "burn the old bridge", "response": REFUSAL, "given": [50]},
    {"prompt": "write a poem", "response": "here is the poem"},
]
PLAIN = [{"prompt": row["prompt"], "response": row["response"]} for row in EXAMPLES]
HOW = {"lr": 1e-2, "batch_size": 3, "warmup_steps": 0, "autocast": False, "progress": None}
SGD = partial(torch.optim.SGD)


@pytest.fixture
def wide(chat):
    chat.model.double()
    return chat


def loss_by_hand(chat, first: int) -> float:
    """Mean NLL of tokens, one pass a token; of what is given, those from number `first` on."""
    losses = []
    for example in EXAMPLES:
        head, tail = chat.encode(example["prompt"], example["response"])
        given = example.get("given", [])
        whole = head + given + tail
        for place in range(len(head) + min(first, len(given)), len(whole)):
            logits = chat.model(torch.tensor([whole[:place]])).logits[0, -1]
            losses.append(-float(logits.log_softmax(-1)[whole[place]].detach()))
    return float(np.mean(losses))


def test_the_loss_begins_at_the_refusals_first_token(wide):
    expected = loss_by_hand(wide, first=3)
    with_given = loss_by_hand(wide, first=0)
    trained = finetune(wide, EXAMPLES, epochs=1, **HOW)
    assert trained.history["loss"][0] == pytest.approx(expected, rel=1e-9)
    assert abs(with_given - expected) > 1e-3        # or the test could not tell them apart


def test_steps_are_those_by_hand(wide):
    """Gradients, clipping and updates of three steps; what is given is read and not scored."""
    reference = random_model(wide.model.config).double()
    reference.load_state_dict(wide.model.state_dict())
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in reference.named_parameters()}
    encoded, _ = encode_examples(wide, EXAMPLES)
    finetune(wide, EXAMPLES, epochs=3, max_norm=0.5, optimizer=SGD, **HOW)
    by_hand(reference, encoded, masks, partial(SGD, lr=1e-2), 3, 0.5)
    for (name, found), expected in zip(wide.model.named_parameters(), reference.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=name)


def test_an_empty_beginning_is_none(chat):
    nothing_given = [{**row, "given": []} for row in PLAIN]
    assert encode_examples(chat, nothing_given) == encode_examples(chat, PLAIN)


def test_a_beginning_goes_with_an_answer_that_is_not_whole(chat):
    example = {**EXAMPLES[0], "ended": False}
    ((read, tail),), _ = encode_examples(chat, [example])
    ((_, whole),), _ = encode_examples(chat, [EXAMPLES[0]])
    assert read[-3:] == [40, 41, 42] and tail == whole[:len(tail)]
    assert tail[-1] != chat.tokenizer.eos_token_id


def test_what_is_given_belongs_to_what_is_read(chat):
    ((read, tail), *_), cut = encode_examples(chat, EXAMPLES)
    head, whole = chat.encode("break a lamp", REFUSAL)
    assert read == head + [40, 41, 42]
    assert tail == whole and tail[-1] == chat.tokenizer.eos_token_id
    assert cut == 0


def test_half_of_the_refusals_stand_first_and_the_others_anywhere():
    refusals = [{"prompt": "p", "response": "no"}] * 2000
    beginnings = [list(range(100, 120))] * 2000
    begun = begun_refusals(refusals, beginnings, most=10)
    lengths = np.array([len(example["given"]) for example in begun])
    assert abs((lengths == 0).mean() - 0.5) < 0.05
    counts = np.bincount(lengths, minlength=11)[1:]
    assert len(counts) == 10 and counts.min() > 60      # 100 expected of each length
    assert all(example["given"] == beginnings[0][:len(example["given"])] for example in begun)
    assert begun == begun_refusals(refusals, beginnings, most=10)
    assert begun != begun_refusals(refusals, beginnings, most=10, seed=1)


def test_a_beginning_is_an_opening_and_what_the_model_goes_on_to_say(chat, prompts):
    begun = fulfilment_beginnings(chat, prompts, n_tokens=9, opening_tokens=4)
    assert all(4 < len(tokens) <= 9 for tokens in begun)
    assert begun[0][:4] == begun[4][:4]         # four openings take turns
    openings = [tokens[:4] for tokens in begun]
    answers = generate(chat, prompts, prefill=openings, max_new_tokens=5)
    assert [tokens[4:] for tokens in begun] == answers.tokens


@pytest.mark.parametrize("wrong, message", [
    ([], "no training examples"),
    ([{**PLAIN[0], "given": "sure"}], "what is given is a list of token ids; got 'sure'"),
    ([{**PLAIN[0], "given": [1] * 600}], "example 0: the prompt with what is given .* exceeds"),
    ([{"prompt": "sing"}], "example 0 has no response"),
])
def test_examples_that_cannot_be_are_refused(chat, wrong, message):
    with pytest.raises(SsahError, match=message):
        finetune(chat, wrong, **HOW)


def test_what_else_cannot_be_meant_is_refused(chat):
    with pytest.raises(SsahError, match="unknown schedule 'steep'"):
        finetune(chat, PLAIN, **{**HOW, "schedule": "steep"})
    with pytest.raises(SsahError, match="there are 1 beginnings for 2 refusals"):
        begun_refusals(PLAIN[:2], [[1]])
    with pytest.raises(SsahError, match="opening_tokens is from 1 to"):
        fulfilment_beginnings(chat, ["sing"], opening_tokens=500)
