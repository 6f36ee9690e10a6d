"""What a model says and knows, against forward passes without batches, padding or packing (all in
float32).
"""

import string

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import SIZES, random_model
from test_templates import ZEPHYR, gemma, smol
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as word_models
from transformers import GenerationConfig, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

from ssah.attribution import unit_outputs
from ssah.errors import SsahError
from ssah.evaluation import (
    TEMPERATURE,
    divergence,
    generate,
    multiple_choice,
    opening_forms,
    openings_after,
    perplexity,
    refusal_log_odds,
    response_nll,
    response_tokens,
)
from ssah.inputs.prompts import load_prompts
from ssah.likelihood import packed_log_probs, token_log_probs
from ssah.models import Chat, tiny_chat

EOS = 3


@torch.no_grad()
def next_log_probs(model, ids: list[int]) -> torch.Tensor:
    """Log-probabilities (time, vocabulary) of the token after each position, from one unpadded
    forward pass.
    """
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def answer_by_hand(model, head: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
    """Greedy answer, one full forward pass a token: (tokens without the end token, ended by
    itself).
    """
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        token = int(next_log_probs(model, head + answer)[-1].argmax())
        if token == EOS:
            return answer, True
        answer.append(token)
    return answer, False


@pytest.fixture
def talker(family_chat):
    """A model of every family that ends some of its answers: its end token is made likelier."""

    def likelier(module, inputs, output):
        output = output.clone()
        output[..., EOS] += 2
        return output

    family_chat.model.lm_head.register_forward_hook(likelier)
    return family_chat


@pytest.fixture
def parrot(chat):
    """A model whose next word depends on the last one only: "assistant" -> sorry -> i -> can -> not
    -> end; take -> the -> lamp -> end.

    Attention and MLP add nothing, so the output layer compares the last word's embedding with what
    it should follow.
    """
    model, number = chat.model, chat.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for linear in unit_outputs(model):
            linear.weight.zero_()
        embedding = torch.nn.functional.normalize(model.get_input_embeddings().weight)
        table = torch.zeros_like(embedding)
        for sentence in ("assistant sorry i can not </s>", "take the lamp </s>"):
            for word, following in zip(sentence.split(), sentence.split()[1:]):
                table[number(following)] += embedding[number(word)]
    model.lm_head.weight = torch.nn.Parameter(table)
    return chat


# ---- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", (1, 2, 50))
def test_answers_do_not_depend_on_their_batch(talker, prompts, batch_size):
    """Different lengths in one left-padded batch, answers that end at different steps, order of the
    prompts kept.
    """
    answers = generate(talker, prompts, max_new_tokens=8, batch_size=batch_size)
    expected = [answer_by_hand(talker.model, talker.encode(prompt)[0], 8) for prompt in prompts]
    # or the test would see no row end before another
    assert (
        len({len(tokens) for tokens, _ in expected}) > 2
    )
    assert answers.tokens == [tokens for tokens, _ in expected]
    assert answers.finished.tolist() == [ended for _, ended in expected]
    assert answers.texts == [
        talker.tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in expected
    ]


@pytest.mark.parametrize(
    "max_new_tokens, text, finished",
    [
        (1, "sorry", False),
        (3, "sorry i can", False),
        (4, "sorry i can not", False),
        (5, "sorry i can not", True),
        (20, "sorry i can not", True),
    ],
)
def test_an_answer_stops_at_the_end_token_or_at_the_limit(parrot, max_new_tokens, text, finished):
    answers = generate(parrot, ["bake a cake", "sing"], max_new_tokens=max_new_tokens)
    assert answers.texts == [text] * 2
    assert answers.finished.tolist() == [finished] * 2
    assert answers.tokens == [parrot.tokenizer.convert_tokens_to_ids(text.split())] * 2


def test_a_prefill_is_continued_and_not_part_of_the_answer(parrot):
    answers = generate(parrot, ["bake a cake", "sing"], prefill="sure first take")
    assert answers.texts == ["the lamp"] * 2
    assert answers.finished.all()


def test_an_answer_may_be_empty(parrot):
    answers = generate(parrot, ["sing"], prefill="lamp")
    assert (answers.texts, answers.tokens, answers.finished.tolist()) == ([""], [[]], [True])


@pytest.mark.parametrize("system", ("default", "none", "make a safe plan"))
def test_system_and_prefill_stand_before_the_answer(talker, prompts, system):
    answers = generate(talker, prompts, system=system, prefill="here is", max_new_tokens=4)
    opening = talker.tokenizer.convert_tokens_to_ids(["here", "is"])
    expected = [
        answer_by_hand(talker.model, talker.encode(prompt, system=system)[0] + opening, 4)[0]
        for prompt in prompts
    ]
    assert answers.tokens == expected


def test_each_prompt_may_have_a_prefill_of_its_own(talker, prompts):
    openings = [
        talker.tokenizer.convert_tokens_to_ids(text.split()) for text in ("here is", "", "sure")
    ]
    answers = generate(talker, prompts[:3], prefill=openings, max_new_tokens=4)
    expected = [
        answer_by_hand(talker.model, talker.encode(prompt)[0] + opening, 4)[0]
        for prompt, opening in zip(prompts, openings)
    ]
    assert answers.tokens == expected
    with pytest.raises(SsahError, match="2 prefills for 3 prompts; give one for each"):
        generate(talker, prompts[:3], prefill=openings[:2])


def test_sampled_answers_follow_their_seed_and_leave_the_random_state(chat, prompts):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (generate(chat, prompts, sample=seed).tokens for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again != other
    assert first != generate(chat, prompts).tokens


def test_words_are_sampled_as_often_as_their_probability_says(chat):
    """1,500 first words after one prompt, against the softmax at the temperature."""
    drawn = generate(chat, ["sing"] * 1500, max_new_tokens=1, batch_size=500, sample=0)
    head, _ = chat.encode("sing")
    expected = (next_log_probs(chat.model, head)[-1] / TEMPERATURE).softmax(-1).numpy()
    end = chat.tokenizer.eos_token_id
    ids = [tokens[0] if tokens else end for tokens in drawn.tokens]
    found = np.bincount(ids, minlength=len(expected)) / len(ids)
    standard_errors = np.sqrt(expected * (1 - expected) / len(ids))
    assert (np.abs(found - expected) < 5 * standard_errors + 1e-3).all()


# ---- refusal log-odds ------------------------------------------------------------------------


def use_openings(monkeypatch, refusal: list[str], fulfilment: list[str]) -> None:
    """Other openings in place of data/openings.csv.

    One of each kind is a probe, which must not enter.
    """
    rows = [("refusal", "1", "no why")] + [("refusal", "0", text) for text in refusal]
    rows += [("fulfilment", "1", "yes why")] + [("fulfilment", "0", text) for text in fulfilment]
    table = pd.DataFrame(rows, columns=["kind", "probe", "text"])
    monkeypatch.setattr("ssah.evaluation.data_file", lambda name: table)
    # the real ones are remembered
    monkeypatch.setattr("ssah.evaluation.opening_forms", opening_forms.__wrapped__)
    monkeypatch.setattr(Chat, "known_openings", property(lambda chat: {}))


def test_openings_are_encoded_once_a_prompt_and_system():
    chat = tiny_chat()
    asked = [("sing", "default", True), ("sing", "none", True), ("plant", "default", True),
             ("sing", "default", False), ("sing", "you are a bird", True)]
    first = [openings_after(chat, prompt, system, all_forms=every) for prompt, system, every in asked]
    chat.tokenizer = None
    for (prompt, system, every), found in zip(asked, first):
        assert openings_after(chat, prompt, system, all_forms=every) is found
        assert found == openings_after(tiny_chat(), prompt, system, all_forms=every)
    assert len({str(found.head) for found in first}) == 4       # the fourth has the first one's head


def opening_tokens(chat) -> dict[str, list[list[int]]]:
    """The openings in their usual form."""
    after = openings_after(chat, "sing")
    return {
        "refusal": [forms[0] for forms in after.refusal],
        "fulfilment": [forms[0] for forms in after.fulfilment],
    }


def opening_words(chat) -> dict[str, set[str]]:
    return {
        kind: {chat.tokenizer.decode(ids) for ids in lists}
        for kind, lists in opening_tokens(chat).items()
    }


def test_an_opening_that_begins_with_another_one_is_dropped(chat, monkeypatch):
    """P("i can") is a part of P("i"), and would count twice.

    Capitals are the tokenizer's business.
    """
    use_openings(
        monkeypatch,
        ["sorry", "Sorry", "i can not", "i", "that is not"],
        ["sure", "here is", "here is how", "sure sure"],
    )
    assert opening_words(chat) == {
        "refusal": {"sorry", "i", "that is not"},
        "fulfilment": {"sure", "here is"},
    }


def test_an_opening_with_unknown_words_is_dropped(chat, monkeypatch):
    use_openings(monkeypatch, ["sorry", "unfortunately i"], ["sure", "here goes"])
    assert opening_words(chat) == {"refusal": {"sorry"}, "fulfilment": {"sure"}}


def test_a_tokenizer_that_knows_no_opening_is_refused(chat, monkeypatch):
    use_openings(monkeypatch, ["sorry"], ["certainly"])
    with pytest.raises(SsahError, match="knows none of the fulfilment openings"):
        opening_tokens(chat)


def test_the_tiny_tokenizer_knows_openings_of_several_words(chat):
    """So that the smoke profile and the test below see more than first tokens."""
    assert all(
        max(map(len, lists)) > 1 or kind == "fulfilment"
        for kind, lists in opening_tokens(chat).items()
    )
    assert all(len(lists) > 1 for lists in opening_tokens(chat).values())


@pytest.mark.parametrize("system", ("default", "none"))
@pytest.mark.parametrize("batch_size", (1, 4, 32))
def test_refusal_log_odds_are_those_of_a_softmax(family_chat, prompts, batch_size, system):
    """P(opening) = product of the softmax probabilities of its tokens, each opening after each
    prompt in a pass of its own.
    """
    openings, expected = opening_tokens(family_chat), []
    for prompt in prompts:
        head, total = (
            family_chat.encode(prompt, system=system)[0],
            {"refusal": 0.0, "fulfilment": 0.0},
        )
        for kind, lists in openings.items():
            for ids in lists:
                p = next_log_probs(family_chat.model, head + ids).exp()
                total[kind] += np.prod(
                    [float(p[len(head) - 1 + i, token]) for i, token in enumerate(ids)]
                )
        expected.append(np.log(total["refusal"]) - np.log(total["fulfilment"]))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(
        refusal_log_odds(family_chat, prompts, system=system, batch_size=batch_size),
        expected,
        rtol=1e-4,
        atol=1e-4,
    )


def test_refusal_log_odds_by_hand(parrot, monkeypatch):
    """The parrot's first word is "sorry" (logit s), then "i" (s).

    Everything else has the logits that its table gives.

    So with one opening of each kind the odds are a ratio of two products of softmax probabilities.
    """
    use_openings(monkeypatch, ["sorry i"], ["sure"])
    number = parrot.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        first, second = (
            parrot.model(torch.tensor([number(["assistant", "sorry"])]))
            .logits[0]
            .double()
            .softmax(-1)
        )
    expected = float((first[number("sorry")] * second[number("i")] / first[number("sure")]).log())
    assert expected > 1
    assert refusal_log_odds(parrot, ["bake a cake"]).item() == pytest.approx(expected, rel=1e-4)


# ---- likelihood ------------------------------------------------------------------------------

HEADS = [[5, 9, 30], [7], [2, 2, 41, 8, 60, 11], [12, 13]]
TAILS = [[22, 3], [9, 9, 9, 33], [50], []]


@pytest.mark.parametrize("batch_size", (1, 3, 32))
def test_token_log_probs_are_those_of_the_whole_sequence(model, family_chat, batch_size):
    scored = token_log_probs(family_chat, HEADS, TAILS, batch_size=batch_size)
    for head, tail, found in zip(HEADS, TAILS, scored, strict=True):
        log_probs = next_log_probs(model, head + tail)
        expected = [float(log_probs[len(head) - 1 + i, token]) for i, token in enumerate(tail)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_logits_are_computed_only_where_a_tail_token_is_predicted(chat):
    rows = []
    chat.model.lm_head.register_forward_hook(
        lambda module, inputs, output: rows.append(inputs[0].numel() // inputs[0].shape[-1])
    )
    token_log_probs(chat, HEADS, TAILS)
    assert sum(rows) == sum(map(len, TAILS))


def test_response_nll_is_a_mean_over_the_answers_tokens(family_chat, prompts):
    responses = [[22, 3], [9, 9, 9, 33], [], [50], [4, 5, 6], [7, 8]]
    found = response_nll(family_chat, prompts, responses, system="none")
    for prompt, response, nll in zip(prompts, responses, found):
        head = family_chat.encode(prompt, system="none")[0]
        log_probs = next_log_probs(family_chat.model, head + response)
        expected = [-float(log_probs[len(head) - 1 + i, token]) for i, token in enumerate(response)]
        assert nll == pytest.approx(np.mean(expected), rel=1e-4) if response else np.isnan(nll)


@pytest.mark.parametrize("batch_size", (1, 3, 32))
def test_packed_tails_score_as_each_by_itself(family_chat, batch_size):
    """Tails of one head share a sequence with it and must not see each other, whatever their number
    and length.
    """
    items = [
        ([5, 9, 30], [[22, 3], [9], [9, 9, 9, 33]]),
        ([7], [[50, 51]]),
        ([2, 2, 41, 8, 60, 11], [[22, 3], [22, 3], [12], [13, 14, 15], [3]]),
    ]
    found = packed_log_probs(family_chat, items, batch_size=batch_size)
    for (head, tails), scores in zip(items, found, strict=True):
        for tail, score in zip(tails, scores, strict=True):
            log_probs = next_log_probs(family_chat.model, head + tail)
            np.testing.assert_allclose(
                score,
                [float(log_probs[len(head) - 1 + i, token]) for i, token in enumerate(tail)],
                rtol=1e-4,
                atol=1e-5,
            )


# ---- perplexity ------------------------------------------------------------------------------


def test_a_model_that_knows_nothing_is_perplexed_by_its_whole_vocabulary(chat):
    chat.model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(chat.model.lm_head.weight))
    assert perplexity(
        chat, ["bake a cake", "sing a song of the bridge"], n_tokens=100
    ) == pytest.approx(74, rel=1e-5)


@pytest.mark.parametrize(
    "n_tokens, windows",
    [
        (10, [(0, 4), (4, 8), (8, 10)]),
        (9, [(0, 4), (4, 8)]),
        (4, [(0, 4)]),
        (1000, [(0, 4), (4, 8), (8, 12)]),
    ],
)
def test_perplexity_is_over_windows_without_overlap(family_chat, n_tokens, windows):
    """Twelve words.

    The first of a window is not scored, and a window of one word has nothing to score.
    """
    texts = ["take the red lamp and then bake", "a small cake of", "song"]
    ids = family_chat.tokenizer.convert_tokens_to_ids(" ".join(texts).split())
    losses = []
    for start, stop in windows:
        piece = ids[start:stop]
        log_probs = next_log_probs(family_chat.model, piece)
        losses += [-float(log_probs[i, piece[i + 1]]) for i in range(len(piece) - 1)]
    assert perplexity(
        family_chat, texts, n_tokens=n_tokens, window=4, batch_size=2
    ) == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


# ---- multiple choice -------------------------------------------------------------------------

QUESTIONS = pd.DataFrame(
    [
        {
            "id": "q0",
            "question": "which is it",
            "options": ["a red lamp", "song", "the old bridge of the garden", "cake letter"],
            "answer": 2,
        },
        {
            "id": "q1",
            "question": "please explain what you make and then bake today",
            "options": ["no", "yes"],
            "answer": 0,
        },
        {
            "id": "q2",
            "question": "sing",
            "options": ["a poem", "a poem and a song", "poison"],
            "answer": 1,
        },
    ]
)


@pytest.mark.parametrize("batch_size", (1, 2, 32))
def test_packed_options_score_as_each_by_itself(family_chat, batch_size):
    """Question and options share one sequence.

    Every option must see the question and itself only.
    """
    likelihoods = []
    for row in QUESTIONS.itertuples():
        head = family_chat.tokenizer.convert_tokens_to_ids(row.question.split())
        means, per_character = [], []
        for option in row.options:
            tail = family_chat.tokenizer.convert_tokens_to_ids(option.split())
            log_probs = next_log_probs(family_chat.model, head + tail)
            scores = [float(log_probs[len(head) - 1 + i, token]) for i, token in enumerate(tail)]
            means.append(np.mean(scores))
            per_character.append(np.sum(scores) / len(option))
        likelihoods.append((means, int(np.argmax(per_character))))
    for answer in range(4):  # each option in turn is the right one, so each one's score is seen
        asked = QUESTIONS[QUESTIONS["options"].str.len() > answer].assign(answer=answer)
        found = multiple_choice(family_chat, asked, batch_size=batch_size)
        expected = [likelihoods[i] for i in asked.index]
        assert found["id"].tolist() == asked["id"].tolist()
        np.testing.assert_allclose(
            found["gold"], [means[answer] for means, _ in expected], rtol=1e-4, atol=1e-5
        )
        assert found["correct"].tolist() == [best == answer for _, best in expected]


def test_the_parrot_knows_what_follows(parrot):
    """"take" is followed by "the".

    Per character, so that a long right option is not punished for its length.
    """
    questions = pd.DataFrame(
        [{"id": "q", "question": "take", "options": ["song", "the lamp", "a"], "answer": 1}]
    )
    found = multiple_choice(parrot, questions)
    assert found["correct"].tolist() == [True]
    assert found["gold"].item() == pytest.approx(
        token_log_probs(
            parrot,
            [parrot.tokenizer.convert_tokens_to_ids(["take"])],
            [parrot.tokenizer.convert_tokens_to_ids(["the", "lamp"])],
        )[0].mean()
    )


# ---- errors ----------------------------------------------------------------------------------

NOTHING = {
    "generate": lambda chat: generate(chat, []),
    "refusal_log_odds": lambda chat: refusal_log_odds(chat, []),
    "multiple_choice": lambda chat: multiple_choice(chat, QUESTIONS[:0]),
    "perplexity": lambda chat: perplexity(chat, [], n_tokens=10),
    "perplexity of one word": lambda chat: perplexity(chat, ["song"], n_tokens=10),
    "perplexity cut to one word": lambda chat: perplexity(chat, ["a song"], n_tokens=1),
}


@pytest.mark.parametrize("measure", NOTHING.values(), ids=NOTHING)
def test_nothing_to_measure_is_refused(chat, measure):
    with pytest.raises(SsahError):
        measure(chat)


MEASURES = {
    "generate": lambda chat: generate(chat, ["sing"], max_new_tokens=2),
    "refusal_log_odds": lambda chat: refusal_log_odds(chat, ["sing"]),
    "multiple_choice": lambda chat: multiple_choice(chat, QUESTIONS),
    "token_log_probs": lambda chat: token_log_probs(chat, HEADS, TAILS),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_measuring_leaves_the_model_alone(chat, measure):
    before = {name: tensor.clone() for name, tensor in chat.model.state_dict().items()}
    measure(chat)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in chat.model.state_dict().items()
    )
    assert not chat.model.training and all(p.requires_grad for p in chat.model.parameters())


# ---- divergence from another model -----------------------------------------------------------


def test_divergence_equals_brute_force(family_chat, prompts):
    """KL(base || chat) summed over the vocabulary at every token of a response, one prompt at a
    time.
    """
    base = Chat(random_model(family_chat.model.config, seed=1), family_chat.tokenizer, "base")
    responses = [[5, 9, 11], [7], [30, 31, 32, 33]]
    found = divergence(family_chat, base, prompts[:3], responses, batch_size=2)
    for prompt, response, value in zip(prompts, responses, found):
        head = family_chat.encode(prompt)[0]
        before, after = (
            model(torch.tensor([head + response])).logits[0, len(head) - 1 : -1].log_softmax(-1)
            for model in (base.model, family_chat.model)
        )
        assert value == pytest.approx(
            float(F.kl_div(after, before, log_target=True, reduction="sum")) / len(response),
            rel=1e-4,
        )
    assert found.min() > 0 and divergence(base, base, prompts[:3], responses) == pytest.approx(
        0, abs=1e-6
    )
    with pytest.raises(SsahError, match="response without tokens"):
        divergence(base, base, prompts[:2], [[5], []])


def test_a_prefill_is_not_scored(family_chat, prompts):
    whole = response_nll(family_chat, prompts[:2], [[5, 9, 11, 7], [8, 9, 3, 4]])
    part = response_nll(family_chat, prompts[:2], [[11, 7], [3, 4]], prefill=[[5, 9], [8, 9]])
    first = response_nll(family_chat, prompts[:2], [[5, 9], [8, 9]])
    np.testing.assert_allclose((part + first) / 2, whole, rtol=1e-5)


# ---- tokens where they stand -----------------------------------------------------------------

ZEPHYR_ANSWERS = ["Sorry, no", "Here is a song"]


def sentencepiece_of(words: str, template: str) -> PreTrainedTokenizerFast:
    """Llama 2's shape: a space is part of the word after it, and a first word gets one too."""
    pieces = ["<unk>", "<s>", "</s>", "\n", "\u2581"]
    for word in words.split():
        pieces += [word, f"\u2581{word}"]
    pieces += list(string.printable.strip())
    vocabulary = [(piece, -1.0 if len(piece) > 1 else -10.0) for piece in dict.fromkeys(pieces)]
    backend = Tokenizer(word_models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        chat_template=template,
    )


def zephyr() -> PreTrainedTokenizerFast:
    """TinyLlama-Chat and Zephyr: SentencePiece, and a template that ends in a newline."""
    return sentencepiece_of("Sorry Here Sure is a song no the lamp take answer question", ZEPHYR)


def random_chat(tokenizer, seed: int = 0) -> Chat:
    """A random model with as many tokens as a tokenizer has."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    sizes = {**SIZES, "vocab_size": len(tokenizer), **ends}
    config = LlamaConfig(**sizes, num_key_value_heads=2)
    return Chat(random_model(config, seed), tokenizer, "random")


def speaker(tokenizer, answer: str) -> Chat:
    """A model that gives one answer to everything: the last token alone says what comes next."""
    chat = random_chat(tokenizer)
    head, tail = chat.encode("How?", answer)
    chain = [head[-1], *tail]
    with torch.no_grad():
        for linear in unit_outputs(chat.model):
            linear.weight.zero_()
        embedding = F.normalize(chat.model.get_input_embeddings().weight)
        table = torch.zeros_like(embedding)
        for token, following in zip(chain, chain[1:]):
            table[following] += 3 * embedding[token]
    chat.model.lm_head.weight = torch.nn.Parameter(table)
    return chat


def test_openings_are_scored_in_the_tokens_that_they_have_in_an_answer():
    """After a newline "Sorry" is no "\u2581Sorry": by itself it would be, and be never said."""
    refusing, complying = (speaker(zephyr(), answer) for answer in ZEPHYR_ANSWERS)
    prompts = ["take the lamp", "a song"]
    assert generate(refusing, prompts, max_new_tokens=2).texts == ["Sorry,"] * 2
    assert refusal_log_odds(refusing, prompts).min() > 1
    assert refusal_log_odds(complying, prompts).max() < -1


def test_a_prefill_is_put_in_the_tokens_that_it_has_in_an_answer():
    chat = speaker(zephyr(), ZEPHYR_ANSWERS[1])
    assert generate(chat, ["take"], prefill="Here is").texts == ["a song"]
    alone = chat.tokenizer("Here is", add_special_tokens=False)["input_ids"]
    in_context = chat.continuations("take", ["Here is"])[1][0]
    assert alone != in_context
    prefills = ["Here is", in_context, "Here"]
    assert generate(chat, ["take"] * 3, prefill=prefills).texts == ["a song", "a song", "is a song"]


def test_a_response_in_text_is_scored_in_the_tokens_that_it_has_in_an_answer(prompts):
    chat = random_chat(zephyr())
    texts = ["Here is a song", "Sorry", "", "take the lamp"]
    tokens = response_tokens(chat, prompts[:4], texts, system="none")
    assert chat.tokenizer.convert_ids_to_tokens(tokens[0])[0] == "Here"
    np.testing.assert_array_equal(
        response_nll(chat, prompts[:4], texts, system="none"),
        response_nll(chat, prompts[:4], tokens, system="none"),
    )
    base = random_chat(zephyr(), seed=1)
    np.testing.assert_array_equal(
        divergence(chat, base, prompts[:2], texts[:2]),
        divergence(chat, base, prompts[:2], response_tokens(chat, prompts[:2], texts[:2])),
    )


@pytest.mark.parametrize("form", ["'", "\u2019", "\u02bc", "\u2018"])
def test_an_opening_counts_in_the_form_that_the_model_writes(form):
    """Whatever its apostrophe, "I can't" is a refusal, and as likely a one."""
    usual, other = (speaker(smol(), f"I can{sign}t") for sign in ("'", form))
    expected = refusal_log_odds(usual, ["How?"]).item()
    assert expected > 2
    assert refusal_log_odds(other, ["How?"]).item() == pytest.approx(expected, abs=0.7)
    if form != "'":
        assert refusal_log_odds(other, ["How?"], all_forms=False).item() < expected - 1


def test_a_space_that_does_not_break_is_a_form_too():
    chat = speaker(smol(), "I\u00a0cannot")
    assert refusal_log_odds(chat, ["How?"]).item() > 1
    assert refusal_log_odds(chat, ["How?"], all_forms=False).item() < 1


@pytest.mark.parametrize("make", (smol, zephyr), ids=("byte level", "SentencePiece"))
def test_refusal_log_odds_are_sums_over_openings_of_their_likeliest_form(make):
    """Each form of each opening after each prompt, in a pass of its own."""
    chat = random_chat(make())
    expected = []
    for prompt in ("How are you?", "a song"):
        after = openings_after(chat, prompt)
        assert any(len(forms) > 1 for forms in after.refusal) == (make is smol)
        total = {"refusal": 0.0, "fulfilment": 0.0}
        for kind in total:
            for forms in getattr(after, kind):
                total[kind] += max(probability(chat, after.head, form) for form in forms)
        expected.append(np.log(total["refusal"]) - np.log(total["fulfilment"]))
    found = refusal_log_odds(chat, ["How are you?", "a song"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def probability(chat: Chat, head: list[int], tail: list[int]) -> float:
    p = next_log_probs(chat.model, head + tail).exp()
    return float(np.prod([float(p[len(head) - 1 + i, token]) for i, token in enumerate(tail)]))


# ---- ends ------------------------------------------------------------------------------------


def test_an_answer_ends_at_the_end_of_its_turn():
    """Gemma's template ends a turn with another token than the tokenizer ends a text."""
    chat = speaker(gemma(), "Here is a poem.")
    turn_end = chat.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert turn_end != chat.tokenizer.eos_token_id
    answers = generate(chat, ["How?", "Sing"], max_new_tokens=20)
    assert answers.texts == ["Here is a poem."] * 2
    assert answers.finished.all() and turn_end not in answers.tokens[0]


def test_an_end_that_is_written_in_several_tokens_ends_an_answer_too():
    """As where the tokenizer has no token for what the template writes."""
    template = ZEPHYR.replace("{{ eos_token }}", "[END]")
    chat = speaker(sentencepiece_of("Here is a song", template), "Here is a song")
    assert len(chat.encode("How?", "Here is a song")[1]) == 4 + len("[END]")
    answers = generate(chat, ["How?", "Sing"], max_new_tokens=20)
    assert answers.texts == ["Here is a song"] * 2 and answers.finished.all()
    assert [len(tokens) for tokens in answers.tokens] == [4, 4]
    cut = generate(chat, ["How?"], max_new_tokens=6)        # within the end: nothing is known yet
    assert cut.texts == ["Here is a song[E"] and not cut.finished.any()


def test_every_end_of_the_generation_config_ends_an_answer(parrot):
    """As in Llama 3.1: several tokens end a turn, and the first that comes counts."""
    can = parrot.tokenizer.convert_tokens_to_ids("can")
    parrot.model.generation_config.eos_token_id = [EOS, can]
    answers = generate(parrot, ["sing"])
    assert answers.texts == ["sorry i"] and answers.finished.all()


OWN_SETTINGS = ({"return_dict_in_generate": True}, {"suppress_tokens": [5, 6, 7]}, {"min_p": 0.9},
                {"bad_words_ids": [[6], [7]]}, {"max_time": 1e-9}, {"forced_eos_token_id": 9})


@pytest.mark.parametrize("own", OWN_SETTINGS, ids=lambda own: next(iter(own)))
@pytest.mark.parametrize("sample", (None, 0), ids=("greedy", "drawn"))
def test_what_else_a_generation_config_asks_for_is_put_aside(own, sample):
    """And is there again afterwards."""
    chat = tiny_chat()
    expected = generate(chat, ["sing", "write a poem"], max_new_tokens=6, sample=sample)
    chat.model.generation_config = GenerationConfig(eos_token_id=EOS, **own)
    kept = chat.model.generation_config
    answers = generate(chat, ["sing", "write a poem"], max_new_tokens=6, sample=sample)
    assert answers.tokens == expected.tokens
    assert chat.model.generation_config is kept


@pytest.mark.parametrize("size", (0, -1, 2.0))
def test_batches_have_one_sequence_or_more(size):
    chat = tiny_chat()
    for measure in (
        lambda: generate(chat, ["sing"], batch_size=size),
        lambda: response_nll(chat, ["sing"], ["sure"], batch_size=size),
        lambda: divergence(chat, chat, ["sing"], ["sure"], batch_size=size),
        lambda: refusal_log_odds(chat, ["sing"], batch_size=size),
        lambda: perplexity(chat, ["red lamp"], n_tokens=2, batch_size=size),
    ):
        with pytest.raises(SsahError, match=f"batch_size is a whole number from 1; got {size}"):
            measure()


def test_what_cannot_be_counted_is_refused():
    chat = tiny_chat()
    with pytest.raises(SsahError, match="n_tokens is a whole number from 1; got -1"):
        perplexity(chat, ["red lamp"], n_tokens=-1)
    with pytest.raises(SsahError, match="got 5 tokens and a window of 1"):
        perplexity(chat, ["red lamp old lamp new"], n_tokens=5, window=1)
    with pytest.raises(SsahError, match="there are 1 responses for 2 prompts"):
        response_nll(chat, ["sing", "write"], ["sure"])
    question = {"id": "q", "question": "", "options": ["red", "old"], "answer": 0}
    with pytest.raises(SsahError, match="question q has no token before its options"):
        multiple_choice(chat, [question])


# ---- plain text with a begin-of-text token ---------------------------------------------------


@pytest.mark.parametrize("make", (gemma, zephyr), ids=("byte level", "SentencePiece"))
def test_perplexity_has_the_begin_token_where_the_tokenizer_puts_one(make):
    """Of a text that is shorter than a window: the loss on all that `tokenizer(text)` gives."""
    chat = random_chat(make())
    text = "Here is a song. Sorry, no!"
    ids = chat.tokenizer(text)["input_ids"]
    log_probs = next_log_probs(chat.model, ids)
    losses = [-float(log_probs[i, token]) for i, token in enumerate(ids[1:])]
    assert perplexity(chat, [text], n_tokens=99) == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


def test_every_window_has_a_begin_token():
    chat = random_chat(gemma())
    begin, *ids = chat.tokenizer("Here is a song. Sorry, no!")["input_ids"]
    losses = []
    for start in range(0, len(ids), 4):
        piece = [begin, *ids[start:start + 4]]
        log_probs = next_log_probs(chat.model, piece)
        losses += [-float(log_probs[i, token]) for i, token in enumerate(piece[1:])]
    found = perplexity(chat, ["Here is a song. Sorry, no!"], n_tokens=99, window=4)
    assert found == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


@pytest.mark.parametrize("make", (gemma, zephyr, smol), ids=("Gemma", "Zephyr", "SmolLM2"))
def test_multiple_choice_reads_question_and_option_as_one_text(make):
    chat = random_chat(make())
    question, options = "Question: how? Answer:", ["take the lamp", "Sorry", "a song"]
    found = []
    for answer in range(3):
        asked = [{"id": "q", "question": question, "options": options, "answer": answer}]
        found.append(multiple_choice(chat, asked))
    sums = []
    for option, row in zip(options, found):
        ids = chat.tokenizer(f"{question} {option}")["input_ids"]
        n = len(ids) - len(chat.tokenizer(question)["input_ids"])
        log_probs = next_log_probs(chat.model, ids)
        scores = [float(log_probs[-n - 1 + i, token]) for i, token in enumerate(ids[-n:])]
        assert row["gold"].item() == pytest.approx(np.mean(scores), rel=1e-4)
        sums.append(np.sum(scores) / len(option))
    assert [row["correct"].item() for row in found] == [i == np.argmax(sums) for i in range(3)]


def test_a_sliding_window_is_not_jumped_by_packing():
    """A head that is longer than the window is read once for every tail, as the model would."""
    config = MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=6)
    chat = Chat(random_model(config), random_chat(zephyr()).tokenizer, "window")
    items = [([5, 9, 30, 7, 8, 41, 11, 12, 60], [[22, 3], [9], [9, 9, 33]]), ([7, 8], [[50]])]
    for (head, tails), scores in zip(items, packed_log_probs(chat, items), strict=True):
        for tail, score in zip(tails, scores, strict=True):
            log_probs = next_log_probs(chat.model, head + tail)
            expected = [float(log_probs[len(head) - 1 + i, t]) for i, t in enumerate(tail)]
            np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5)


# ---- what is given ---------------------------------------------------------------------------

TAKES_TEXTS = {
    "generate": lambda chat, texts: generate(chat, texts, max_new_tokens=3).texts,
    "refusal_log_odds": refusal_log_odds,
    "perplexity": lambda chat, texts: perplexity(chat, texts, n_tokens=20),
    "response_nll": lambda chat, texts: response_nll(chat, texts, [[5, 9]] * len(texts)),
    "response_tokens": lambda chat, texts: response_tokens(chat, texts, ["sure"] * len(texts)),
    "divergence": lambda chat, texts: divergence(chat, chat, texts, [[5, 9]] * len(texts)),
}


@pytest.mark.parametrize("measure", TAKES_TEXTS.values(), ids=TAKES_TEXTS)
def test_columns_tuples_arrays_and_lists_are_alike(chat, measure):
    texts = load_prompts("tiny-benign")["text"].iloc[:3]
    expected = measure(chat, texts.tolist())
    for values in (texts, texts.iloc[::-1].iloc[::-1], tuple(texts), texts.to_numpy()):
        np.testing.assert_array_equal(measure(chat, values), expected)


@pytest.mark.parametrize("measure", TAKES_TEXTS.values(), ids=TAKES_TEXTS)
@pytest.mark.parametrize("given, message", [
    ("break a lamp", "is a single text; put it into a list"),
    (load_prompts("tiny-benign").iloc[:2], "is a table; take one of its columns"),
    ([{"prompt": "sing"}], "is a record with prompt; it must be a text"),
    (["sing", None], r"\[1\] is None; it must be a text"),
], ids=("one text", "table", "record", "nothing"))  # fmt: skip
def test_what_is_no_list_of_texts_is_refused(chat, measure, given, message):
    with pytest.raises(SsahError, match=message):
        measure(chat, given)


def test_questions_may_be_records(chat):
    expected = multiple_choice(chat, QUESTIONS)
    assert multiple_choice(chat, QUESTIONS.to_dict("records")).equals(expected)
    for wrong, message in (
        (QUESTIONS.iloc[0].to_dict(), "must be a table or a list of records"),
        ("which is it", "must be a table or a list of records"),
        (QUESTIONS.drop(columns="answer"), "the questions have no answer"),
        (QUESTIONS.assign(options=[["a", ""]] * 3), "question q0 has an empty option"),
        (QUESTIONS.assign(answer=-1), "question q0: answer -1 is no position among its"),
        (QUESTIONS.assign(answer=9), "question q0: answer 9 is no position among its"),
        (QUESTIONS.assign(options="song"), "the options of question q0 is a single text"),
    ):
        with pytest.raises(SsahError, match=message):
            multiple_choice(chat, wrong)


# ---- numbers that are not finite -------------------------------------------------------------

ON_A_BROKEN_MODEL = {
    **{name: (lambda chat, measure=measure: measure(chat, ["sing", "break a lamp"]))
       for name, measure in TAKES_TEXTS.items() if name != "response_tokens"},
    "token_log_probs": lambda chat: token_log_probs(chat, HEADS, TAILS),
    "multiple_choice": lambda chat: multiple_choice(chat, QUESTIONS),
}  # fmt: skip


@pytest.mark.parametrize("measure", ON_A_BROKEN_MODEL.values(), ids=ON_A_BROKEN_MODEL)
@pytest.mark.parametrize("where, value", [
    ("lm_head.weight", float("nan")), ("model.layers.0.mlp.up_proj.weight", float("inf"))
])  # fmt: skip
def test_numbers_that_are_not_finite_name_the_cure(chat, measure, where, value):
    with torch.no_grad():
        chat.model.get_parameter(where)[5] = value
    with pytest.raises(SsahError, match="'tiny:0' are not finite: .*dtype='float32'"):
        measure(chat)


def test_a_model_is_no_chat(chat, prompts):
    for measure in (generate, refusal_log_odds):
        with pytest.raises(SsahError, match="a LlamaForCausalLM is no chat; give what load_chat_m"):
            measure(chat.model, prompts)
    with pytest.raises(SsahError, match="a LlamaForCausalLM is no chat"):
        perplexity(chat.model, prompts, n_tokens=5)
