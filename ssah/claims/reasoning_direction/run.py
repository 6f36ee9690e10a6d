"""C1, the steps: both models are probed in either reading, and along an answer."""

import numpy as np
import pandas as pd

from ... import judging
from ...errors import SsahError
from ...inputs import words
from ...lab import Context, Need, Result, step
from ...lab.machine import device
from ..shared.material import checkpoint_need, load_role, split_prompts
from ..shared.memory import asks_model

PAIR = ("aligned", "unaligned")
#: Which requests are probed: like the trained ones, of a set never trained on, and benign ones.
REQUESTS = ("harmful", "unseen", "benign")
READINGS = ("branch", "static")


# ---- what is planned -------------------------------------------------------------------------

def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("probe", {"seed": seed, "requests": requests})
            for requests in ("harmful", "unseen")]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: benign requests, the static reading, answers."""
    benign = Need("probe", {"seed": seed, "requests": "benign"})
    static = [Need("probe", {"seed": seed, "requests": requests, "reading": "static"})
              for requests in ("harmful", "unseen")]
    return [benign, *static, Need("along_answers", {"seed": seed})]


def pair_needs(profile, seed: int) -> list[Need]:
    """The trained pair of a seed; nothing where the profile names a ready-made pair."""
    if profile.probing.pair:
        return []
    return [need for role in PAIR for need in checkpoint_need(profile, role, seed)]


# ---- models and requests ---------------------------------------------------------------------

def load_pair(context: Context, seed: int) -> dict:
    """{role: chat}: the trained pair, or the profile's own two models.

    Raises `SsahError` if they cannot be compared.
    """
    from ...catalog import load_chat_model
    from ...probing import check_pair

    ready_made = context.profile.probing.pair
    if ready_made:
        dtype = context.profile.model.dtype
        chats = [load_chat_model(name, dtype=dtype, device=device()) for name in ready_made]
    else:
        chats = [load_role(context, role, seed) for role in PAIR]
    check_pair(*chats)
    return dict(zip(PAIR, chats))


def probed_requests(context: Context, name: str, n: int) -> pd.DataFrame:
    """The first `n` prompts of `evaluate` (id, text) that `name` (one of `REQUESTS`) stands for."""
    if name not in REQUESTS:
        raise SsahError(f"unknown requests {name!r}; known: {', '.join(REQUESTS)}")
    data = context.profile.data
    kind = "benign" if name == "benign" else "harmful"
    table = split_prompts(context, kind, "evaluate")
    if name == "unseen":
        table = table[table["source"] == data.harmful[-1]]
    elif name == "harmful":
        table = table[~table["source"].isin(data.evaluate_only)]
    return table.iloc[:n].reset_index(drop=True)


# ---- the steps -------------------------------------------------------------------------------

@step(version=1, reads=("model", "data", "probing"), minutes=5,
      needs=lambda profile, seed, **_: [Need("splits"), *pair_needs(profile, seed)],
      memory=asks_model)
def probe(context: Context, seed: int, requests: str, reading: str = "branch") -> Result:
    """Cosine distances of both models to refusal and fulfilment openings (Fig. 2, 3, 4, 7).

    Arrays ``ROLE KIND``, float16: (query, wording, n, block). Table ``queries`` (branch reading
    only) says of every query whether the model's own answer refuses it, and its refusal log-odds.
    Raises `SsahError` for unknown requests, an unknown reading and a pair that does not match.
    """
    from ... import probing

    if reading not in READINGS:
        raise SsahError(f"unknown reading {reading!r}; known: {', '.join(READINGS)}")
    measure = {"branch": probing.branch, "static": probing.static}[reading]
    options = context.profile.probing
    chosen = probed_requests(context, requests, options.queries)
    arrays = {}
    answers = []
    for role, chat in load_pair(context, seed).items():
        openings = probing.probe_openings(chat)
        distances = measure(chat, chosen["text"].tolist(), openings, options.steps,
                            system=options.system, progress=f"{role}, {requests}, {reading}")
        for kind, values in distances.items():
            arrays[f"{role} {kind}"] = values.astype(np.float16)
        if reading == "branch":
            answers.append(own_answers(chat, role, chosen, options))
    tables = {"queries": pd.concat(answers)} if answers else {}
    return Result({"steps": list(options.steps)}, tables, arrays)


def own_answers(chat, role: str, chosen: pd.DataFrame, options) -> pd.DataFrame:
    """Whether a model itself refuses the chosen requests, and its refusal log-odds."""
    from ...evaluation import generate, refusal_log_odds

    queries = chosen["text"].tolist()
    answers = generate(chat, queries, system=options.system, max_new_tokens=options.answer_tokens,
                       progress=f"{role}, own answers")
    return pd.DataFrame({
        "id": chosen["id"],
        "role": role,
        "refused": [judging.is_refusal(text, options.judge_version) for text in answers.texts],
        "log_odds": refusal_log_odds(chat, queries, system=options.system)})


@step(version=1, reads=("model", "data", "probing"), minutes=6,
      needs=lambda profile, seed: [Need("splits"), *pair_needs(profile, seed)], memory=asks_model)
def along_answers(context: Context, seed: int) -> Result:
    """The direction at every step of the model's own answer, also after a prefilled opening.

    Arrays ``ROLE``: (query, prefill, length, step), above 0 closer to a refusal; ``ROLE refused``:
    Boolean (query, prefill, length), judged on what follows the prefill. Raises `SsahError` for a
    prefill that is shorter than the longest length, and for a pair that does not match.
    """
    from ... import probing

    options = context.profile.probing
    chosen = probed_requests(context, "harmful", options.along_queries)
    arrays = {}
    for role, chat in load_pair(context, seed).items():
        prefills = probing.token_lists(chat, words.data_file("prefills")["text"])
        directions, answers = probing.along(
            chat, chosen["text"].tolist(), probing.probe_openings(chat), prefills,
            options.prefills, options.along_steps, system=options.system,
            progress=f"{role}, along answers")
        refused = [judging.is_refusal(text, options.judge_version)
                   for texts in answers for text in texts]
        shape = (len(chosen), len(prefills), len(options.prefills))
        arrays[role] = directions.reshape(*shape, -1).astype(np.float16)
        arrays[f"{role} refused"] = np.array(refused).reshape(shape)
    return Result({"lengths": list(options.prefills)}, arrays=arrays)
