"""C3: units scored again, of other models on the same texts and on parts of them (Fig. 5 and 6).

The first bench asks what becomes of all units on the same texts, the second what becomes of the SCU
on texts that they were not found on.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from ...classification import LABELS
from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.bank import HALF_BANKS, bank_need, bank_pairs, labelled
from ..shared.conditions import FULL
from ..shared.flows import HALVES, labels_of
from ..shared.foundation import calibration_pairs
from ..shared.material import checkpoint_need, load_base, load_pool, load_role
from ..shared.measuring import score_units, stored_scores
from ..shared.memory import asks_model, trains_model
from ..shared.pair import refusals
from ..shared.tuning import (
    KEPT,
    MILDER,
    compared_needs,
    instructions,
    load_kept,
    load_tuned,
    loss_to_reach,
    milder_rate,
    tune,
)

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


# ---- the second bench: turnover on disjoint texts ---------------------------------------------

#: Refusals that the control's fine-tuning keeps training on, beside the examples.
KEPT_REFUSALS = 32
#: Whose units are put beside the aligned model's: its own, of the model after full fine-tuning, and
#: of the one whose fine-tuning keeps the refusals (the control).
ALIGNED, TUNED, PLACEBO = "aligned", FULL.name, "placebo"


def milder(profile, seed: int) -> list[Need]:
    """What a seed of the milder dose takes on the second bench: of our own pair alone.

    With the guardrail and the labels of that seed, which no other claim may have asked for.
    """
    if profile.model.aligned or not profile.milder.lr:
        return []
    return [
        Need("guard", {"seed": seed, "role": "aligned"}),
        Need("over_refusal", {"seed": seed}),
        Need("labels", {"seed": seed}),
        Need("turnover", {"seed": seed})]


@step(version=1, reads=("model", "data", "alignment", "evaluation", "freezing", "milder"),
      minutes=8, needs=lambda profile, seed: compared_needs(profile, seed, MILDER),
      memory=trains_model)
def placebo_tuning(context: Context, seed: int) -> Result:
    """As `milder_tuning` with nothing frozen, on the same examples and some refusals of `align` too.

    Its weights at equal loss stay in the cache folder.
    """
    chat = load_role(context, "aligned", seed, "float32")
    benign, unseen = instructions(context, chat, seed)
    # the probe of equal loss is the first of these: benign ones, as in all runs
    kept = refusals(context, seed, np.random.default_rng(seed))[:KEPT_REFUSALS]
    target = loss_to_reach(context, MILDER, PLACEBO, seed=seed)
    return tune(context, chat, (benign + kept, unseen), replace(FULL, rate=milder_rate), seed=seed,
                target=target, points={}, keep=True)


def _turnover_needs(profile, seed: int) -> list[Need]:
    halves = [Need("unit_scores", {"seed": seed, "part": part}, artifact=True) for part in HALF_BANKS]
    return [
        bank_need(profile, seed),
        *halves,
        Need(MILDER, {"seed": seed, "condition": FULL.name}, artifact=True),
        Need("placebo_tuning", {"seed": seed}, artifact=True)]


@step(version=1, reads=("model", "calibration", "removal"), minutes=1, needs=_turnover_needs,
      memory=asks_model)
def turnover(context: Context, seed: int) -> Result:
    """What becomes of the aligned model's SCU when units are labelled on the other half of the texts.

    Table ``turnover``: model (`ALIGNED`, `TUNED`, `PLACEBO`), scored_on (the half on which the SCU
    were found), label (on the other half, by that model), share (of these SCU).
    """
    options = context.profile.removal
    aligned = {part: labelled(options, stored_scores(context, seed, part)) for part in HALF_BANKS}
    rows = []
    for model in (ALIGNED, TUNED, PLACEBO):
        after = aligned if model == ALIGNED else _labelled_on_halves(context, seed, model)
        for one, other in (HALF_BANKS, HALF_BANKS[::-1]):
            scu = aligned[one].mask("SCU")
            for label in LABELS:
                share = float(after[other].mask(label)[scu].mean())
                rows.append({"model": model, "scored_on": one, "label": label, "share": share})
    return Result(tables={"turnover": pd.DataFrame(rows)})


def _labelled_on_halves(context: Context, seed: int, model: str) -> dict:
    """Half of the texts -> the units of a tuned model, at the shares of the second bench."""
    if model == TUNED:
        folder = context.artifact(MILDER, seed=seed, condition=FULL.name)
    else:
        folder = context.artifact("placebo_tuning", seed=seed)
    chat = load_kept(context, folder)
    found = {}
    for part in HALF_BANKS:
        pairs = bank_pairs(context, seed, part)
        scored = score_units(chat, pairs, context.profile.calibration.system)
        found[part] = labelled(context.profile.removal, scored)
    return found
