"""Log-probabilities of given tokens: of one continuation of a text, or of several read at once.

Batches are sorted by length and padded on the right. Logits are computed only where a scored token
is predicted.
"""

import numbers
from collections.abc import Iterator

import numpy as np
import torch
from tqdm.auto import tqdm

from .errors import SsahError
from .models import Chat, pad

#: Token ids of a head, and those of each of its continuations.
Item = tuple[list[int], list[list[int]]]


@torch.inference_mode()
def token_log_probs(
    chat: Chat,
    heads: list[list[int]],
    tails: list[list[int]],
    *,
    batch_size: int = 32,
    progress: str | None = None,
) -> list[np.ndarray]:
    """Log-probabilities (nats) of each tail's tokens given its head and the tail so far.

    Returns a list of arrays (tail,). Raises `SsahError` for numbers that are not finite.
    """
    result = [np.zeros(0)] * len(heads)
    whole = [head + tail for head, tail in zip(heads, tails)]
    for rows in length_batches(whole, batch_size, progress):
        hidden = read(chat, [whole[row] for row in rows])
        for states, row in zip(hidden, rows):
            predicting = answer_positions(heads[row], tails[row])
            logits = chat.model.lm_head(states[predicting]).float()  # (tail, vocabulary)
            result[row] = _picked(logits, tails[row])
            check_finite(chat, "the log-probabilities", result[row])
    return result


@torch.inference_mode()
def packed_log_probs(
    chat: Chat, items: list[Item], *, batch_size: int = 32
) -> list[list[np.ndarray]]:
    """Log-probabilities of several continuations of each head, with every head read only once.

    `items`: ``(head ids, [tail ids, ...])``; the result is indexed [item][tail], each an array
    (tail,). Head and tails share one sequence (`Packed`), unless a model with a sliding window
    would not see all of it. Raises `SsahError` for no items, and for numbers that are not finite.
    """
    if not items:
        raise SsahError("nothing to score: no prompts or no questions")
    packed = [Packed(head, tails) for head, tails in items]
    sequences = [item.ids for item in packed]
    if not _fit_window(chat, sequences):
        return _one_by_one(chat, items, batch_size)
    result: list[list[np.ndarray]] = [[] for _ in items]
    for rows in length_batches(sequences, batch_size):
        batch = [packed[row] for row in rows]
        for row, item, states in zip(rows, batch, _read_packed(chat, batch)):
            logits = chat.model.lm_head(states[item.first:len(item.ids)]).float()
            log_p = logits.log_softmax(-1).cpu().numpy()    # (predicting token, vocabulary)
            scores = log_p[item.predicted_at, sum(item.tails, [])]
            check_finite(chat, "the log-probabilities", scores)
            ends = np.cumsum([len(tail) for tail in item.tails])
            result[row] = np.split(scores, ends[:-1])
    return result


def read(chat: Chat, sequences: list[list[int]]) -> torch.Tensor:
    """Last hidden states (sequence, time, hidden), right-padded."""
    batch = pad(sequences, chat.tokenizer.pad_token_id, device=chat.model.device)
    return chat.model.base_model(**batch, use_cache=False).last_hidden_state


def answer_positions(head: list[int], tail: list[int]) -> slice:
    """Where the tail's tokens are predicted: from the head's last one on."""
    first = len(head) - 1
    return slice(first, first + len(tail))


def length_batches(
    sequences: list[list[int]], size: int, progress: str | None = None
) -> Iterator[list[int]]:
    """Lists of row numbers, longest sequences first (so that memory fails early, not late).

    Raises `SsahError` for batches of no sequence.
    """
    check_count("batch_size", size)
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    starts = range(0, len(order), size)
    for start in tqdm(starts, desc=progress, disable=progress is None, leave=False):
        yield order[start : start + size]


def check_count(name: str, value: int) -> None:
    """`SsahError` for what is no whole number from 1."""
    is_whole_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole_number or value < 1:
        raise SsahError(f"{name} is a whole number from 1; got {value!r}")


def check_finite(chat: Chat, what: str, values) -> None:
    """Raise `SsahError` for numbers that are not finite, with the cure."""
    if not torch.isfinite(torch.as_tensor(values)).all():
        raise SsahError(
            f"{what} of {chat.name!r} are not finite: its weights are damaged, or too large for "
            f"{chat.model.dtype}; load it again with dtype='float32' (train with a lower learning "
            "rate if training did this)"
        )


def _picked(logits: torch.Tensor, tokens: list[int]) -> np.ndarray:
    """Log-probability (n,) of token k under row k of the logits (n, vocabulary)."""
    target = torch.tensor(tokens, device=logits.device)
    chosen = logits.gather(1, target[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).cpu().numpy()


# ---- tails packed behind their head ----------------------------------------------------------

class Packed:
    """A head and its tails in one sequence, as a tree: what tails begin with alike stands once.

    A token sees the head and those of its tail before it. A tail's last token predicts nothing and
    is not read.
    """

    def __init__(self, head: list[int], tails: list[list[int]]):
        self.head = head
        self.tails = tails
        self.ids = list(head)
        self.first = len(head) - 1      # where the first token of every tail is predicted
        self.follows: list[int] = []    # behind the head: where the token before it stands
        place_of: dict[tuple[int, ...], int] = {(): self.first}     # of a beginning's last token
        for tail in tails:
            for length in range(1, len(tail)):
                beginning = tuple(tail[:length])
                if beginning not in place_of:
                    self.follows.append(place_of[beginning[:-1]])
                    place_of[beginning] = len(self.ids)
                    self.ids.append(beginning[-1])
        # where each token of all tails is predicted, from `first` on
        self.predicted_at = [place_of[tuple(tail[:length])] - self.first
                             for tail in tails for length in range(len(tail))]

    def positions(self, width: int) -> torch.Tensor:
        """Position ids (width,): every tail goes on where the head ended. Padding has 0."""
        n_head = len(self.head)
        positions = torch.zeros(width, dtype=torch.long)
        positions[:n_head] = torch.arange(n_head)
        for place, before in enumerate(self.follows, n_head):
            positions[place] = positions[before] + 1
        return positions

    def seen(self, width: int) -> torch.Tensor:
        """Who (row) sees whom (column): Boolean (width, width). Padding sees itself."""
        n_head = len(self.head)
        seen = torch.eye(width, dtype=torch.bool)
        seen[:n_head, :n_head] = torch.ones(n_head, n_head, dtype=torch.bool).tril()
        for place, before in enumerate(self.follows, n_head):
            seen[place] |= seen[before]
        return seen


def _fit_window(chat: Chat, sequences: list[list[int]]) -> bool:
    """Whether packed sequences are seen as a whole by layers with a sliding window."""
    window = getattr(chat.model.config, "sliding_window", None)
    return not window or max(map(len, sequences)) <= window


def _one_by_one(chat: Chat, items: list[Item], batch_size: int) -> list[list[np.ndarray]]:
    """As `packed_log_probs`, with every tail after a head of its own."""
    heads = [head for head, tails in items for _ in tails]
    all_tails = [tail for _, tails in items for tail in tails]
    scored = iter(token_log_probs(chat, heads, all_tails, batch_size=batch_size))
    return [[next(scored) for _ in tails] for _, tails in items]


def _read_packed(chat: Chat, batch: list[Packed]) -> torch.Tensor:
    """Last hidden states (item, time, hidden) of packed sequences."""
    device = chat.model.device
    sequences = [item.ids for item in batch]
    ids = pad(sequences, chat.tokenizer.pad_token_id, device=device)["input_ids"]
    width = ids.shape[1]
    seen = torch.stack([item.seen(width) for item in batch])
    positions = torch.stack([item.positions(width) for item in batch])
    # what is added to attention scores: the lowest number where nothing is seen
    bias = torch.zeros(seen.shape, dtype=chat.model.dtype)
    bias = bias.masked_fill(~seen, torch.finfo(bias.dtype).min)
    return chat.model.base_model(
        input_ids=ids,
        attention_mask=bias[:, None].to(device),        # (item, 1, time, time)
        position_ids=positions.to(device),
        use_cache=False,
    ).last_hidden_state
