"""C3: units scored again, of other models on the same texts and on parts of them (Fig. 5 and 6)."""

import numpy as np
import pandas as pd

from ...classification import LABELS
from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.flows import HALVES, labels_of
from ..shared.foundation import calibration_pairs
from ..shared.material import checkpoint_need, load_base, load_pool, load_role
from ..shared.measuring import score_units
from ..shared.memory import asks_model
from ..shared.tuning import KEPT, load_tuned

#: Which models are scored on the aligned model's texts: the one it came from, and what fine-tuning
#: made of it.
RESCORED = ("base", *KEPT)
#: Parts of the calibration texts, taken from either end of one random order: nested, and disjoint
#: up to a half.
PARTS = ("first sixth", "last sixth", "first third", "last third", "first half", "last half",
         "first two thirds")
#: How large they are.
FRACTIONS = {"sixth": 1 / 6, "third": 1 / 3, "half": 1 / 2, "two thirds": 2 / 3}
#: Frequent kinds of harm in PyRIT's copy of AdvBench (labelled by a language model), of which
#: hardly a request has both. A sixth of the texts from each.
CATEGORIES = ("Financial and Business", "Physical")

Pairs = dict[str, list[tuple[str, list[int]]]]      # harmful and benign: (prompt, answer tokens)


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    models = [Need("reattribution", {"seed": seed, "model": model}) for model in RESCORED]
    parts = [Need("subsample", {"seed": seed, "part": part}) for part in PARTS]
    return models + parts


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only."""
    return [Need("subsample", {"seed": seed, "part": f"category {name}"}) for name in CATEGORIES]


# ---- other models, the same texts ------------------------------------------------------------

def reattribution_needs(profile, seed: int, model: str) -> list[Need]:
    """The texts, and the model if it was fine-tuned; `SsahError` for an unknown one."""
    if model not in RESCORED:
        raise SsahError(f"unknown model {model!r}; known: {', '.join(RESCORED)}")
    needs = [Need("calibration", {"seed": seed}, artifact=True)]
    if model != "base":
        needs.append(Need("tuning", {"seed": seed, "condition": model}, artifact=True))
    return needs


@step(version=1, reads=("model", "calibration"), minutes=0.5, needs=reattribution_needs,
      memory=asks_model)
def reattribution(context: Context, seed: int, model: str) -> Result:
    """I_S and I_U of another model (`RESCORED`) on the aligned one's texts (Fig. 5 and 6).

    The texts stay those of the aligned model, so that what changes is the model alone. Tuned
    models: at the training loss of full fine-tuning.
    """
    if model == "base":
        chat = load_base(context)
    else:
        chat = load_tuned(context, seed, model)
    pairs = calibration_pairs(context, seed, "refusals")
    return score_units(chat, pairs, context.profile.calibration.system)


# ---- the same model, other texts -------------------------------------------------------------

def subsample_needs(profile, seed: int, part: str) -> list[Need]:
    """The texts and the aligned model."""
    return [Need("calibration", {"seed": seed}, artifact=True),
            *checkpoint_need(profile, "aligned", seed)]


@step(version=1, reads=("model", "data", "calibration", "classification", "freezing"), minutes=0.3,
      needs=subsample_needs, memory=asks_model)
def subsample(context: Context, seed: int, part: str) -> Result:
    """The aligned model's units on part of its calibration texts.

    One of `PARTS`, or ``category NAME`` (`CATEGORIES`). Labels alone are kept (codes of `LABELS`,
    int8), of the halves the scores. A category that the prompts do not have is left out, and the
    result says why.
    """
    pairs = calibration_pairs(context, seed, "refusals")
    if part.startswith("category "):
        data = context.profile.data
        pool = load_pool("harmful", data.harmful, data.longest_prompt)
        chosen = of_category(pairs, part.removeprefix("category "), pool, seed)
    else:
        chosen = part_of(pairs, part, seed)
    if not chosen:
        return Result({"left out": "the harmful prompts have no categories, or too few texts are "
                                   "of this one"})
    chat = load_role(context, "aligned", seed)
    scored = score_units(chat, chosen, context.profile.calibration.system)
    if part in HALVES:
        return scored
    codes = pd.Categorical(labels_of(context.profile, scored), LABELS).codes
    return Result(scored.values, arrays={"labels": codes})


def shuffled(texts: list, seed: int) -> list:
    """The order in which parts are taken; the same for every part."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[position] for position in order]


def part_of(pairs: Pairs, part: str, seed: int) -> Pairs:
    """The first or last so many of both sets of texts, in their random order (`PARTS`)."""
    if part not in PARTS:
        raise SsahError(f"unknown part {part!r}; known: {', '.join(PARTS)}, category NAME")
    end, name = part.split(" ", 1)
    chosen = {}
    for kind, texts in pairs.items():
        size = int(FRACTIONS[name] * len(texts))
        start = 0 if end == "first" else len(texts) - size
        chosen[kind] = shuffled(texts, seed)[start:start + size]
    return chosen


def of_category(pairs: Pairs, name: str, pool: pd.DataFrame, seed: int) -> Pairs:
    """A sixth of the refusals, all to requests of one category, and as large a part of the benign.

    As many texts as ``first sixth`` and ``last sixth`` have, which are to be compared with it; no
    text is in two categories' parts. `pool`: the harmful prompts (text, category). Empty where that
    cannot be had.
    """
    if name not in CATEGORIES:
        raise SsahError(f"unknown category {name!r}; known: {', '.join(CATEGORIES)}")
    if "category" not in pool:
        return {}
    categories = {}
    for text, labels in zip(pool["text"], pool["category"]):
        categories[text] = set(str(labels).split("; ")) & set(CATEGORIES)
    harmful = [(prompt, tokens) for prompt, tokens in shuffled(pairs["harmful"], seed)
               if categories.get(prompt) == {name}]
    n_harmful = int(FRACTIONS["sixth"] * len(pairs["harmful"]))
    n_benign = int(FRACTIONS["sixth"] * len(pairs["benign"]))
    if len(harmful) < n_harmful:
        return {}
    start = CATEGORIES.index(name) * n_benign
    benign = shuffled(pairs["benign"], seed)[start:start + n_benign]
    return {"harmful": harmful[:n_harmful], "benign": benign}
