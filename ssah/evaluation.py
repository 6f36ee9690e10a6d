"""What a model says and what it still knows: generation, refusal log-odds, perplexity, multiple choice.

All of it runs in padded batches sorted by length. Scoring pads on the right, generation on the left;
padding is masked by length, so an answer does not depend on its batch (tested in float32).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig

from .errors import SsahError
from .models import Chat, pad
from .prompts import data_file


@dataclass(frozen=True)
class Answers:
    """Greedy answers to a list of prompts, in the order of the prompts."""

    texts: list[str]
    tokens: list[list[int]]     # without the end token
    finished: np.ndarray        # Boolean (n,): the model ended the answer by itself
    log_odds: np.ndarray        # (n,): refusal log-odds at the first answer token


def opening_tokens(chat: Chat) -> dict[str, list[int]]:
    """First token ids of the refusal and of the fulfilment openings in ``data/openings.csv``; shared ones dropped."""
    found = {kind: {chat.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in table["text"]}
             for kind, table in data_file("openings").groupby("kind")}
    ambiguous = found["refusal"] & found["fulfilment"] | {chat.tokenizer.unk_token_id}
    if not all(ids - ambiguous for ids in found.values()):
        raise SsahError("the tokenizer does not tell refusal from fulfilment openings; see data/openings.csv")
    return {kind: sorted(ids - ambiguous) for kind, ids in found.items()}


def log_odds(logits: torch.Tensor, openings: dict[str, list[int]]) -> torch.Tensor:
    """Refusal log-odds (batch,) from next-token logits (batch, vocabulary): log P(refusal opening) - log P(fulfilment opening)."""
    logits = logits.float()
    return logits[:, openings["refusal"]].logsumexp(-1) - logits[:, openings["fulfilment"]].logsumexp(-1)


@torch.inference_mode()
def generate(chat: Chat, prompts: list[str], *, system: str = "default", prefill: str = "", max_new_tokens: int = 32,
             batch_size: int = 50, progress: str | None = None) -> Answers:
    """Greedy answers to `prompts`; `prefill` is put into the model's mouth first and is not part of the answer.

    Length-sorted batches, each stopped as soon as all its answers are done. `progress` labels a bar.
    Raises `SsahError` for an empty prompt list.
    """
    if not prompts:
        raise SsahError("no prompts to answer")
    opening = chat.tokenizer(prefill, add_special_tokens=False)["input_ids"] if prefill else []
    heads = [chat.encode(prompt, system=system)[0] + opening for prompt in prompts]
    openings, eos = opening_tokens(chat), chat.tokenizer.eos_token_id
    settings = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos,
                                pad_token_id=chat.tokenizer.pad_token_id)
    tokens, odds = [[] for _ in heads], np.zeros(len(heads))
    for rows in _batches(heads, batch_size, progress):
        first: list[torch.Tensor] = []

        def remember(ids, scores):
            if not first:
                first.append(log_odds(scores, openings))
            return scores

        batch = pad([heads[i] for i in rows], chat.tokenizer.pad_token_id, "left", chat.model.device)
        output = chat.model.generate(**batch, generation_config=settings, logits_processor=[remember])
        odds[rows] = first[0].cpu().numpy()
        for i, answer in zip(rows, output[:, batch["input_ids"].shape[1]:].tolist()):
            tokens[i] = answer[:answer.index(eos) + 1] if eos in answer else answer
    finished = np.array([bool(t) and t[-1] == eos for t in tokens])
    tokens = [t[:-1] if done else t for t, done in zip(tokens, finished)]
    return Answers([chat.tokenizer.decode(t, skip_special_tokens=True) for t in tokens], tokens, finished, odds)


@torch.inference_mode()
def refusal_log_odds(chat: Chat, prompts: list[str], *, system: str = "default", batch_size: int = 50) -> np.ndarray:
    """Refusal log-odds (n,) at the first answer token, from one prefill a prompt."""
    heads, openings = [chat.encode(prompt, system=system)[0] for prompt in prompts], opening_tokens(chat)
    result = np.zeros(len(heads))
    for rows in _batches(heads, batch_size):
        batch = pad([heads[i] for i in rows], chat.tokenizer.pad_token_id, device=chat.model.device)
        hidden = chat.model.base_model(**batch, use_cache=False).last_hidden_state      # (batch, time, hidden)
        last = hidden[torch.arange(len(rows)), batch["attention_mask"].sum(1) - 1]
        result[rows] = log_odds(chat.model.lm_head(last), openings).cpu().numpy()
    return result


@torch.inference_mode()
def token_log_probs(chat: Chat, heads: list[list[int]], tails: list[list[int]], *, batch_size: int = 32,
                    progress: str | None = None) -> list[np.ndarray]:
    """Log-probability of every tail token given its head and the tail so far; logits only where a tail token is predicted."""
    result = [np.zeros(0)] * len(heads)
    whole = [head + tail for head, tail in zip(heads, tails)]
    for rows in _batches(whole, batch_size, progress):
        batch = pad([whole[i] for i in rows], chat.tokenizer.pad_token_id, device=chat.model.device)
        hidden = chat.model.base_model(**batch, use_cache=False).last_hidden_state
        for k, i in enumerate(rows):
            start, n = len(heads[i]), len(tails[i])
            logits = chat.model.lm_head(hidden[k, start - 1:start - 1 + n]).float()      # (tail, vocabulary)
            target = torch.tensor(tails[i], device=logits.device)
            result[i] = (logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(-1)).cpu().numpy()
    return result


def response_nll(chat: Chat, prompts: list[str], responses: list[list[int]], *, system: str = "default",
                 batch_size: int = 32) -> np.ndarray:
    """Mean negative log-likelihood (nats a token) of each response, given as token ids, after its prompt; NaN if empty."""
    heads = [chat.encode(prompt, system=system)[0] for prompt in prompts]
    scored = token_log_probs(chat, heads, responses, batch_size=batch_size)
    return np.array([-x.mean() if len(x) else np.nan for x in scored])


def perplexity(chat: Chat, texts: list[str], *, n_tokens: int, window: int = 256, batch_size: int = 8) -> float:
    """Perplexity of plain text: the first `n_tokens` tokens of the joined texts in windows without overlap."""
    ids = chat.tokenizer("\n".join(texts), add_special_tokens=False)["input_ids"][:n_tokens]
    pieces = [ids[i:i + window] for i in range(0, len(ids) - 1, window)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    scored = token_log_probs(chat, [p[:1] for p in pieces], [p[1:] for p in pieces], batch_size=batch_size)
    return float(np.exp(-np.concatenate(scored).mean()))


@torch.inference_mode()
def multiple_choice(chat: Chat, questions: pd.DataFrame, *, batch_size: int = 32) -> pd.DataFrame:
    """Zero-shot multiple choice: columns id, correct (bool), gold (mean log-probability of the right answer's tokens).

    `questions` as from `load_questions`. The choice is the option with the highest log-likelihood per character.
    Question and options share one sequence: an option sees the question and itself only, so the
    question is read once however many options it has.
    """
    items = []
    for row in questions.itertuples():
        head = chat.tokenizer(row.question, add_special_tokens=False)["input_ids"]
        items.append((head, [chat.tokenizer(" " + o, add_special_tokens=False)["input_ids"] for o in row.options]))
    packed = [head + [t for tail in tails for t in tail] for head, tails in items]
    scores: list[list[np.ndarray]] = [[] for _ in items]
    for rows in _batches(packed, batch_size):
        ids = pad([packed[i] for i in rows], chat.tokenizer.pad_token_id, device=chat.model.device)["input_ids"]
        seen, positions = _packed_attention([items[i] for i in rows], ids.shape[1])
        bias = torch.zeros(seen.shape, dtype=chat.model.dtype).masked_fill(~seen, torch.finfo(chat.model.dtype).min)
        hidden = chat.model.base_model(input_ids=ids, attention_mask=bias[:, None].to(ids.device),
                                       position_ids=positions.to(ids.device), use_cache=False).last_hidden_state
        for k, i in enumerate(rows):
            head, tails = items[i]
            start = len(head)
            for tail in tails:
                # the question's last token predicts an option's first token, the option itself the others
                sources = [len(head) - 1, *range(start, start + len(tail) - 1)]
                logits = chat.model.lm_head(hidden[k, sources]).float()
                target = torch.tensor(tail, device=logits.device)
                scores[i].append((logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(-1)).cpu().numpy())
                start += len(tail)
    rows = []
    for row, per_option in zip(questions.itertuples(), scores):
        likelihood = [s.sum() / max(len(o), 1) for s, o in zip(per_option, row.options)]
        rows.append({"id": row.id, "correct": int(np.argmax(likelihood)) == row.answer, "gold": float(per_option[row.answer].mean())})
    return pd.DataFrame(rows)


def _packed_attention(items: list[tuple], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Who sees whom (batch, time, time) and position ids (batch, time) for questions packed with their options."""
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
