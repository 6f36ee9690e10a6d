"""A score for refusing harmful requests and nothing else: the 2 × 2 of requests and openings.

Beside the paper's I_S - I_U, which also finds units that carry the words of a refusal. Here the
same words stand after harmful and after benign requests, so what is alike in both cancels. It
describes; no word of the ledger rests on it.
"""

import numpy as np

from ...classification import two_by_two
from ...lab import Context, Need, Result, step
from ...units import UnitIndex
from .foundation import SCORED_SETS, Pair
from .material import checkpoint_need, draw, load_role, split_prompts
from .measuring import score_units
from .memory import asks_model

#: The two kinds of openings that are put into the model's mouth, both without content.
OPENINGS = ("refusal", "fulfilment")
REQUESTS = ("harmful", "benign")


def _needs(profile, seed: int) -> list[Need]:
    return [Need("splits"), *checkpoint_need(profile, "aligned", seed)]


@step(version=1, reads=("model", "data", "calibration", "probing"), minutes=1, needs=_needs,
      memory=asks_model)
def opening_scores(context: Context, seed: int) -> Result:
    """Importance of the aligned model's units on the four sets of the 2 × 2 (`two_by_two`).

    Requests of `identify`, as many benign as harmful ones; each with one refusal opening and one
    fulfilment opening in turn, all cut to the tokens of the shortest. The arrays (len(index),), by
    ``REQUEST OPENING``, go to the cache folder.
    """
    chat = load_role(context, "aligned", seed)
    openings = openings_of_equal_length(chat)
    requests = _requests(context)
    system = context.profile.calibration.system
    arrays = {}
    for opening in OPENINGS:
        pairs = {kind: dealt(requests[kind], openings[opening]) for kind in REQUESTS}
        scored = score_units(chat, pairs, system)
        for name, kind in SCORED_SETS.items():
            arrays[f"{kind} {opening}"] = scored.arrays[name]
    np.savez_compressed(context.folder / "scores.npz", **arrays)
    n_tokens = len(openings["refusal"][0])
    counts = {"requests": len(requests["harmful"]), "tokens": n_tokens}
    return Result({"index": scored.values["index"], **counts})


def _requests(context: Context) -> dict[str, list[str]]:
    """As many harmful as benign requests of `identify`."""
    n = context.profile.calibration.prompts
    tables = {kind: split_prompts(context, kind, "identify") for kind in REQUESTS}
    n = min(n, *map(len, tables.values()))
    return {kind: draw(table, n, 0)["text"].tolist() for kind, table in tables.items()}


def openings_of_equal_length(chat) -> dict[str, list[list[int]]]:
    """Token ids of the openings of both kinds, all cut to the length of the shortest."""
    from ...probing import probe_openings

    openings = probe_openings(chat)
    shortest = min(len(tokens) for kind in OPENINGS for tokens in openings[kind])
    return {kind: [tokens[:shortest] for tokens in openings[kind]] for kind in OPENINGS}


def dealt(requests: list[str], openings: list[list[int]]) -> list[Pair]:
    """Every request with one of the openings, in turn."""
    return [(request, openings[number % len(openings)]) for number, request in enumerate(requests)]


# ---- reading ---------------------------------------------------------------------------------

def stored_two_by_two(context: Context, seed: int) -> np.ndarray:
    """`two_by_two` of the scores of `opening_scores`, (len(index),), from the cache folder."""
    index = UnitIndex.from_dict(context.get("opening_scores", seed=seed).values["index"])
    folder = context.artifact("opening_scores", seed=seed)
    with np.load(folder / "scores.npz", allow_pickle=False) as loaded:
        return two_by_two(dict(loaded), index)


def highest(score: np.ndarray, share: float) -> np.ndarray:
    """The `share` of all units with the highest score, Boolean (len(index),); ties: lower first."""
    order = np.argsort(-score, kind="stable")
    mask = np.zeros(len(score), bool)
    mask[order[:round(share * len(score))]] = True
    return mask
