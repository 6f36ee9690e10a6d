"""What is worked with: the splits of the prompts, and the models by their role."""

import numpy as np
import pandas as pd

from ...errors import SsahError
from ...inputs import prompts, words
from ...lab import Context, Need, Result, step
from ...lab.machine import device

#: The base model, and the two that are trained from it.
ROLES = ("base", "aligned", "unaligned")

#: Benign prompts with one of these words, in question or answer, are left out.
RISKY = (
    r"(?i)kill|murder|attack|weapon|bomb|hack|steal|illegal|drug|suicid|terror|violen|crime"
    r"|explo|sorry|cannot"
)

#: Characters that the reference answer to a benign prompt must have.
SHORTEST_ANSWER = 20


# ---- prompts ---------------------------------------------------------------------------------


@step(version=1, reads=("data",))
def splits(context: Context) -> Result:
    """Four disjoint splits of the harmful and of the benign prompts, as ids and hashes, by kind."""
    data = context.profile.data
    harmful, harmful_excluded = _split(
        data, "harmful", data.harmful_sizes, data.evaluate_only
    )
    benign, benign_excluded = _split(data, "benign", data.benign_sizes, ())
    counts = {"harmful_excluded": harmful_excluded, "benign_excluded": benign_excluded}
    return Result(counts, {"splits": pd.concat([harmful, benign], ignore_index=True)})


def _split(
    data, kind: str, sizes: tuple[int, ...], evaluate_only: tuple[str, ...]
) -> tuple[pd.DataFrame, int]:
    """The splits of one kind of prompts, and how many prompts were excluded before."""
    excluded = words.data_file("excluded")["hash"]
    pool = load_pool(kind, getattr(data, kind), data.longest_prompt)
    is_excluded = pool["text"].map(prompts.text_hash).isin(excluded)
    allowed = pool[~is_excluded].reset_index(drop=True)
    size_of = dict(zip(prompts.SPLITS, sizes))
    table = prompts.make_splits(
        allowed, size_of, evaluate_only=evaluate_only, align_of_them=data.align_unseen
    )
    return table.assign(kind=kind), int(is_excluded.sum())


def load_pool(kind: str, names: tuple[str, ...], longest: int) -> pd.DataFrame:
    """All prompts of some sources: id, text, source, ...; each text once.

    Of benign ones those of at most `longest` characters, with an answer and without risky words.
    """
    sources = [prompts.load_prompts(name).assign(source=name) for name in names]
    pool = pd.concat(sources, ignore_index=True).drop_duplicates(
        "text", ignore_index=True
    )
    if kind == "harmful":
        return pool.drop(columns="response", errors="ignore")
    is_short = pool["text"].str.len() <= longest
    is_answered = pool["response"].str.len() >= SHORTEST_ANSWER
    is_risky = (pool["text"] + " " + pool["response"]).str.contains(RISKY)
    return pool[is_short & is_answered & ~is_risky].reset_index(drop=True)


def split_prompts(context: Context, kind: str, split: str) -> pd.DataFrame:
    """The prompts (id, text, ...) of a split, in the order of `splits`.

    Raises `SsahError` if they are not those that the splits were made from.
    """
    data = context.profile.data
    chosen = (
        context.get("splits")
        .tables["splits"]
        .query("kind == @kind and split == @split")
    )
    pool = load_pool(kind, getattr(data, kind), data.longest_prompt)
    table = chosen.merge(pool.drop(columns="source"), on="id", how="left")
    hashes = table["text"].fillna("").map(prompts.text_hash)
    if not (hashes == table["hash"]).all():
        raise SsahError(
            f"the {kind} prompts are not those that the splits were made from; "
            "run `ssah recompute splits --in-place`"
        )
    return table


def draw(table: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """`n` rows at random (all if there are fewer), in their order."""
    chosen = np.random.default_rng(seed).permutation(len(table))[:n]
    return table.iloc[np.sort(chosen)].reset_index(drop=True)


# ---- models ----------------------------------------------------------------------------------


def load_base(context: Context, dtype: str | None = None):
    """The base chat model in the profile's number format."""
    from ...catalog import load_chat_model

    options = context.profile.model
    return load_chat_model(options.name, dtype=dtype or options.dtype, device=device())


def load_role(context: Context, role: str, seed: int, dtype: str | None = None):
    """The base model as it comes, or one of the trained pair, in the profile's number format.

    Where the profile names a ready-made aligned model, that is the aligned one, for every seed.
    """
    from ...catalog import load_chat_model

    model = context.profile.model
    if role == "base":
        return load_base(context, dtype)
    if role == "aligned" and model.aligned:
        name = model.aligned
    else:
        name = str(context.artifact("checkpoint", role=role, seed=seed) / "model")
    return load_chat_model(name, dtype=dtype or model.dtype, device=device())


def checkpoint_need(profile, role: str, seed: int) -> list[Need]:
    """The trained checkpoint of a role; `SsahError` for no role.

    None for the base model, nor for an aligned one that the profile takes ready-made.
    """
    if role not in ROLES:
        raise SsahError(f"unknown role {role!r}; known: {', '.join(ROLES)}")
    if role == "base" or (role == "aligned" and profile.model.aligned):
        return []
    return [Need("checkpoint", {"role": role, "seed": seed}, artifact=True)]


def keep_trained(context: Context, chat, trained, n_examples: int) -> Result:
    """Save a trained model in the number format in which it will be evaluated; what happened."""
    import torch

    from ...models import save_weights

    chat.model.to(getattr(torch, context.profile.model.dtype))
    save_weights(chat, context.folder / "model")
    history = trained.history[["step", "epoch", "loss", "tokens"]]
    speed = history["tokens"].sum() / trained.history["seconds"].iloc[-1]
    counts = {"examples": n_examples, "steps": len(history), "cut": trained.cut}
    return Result(
        counts, {"history": history}, provenance={"tokens_per_second": round(speed, 1)}
    )
