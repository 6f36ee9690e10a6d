"""The reasoning direction (claim C1): do hidden states stay closer to a refusal or to a fulfilment?

A query is continued in three ways: as it is, after a refusal opening ("Sorry, I can't ...") and after a fulfilment
opening ("Here is how ..."). The probe is the cosine distance, block by block, between the first and each of the
others. The paper's axis says "number of generated tokens", which can be read in two ways:

- `branch`: from each of the three prefixes the model itself generates n tokens; the states at the n-th are compared;
- `static`: nothing is generated; the state at the k-th token of the opening is compared with the query's last one.

Not here: training a probe, other distances, steering.
"""

from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.functional import cosine_similarity
from tqdm.auto import tqdm

from .errors import SsahError
from .evaluation import greedy
from .inputs.words import data_file
from .models import Chat, pad

OPENINGS = ("refusal", "fulfilment")


def check_pair(first: Chat, second: Chat) -> None:
    """Raise `SsahError` unless both models have the same tokenizer, chat template and depth."""
    if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise SsahError(f"{first.name!r} and {second.name!r} have different tokenizers; "
                        "compare two versions of one model")
    if first.render("How are you?") != second.render("How are you?"):
        raise SsahError(f"{first.name!r} and {second.name!r} have different chat templates; their states would differ "
                        "for that reason alone")
    depths = [chat.model.config.num_hidden_layers for chat in (first, second)]
    if depths[0] != depths[1]:
        raise SsahError(f"{first.name!r} and {second.name!r} have {depths[0]} and {depths[1]} blocks; "
                        "compare two versions of one model")


def probe_openings(chat: Chat) -> dict[str, list[list[int]]]:
    """Token ids of the probe's wordings, by kind: the rows of ``data/openings.csv`` with probe = 1."""
    table = data_file("openings").query("probe == '1'")
    return {kind: token_lists(chat, table.loc[table["kind"] == kind, "text"]) for kind in OPENINGS}


def token_lists(chat: Chat, texts) -> list[list[int]]:
    """Token ids of every text, without special tokens; `SsahError` for a text without any."""
    lists = [chat.tokenizer(text.strip(), add_special_tokens=False)["input_ids"] for text in texts]
    for text, tokens in zip(texts, lists):
        if not tokens:
            raise SsahError(f"{text!r} has no tokens; a query or an opening must say something")
    return lists


# ---- the two readings ------------------------------------------------------------------------

def branch(chat: Chat, queries: list[str], openings: dict[str, list[list[int]]], steps=(2, 4, 6, 8, 10), *,
           system: str = "default", batch_size: int = 104, progress: str | None = None) -> dict[str, np.ndarray]:
    """Cosine distances {kind: (query, wording, step, block)} at the n-th token that the model itself generates.

    `openings`: {kind: token ids of its wordings}; `steps`: the n's (paper: 2 to 10; 0 is the prefix's last token).
    Greedy; the end token is not allowed before the last step, so that every branch has one. Float32 (0 to 2).
    """
    prefixes, result = [[], *_wordings(openings)], []
    for heads in _by_query(chat, queries, len(prefixes), system, batch_size, progress):
        states, _ = generated_states(chat, [head + opening for head in heads for opening in prefixes], steps)
        states = states.unflatten(0, (len(heads), len(prefixes)))           # (query, prefix, step, block, hidden)
        result.append(_distance(states[:, :1], states[:, 1:]))              # (query, wording, step, block)
    return _split(np.concatenate(result), openings)


@torch.inference_mode()
def static(chat: Chat, queries: list[str], openings: dict[str, list[list[int]]], appended=(2, 4, 6, 8, 10), *,
           system: str = "default", batch_size: int = 104, progress: str | None = None) -> dict[str, np.ndarray]:
    """Cosine distances {kind: (query, wording, k, block)} between the query's last position and k opening tokens on.

    No generation: one forward pass holds every k. Raises `SsahError` if `appended` goes beyond an opening.
    """
    wordings = _wordings(openings)
    if max(appended) > min(map(len, wordings)):
        raise SsahError(f"{max(appended)} tokens cannot be appended: "
                        f"the shortest opening has {min(map(len, wordings))}")
    result = []
    for heads in _by_query(chat, queries, len(wordings), system, batch_size, progress):
        batch = pad([head + tokens for head in heads for tokens in wordings], chat.tokenizer.pad_token_id,
                    device=chat.model.device)
        lasts = torch.tensor([len(head) - 1 for head in heads for _ in wordings], device=chat.model.device)
        places = lasts[:, None] + torch.tensor([0, *appended], device=chat.model.device)       # (sequence, 1 + k)
        rows = torch.arange(len(places), device=chat.model.device)[:, None]
        with watched(chat.model, lambda output, rows=rows, places=places: output[rows, places]) as seen:
            chat.model.base_model(**batch, use_cache=False)
        states = torch.stack([passes[0] for passes in seen], dim=2)         # (sequence, 1 + k, block, hidden)
        result.append(_distance(states[:, :1], states[:, 1:]).reshape(len(heads), len(wordings), len(appended), -1))
    return _split(np.concatenate(result), openings)


def along(chat: Chat, queries: list[str], openings: dict[str, list[list[int]]], prefills: list[list[int]],
          lengths=(0, 1, 3, 5, 10, 20), n_steps: int = 20, *, system: str = "default", batch_size: int = 104,
          progress: str | None = None) -> tuple[np.ndarray, list[list[str]]]:
    """The direction at every step of answers whose first tokens were put into the model's mouth.

    After `lengths` tokens of each of the `prefills` the model goes on by itself. At its t-th token (1 to `n_steps`)
    the direction is the distance to the fulfilment branches minus that to the refusal branches (means over wordings
    and blocks): above 0 the state is closer to a refusal. Returns directions (query, path, t) and what was generated
    [query][path]; paths: (prefill, length) with the length fastest. Raises `SsahError` for too short a prefill.
    """
    if max(lengths) > min(map(len, prefills)):
        raise SsahError(f"{max(lengths)} tokens cannot be put first: "
                        f"the shortest prefill has {min(map(len, prefills))}")
    wordings = _wordings(openings)
    # a path of length 0 is the clean query, whatever the wording: it is generated once
    paths = list(dict.fromkeys(tuple(tokens[:n]) for tokens in prefills for n in lengths))
    place = [paths.index(tuple(tokens[:n])) for tokens in prefills for n in lengths]
    starts, steps, directions, texts = [*map(list, paths), *wordings], range(1, n_steps + 1), [], []
    for heads in _by_query(chat, queries, len(starts), system, batch_size, progress):
        states, tokens = generated_states(chat, [head + start for head in heads for start in starts], steps)
        states = states.unflatten(0, (len(heads), len(starts)))             # (query, start, step, block, hidden)
        own, other = states[:, :len(paths)], states[:, len(paths):]
        gaps = np.stack([_distance(own[:, [i]], other).mean(-1) for i in range(len(paths))], 1)
        kinds = _split(gaps.swapaxes(1, 2), openings)                       # each (query, wording, path, step)
        directions.append((kinds["fulfilment"].mean(1) - kinds["refusal"].mean(1))[:, place])
        said = chat.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        texts += [[said[q * len(starts) + p] for p in place] for q in range(len(heads))]
    return np.concatenate(directions), texts


# ---- states ----------------------------------------------------------------------------------

@torch.inference_mode()
def generated_states(chat: Chat, prefixes: list[list[int]], steps) -> tuple[torch.Tensor, list[list[int]]]:
    """States at the n-th greedily generated token, for n in `steps`: (prefix, step, block, hidden); and the tokens.

    The passes that generate are the only ones: each is watched at its newest token, in the model's number format.
    """
    steps, last = list(steps), max(steps)
    batch = pad(prefixes, chat.tokenizer.pad_token_id, "left", chat.model.device)
    settings = greedy(chat, last + 1, least=last + 1)
    with watched(chat.model, lambda output: output[:, -1]) as seen:
        output = chat.model.generate(**batch, generation_config=settings)
    # pass 0 reads the prefix, pass n the n-th token; the last token is chosen and not read
    states = torch.stack([torch.stack([passes[n] for n in steps], 1) for passes in seen], 2)
    return states, output[:, batch["input_ids"].shape[1]:-1].tolist()


@contextmanager
def watched(model, pick):
    """Inside, every forward pass appends ``pick(residual stream after the block)`` to the yielded list [block][pass].

    The residual stream is (batch, time, hidden), that of the last block before the final norm.
    """
    seen: list[list[torch.Tensor]] = []
    handles = []
    try:
        for layer in model.base_model.layers:
            passes: list[torch.Tensor] = []
            handles.append(layer.register_forward_hook(lambda module, inputs, output, passes=passes: passes.append(
                pick(output[0] if isinstance(output, tuple) else output))))
            seen.append(passes)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _wordings(openings: dict[str, list[list[int]]]) -> list[list[int]]:
    wordings = [tokens for kind in openings for tokens in openings[kind]]
    if not wordings or not all(wordings):
        raise SsahError("an opening has no tokens; a query or an opening must say something")
    return wordings


def _by_query(chat: Chat, queries: list[str], width: int, system: str, batch_size: int, progress: str | None):
    """Yield lists of token ids of rendered queries, `batch_size` sequences' worth where each query has `width`."""
    if not queries:
        raise SsahError("no queries to probe")
    token_lists(chat, queries)
    heads = [chat.encode(query, system=system)[0] for query in queries]
    size = max(1, batch_size // width)
    for start in tqdm(range(0, len(heads), size), desc=progress, disable=progress is None, leave=False):
        yield heads[start:start + size]


def _distance(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Cosine distance (0 to 2) along the last dimension, in float32."""
    return (1 - cosine_similarity(first.float(), second.float(), dim=-1)).cpu().numpy()


def _split(distances: np.ndarray, openings: dict[str, list]) -> dict[str, np.ndarray]:
    """(query, wording, ...) by kind of opening."""
    ends = np.cumsum([len(wordings) for wordings in openings.values()])[:-1]
    return dict(zip(openings, np.split(distances, ends, axis=1)))
