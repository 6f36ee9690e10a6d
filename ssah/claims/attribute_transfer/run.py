"""C3: units scored again: other models on the same texts, and the same model on parts of them (Fig. 5 and 6)."""

import numpy as np
import pandas as pd

from ...classification import LABELS
from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.flows import HALVES, labels_of
from ..shared.foundation import calibration_pairs, checkpoint_need, load_base, load_pool, load_role
from ..shared.measuring import score_units
from ..shared.tuning import KEPT, load_tuned

#: Which models are scored on the aligned model's texts: the one it came from, and what fine-tuning made of it.
RESCORED = ("base", *KEPT)
#: Parts of the calibration texts, taken from either end of one random order: nested, and disjoint up to a half.
FRACTIONS = {"sixth": 1 / 6, "third": 1 / 3, "half": 1 / 2, "two thirds": 2 / 3}
PARTS = (*(f"{end} {name}" for name in ("sixth", "third", "half") for end in ("first", "last")), "first two thirds")
#: Frequent kinds of harm in PyRIT's copy of AdvBench (labelled by a language model), of which hardly a request has
#: both. A sixth of the texts from each.
CATEGORIES = ("Financial and Business", "Physical")

Pairs = dict[str, list[tuple[str, list[int]]]]      # harmful and benign: (prompt, answer tokens)


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [*[Need("reattribution", {"seed": seed, "model": model}) for model in RESCORED],
            *[Need("subsample", {"seed": seed, "part": part}) for part in PARTS]]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only."""
    return [Need("subsample", {"seed": seed, "part": f"category {name}"}) for name in CATEGORIES]


# ---- other models, the same texts ------------------------------------------------------------

def _reattribution_needs(profile, seed: int, model: str) -> list[Need]:
    if model not in RESCORED:
        raise SsahError(f"unknown model {model!r}; known: {', '.join(RESCORED)}")
    tuned = [] if model == "base" else [Need("tuning", {"seed": seed, "condition": model}, artifact=True)]
    return [Need("calibration", {"seed": seed}, artifact=True), *tuned]


@step(version=1, reads=("model", "calibration"), minutes=0.5,
      needs=_reattribution_needs)
def reattribution(context: Context, seed: int, model: str) -> Result:
    """I_S and I_U of another model (`RESCORED`) on the texts on which the aligned one was scored (Fig. 5 and 6).

    The texts stay those of the aligned model, so that what changes is the model alone. Tuned models: at the training
    loss of full fine-tuning.
    """
    chat = load_base(context) if model == "base" else load_tuned(context, seed, model)
    return score_units(chat, calibration_pairs(context, seed, "refusals"), context.profile.calibration.system)


# ---- the same model, other texts -------------------------------------------------------------

@step(version=1, reads=("model", "data", "calibration", "classification", "freezing"), minutes=0.3,
      needs=lambda profile, seed, part: [Need("calibration", {"seed": seed}, artifact=True),
                                         *checkpoint_need("aligned", seed)])
def subsample(context: Context, seed: int, part: str) -> Result:
    """The aligned model's units on part of its calibration texts: one of `PARTS`, or ``category NAME`` (`CATEGORIES`).

    Labels alone are kept (codes of `LABELS`, int8), of the halves the scores. A category that the prompts do not have
    is left out, and the result says why.
    """
    pairs = calibration_pairs(context, seed, "refusals")
    if part.startswith("category "):
        data = context.profile.data
        chosen = of_category(pairs, part.removeprefix("category "),
                             load_pool("harmful", data.harmful, data.longest_prompt), seed)
    else:
        chosen = part_of(pairs, part, seed)
    if not chosen:
        return Result({"left out": "the harmful prompts have no categories, or too few texts are of this one"})
    scored = score_units(load_role(context, "aligned", seed), chosen, context.profile.calibration.system)
    if part in HALVES:
        return scored
    codes = pd.Categorical(labels_of(context.profile, scored), LABELS).codes
    return Result(scored.values, arrays={"labels": codes})


def shuffled(texts: list, seed: int) -> list:
    """The order in which parts are taken; the same for every part."""
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


def part_of(pairs: Pairs, part: str, seed: int) -> Pairs:
    """The first or last so many of both sets of texts, in their random order (`PARTS`)."""
    if part not in PARTS:
        raise SsahError(f"unknown part {part!r}; known: {', '.join(PARTS)}, category NAME")
    end, name = part.split(" ", 1)
    chosen = {}
    for kind, texts in pairs.items():
        n = int(FRACTIONS[name] * len(texts))
        chosen[kind] = shuffled(texts, seed)[:n] if end == "first" else shuffled(texts, seed)[len(texts) - n:]
    return chosen


def of_category(pairs: Pairs, name: str, pool: pd.DataFrame, seed: int) -> Pairs:
    """A sixth of the refusals, all to requests of one category, and as large a part of the benign texts.

    As many texts as ``first sixth`` and ``last sixth`` have, which are to be compared with it; no text is in two
    categories' parts. `pool`: the harmful prompts (text, category). Empty where that cannot be had.
    """
    if name not in CATEGORIES:
        raise SsahError(f"unknown category {name!r}; known: {', '.join(CATEGORIES)}")
    if "category" not in pool:
        return {}
    kinds = {text: set(str(labels).split("; ")) & set(CATEGORIES)
             for text, labels in zip(pool["text"], pool["category"])}
    own = [pair for pair in shuffled(pairs["harmful"], seed) if kinds.get(pair[0]) == {name}]
    n, m = (int(FRACTIONS["sixth"] * len(pairs[kind])) for kind in ("harmful", "benign"))
    place = CATEGORIES.index(name)
    if len(own) < n:
        return {}
    return {"harmful": own[:n], "benign": shuffled(pairs["benign"], seed)[place * m:(place + 1) * m]}
