"""What a model says and what it still knows: generation, refusal log-odds, perplexity, multiple choice.

All of it runs in padded batches sorted by length. Scoring pads on the right, generation on the left;
padding is masked by length, so an answer does not depend on its batch (tested in float32).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from tqdm.auto import tqdm
from transformers import GenerationConfig

from .errors import SsahError
from .inputs.words import data_file
from .models import Chat, pad


@dataclass(frozen=True)
class Answers:
    """Greedy answers to a list of prompts, in the order of the prompts."""

    texts: list[str]
    tokens: list[list[int]]     # without the end token
    finished: np.ndarray        # Boolean (n,): the model ended the answer by itself


@torch.inference_mode()
def generate(chat: Chat, prompts: list[str], *, system: str = "default", prefill: str | list[list[int]] = "",
             max_new_tokens: int = 32, batch_size: int = 50, progress: str | None = None) -> Answers:
    """Greedy answers to `prompts`; `prefill` is put into the model's mouth first and is not part of the answer.

    A prefill is a text for all prompts, or token ids for each.

    Length-sorted batches, each stopped as soon as all its answers are done. `progress` labels a bar.
    Raises `SsahError` for an empty prompt list.
    """
    if not prompts:
        raise SsahError("no prompts to answer")
    openings = [chat.tokenizer(prefill, add_special_tokens=False)["input_ids"]] * len(prompts) \
        if isinstance(prefill, str) else prefill
    heads = [chat.encode(prompt, system=system)[0] + opening for prompt, opening in zip(prompts, openings, strict=True)]
    eos, tokens = chat.tokenizer.eos_token_id, [[] for _ in heads]
    settings = greedy(chat, max_new_tokens)
    for rows in _batches(heads, batch_size, progress):
        batch = pad([heads[i] for i in rows], chat.tokenizer.pad_token_id, "left", chat.model.device)
        # the answers without their prompts: (batch, answer)
        output = chat.model.generate(**batch, generation_config=settings)[:, batch["input_ids"].shape[1]:]
        for i, answer in zip(rows, output.tolist()):
            tokens[i] = answer[:answer.index(eos) + 1] if eos in answer else answer
    finished = np.array([bool(t) and t[-1] == eos for t in tokens])
    tokens = [t[:-1] if done else t for t, done in zip(tokens, finished)]
    return Answers([chat.tokenizer.decode(t, skip_special_tokens=True) for t in tokens], tokens, finished)


def greedy(chat: Chat, most: int, least: int | None = None) -> GenerationConfig:
    """Settings of `model.generate` for greedy answers of at `most` so many tokens, and at `least`, if given."""
    # all that could make it other than greedy is named: what is left out comes from the model's own settings
    return GenerationConfig(do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
                            min_new_tokens=least, max_new_tokens=most, eos_token_id=chat.tokenizer.eos_token_id,
                            pad_token_id=chat.tokenizer.pad_token_id)


def opening_tokens(chat: Chat) -> dict[str, list[list[int]]]:
    """Token ids of the short refusal and fulfilment openings in ``data/openings.csv`` (those with probe = 0).

    An opening that begins with another one of its list is dropped (its probability is inside the other's), and so is
    one with words that the tokenizer does not know. Raises `SsahError` if a list is left empty.
    """
    table, found = data_file("openings").query("probe == '0'"), {}
    for kind, rows in table.groupby("kind"):
        ids = {tuple(chat.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rows["text"]}
        ids = {t for t in ids if chat.tokenizer.unk_token_id not in t or chat.tokenizer.unk_token_id is None}
        found[kind] = sorted(list(t) for t in ids if not any(t[:len(o)] == o for o in ids - {t}))
        if not found[kind]:
            raise SsahError(f"the tokenizer knows none of the {kind} openings; see data/openings.csv")
    return found


def refusal_log_odds(chat: Chat, prompts: list[str], *, system: str = "default", batch_size: int = 32) -> np.ndarray:
    """Refusal log-odds (n,), in nats: log P(the answer opens a refusal) - log P(it opens a fulfilment).

    Probabilities are summed over the short openings of ``data/openings.csv``, of one to three tokens, since the first
    token alone does not tell "I'm sorry" from "I'm a helpful assistant". One prefill a prompt scores them all.
    """
    openings = opening_tokens(chat)
    tails, n_refusal = openings["refusal"] + openings["fulfilment"], len(openings["refusal"])
    scored = packed_log_probs(chat, [(chat.encode(prompt, system=system)[0], tails) for prompt in prompts],
                              batch_size=batch_size)
    totals = np.array([[tail.sum() for tail in row] for row in scored])                     # (prompt, opening)
    return logsumexp(totals[:, :n_refusal], axis=1) - logsumexp(totals[:, n_refusal:], axis=1)


@torch.inference_mode()
def token_log_probs(chat: Chat, heads: list[list[int]], tails: list[list[int]], *, batch_size: int = 32,
                    progress: str | None = None) -> list[np.ndarray]:
    """Log-probabilities (nats) of each tail's tokens given its head and the tail so far: a list of arrays (tail,)."""
    result = [np.zeros(0)] * len(heads)
    whole = [head + tail for head, tail in zip(heads, tails)]
    for rows in _batches(whole, batch_size, progress):
        batch = pad([whole[i] for i in rows], chat.tokenizer.pad_token_id, device=chat.model.device)
        hidden = chat.model.base_model(**batch, use_cache=False).last_hidden_state
        for k, i in enumerate(rows):
            start, n = len(heads[i]), len(tails[i])
            logits = chat.model.lm_head(hidden[k, start - 1:start - 1 + n]).float()      # (tail, vocabulary)
            result[i] = _picked(logits, tails[i])
    return result


def response_nll(chat: Chat, prompts: list[str], responses: list[list[int]], *, system: str = "default",
                 prefill: list[list[int]] | None = None, batch_size: int = 32) -> np.ndarray:
    """Mean negative log-likelihood (n,), nats a token, of each response (token ids) after its prompt; NaN if empty.

    `prefill`: token ids between the two, of each prompt, which are not scored.
    """
    heads = [chat.encode(prompt, system=system)[0] + opening
             for prompt, opening in zip(prompts, prefill or [[]] * len(prompts), strict=True)]
    scored = token_log_probs(chat, heads, responses, batch_size=batch_size)
    return np.array([-x.mean() if len(x) else np.nan for x in scored])


@torch.inference_mode()
def divergence(chat: Chat, base: Chat, prompts: list[str], responses: list[list[int]], *, system: str = "default",
               batch_size: int = 16) -> np.ndarray:
    """KL(base || chat) of the next token, nats, averaged over each response's tokens (n,); what tuning changed.

    Both models have one vocabulary. Raises `SsahError` for an empty response, and for another number of responses.
    """
    if not all(responses) or len(responses) != len(prompts):
        raise SsahError(f"a response without tokens has no divergence, and each of {len(prompts)} prompts needs one")
    heads, result = [chat.encode(prompt, system=system)[0] for prompt in prompts], np.zeros(len(prompts))
    whole = [head + tail for head, tail in zip(heads, responses)]
    for rows in _batches(whole, batch_size):
        batch = pad([whole[i] for i in rows], chat.tokenizer.pad_token_id, device=chat.model.device)
        hidden = [model.base_model(**batch, use_cache=False).last_hidden_state for model in (base.model, chat.model)]
        for k, i in enumerate(rows):
            where = slice(len(heads[i]) - 1, len(whole[i]) - 1)
            before, after = (model.lm_head(states[k, where]).float().log_softmax(-1)        # (tail, vocabulary)
                             for model, states in zip((base.model, chat.model), hidden))
            result[i] = (before.exp() * (before - after)).sum(-1).mean()
    return result


def perplexity(chat: Chat, texts: list[str], *, n_tokens: int, window: int = 256, batch_size: int = 8) -> float:
    """Perplexity of plain text: `n_tokens` of the joined texts, in windows whose first token is not scored."""
    ids = chat.tokenizer("\n".join(texts), add_special_tokens=False)["input_ids"][:n_tokens]
    pieces = [ids[i:i + window] for i in range(0, len(ids) - 1, window)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise SsahError("perplexity needs a text of at least two tokens")
    scored = token_log_probs(chat, [p[:1] for p in pieces], [p[1:] for p in pieces], batch_size=batch_size)
    return float(np.exp(-np.concatenate(scored).mean()))


def multiple_choice(chat: Chat, questions: pd.DataFrame, *, batch_size: int = 32) -> pd.DataFrame:
    """Zero-shot multiple choice: columns id, correct (bool), gold (mean log-probability of the right answer's tokens).

    `questions` as from `load_questions`, put as plain text without a chat template. The choice is the option with
    the highest log-likelihood per character. The paper's utility (Table 1) is a mean of such accuracies.
    """
    def ids(text: str) -> list[int]:
        return chat.tokenizer(text, add_special_tokens=False)["input_ids"]

    items = [(ids(row.question), [ids(" " + option) for option in row.options]) for row in questions.itertuples()]
    rows = []
    for row, scores in zip(questions.itertuples(), packed_log_probs(chat, items, batch_size=batch_size)):
        likelihood = [s.sum() / max(len(option), 1) for s, option in zip(scores, row.options)]
        rows.append({"id": row.id, "correct": int(np.argmax(likelihood)) == row.answer,
                     "gold": float(scores[row.answer].mean())})
    return pd.DataFrame(rows)


@torch.inference_mode()
def packed_log_probs(chat: Chat, items: list[tuple], *, batch_size: int = 32) -> list[list[np.ndarray]]:
    """Log-probabilities of several continuations of each head, as `token_log_probs`, with every head read only once.

    `items`: ``(head ids, [tail ids, ...])``; the result is indexed [item][tail], each an array (tail,). Head and
    tails share one sequence, in which a tail sees the head and itself only.
    """
    if not items:
        raise SsahError("nothing to score: no prompts or no questions")
    packed = [head + [t for tail in tails for t in tail] for head, tails in items]
    result: list[list[np.ndarray]] = [[] for _ in items]
    for rows in _batches(packed, batch_size):
        ids = pad([packed[i] for i in rows], chat.tokenizer.pad_token_id, device=chat.model.device)["input_ids"]
        seen, positions = _packed_attention([items[i] for i in rows], ids.shape[1])
        bias = torch.zeros(seen.shape, dtype=chat.model.dtype).masked_fill(~seen, torch.finfo(chat.model.dtype).min)
        hidden = chat.model.base_model(input_ids=ids, attention_mask=bias[:, None].to(ids.device),
                                       position_ids=positions.to(ids.device), use_cache=False).last_hidden_state
        for k, i in enumerate(rows):
            head, tails = items[i]
            # the head's last token predicts every tail's first token, a tail itself its others
            starts = np.cumsum([len(head)] + [len(tail) for tail in tails])
            places = [p for start, tail in zip(starts, tails)
                      for p in (len(head) - 1, *range(start, start + len(tail) - 1))]
            logits = chat.model.lm_head(hidden[k, places]).float()                          # (tail tokens, vocabulary)
            result[i] = np.split(_picked(logits, packed[i][len(head):]), starts[1:-1] - len(head))
    return result


def _picked(logits: torch.Tensor, tokens: list[int]) -> np.ndarray:
    """Log-probability (n,) of token k under row k of the logits (n, vocabulary)."""
    target = torch.tensor(tokens, device=logits.device)
    return (logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(-1)).cpu().numpy()


def _packed_attention(items: list[tuple], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Who sees whom (batch, time, time) and position ids (batch, time) for heads packed with their tails."""
    seen = torch.eye(width, dtype=torch.bool).repeat(len(items), 1, 1)      # padding sees itself: no empty row
    positions = torch.zeros(len(items), width, dtype=torch.long)
    for row, (head, tails) in enumerate(items):
        n = len(head)
        seen[row, :n, :n] = torch.ones(n, n, dtype=torch.bool).tril()
        positions[row, :n] = torch.arange(n)
        start = n
        for tail in tails:
            own = slice(start, start + len(tail))
            seen[row, own, :n] = True
            seen[row, own, own] = torch.ones(len(tail), len(tail), dtype=torch.bool).tril()
            positions[row, own] = torch.arange(n, n + len(tail))
            start += len(tail)
    return seen, positions


def _batches(sequences: list[list[int]], size: int, progress: str | None = None):
    """Lists of row numbers, longest sequences first (so that memory fails early, not late)."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    starts = range(0, len(order), size)
    for start in tqdm(starts, desc=progress, disable=progress is None, leave=False):
        yield order[start:start + size]
