"""What a model says and what it knows: answers, refusal log-odds, perplexity, multiple choice.

All of it runs in padded batches sorted by length. Scoring pads on the right (`ssah.likelihood`),
generation on the left; padding is masked by length, so an answer does not depend on its batch
(tested in float32).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from transformers import GenerationConfig

from .errors import SsahError
from .inputs.words import data_file
from .likelihood import (
    answer_positions,
    length_batches,
    packed_log_probs,
    read,
    token_log_probs,
)
from .models import Chat, pad


@dataclass(frozen=True)
class Answers:
    """Greedy answers to a list of prompts, in the order of the prompts."""

    texts: list[str]
    tokens: list[list[int]]  # without the end token
    finished: np.ndarray  # Boolean (n,): the model ended the answer by itself


@torch.inference_mode()
def generate(
    chat: Chat,
    prompts: list[str],
    *,
    system: str = "default",
    prefill: str | list[list[int]] = "",
    max_new_tokens: int = 32,
    batch_size: int = 50,
    progress: str | None = None,
) -> Answers:
    """Greedy answers to `prompts`.

    `prefill` is put into the model's mouth first and is not part of the answer: a text for all
    prompts, or token ids for each. Length-sorted batches, each stopped as soon as all its answers
    are done. `progress` labels a bar. Raises `SsahError` for an empty prompt list.
    """
    if not prompts:
        raise SsahError("no prompts to answer")
    if isinstance(prefill, str):
        opening = chat.tokenizer(prefill, add_special_tokens=False)["input_ids"]
        prefill = [opening] * len(prompts)
    heads = _heads(chat, prompts, prefill, system)
    end = chat.tokenizer.eos_token_id
    settings = greedy(chat, max_new_tokens)
    tokens: list[list[int]] = [[] for _ in heads]
    finished = np.zeros(len(heads), bool)
    for rows in length_batches(heads, batch_size, progress):
        for row, answer in zip(rows, _continued(chat, [heads[row] for row in rows], settings)):
            finished[row] = end in answer
            tokens[row] = answer[: answer.index(end)] if end in answer else answer
    texts = [chat.tokenizer.decode(answer, skip_special_tokens=True) for answer in tokens]
    return Answers(texts, tokens, finished)


def greedy(chat: Chat, most: int, least: int | None = None) -> GenerationConfig:
    """Settings of `model.generate` for greedy answers of at `least` to `most` tokens."""
    # all that could make it other than greedy is named: what is left out comes from the model
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_new_tokens=least,
        max_new_tokens=most,
        eos_token_id=chat.tokenizer.eos_token_id,
        pad_token_id=chat.tokenizer.pad_token_id,
    )


def _heads(
    chat: Chat, prompts: list[str], openings: list[list[int]], system: str
) -> list[list[int]]:
    """Token ids of every rendered prompt with its own opening of an answer."""
    heads = []
    for prompt, opening in zip(prompts, openings, strict=True):
        head, _ = chat.encode(prompt, system=system)
        heads.append(head + opening)
    return heads


def _continued(chat: Chat, heads: list[list[int]], settings: GenerationConfig) -> list[list[int]]:
    """What the model generates after each head, up to where the whole batch ended."""
    batch = pad(heads, chat.tokenizer.pad_token_id, "left", chat.model.device)
    output = chat.model.generate(**batch, generation_config=settings)
    return output[:, batch["input_ids"].shape[1]:].tolist()


# ---- refusal log-odds ------------------------------------------------------------------------


def opening_tokens(chat: Chat) -> dict[str, list[list[int]]]:
    """Token ids of the short openings in ``data/openings.csv`` (with probe = 0), by kind.

    An opening that begins with another one of its list is dropped (its probability is inside the
    other's), and so is one with words that the tokenizer does not know. Raises `SsahError` if a
    list is left empty.
    """
    unknown = chat.tokenizer.unk_token_id
    found = {}
    for kind, rows in data_file("openings").query("probe == '0'").groupby("kind"):
        ids = {
            tuple(chat.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in rows["text"]
        }
        known = {opening for opening in ids if unknown is None or unknown not in opening}
        found[kind] = sorted(list(opening) for opening in known if not _begins_with(opening, known))
        if not found[kind]:
            raise SsahError(
                f"the tokenizer knows none of the {kind} openings; see data/openings.csv"
            )
    return found


def _begins_with(opening: tuple[int, ...], others: set[tuple[int, ...]]) -> bool:
    """Whether an opening begins with another one."""
    return any(opening[: len(other)] == other for other in others - {opening})


def refusal_log_odds(
    chat: Chat, prompts: list[str], *, system: str = "default", batch_size: int = 32
) -> np.ndarray:
    """Refusal log-odds (n,), in nats.

        log P(the answer opens a refusal) - log P(the answer opens a fulfilment)

    Probabilities are summed over the short openings of ``data/openings.csv``, of one to three
    tokens, since the first token alone does not tell "I'm sorry" from "I'm a helpful assistant".
    One prefill a prompt scores them all.
    """
    openings = opening_tokens(chat)
    tails = openings["refusal"] + openings["fulfilment"]
    items = [(chat.encode(prompt, system=system)[0], tails) for prompt in prompts]
    totals = np.array(
        [
            [tail.sum() for tail in tails_of_prompt]
            for tails_of_prompt in packed_log_probs(chat, items, batch_size=batch_size)
        ]
    )
    refusal, fulfilment = np.split(totals, [len(openings["refusal"])], axis=1)  # (prompt, opening)
    return logsumexp(refusal, axis=1) - logsumexp(fulfilment, axis=1)


# ---- given answers ---------------------------------------------------------------------------


def response_nll(
    chat: Chat,
    prompts: list[str],
    responses: list[list[int]],
    *,
    system: str = "default",
    prefill: list[list[int]] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Mean NLL (n,), nats a token, of each response (token ids) after its prompt; NaN if empty.

    `prefill`: token ids between the two, of each prompt, which are not scored.
    """
    heads = _heads(chat, prompts, prefill or [[]] * len(prompts), system)
    scored = token_log_probs(chat, heads, responses, batch_size=batch_size)
    return np.array([-scores.mean() if len(scores) else np.nan for scores in scored])


@torch.inference_mode()
def divergence(
    chat: Chat,
    base: Chat,
    prompts: list[str],
    responses: list[list[int]],
    *,
    system: str = "default",
    batch_size: int = 16,
) -> np.ndarray:
    """KL(base || chat) of the next token, nats, averaged over each response's tokens (n,).

    It says what tuning changed. Both models have one vocabulary. Raises `SsahError` for an empty
    response, and for another number of responses.
    """
    if not all(responses) or len(responses) != len(prompts):
        raise SsahError(
            f"a response without tokens has no divergence, "
            f"and each of {len(prompts)} prompts needs one"
        )
    heads = _heads(chat, prompts, [[]] * len(prompts), system)
    whole = [head + response for head, response in zip(heads, responses)]
    result = np.zeros(len(prompts))
    for rows in length_batches(whole, batch_size):
        sequences = [whole[row] for row in rows]
        for row, before, after in zip(rows, read(base, sequences), read(chat, sequences)):
            predicting = answer_positions(heads[row], responses[row])
            log_p = base.model.lm_head(before[predicting]).float().log_softmax(-1)
            log_q = chat.model.lm_head(after[predicting]).float().log_softmax(-1)
            result[row] = (log_p.exp() * (log_p - log_q)).sum(-1).mean()  # sum: over the vocabulary
    return result


# ---- plain text ------------------------------------------------------------------------------


def perplexity(
    chat: Chat, texts: list[str], *, n_tokens: int, window: int = 256, batch_size: int = 8
) -> float:
    """Perplexity of plain text: `n_tokens` of the joined texts.

    It is read in windows, of which the first token is not scored.
    """
    ids = chat.tokenizer("\n".join(texts), add_special_tokens=False)["input_ids"][:n_tokens]
    pieces = [ids[start : start + window] for start in range(0, len(ids) - 1, window)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise SsahError("perplexity needs a text of at least two tokens")
    heads = [piece[:1] for piece in pieces]
    tails = [piece[1:] for piece in pieces]
    scored = token_log_probs(chat, heads, tails, batch_size=batch_size)
    return float(np.exp(-np.concatenate(scored).mean()))


def multiple_choice(chat: Chat, questions: pd.DataFrame, *, batch_size: int = 32) -> pd.DataFrame:
    """Zero-shot multiple choice, a row a question.

    Columns: id, correct (bool), gold (mean log-probability of the right answer's tokens).
    `questions` as from `load_questions`, put as plain text without a chat template. The choice is
    the option with the highest log-likelihood per character. The paper's utility (Table 1) is a
    mean of such accuracies.
    """
    items = [_question_ids(chat, row.question, row.options) for row in questions.itertuples()]
    scored = packed_log_probs(chat, items, batch_size=batch_size)
    rows = []
    for row, scores in zip(questions.itertuples(), scored):
        likelihood = [
            option_scores.sum() / max(len(option), 1)
            for option_scores, option in zip(scores, row.options)
        ]
        rows.append(
            {
                "id": row.id,
                "correct": int(np.argmax(likelihood)) == row.answer,
                "gold": float(scores[row.answer].mean()),
            }
        )
    return pd.DataFrame(rows)


def _question_ids(
    chat: Chat, question: str, options: list[str]
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a question, and of each option after it."""
    texts = [question, *(" " + option for option in options)]
    head, *tails = [chat.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return head, tails
