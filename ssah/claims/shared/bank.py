"""The second bench: labels from a bank of texts, the halves of it, and what the guardrail is.

Our own pair has one bank for all seeds: all refusal wordings after all harmful requests, and the
base model's answers to benign prompts. Models aligned by their makers are scored on their own
refusals and answers.

Scores and masks stay in the cache folder, whatever the model: what is stored are counts and
overlaps. Those of models aligned by their makers are committed nowhere.
"""

import json
from itertools import product

import numpy as np
import pandas as pd

from ...classification import LABELS, Units, iou
from ...errors import SsahError
from ...inputs import prompts
from ...lab import Context, Need, Result, step
from .foundation import Pair, calibration_pairs
from .material import checkpoint_need, draw, load_base, load_role, split_prompts
from .measuring import (
    LARGE_BATCH,
    classify_scores,
    keep_answers,
    measure_answers,
    score_units,
    stored_scores,
)
from .memory import asks_model
from .pair import train_wordings

#: Texts of all prompts of the bank, or of every other one from the first or from the second on:
#: the remainders of a prompt's number by 2.
PARTS = {"all": (0, 1), "first half": (0,), "second half": (1,)}
#: The two of them that have no prompt in common.
HALF_BANKS = ("first half", "second half")
#: Scales by which the labels of both halves are compared: ours, and the formula as printed.
COMPARED_SCALES = ("log-z", "raw")


# ---- texts -----------------------------------------------------------------------------------

@step(version=1, reads=("model", "data", "calibration"), minutes=6,
      needs=lambda profile: [Need("splits")], memory=asks_model)
def text_bank(context: Context) -> Result:
    """The texts that the units of all seeds are scored on, as (prompt, answer tokens) by kind.

    Harmful: every request of `identify` with every refusal wording; benign: prompts of `identify`
    with the base model's own answers, the first one greedy. ``texts.json``, in the cache folder.
    """
    chat = load_base(context)
    texts = {"harmful": _refused(context, chat), "benign": _answered(context, chat)}
    (context.folder / "texts.json").write_text(json.dumps(texts))
    return Result({kind: len(pairs) for kind, pairs in texts.items()})


def _refused(context: Context, chat) -> list[Pair]:
    """Every harmful request with the tokens of every refusal wording, where they stand."""
    options = context.profile.calibration
    wordings = train_wordings(options.wordings)
    requests = split_prompts(context, "harmful", "identify")["text"]
    pairs = []
    for request in requests:
        _, tails = chat.continuations(request, wordings, options.system)
        pairs += [(request, tail[:options.answer_tokens]) for tail in tails]
    return pairs


def _answered(context: Context, chat) -> list[Pair]:
    """Benign prompts with the base model's answers that are not empty."""
    from ...evaluation import generate

    options = context.profile.calibration
    questions = draw(split_prompts(context, "benign", "identify"), options.prompts, 0)
    pairs = []
    for sample in (None, *range(1, options.answers_each)):
        answers = generate(chat, questions["text"].tolist(), system=options.system,
                           max_new_tokens=options.answer_tokens, sample=sample,
                           progress="text bank")
        pairs += [(prompt, tokens) for prompt, tokens in zip(questions["text"], answers.tokens)
                  if tokens]
    return pairs


def bank_need(profile, seed: int) -> Need:
    """Where the texts of a seed come from: the bank for all seeds, or the model's own answers."""
    if profile.calibration.wordings:
        return Need("text_bank", artifact=True)
    return Need("calibration", {"seed": seed}, artifact=True)


def bank_pairs(context: Context, seed: int, part: str = "all") -> dict[str, list[Pair]]:
    """(prompt, answer tokens) by kind, ``harmful`` and ``benign``; of a part of the prompts."""
    if part not in PARTS:
        raise SsahError(f"unknown part {part!r} of the texts; known: {', '.join(PARTS)}")
    if context.profile.calibration.wordings:
        bank = json.loads((context.artifact("text_bank") / "texts.json").read_text())
    else:
        bank = calibration_pairs(context, seed, "refusals")
    return {kind: _of_part(pairs, PARTS[part]) for kind, pairs in bank.items()}


def _of_part(pairs: list[Pair], remainders: tuple[int, ...]) -> list[Pair]:
    """The texts of every other prompt: two halves have no prompt in common."""
    numbers = {}
    for prompt, _ in pairs:
        numbers.setdefault(prompt, len(numbers))
    return [(prompt, tokens) for prompt, tokens in pairs if numbers[prompt] % 2 in remainders]


# ---- scores and labels -----------------------------------------------------------------------

def _scores_needs(profile, seed: int, part: str = "all") -> list[Need]:
    return [bank_need(profile, seed), *checkpoint_need(profile, "aligned", seed)]


@step(version=1, reads=("model", "calibration"), minutes=2, needs=_scores_needs, memory=asks_model)
def unit_scores(context: Context, seed: int, part: str = "all") -> Result:
    """I_S and I_U (paper, Sec. 4) of the aligned model on the bank of texts, or on a half of it.

    The arrays (len(index),) go to the cache folder: `safety`, `utility`, and `means`, the mean
    activations on benign answers.
    """
    chosen = bank_pairs(context, seed, part)
    chat = load_role(context, "aligned", seed)
    system = context.profile.calibration.system
    scored = score_units(chat, chosen, system)
    means = _mean_activations(chat, chosen["benign"], system)
    np.savez_compressed(context.folder / "scores.npz", **scored.arrays, means=means)
    return Result(scored.values)


def _mean_activations(chat, pairs: list, system: str) -> np.ndarray:
    """Mean activation of every unit over the answers' predicting positions; (len(index),)."""
    import torch

    from ...attribution import activation_moments
    from .foundation import sorted_batches

    batches = sorted_batches(chat, pairs, system)
    means = [module.mean for module in activation_moments(chat.model, batches)]
    return torch.cat(means).numpy().astype(np.float32)


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
        rows.append({"label": label, "scale": scale, "iou": iou(first, second),
                     "chance": share / (2 - share)})
    units = labelled(options, stored_scores(context, seed))
    places = units.index.table.assign(label=units.labels)
    counts = places.groupby(["block", "kind", "label"]).size().rename("units").reset_index()
    return Result(tables={"halves": pd.DataFrame(rows), "places": counts})


# ---- the guardrail ---------------------------------------------------------------------------

def _guard_needs(profile, seed: int, role: str) -> list[Need]:
    return [Need("splits"), Need("judge_threshold"), *checkpoint_need(profile, role, seed)]


@step(version=1, reads=("model", "data", "evaluation"), minutes=4, needs=_guard_needs,
      memory=asks_model)
def guard(context: Context, seed: int, role: str) -> Result:
    """What a model refuses before anything is done to it, on requests that no claim is judged by.

    Harmful ones of `select` in all system modes, and in the first one HarmBench and the first safe
    requests of the file; the gate takes those of `over_refusal`, which asks all of them.
    """
    chat = load_role(context, role, seed)
    judge_model = load_base(context)
    systems = context.profile.evaluation.systems
    parts = []
    texts = {}
    for requests, modes in ((_selected(context), systems), (_others(context), systems[:1])):
        answers, found = measure_answers(context, chat, judge_model, requests, modes,
                                         with_log_odds=False, batch_size=LARGE_BATCH)
        parts.append(answers)
        texts |= found
    keep_answers(context, texts)
    return Result(tables={"answers": pd.concat(parts, ignore_index=True)})


@step(version=1, reads=("model", "data", "evaluation"), minutes=2,
      needs=lambda profile, seed: _guard_needs(profile, seed, "aligned"), memory=asks_model)
def over_refusal(context: Context, seed: int) -> Result:
    """The aligned model's answers to all safe requests that look dangerous, in the first mode.

    All, since the file is in the order of their kinds.
    """
    chat = load_role(context, "aligned", seed)
    systems = context.profile.evaluation.systems[:1]
    safe = prompts.load_prompts(context.profile.evaluation.borderline).assign(source="safe")
    requests = safe[["id", "source", "text"]]
    answers, texts = measure_answers(context, chat, load_base(context), requests, systems,
                                     with_log_odds=False, batch_size=LARGE_BATCH)
    keep_answers(context, texts)
    return Result(tables={"answers": answers})


def _selected(context: Context) -> pd.DataFrame:
    """The harmful requests of `select`: id, source, text."""
    table = split_prompts(context, "harmful", "select")
    return table.assign(source="select")[["id", "source", "text"]]


def _others(context: Context) -> pd.DataFrame:
    """Harmful requests of sources that nothing is chosen on, and safe ones: id, source, text."""
    n = context.profile.evaluation.guarded
    harmful = split_prompts(context, "harmful", "evaluate")
    is_unseen = harmful["source"].isin(context.profile.data.evaluate_only)
    unseen = harmful[is_unseen].assign(source="unseen").iloc[:n]
    safe = prompts.load_prompts(context.profile.evaluation.borderline)
    safe = safe.assign(source="safe").iloc[:n]
    return pd.concat([unseen, safe], ignore_index=True)[["id", "source", "text"]]
