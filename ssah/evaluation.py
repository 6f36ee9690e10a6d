"""What a model says and what it knows: answers, refusal log-odds, perplexity, multiple choice.

All of it runs in padded batches sorted by length. Scoring pads on the right (`ssah.likelihood`),
generation on the left; padding is masked by length, so an answer does not depend on its batch
(tested in float32). Texts become tokens where they stand: an opening or an answer together with its
prompt, an option together with its question (`ssah.models.Chat`).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from .errors import SsahError
from .inputs.texts import as_texts
from .inputs.words import data_file
from .likelihood import (
    answer_positions,
    check_count,
    check_finite,
    length_batches,
    packed_log_probs,
    read,
    token_log_probs,
)
from .models import Chat, check_chat, pad

#: Other forms of an apostrophe and of a space, in which a model may write an opening.
APOSTROPHES = ("\u2019", "\u02bc", "\u2018")
NO_BREAK_SPACE = "\u00a0"

#: Temperature at which answers are sampled: well below 1, so that a small model keeps to the point.
TEMPERATURE = 0.7

#: The columns of a table of questions.
QUESTION_COLUMNS = ("id", "question", "options", "answer")


@dataclass(frozen=True)
class Answers:
    """Answers to a list of prompts, in the order of the prompts."""

    texts: list[str]
    tokens: list[list[int]]     # without the end token
    finished: np.ndarray        # Boolean (n,): the model ended the answer by itself


@torch.inference_mode()
def generate(
    chat: Chat,
    prompts: Sequence[str],
    *,
    system: str = "default",
    prefill: str | Sequence[str] | Sequence[list[int]] = "",
    max_new_tokens: int = 32,
    batch_size: int = 50,
    sample: int | None = None,
    progress: str | None = None,
) -> Answers:
    """Greedy answers to `prompts`, each up to the first of the model's end tokens.

    With a seed `sample` they are drawn at `TEMPERATURE` instead: the same ones for the same seed,
    prompts and batch size. The global random state is left alone.

    `prefill` is put into the model's mouth first and is not part of the answer: a text for all
    prompts, or a text or token ids for each. Length-sorted batches, each stopped as soon as all its
    answers are done. `progress` labels a bar. Raises `SsahError` for no prompts, for what is no
    list of texts, for less than one token, and for a model whose logits are not finite.
    """
    check_chat(chat)
    prompts = as_texts(prompts, "prompts")
    if not prompts:
        raise SsahError("no prompts to answer")
    check_count("max_new_tokens", max_new_tokens)
    heads = prefilled(chat, prompts, prefill, system)
    settings = greedy(chat, max_new_tokens)
    if sample is not None:
        settings.update(do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0)
    ends = set(chat.stop_ids)
    tokens: list[list[int]] = [[] for _ in heads]
    finished = np.zeros(len(heads), bool)
    with _seeded(sample):
        for rows in length_batches(heads, batch_size, progress):
            for row, answer in zip(rows, _continued(chat, [heads[row] for row in rows], settings)):
                tokens[row] = before_written_end(chat, _up_to(answer, ends))
                finished[row] = len(tokens[row]) < len(answer)
    texts = [chat.tokenizer.decode(answer, skip_special_tokens=True) for answer in tokens]
    return Answers(texts, tokens, finished)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Torch's random numbers as of a seed, and afterwards as before; None: nothing is touched."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def greedy(chat: Chat, most: int, least: int | None = None) -> GenerationConfig:
    """Settings of `model.generate` for greedy answers of at `least` to `most` tokens."""
    # the usual options that could make it other than greedy: what is left out comes from the model
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_new_tokens=least,
        max_new_tokens=most,
        eos_token_id=chat.stop_ids,
        pad_token_id=chat.tokenizer.pad_token_id,
    )


class Finite(LogitsProcessor):
    """Leaves the logits of a generating model alone, and stops it where they are not finite.

    What is forbidden (-inf) is no fault: an end token before the least length.
    """

    def __init__(self, chat: Chat):
        self.chat = chat

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        check_finite(self.chat, "the logits", scores.masked_fill(scores == -torch.inf, 0))
        return scores


def prefilled(
    chat: Chat, prompts: list[str], prefill: str | Sequence[str] | Sequence[list[int]], system: str
) -> list[list[int]]:
    """Token ids of every rendered prompt with the beginning of its answer."""
    if isinstance(prefill, str):
        prefill = [prefill] * len(prompts)
    if len(prefill) != len(prompts):
        raise SsahError(f"there are {len(prefill)} prefills for {len(prompts)} prompts; give one "
                        "for each, or a single text for all")
    return [head + tokens for head, tokens in _encoded(chat, prompts, prefill, system)]


def _continued(chat: Chat, heads: list[list[int]], settings: GenerationConfig) -> list[list[int]]:
    """What the model generates after each head, up to where the whole batch ended."""
    batch = pad(heads, chat.tokenizer.pad_token_id, "left", chat.model.device)
    output = generated_ids(chat, batch, settings)
    return output[:, batch["input_ids"].shape[1]:].tolist()


def generated_ids(chat: Chat, batch: dict, settings: GenerationConfig) -> torch.Tensor:
    """Token ids (sequence, time) that `model.generate` gives by these settings alone.

    What the model's own generation config asks for beside them is put aside meanwhile.
    """
    own = chat.model.generation_config
    chat.model.generation_config = GenerationConfig()
    try:
        return chat.model.generate(
            **batch, generation_config=settings, logits_processor=LogitsProcessorList([Finite(chat)])
        )
    finally:
        chat.model.generation_config = own


def _up_to(answer: list[int], ends: set[int]) -> list[int]:
    """The tokens of an answer before the first that ends it."""
    for place, token in enumerate(answer):
        if token in ends:
            return answer[:place]
    return answer


def before_written_end(chat: Chat, answer: list[int]) -> list[int]:
    """The tokens before the end that the template writes, where that is several tokens."""
    around = chat.template.around_answer
    end = around.end.strip()
    if around.end_token is not None or not end:
        return answer
    start = chat.tokenizer.decode(answer).find(end)
    if start < 0:
        return answer
    length = len(answer)
    while len(chat.tokenizer.decode(answer[:length])) > start:
        length -= 1
    return answer[:length]


# ---- refusal log-odds ------------------------------------------------------------------------


@dataclass(frozen=True)
class Openings:
    """The short openings of an answer, as token ids after one prompt.

    `refusal`, `fulfilment`: a list of an opening's forms each, the usual one first.
    """

    head: list[int]
    refusal: list[list[list[int]]]
    fulfilment: list[list[list[int]]]

    @property
    def tails(self) -> list[list[int]]:
        """All forms of all openings, those of a refusal first."""
        return [form for forms in self.refusal + self.fulfilment for form in forms]


def openings_after(
    chat: Chat, prompt: str, system: str = "default", *, all_forms: bool = True
) -> Openings:
    """The short openings of the package's list (`openings.csv`, probe = 0) after a prompt.

    An opening that begins with another one of its list is dropped (its probability is inside the
    other's), and so is one with words that the tokenizer does not know. Raises `SsahError` if a
    list is left empty.
    """
    known = chat.known_openings
    asked = (prompt, system, all_forms)
    if asked not in known:
        known[asked] = _encoded_openings(chat, prompt, system, opening_forms(all_forms))
    return known[asked]


@cache
def opening_forms(all_forms: bool = True) -> dict[str, list[list[str]]]:
    """``refusal`` and ``fulfilment`` -> the forms of every short opening, the usual one first."""
    table = data_file("openings").query("probe == '0'")
    return {
        kind: [forms_of(text) if all_forms else [text] for text in rows["text"]]
        for kind, rows in table.groupby("kind")
    }


def _encoded_openings(
    chat: Chat, prompt: str, system: str, forms: dict[str, list[list[str]]]
) -> Openings:
    """See `openings_after`; `forms`: of `opening_forms`."""
    texts = [form for openings in forms.values() for opening in openings for form in opening]
    head, tails = chat.continuations(prompt, texts, system)
    ids = dict(zip(texts, map(tuple, tails)))
    found = {}
    for kind, openings in forms.items():
        found[kind] = _distinct([[ids[form] for form in opening] for opening in openings], chat)
        if not found[kind]:
            raise SsahError(
                f"the tokenizer of {chat.name!r} knows none of the {kind} openings, which are "
                "English; refusal log-odds need a tokenizer with English words"
            )
    return Openings(head, found["refusal"], found["fulfilment"])


def forms_of(opening: str) -> list[str]:
    """The usual form of an opening, and those with other apostrophes and spaces."""
    forms = [opening]
    if "'" in opening:
        forms += [opening.replace("'", apostrophe) for apostrophe in APOSTROPHES]
    if " " in opening:
        forms += [form.replace(" ", NO_BREAK_SPACE) for form in forms[:2]]
    return forms


def _distinct(openings: list[list[tuple]], chat: Chat) -> list[list[list[int]]]:
    """The openings that are no part of each other, by their usual form, in rising order.

    Of each its different forms in words that the tokenizer knows. Their order decides about nothing
    but the last bits of a sum.
    """
    unknown = chat.tokenizer.unk_token_id
    known = {}
    for forms in openings:
        forms = [form for form in dict.fromkeys(forms) if form and unknown not in form]
        if forms:
            known[forms[0]] = forms
    kept = [usual for usual in known if not _begins_with(usual, known)]
    return [[list(form) for form in known[usual]] for usual in sorted(kept)]


def _begins_with(opening: tuple[int, ...], others: Iterable[tuple[int, ...]]) -> bool:
    """Whether an opening begins with another one."""
    return any(other != opening and opening[:len(other)] == other for other in others)


def refusal_log_odds(
    chat: Chat,
    prompts: Sequence[str],
    *,
    system: str = "default",
    batch_size: int = 32,
    all_forms: bool = True,
) -> np.ndarray:
    """Refusal log-odds (n,), in nats.

        log P(the answer opens a refusal) - log P(the answer opens a fulfilment)

    Probabilities are summed over short openings, of a few tokens each, since the first token alone
    does not tell "I'm sorry" from "I'm a helpful assistant". One prefill a prompt scores them all.
    An opening counts in its likeliest form: with a straight or a typographic apostrophe, with plain
    spaces or such that do not break. With `all_forms=False` only the usual form is scored. Raises
    `SsahError` for no prompts, for what is no list of texts, for a tokenizer without these words,
    and for probabilities that are not finite.
    """
    check_chat(chat)
    opened = [openings_after(chat, prompt, system, all_forms=all_forms)
              for prompt in as_texts(prompts, "prompts")]
    items = [(after.head, after.tails) for after in opened]
    odds = []
    for after, scored in zip(opened, packed_log_probs(chat, items, batch_size=batch_size)):
        of_tails = iter(scored)
        refusal, fulfilment = (
            [max(next(of_tails).sum() for _ in forms) for forms in openings]
            for openings in (after.refusal, after.fulfilment)
        )
        odds.append(logsumexp(refusal) - logsumexp(fulfilment))
    return np.array(odds)


# ---- given answers ---------------------------------------------------------------------------


def response_tokens(
    chat: Chat, prompts: Sequence[str], responses: Sequence[str], *, system: str = "default"
) -> list[list[int]]:
    """Token ids of each response as they follow its prompt, without an end token."""
    prompts = as_texts(prompts, "prompts")
    responses = as_texts(responses, "responses")
    return [tail for _, tail in _encoded(chat, prompts, responses, system)]


def response_nll(
    chat: Chat,
    prompts: Sequence[str],
    responses: Sequence[str] | Sequence[list[int]],
    *,
    system: str = "default",
    prefill: Sequence[list[int]] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Mean NLL (n,), nats a token, of each response after its prompt; NaN if it is empty.

    A response is a text or token ids. `prefill`: token ids between prompt and response (token ids
    too then), which are not scored. Raises `SsahError` for what is no list, for another number of
    responses than prompts, and for losses that are not finite.
    """
    prompts = as_texts(prompts, "prompts")
    if prefill is None:
        encoded = _encoded(chat, prompts, responses, system)
    else:
        _check_responses(prompts, responses)
        encoded = list(zip(prefilled(chat, prompts, prefill, system), responses, strict=True))
    heads = [head for head, _ in encoded]
    tails = [list(tail) for _, tail in encoded]
    scored = token_log_probs(chat, heads, tails, batch_size=batch_size)
    return np.array([-scores.mean() if len(scores) else np.nan for scores in scored])


@torch.inference_mode()
def divergence(
    chat: Chat,
    base: Chat,
    prompts: Sequence[str],
    responses: Sequence[str] | Sequence[list[int]],
    *,
    system: str = "default",
    batch_size: int = 16,
) -> np.ndarray:
    """KL(base || chat) of the next token, nats, averaged over each response's tokens (n,).

    It says what tuning changed. A response is a text or token ids; both models have one vocabulary.
    Raises `SsahError` for an empty response, for another number of responses, and for values that
    are not finite.
    """
    prompts = as_texts(prompts, "prompts")
    if len(responses) != len(prompts):
        raise SsahError(_EACH_NEEDS_ONE.format(len(prompts)))
    encoded = _encoded(chat, prompts, responses, system)
    if not all(response for _, response in encoded):
        raise SsahError(_EACH_NEEDS_ONE.format(len(prompts)))
    whole = [head + response for head, response in encoded]
    result = np.zeros(len(prompts))
    for rows in length_batches(whole, batch_size):
        sequences = [whole[row] for row in rows]
        for row, before, after in zip(rows, read(base, sequences), read(chat, sequences)):
            predicting = answer_positions(*encoded[row])
            log_p = base.model.lm_head(before[predicting]).float().log_softmax(-1)
            log_q = chat.model.lm_head(after[predicting]).float().log_softmax(-1).to(log_p.device)
            result[row] = (log_p.exp() * (log_p - log_q)).sum(-1).mean()    # over the vocabulary
    check_finite(chat, f"the divergences from {base.name!r}", result)
    return result


_EACH_NEEDS_ONE = "a response without tokens has no divergence, and each of {} prompts needs one"


def _encoded(
    chat: Chat,
    prompts: list[str],
    responses: Sequence[str] | Sequence[list[int]],
    system: str,
) -> list[tuple[list[int], list[int]]]:
    """Token ids (prompt, response), those of a text as they follow the prompt."""
    _check_responses(prompts, responses)
    encoded = []
    for prompt, response in zip(prompts, responses, strict=True):
        if isinstance(response, str):
            head, (tail,) = chat.continuations(prompt, [response], system)
        else:
            head, _ = chat.encode(prompt, system=system)
            tail = list(response)
        encoded.append((head, tail))
    return encoded


def _check_responses(prompts: list[str], responses) -> None:
    """Raise `SsahError` for a single text, and for another number of responses than prompts."""
    if isinstance(responses, str):
        as_texts(responses, "responses")        # says what to do
    if len(responses) != len(prompts):
        raise SsahError(f"there are {len(responses)} responses for {len(prompts)} prompts; give one "
                        "for each")


# ---- plain text ------------------------------------------------------------------------------


def perplexity(
    chat: Chat, texts: Sequence[str], *, n_tokens: int, window: int = 256, batch_size: int = 8
) -> float:
    """Perplexity of plain text: `n_tokens` of the joined texts, in windows without overlap.

    Where the tokenizer puts a begin-of-text token, every window has one, and all its tokens are
    scored; else its first token is not. Shorter texts are scored whole. Raises `SsahError` for what
    is no list of texts, for less than two tokens, for windows of one token that are not scored, and
    for a perplexity that is not finite.
    """
    check_chat(chat)
    check_count("n_tokens", n_tokens)
    check_count("window", window)
    begin = chat.plain("")
    ids = chat.plain("\n".join(as_texts(texts)))[len(begin):][:n_tokens]
    heads = []
    tails = []
    for start in range(0, len(ids), window):
        piece = begin + ids[start:start + window]
        n_unscored = max(len(begin), 1)
        if len(piece) > n_unscored:
            heads.append(piece[:n_unscored])
            tails.append(piece[n_unscored:])
    if not tails or len(ids) < 2:
        raise SsahError("perplexity needs a text and windows of at least two tokens; got "
                        f"{len(ids)} tokens and a window of {window}")
    scored = token_log_probs(chat, heads, tails, batch_size=batch_size)
    result = np.exp(-np.concatenate(scored).mean())
    check_finite(chat, "the perplexity", result)
    return float(result)


def multiple_choice(
    chat: Chat, questions: pd.DataFrame | Sequence[dict], *, batch_size: int = 32
) -> pd.DataFrame:
    """Zero-shot multiple choice, a row a question.

    Columns: id, correct (bool), gold (mean log-probability of the right answer's tokens).
    `questions` as from `load_questions`, put as plain text without a chat template. The choice is
    the option with the highest log-likelihood per character. The paper's utility (Table 1) is a
    mean of such accuracies. Raises `SsahError` for no questions, a missing column, an empty option,
    an answer that is no position among the options, and likelihoods that are not finite.
    """
    check_chat(chat)
    questions = _question_table(questions)
    items = [_question_ids(chat, row) for row in questions.itertuples()]
    scored = packed_log_probs(chat, items, batch_size=batch_size)
    rows = []
    for row, scores in zip(questions.itertuples(), scored):
        likelihood = []
        for option_scores, option in zip(scores, row.options):
            likelihood.append(option_scores.sum() / len(option))
        rows.append({
            "id": row.id,
            "correct": int(np.argmax(likelihood)) == row.answer,
            "gold": float(scores[row.answer].mean()),
        })
    return pd.DataFrame(rows)


def _question_table(questions: pd.DataFrame | Sequence[dict]) -> pd.DataFrame:
    """The questions as a table that has what is needed."""
    if isinstance(questions, (str, dict, pd.Series)):
        raise SsahError("questions must be a table or a list of records, as from load_questions")
    table = pd.DataFrame(questions)
    missing = [column for column in QUESTION_COLUMNS if column not in table]
    if len(table) and missing:
        raise SsahError(
            f"the questions have no {', '.join(missing)}; load_questions makes such a table"
        )
    return table


def _question_ids(chat: Chat, row) -> tuple[list[int], list[list[int]]]:
    """Token ids of a question, and of each option after it: what they share is the question's."""
    head = chat.plain(row.question)
    wholes = []
    for option in as_texts(row.options, f"the options of question {row.id}"):
        if not option:
            raise SsahError(f"question {row.id} has an empty option; remove it")
        wholes.append(chat.plain(f"{row.question} {option}"))
    if not 0 <= row.answer < len(wholes):
        raise SsahError(f"question {row.id}: answer {row.answer} is no position among its "
                        f"{len(wholes)} options")
    for whole in wholes:
        head = os.path.commonprefix([head, whole])
    if not head:
        raise SsahError(f"question {row.id} has no token before its options; give it a text")
    return head, [whole[len(head):] for whole in wholes]
