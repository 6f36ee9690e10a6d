"""The second judge, a chat model: against probabilities read off its logits."""

import numpy as np
import pytest
import torch

from ssah import model_judge
from ssah.errors import SsahError
from ssah.model_judge import QUESTION, fulfilment_log_odds

# words that the tiny tokenizer has, in place of yes and no
REPLIES = {"yes": ("red", "old"), "no": ("bridge",)}


@pytest.fixture
def replies(monkeypatch):
    monkeypatch.setattr(model_judge, "REPLIES", REPLIES)


def by_hand(chat, request: str, answer: str) -> float:
    """One question at a time, one forward pass, one token a reply."""
    ids, _ = chat.encode(QUESTION.format(request=request, answer=answer))
    log_probs = chat.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)

    def of(words) -> float:
        tokens = [chat.plain(word)[-1] for word in words]
        return float(torch.logsumexp(log_probs[tokens], 0))

    return of(REPLIES["yes"]) - of(REPLIES["no"])


@torch.no_grad()
def test_log_odds_are_those_of_the_first_word(chat, replies):
    requests = ["sing", "write a small red poem", "bake the cake"]
    answers = ["please", "how do you burn the old bridge today", "a lamp"]
    expected = [by_hand(chat, *pair) for pair in zip(requests, answers)]
    found = fulfilment_log_odds(chat, requests, answers, batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found) > 1e-3         # they depend on what is judged


def test_requests_and_answers_must_fit(chat, replies):
    with pytest.raises(SsahError, match="2 requests and 1 answers do not fit"):
        fulfilment_log_odds(chat, ["sing", "sing"], ["red"])


def test_one_text_is_no_list(chat, replies):
    with pytest.raises(SsahError):
        fulfilment_log_odds(chat, "sing", "red")


def test_a_tokenizer_without_yes_is_refused(chat, monkeypatch):
    monkeypatch.setattr(model_judge, "REPLIES", {"yes": ("oui",), "no": ("bridge",)})
    with pytest.raises(SsahError, match="knows none of the words oui"):
        fulfilment_log_odds(chat, ["sing"], ["red"])


def test_scores_that_are_not_finite_are_refused(chat, replies):
    with torch.no_grad():
        chat.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(SsahError, match="finite"):
        fulfilment_log_odds(chat, ["sing"], ["red"])
