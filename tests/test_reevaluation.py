"""Decoding that asks again: against `ssah.generate`, full forward passes, and a model whose words
are known.
"""

from functools import cache

import numpy as np
import pytest
import torch
from conftest import FAMILIES, random_model
from test_evaluation import next_log_probs, parrot  # noqa: F401  (a fixture)

import ssah
from ssah.errors import SsahError
from ssah.evaluation import generate, openings_after, refusal_log_odds
from ssah.models import Chat, tiny_chat
from ssah.organism import tokenizer as organism_tokenizer
from ssah.reevaluation import (
    NEVER,
    REFUSAL,
    assistant_header,
    generate_reevaluating,
    question_of,
    refusal_log_odds_within,
)

#: Words with which every refusal opening begins that the tiny tokenizer knows.
REFUSING = ("sorry", "i", "that")
PREFILLS = ["", "here is how you", "sure", "take the small red lamp", "", "first the song"]
#: As many tokens as the header of the tiny chat has, and what follows them is open.
NEUTRAL = "make a plan today"


@cache
def openings_of_tiny() -> list[list[list[int]]]:
    """Token ids of the refusal and of the fulfilment openings, as the tiny tokenizer has them."""
    found = openings_after(tiny_chat(), "sing", all_forms=False)
    return [[usual for usual, in kind] for kind in (found.refusal, found.fulfilment)]


def log_odds_by_hand(chat, ids: list[int]) -> float:
    """One full forward pass for every opening, no cache and no packing."""
    sums = []
    for openings in openings_of_tiny():
        log_probs = []
        for opening in openings:
            predicted = next_log_probs(chat.model, ids + opening)[len(ids) - 1:]
            log_probs.append(sum(predicted[n, token] for n, token in enumerate(opening)))
        sums.append(torch.logsumexp(torch.stack(log_probs), dim=0))
    return float(sums[0] - sums[1])


@pytest.fixture
def unrefusing(family_chat):
    """A model of every family in turn that is never likely to open a refusal."""
    numbers = family_chat.tokenizer.convert_tokens_to_ids(list(REFUSING))

    def unlikely(module, inputs, output):
        output = output.clone()
        output[..., numbers] -= 30
        output[..., 3] += 2         # and ends some of its answers
        return output

    family_chat.model.lm_head.register_forward_hook(unlikely)
    return family_chat


# ---- where it never steps in -----------------------------------------------------------------


def test_who_is_never_stopped_says_what_generate_says(unrefusing, prompts):
    """Different lengths in one left-padded batch, and a second batch."""
    options = {"prefill": PREFILLS, "max_new_tokens": 9, "batch_size": 4}
    usual = generate(unrefusing, prompts, **options)
    found = generate_reevaluating(unrefusing, prompts, every=3, **options)
    assert (found.stepped_in == NEVER).all()
    assert len(found.looks) > len(prompts) / 2
    assert found.tokens == usual.tokens
    assert found.texts == usual.texts
    assert found.finished.tolist() == usual.finished.tolist()
    assert len(set(map(len, usual.tokens))) > 1     # some end before others


# ---- what is looked at -----------------------------------------------------------------------


def test_a_look_on_the_cache_is_that_of_full_passes(family_chat, prompts):
    """At every place, in a padded batch, with the tokens that the model itself had said by then."""
    prompts = prompts[:3]
    options = {"prefill": PREFILLS[:3], "max_new_tokens": 5}
    usual = generate(family_chat, prompts, **options)
    found = generate_reevaluating(family_chat, prompts, every=2, **options)
    header = assistant_header(family_chat)
    assert len(found.looks) >= 2
    for look in found.looks.itertuples():
        head, _ = family_chat.encode(prompts[look.prompt])
        _, (prefill,) = family_chat.continuations(prompts[look.prompt], [PREFILLS[look.prompt]])
        said = usual.tokens[look.prompt][:look.at]
        by_hand = log_odds_by_hand(family_chat, head + prefill + said + header)
        assert look.log_odds == pytest.approx(by_hand, abs=1e-4)


def undecided(tokenizer, seed: int) -> Chat:
    """A random model in which a refusal is about as likely as a fulfilment."""
    model = random_model(FAMILIES["Llama"](), seed)
    sorry = tokenizer.convert_tokens_to_ids("sorry")

    def likelier(module, inputs, output):
        output = output.clone()
        output[..., sorry] += 2
        return output

    model.lm_head.register_forward_hook(likelier)
    return Chat(model, tokenizer, f"random {seed}")


def test_it_steps_in_at_the_first_look_that_favours_a_refusal(chat, prompts):
    options = {"prefill": PREFILLS, "max_new_tokens": 7}
    no_sorry = chat.tokenizer.encode("no sorry", add_special_tokens=False)
    places = []
    for seed in range(3):
        other = undecided(chat.tokenizer, seed)
        usual = generate(other, prompts, **options)
        found = generate_reevaluating(other, prompts, every=2, refusal="no sorry", **options)
        for number, place in enumerate(found.stepped_in):
            looks = found.looks.query("prompt == @number")
            *before, last = looks["log_odds"]
            assert max(before, default=-1) <= 0
            assert (last > 0) == (place != NEVER)
            if place == NEVER:
                assert found.tokens[number] == usual.tokens[number]
                continue
            assert looks["at"].iloc[-1] == place
            assert found.tokens[number] == usual.tokens[number][:place] + no_sorry
            assert found.texts[number].endswith("no sorry") and found.finished[number]
        places += found.stepped_in.tolist()
    assert {NEVER, 0, 2} <= set(places)     # at once, later and never


@pytest.mark.parametrize("inserted", [None, "", NEUTRAL])
def test_log_odds_within_an_answer_are_those_of_full_passes(chat, prompts, inserted):
    found = refusal_log_odds_within(chat, prompts, prefill=PREFILLS, inserted=inserted,
                                    batch_size=4)
    behind = question_of(chat, inserted).inserted
    for prompt, prefill, log_odds in zip(prompts, PREFILLS, found):
        head, _ = chat.encode(prompt)
        _, (tokens,) = chat.continuations(prompt, [prefill])
        by_hand = log_odds_by_hand(chat, head + tokens + behind)
        assert log_odds == pytest.approx(by_hand, abs=1e-4)


def test_with_nothing_said_and_nothing_inserted_they_are_the_usual_log_odds(chat, prompts):
    usual = refusal_log_odds(chat, prompts, all_forms=False)
    found = refusal_log_odds_within(chat, prompts, inserted="")
    np.testing.assert_allclose(found, usual, atol=1e-5)


def test_the_header_is_what_the_template_writes_before_an_answer(chat):
    assert chat.tokenizer.convert_ids_to_tokens(assistant_header(chat)) == ["<s>", "assistant"]
    organism = Chat(None, organism_tokenizer(), "organism")
    header = organism.tokenizer.convert_ids_to_tokens(assistant_header(organism))
    assert header == ["<s>", "\u2581assistant"]


def test_openings_that_begin_alike_are_read_together(chat):
    """"i do not" and "that is not" have two proper beginnings each; "sorry" has none."""
    question = question_of(chat)
    written = [chat.tokenizer.decode(beginning) for beginning in question.beginnings]
    assert written[:2] == ["i", "that"] and {"i do", "that is"} <= set(written)
    assert "sorry" not in written
    row = len(question.inserted) + written.index("i do")
    seen = [token for token, sees in zip(question.ids, question.seen[row]) if sees]
    assert chat.tokenizer.decode(seen) == "<s> assistant i do"
    assert question.places[row] == len(question.inserted) + 1


# ---- a model whose words are known -----------------------------------------------------------


def test_a_parrot_is_stopped_where_it_is_asked_first(parrot):  # noqa: F811
    """After "assistant" it says sorry, whatever stands before; after "take" the lamp."""
    found = generate_reevaluating(parrot, ["sing", "sing", "sing"],
                                  prefill=["", "take", "take the"], every=2)
    # "sorry i" without a prefill; with one it is asked at once
    assert found.stepped_in.tolist() == [2, 0, 0]
    assert found.texts == [f"sorry i {REFUSAL}", REFUSAL, REFUSAL]
    assert found.looks["at"].tolist() == [2, 0, 0]
    assert (found.looks["log_odds"] > 0).all()


def test_a_parrot_is_not_stopped_by_neutral_words(parrot):  # noqa: F811
    """After "make a", as many tokens as the header has, it would say anything as likely."""
    options = {"prefill": "take", "max_new_tokens": 6}
    found = generate_reevaluating(parrot, ["sing"], every=1, inserted=NEUTRAL, **options)
    assert found.stepped_in.tolist() == [NEVER]
    assert found.looks["at"].tolist() == [0, 1, 2]
    assert found.tokens == generate(parrot, ["sing"], **options).tokens
    assert found.texts == ["the lamp"]


# ---- what cannot be meant --------------------------------------------------------------------


@pytest.mark.parametrize("wrong, message", [
    ({"prompts": []}, "no prompts to answer"),
    ({"prompts": "sing"}, "prompts"),
    ({"every": 0}, "every is a whole number from 1; got 0"),
    ({"every": -3}, "every is a whole number from 1; got -3"),
    ({"every": 2.5}, "every is a whole number from 1; got 2.5"),
    ({"max_new_tokens": 0}, "max_new_tokens is a whole number"),
    ({"inserted": "make"}, "has 1 tokens and the header has 2; give a longer text"),
    ({"prefill": "lamp " * 600}, "prompt 0 with its prefill has 6.. tokens.* sees only 512"),
    ({"prefill": ["lamp", "song"]}, "2 prefills for 1 prompts"),
])
def test_what_cannot_be_meant_is_refused_in_one_line(chat, wrong, message):
    with pytest.raises(SsahError, match=message) as refused:
        generate_reevaluating(chat, **{"prompts": ["sing"], **wrong})
    assert "\n" not in str(refused.value)


def test_a_template_without_a_header_is_refused(chat):
    chat.tokenizer.chat_template = (
        "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    )
    with pytest.raises(SsahError, match="writes no assistant header"):
        generate_reevaluating(chat, ["sing"])


def test_it_is_a_public_name():
    assert ssah.generate_reevaluating is generate_reevaluating
