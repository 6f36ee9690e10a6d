"""The second bench: labels from a bank of texts, the halves of it, and what the guardrail is.

Scores and masks stay in the cache folder, whatever the model: what is stored are counts and
overlaps. Those of models aligned by their makers are committed nowhere.
"""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ...classification import LABELS, SCALES, Units
from ...errors import SsahError
from ...inputs import prompts
from ...lab import Context, Need, Result, step
from .foundation import calibration_pairs, checkpoint_need, load_base, load_role, split_prompts
from .measuring import classify_scores, keep_answers, measure_answers, score_units

#: Every text of the bank, or every other one from the first or from the second on.
PARTS = {"all": slice(None), "first half": slice(0, None, 2), "second half": slice(1, None, 2)}
#: Scales by which the labels of both halves are compared: ours, and the formula as printed.
COMPARED_SCALES = ("log-z", "raw")
#: Harmful requests of the sources on which nothing is chosen (HarmBench).
UNSEEN_REQUESTS = 100
#: Safe requests that look dangerous, to measure over-refusal.
SAFE_REQUESTS = 100


def _scores_needs(profile, seed: int, part: str = "all") -> list[Need]:
    return [Need("calibration", {"seed": seed}, artifact=True),
            *checkpoint_need(profile, "aligned", seed)]


@step(version=1, reads=("model", "calibration"), minutes=2, needs=_scores_needs)
def unit_scores(context: Context, seed: int, part: str = "all") -> Result:
    """I_S and I_U (paper, Sec. 4) of the aligned model on the bank of texts, or on a half of it.

    The arrays (len(index),) go to the cache folder: `safety`, `utility`, and `means`, the mean
    activations on benign answers.
    """
    if part not in PARTS:
        raise SsahError(f"unknown part {part!r} of the texts; known: {', '.join(PARTS)}")
    chat = load_role(context, "aligned", seed)
    bank = calibration_pairs(context, seed, "refusals")
    chosen = {kind: pairs[PARTS[part]] for kind, pairs in bank.items()}
    system = context.profile.calibration.system
    scored = score_units(chat, chosen, system)
    means = _mean_activations(chat, chosen["benign"], system)
    np.savez_compressed(context.folder / "scores.npz", **scored.arrays, means=means)
    return Result(scored.values)


def _mean_activations(chat, pairs: list, system: str) -> np.ndarray:
    """Mean activation of every unit over the answers' predicting positions; (len(index),)."""
    import torch

    from ...attribution import activation_moments
    from .foundation import scoring_batches

    batches = scoring_batches(chat, pairs, system, "predicting")
    means = [module.mean for module in activation_moments(chat.model, batches)]
    return torch.cat(means).numpy().astype(np.float32)


def stored_scores(context: Context, seed: int, part: str = "all") -> Result:
    """The result of `unit_scores` with its arrays, from the cache folder."""
    counts = context.get("unit_scores", seed=seed, part=part).values
    folder: Path = context.artifact("unit_scores", seed=seed, part=part)
    with np.load(folder / "scores.npz", allow_pickle=False) as loaded:
        return Result(counts, arrays=dict(loaded))


def labelled(options, scored: Result, scale: str = "log-z", scu: float | None = None) -> Units:
    """The four kinds at the shares of the section `removal`, or at another share of SCU."""
    usual, ucu, ru = options.shares
    return classify_scores(scored, scale, scu=usual if scu is None else scu, ucu=ucu, ru=ru)


def _labels_needs(profile, seed: int) -> list[Need]:
    return [Need("unit_scores", {"seed": seed, "part": part}, artifact=True) for part in PARTS]


@step(version=1, reads=("removal",), needs=_labels_needs)
def labels(context: Context, seed: int) -> Result:
    """How far the labels of two halves of the texts agree, and where the labelled units are.

    Table ``halves``: kind, scale, iou (of the halves' masks), chance (of two random sets so
    large). Table ``places``: block, kind of unit, label, units (a count).
    """
    options = context.profile.removal
    halves = [stored_scores(context, seed, part) for part in PARTS if part != "all"]
    rows = []
    for scale, label in product(COMPARED_SCALES, LABELS):
        first, second = (labelled(options, scored, scale).mask(label) for scored in halves)
        share = first.mean()
        rows.append({"label": label, "scale": scale, "iou": _overlap(first, second),
                     "chance": share / (2 - share)})
    units = labelled(options, stored_scores(context, seed))
    places = units.index.table.assign(label=units.labels)
    counts = places.groupby(["block", "kind", "label"]).size().rename("units").reset_index()
    return Result(tables={"halves": pd.DataFrame(rows), "places": counts})


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two Boolean masks."""
    return float((first & second).sum() / (first | second).sum())


def _guard_needs(profile, seed: int, role: str) -> list[Need]:
    return [Need("splits"), Need("judge_threshold"), *checkpoint_need(profile, role, seed)]


@step(version=1, reads=("model", "data", "evaluation"), minutes=4, needs=_guard_needs)
def guard(context: Context, seed: int, role: str) -> Result:
    """What a model refuses before anything is done to it, on requests that no claim is judged by.

    Harmful ones of `select` in all system modes, and in the first one HarmBench and safe requests
    that look dangerous.
    """
    chat = load_role(context, role, seed)
    judge_model = load_base(context)
    systems = context.profile.evaluation.systems
    parts = []
    texts = {}
    for requests, modes in ((_selected(context), systems), (_others(context), systems[:1])):
        answers, found = measure_answers(context, chat, judge_model, requests, modes)
        parts.append(answers)
        texts |= found
    keep_answers(context, texts)
    return Result(tables={"answers": pd.concat(parts, ignore_index=True)})


def _selected(context: Context) -> pd.DataFrame:
    """The harmful requests of `select`: id, source, text."""
    table = split_prompts(context, "harmful", "select")
    return table.assign(source="select")[["id", "source", "text"]]


def _others(context: Context) -> pd.DataFrame:
    """Harmful requests of sources that nothing is chosen on, and safe ones: id, source, text."""
    harmful = split_prompts(context, "harmful", "evaluate")
    is_unseen = harmful["source"].isin(context.profile.data.evaluate_only)
    unseen = harmful[is_unseen].assign(source="unseen").iloc[:UNSEEN_REQUESTS]
    safe = prompts.load_prompts(context.profile.evaluation.borderline)
    safe = safe.assign(source="safe").iloc[:SAFE_REQUESTS]
    return pd.concat([unseen, safe], ignore_index=True)[["id", "source", "text"]]
