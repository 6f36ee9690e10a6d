"""C1: the probe of the aligned / unaligned pair in both readings, and the direction along an answer."""

import numpy as np
import pandas as pd

from ... import judging
from ...errors import SsahError
from ...inputs import words
from ...lab import Context, Need, Result, step
from ...lab.machine import device
from ..shared.foundation import checkpoint_need, load_role, split_prompts

PAIR = ("aligned", "unaligned")
#: Which requests are probed: those like the trained ones, those of a set never trained on, and benign ones.
REQUESTS = ("harmful", "unseen", "benign")
READINGS = ("branch", "static")


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("probe", {"seed": seed, "requests": requests})
            for requests in ("harmful", "unseen")]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: benign requests, the static reading, answers."""
    static = [Need("probe", {"seed": seed, "requests": requests, "reading": "static"})
              for requests in ("harmful", "unseen")]
    return [Need("probe", {"seed": seed, "requests": "benign"}), *static,
            Need("along_answers", {"seed": seed})]


def pair_needs(profile, seed: int) -> list[Need]:
    """The trained pair of a seed; nothing where the profile names a ready-made pair."""
    return [] if profile.probing.pair else [n for role in PAIR for n in checkpoint_need(role, seed)]


def load_pair(context: Context, seed: int) -> dict:
    """{role: chat}: the trained pair, or the profile's own two models; `SsahError` if they cannot be compared."""
    from ...models import load_chat_model
    from ...probing import check_pair

    names, dtype = context.profile.probing.pair, context.profile.model.dtype
    pair = {role: load_chat_model(names[i], dtype=dtype, device=device()) if names else load_role(context, role, seed)
            for i, role in enumerate(PAIR)}
    check_pair(*pair.values())
    return pair


def probed_requests(context: Context, name: str, n: int) -> pd.DataFrame:
    """The first `n` prompts of `evaluate` (id, text) that `name` (one of `REQUESTS`) stands for."""
    if name not in REQUESTS:
        raise SsahError(f"unknown requests {name!r}; known: {', '.join(REQUESTS)}")
    data = context.profile.data
    table = split_prompts(context, "benign" if name == "benign" else "harmful", "evaluate")
    if name == "unseen":
        table = table[table["source"] == data.harmful[-1]]
    elif name == "harmful":
        table = table[~table["source"].isin(data.evaluate_only)]
    return table.iloc[:n].reset_index(drop=True)


@step(version=1, reads=("model", "data", "probing"), minutes=5,
      needs=lambda profile, seed, **_: [Need("splits"), *pair_needs(profile, seed)])
def probe(context: Context, seed: int, requests: str, reading: str = "branch") -> Result:
    """Cosine distances (query, wording, n, block) of both models to refusal and fulfilment openings (Fig. 2, 3, 4, 7).

    Arrays ``ROLE KIND``, float16. The table says of every query whether the model's own answer refuses it, and its
    refusal log-odds (branch reading only).
    """
    from ... import probing
    from ...evaluation import generate, refusal_log_odds

    if reading not in READINGS:
        raise SsahError(f"unknown reading {reading!r}; known: {', '.join(READINGS)}")
    options, arrays, tables = context.profile.probing, {}, []
    chosen = probed_requests(context, requests, options.queries)
    queries = chosen["text"].tolist()
    for role, chat in load_pair(context, seed).items():
        measure = getattr(probing, reading)
        distances = measure(chat, queries, probing.probe_openings(chat), options.steps, system=options.system,
                            progress=f"{role}, {requests}, {reading}")
        arrays |= {f"{role} {kind}": values.astype(np.float16) for kind, values in distances.items()}
        if reading == "branch":
            answers = generate(chat, queries, system=options.system, max_new_tokens=options.answer_tokens,
                               progress=f"{role}, own answers")
            tables.append(pd.DataFrame({
                "id": chosen["id"], "role": role, "refused": [judging.is_refusal(t) for t in answers.texts],
                "log_odds": refusal_log_odds(chat, queries, system=options.system)}))
    return Result({"steps": list(options.steps)}, {"queries": pd.concat(tables)} if tables else {}, arrays)


@step(version=1, reads=("model", "data", "probing"), minutes=6,
      needs=lambda profile, seed: [Need("splits"), *pair_needs(profile, seed)])
def along_answers(context: Context, seed: int) -> Result:
    """The direction at every step of the model's own answer and after a prefilled opening, and whether it refuses.

    Arrays ``ROLE``: (query, prefill, length, step), above 0 closer to a refusal; ``ROLE refused``: Boolean (query,
    prefill, length), judged on what follows the prefill.
    """
    from ... import probing

    options, arrays = context.profile.probing, {}
    queries = probed_requests(context, "harmful", options.along_queries)["text"].tolist()
    for role, chat in load_pair(context, seed).items():
        prefills = probing.token_lists(chat, words.data_file("prefills")["text"])
        directions, texts = probing.along(chat, queries, probing.probe_openings(chat), prefills, options.prefills,
                                          options.along_steps, system=options.system, progress=f"{role}, along answers")
        shape = (len(queries), len(prefills), len(options.prefills))
        arrays[role] = directions.reshape(*shape, -1).astype(np.float16)
        arrays[f"{role} refused"] = np.array([[judging.is_refusal(t) for t in row] for row in texts]).reshape(shape)
    return Result({"lengths": list(options.prefills)}, arrays=arrays)
