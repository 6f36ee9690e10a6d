"""The reasoning direction (claim C1): are hidden states closer to a refusal or to a fulfilment?

A query is continued in three ways: as it is, after a refusal opening ("Sorry, I can't ...") and
after a fulfilment opening ("Here is how ..."). The probe is the cosine distance, block by block,
between the first and each of the others. The paper's axis says "number of generated tokens", which
can be read in two ways (`READINGS`):

- `branch`: from each of the three prefixes the model itself generates n tokens; the states at the
  n-th are compared;
- `static`: nothing is generated; the state at the k-th token of the opening is compared with the
  query's last one.

Not here: training a probe, other distances, steering.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.functional import cosine_similarity
from tqdm.auto import tqdm

from .errors import SsahError
from .evaluation import generated_ids, greedy
from .inputs.texts import as_texts
from .inputs.words import data_file
from .likelihood import check_count, check_finite
from .models import Chat, pad

OPENINGS = ("refusal", "fulfilment")

#: Token ids of the wordings of each kind of opening.
Openings = dict[str, list[list[int]]]


def check_pair(first: Chat, second: Chat) -> None:
    """Raise `SsahError` unless both models have the same tokenizer, chat template and depth."""
    names = f"{first.name!r} and {second.name!r}"
    if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise SsahError(f"{names} have different tokenizers; compare two versions of one model")
    if first.render("How are you?") != second.render("How are you?"):
        raise SsahError(
            f"{names} have different chat templates; "
            "their states would differ for that reason alone"
        )
    depths = [chat.model.config.num_hidden_layers for chat in (first, second)]
    if depths[0] != depths[1]:
        raise SsahError(
            f"{names} have {depths[0]} and {depths[1]} blocks; compare two versions of one model"
        )


def probe_openings(chat: Chat) -> Openings:
    """Token ids of the probe's wordings, by kind: ``openings.csv`` with probe = 1."""
    table = data_file("openings").query("probe == '1'")
    return {kind: token_lists(chat, table.loc[table["kind"] == kind, "text"]) for kind in OPENINGS}


def token_lists(chat: Chat, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text as the beginning of an answer, without an end token.

    Raises `SsahError` for a text without any, and for a template that lets prompt and answer run
    together, so that the answer's first token depends on the prompt.
    """
    texts = as_texts(texts)
    for text in texts:
        _check_says_something(text)
    prompt = "How are you?"
    head, lists = chat.continuations(prompt, [text.strip() for text in texts])
    if head != chat.encode(prompt)[0]:
        raise SsahError(
            f"the chat template of {chat.name!r} joins the end of a prompt and the beginning of an "
            "answer into one token; such a model cannot be probed"
        )
    return lists


def _check_says_something(text: str) -> None:
    if not text.strip():
        raise SsahError(f"{text!r} has no tokens; a query or an opening must say something")


# ---- the two readings ------------------------------------------------------------------------


def branch(
    chat: Chat,
    queries: list[str],
    openings: Openings,
    steps: Sequence[int] = (2, 4, 6, 8, 10),
    *,
    system: str = "default",
    batch_size: int = 104,
    progress: str | None = None,
) -> dict[str, np.ndarray]:
    """Cosine distances {kind: (query, wording, step, block)} at the n-th generated token.

    `openings`: {kind: token ids of its wordings}; `steps`: the n's (paper: 2 to 10; 0 is the
    prefix's last token). Greedy; no end token is allowed before the last step, so that every branch
    has one. Float32 (0 to 2). Raises `SsahError` for no queries, for what is no list of texts, and
    for states that are not finite (so do `static` and `along`).
    """
    prefixes = [[], *_wordings(openings)]
    distances = []
    for heads in _by_query(chat, queries, len(prefixes), system, batch_size, progress):
        sequences = [head + prefix for head in heads for prefix in prefixes]
        states, _ = generated_states(chat, sequences, steps)
        # (query, prefix, step, block, hidden)
        states = states.unflatten(0, (len(heads), len(prefixes)))
        query, opened = states[:, :1], states[:, 1:]
        distances.append(_distance(query, opened))      # (query, wording, step, block)
    return _by_kind(_whole(chat, distances), openings)


@torch.inference_mode()
def static(
    chat: Chat,
    queries: list[str],
    openings: Openings,
    appended: Sequence[int] = (2, 4, 6, 8, 10),
    *,
    system: str = "default",
    batch_size: int = 104,
    progress: str | None = None,
) -> dict[str, np.ndarray]:
    """Cosine distances {kind: (query, wording, k, block)} to the state k opening tokens on.

    No generation: one forward pass holds every k. Raises `SsahError` for an `appended` that is no
    whole number from 1, or goes beyond an opening.
    """
    for count in appended:
        check_count("appended", count)
    wordings = _wordings(openings)
    shortest = min(map(len, wordings))
    if max(appended) > shortest:
        raise SsahError(
            f"{max(appended)} tokens cannot be appended: the shortest opening has {shortest}"
        )
    distances = []
    for heads in _by_query(chat, queries, len(wordings), system, batch_size, progress):
        sequences = [head + wording for head in heads for wording in wordings]
        lasts = [len(head) - 1 for head in heads for _ in wordings]     # where the query ends
        places = torch.tensor(lasts)[:, None] + torch.tensor([0, *appended])
        states = _states_at(chat, sequences, places)        # (sequence, 1 + k, block, hidden)
        gaps = _distance(states[:, :1], states[:, 1:])      # (sequence, k, block)
        distances.append(gaps.reshape(len(heads), len(wordings), len(appended), -1))
    return _by_kind(_whole(chat, distances), openings)


#: Both readings of the paper's axis, by name.
READINGS: dict[str, Callable] = {"branch": branch, "static": static}


# ---- the direction along an answer -----------------------------------------------------------


def along(
    chat: Chat,
    queries: list[str],
    openings: Openings,
    prefills: list[list[int]],
    lengths: Sequence[int] = (0, 1, 3, 5, 10, 20),
    n_steps: int = 20,
    *,
    system: str = "default",
    batch_size: int = 104,
    progress: str | None = None,
) -> tuple[np.ndarray, list[list[str]]]:
    """The direction at every step of answers whose first tokens were put into the model's mouth.

    After `lengths` tokens of each of the `prefills` the model goes on by itself. At its t-th token
    (1 to `n_steps`) the direction is the distance to the fulfilment branches minus that to the
    refusal branches (means over wordings and blocks): above 0 the state is closer to a refusal.
    Returns directions (query, path, t) and what was generated [query][path]; paths: (prefill,
    length) with the length fastest. Raises `SsahError` for too short a prefill.
    """
    shortest = min(map(len, prefills))
    if max(lengths) > shortest:
        raise SsahError(
            f"{max(lengths)} tokens cannot be put first: the shortest prefill has {shortest}"
        )
    wordings = _wordings(openings)
    wanted = [tuple(prefill[:length]) for prefill in prefills for length in lengths]
    # a path of length 0 is the clean query, whatever the wording: it is generated once
    paths = list(dict.fromkeys(wanted))
    place = [paths.index(path) for path in wanted]
    starts = [*map(list, paths), *wordings]
    steps = range(1, n_steps + 1)
    directions = []
    texts = []
    for heads in _by_query(chat, queries, len(starts), system, batch_size, progress):
        sequences = [head + start for head in heads for start in starts]
        states, tokens = generated_states(chat, sequences, steps)
        # (query, start, step, block, hidden)
        states = states.unflatten(0, (len(heads), len(starts)))
        on_path, opened = states[:, :len(paths)], states[:, len(paths):]
        direction = _direction(on_path, opened, openings)       # (query, different path, t)
        directions.append(direction[:, place])
        decoded = chat.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for first in range(0, len(decoded), len(starts)):
            texts.append([decoded[first + path] for path in place])
    return _whole(chat, directions), texts


def _direction(on_path: torch.Tensor, opened: torch.Tensor, openings: Openings) -> np.ndarray:
    """Distance to the fulfilment branches minus that to the refusal branches, (query, path, step).

    `on_path`: states (query, path, step, block, hidden); `opened`: those of the branches (query,
    wording, step, block, hidden).
    """
    gaps = []
    for path in range(on_path.shape[1]):
        distance = _distance(on_path[:, [path]], opened)        # (query, wording, step, block)
        gaps.append(distance.mean(-1))
    by_kind = _by_kind(np.stack(gaps, 2), openings)             # each (query, wording, path, step)
    return by_kind["fulfilment"].mean(1) - by_kind["refusal"].mean(1)


# ---- states ----------------------------------------------------------------------------------


@torch.inference_mode()
def generated_states(
    chat: Chat, prefixes: list[list[int]], steps: Sequence[int]
) -> tuple[torch.Tensor, list[list[int]]]:
    """States (prefix, step, block, hidden) at the n-th generated token, n in `steps`, and tokens.

    The passes that generate are the only ones: each is watched at its newest token, in the model's
    number format.
    """
    last = max(steps)
    device = chat.model.device
    batch = pad(prefixes, chat.tokenizer.pad_token_id, "left", device)
    settings = greedy(chat, last + 1, least=last + 1)
    with watched(chat.model, _newest) as seen:
        output = generated_ids(chat, batch, settings)
    # pass 0 reads the prefix, pass n the n-th token; the last token is chosen and not read
    blocks = [torch.stack([passes[step].to(device) for step in steps], dim=1) for passes in seen]
    generated = output[:, batch["input_ids"].shape[1]:-1]
    return torch.stack(blocks, dim=2), generated.tolist()


def _newest(stream: torch.Tensor) -> torch.Tensor:
    return stream[:, -1]


def _states_at(chat: Chat, sequences: list[list[int]], places: torch.Tensor) -> torch.Tensor:
    """States (sequence, place, block, hidden) at `places`, (sequence, place), from one pass."""
    device = chat.model.device
    batch = pad(sequences, chat.tokenizer.pad_token_id, device=device)
    rows = torch.arange(len(sequences), device=device)[:, None]
    places = places.to(device)

    def pick(stream: torch.Tensor) -> torch.Tensor:
        return stream[rows.to(stream.device), places.to(stream.device)]

    with watched(chat.model, pick) as seen:
        chat.model.base_model(**batch, use_cache=False)
    return torch.stack([passes[0].to(device) for passes in seen], dim=2)


@contextmanager
def watched(
    model, pick: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[list[list[torch.Tensor]]]:
    """Inside, every pass appends ``pick(residual stream after the block)`` to [block][pass].

    The residual stream is (batch, time, hidden), that of the last block before the final norm.
    """
    seen: list[list[torch.Tensor]] = []
    handles = []
    try:
        for layer in model.base_model.layers:
            passes: list[torch.Tensor] = []
            handles.append(layer.register_forward_hook(_appending(passes, pick)))
            seen.append(passes)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _appending(passes: list[torch.Tensor], pick: Callable) -> Callable:
    """A hook that appends what it picks of a block's output to `passes`."""

    def hook(module, inputs, output) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        passes.append(pick(stream))

    return hook


def _wordings(openings: Openings) -> list[list[int]]:
    """All wordings, kind after kind."""
    wordings = [tokens for kind in openings.values() for tokens in kind]
    if not wordings or not all(wordings):
        raise SsahError("an opening has no tokens; a query or an opening must say something")
    return wordings


def _by_query(
    chat: Chat,
    queries: list[str],
    width: int,
    system: str,
    batch_size: int,
    progress: str | None,
) -> Iterator[list[list[int]]]:
    """Yield token ids of rendered queries, `batch_size` sequences' worth where each has `width`."""
    queries = as_texts(queries, "queries")
    if not queries:
        raise SsahError("no queries to probe")
    for query in queries:
        _check_says_something(query)
    heads = [chat.encode(query, system=system)[0] for query in queries]
    size = max(1, batch_size // width)
    starts = range(0, len(heads), size)
    for start in tqdm(starts, desc=progress, disable=progress is None, leave=False):
        yield heads[start:start + size]


def _distance(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Cosine distance (0 to 2) along the last dimension, in float32."""
    similarity = cosine_similarity(first.float(), second.float(), dim=-1)
    return (1 - similarity).cpu().numpy()


def _whole(chat: Chat, parts: list[np.ndarray]) -> np.ndarray:
    """The queries of all batches; `SsahError` for numbers that are not finite."""
    whole = np.concatenate(parts)
    check_finite(chat, "the distances between states", whole)
    return whole


def _by_kind(distances: np.ndarray, openings: Openings) -> dict[str, np.ndarray]:
    """(query, wording, ...) by kind of opening."""
    ends = np.cumsum([len(wordings) for wordings in openings.values()])
    parts = np.split(distances, ends[:-1], axis=1)
    return dict(zip(openings, parts))
