"""Log-probabilities of given tokens: of one continuation of a text, or of several read at once.

Batches are sorted by length and padded on the right. Logits are computed only where a scored token
is predicted.
"""

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

    Returns a list of arrays (tail,).
    """
    result = [np.zeros(0)] * len(heads)
    whole = [head + tail for head, tail in zip(heads, tails)]
    for rows in length_batches(whole, batch_size, progress):
        hidden = read(chat, [whole[row] for row in rows])
        for states, row in zip(hidden, rows):
            predicting = answer_positions(heads[row], tails[row])
            logits = chat.model.lm_head(states[predicting]).float()  # (tail, vocabulary)
            result[row] = _picked(logits, tails[row])
    return result


@torch.inference_mode()
def packed_log_probs(
    chat: Chat, items: list[Item], *, batch_size: int = 32
) -> list[list[np.ndarray]]:
    """Log-probabilities of several continuations of each head, with every head read only once.

    `items`: ``(head ids, [tail ids, ...])``; the result is indexed [item][tail], each an array
    (tail,). Head and tails share one sequence (`Packed`).
    """
    if not items:
        raise SsahError("nothing to score: no prompts or no questions")
    packed = [Packed(head, tails) for head, tails in items]
    result: list[list[np.ndarray]] = [[] for _ in items]
    for rows in length_batches([item.ids for item in packed], batch_size):
        batch = [packed[row] for row in rows]
        for row, item, states in zip(rows, batch, _read_packed(chat, batch)):
            logits = chat.model.lm_head(states[item.predicting()]).float()
            scores = _picked(logits, item.ids[len(item.head):])     # (tokens of all tails,)
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
    """Lists of row numbers, longest sequences first (so that memory fails early, not late)."""
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    starts = range(0, len(order), size)
    for start in tqdm(starts, desc=progress, disable=progress is None, leave=False):
        yield order[start : start + size]


def _picked(logits: torch.Tensor, tokens: list[int]) -> np.ndarray:
    """Log-probability (n,) of token k under row k of the logits (n, vocabulary)."""
    target = torch.tensor(tokens, device=logits.device)
    chosen = logits.gather(1, target[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).cpu().numpy()


# ---- tails packed behind their head ----------------------------------------------------------

class Packed:
    """A head and its tails in one sequence, in which a tail sees the head and itself only."""

    def __init__(self, head: list[int], tails: list[list[int]]):
        self.head = head
        self.tails = tails
        self.ids = list(head)
        self.spans = []             # where each tail stands
        for tail in tails:
            start = len(self.ids)
            self.ids += tail
            self.spans.append(slice(start, len(self.ids)))

    def predicting(self) -> list[int]:
        """Where each token of each tail is predicted.

        The head's last token predicts every tail's first one, a tail itself its others.
        """
        places = []
        for span in self.spans:
            places.append(len(self.head) - 1)
            places += range(span.start, span.stop - 1)
        return places

    def positions(self, width: int) -> torch.Tensor:
        """Position ids (width,): every tail goes on where the head ended. Padding has 0."""
        n_head = len(self.head)
        positions = torch.zeros(width, dtype=torch.long)
        positions[:n_head] = torch.arange(n_head)
        for span, tail in zip(self.spans, self.tails):
            positions[span] = torch.arange(n_head, n_head + len(tail))
        return positions

    def seen(self, width: int) -> torch.Tensor:
        """Who (row) sees whom (column): Boolean (width, width). Padding sees itself."""
        n_head = len(self.head)
        seen = torch.eye(width, dtype=torch.bool)
        seen[:n_head, :n_head] = _causal(n_head)
        for span, tail in zip(self.spans, self.tails):
            seen[span, :n_head] = True
            seen[span, span] = _causal(len(tail))
        return seen


def _causal(length: int) -> torch.Tensor:
    """Boolean (length, length): a position sees itself and those before."""
    return torch.ones(length, length, dtype=torch.bool).tril()


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
