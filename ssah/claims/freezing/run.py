"""C4: other examples and other measures beside the tuned models that all claims share (Table 2)."""

import json
from dataclasses import replace

import numpy as np

from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.conditions import (
    CONSTRAINED,
    DISJOINT,
    FREEZING,
    FULL,
    FURTHER,
    START,
    find,
    names,
)
from ..shared.material import checkpoint_need, load_base, load_role, split_prompts
from ..shared.measuring import keep_answers, measure_answers, measure_choice
from ..shared.memory import asks_model, trains_model
from ..shared.tuning import (
    KEPT,
    MILDER,
    TUNED,
    freeze_units,
    instructions,
    load_tuned,
    loss_to_reach,
    milder_rate,
    tuning_needs,
)

#: Other examples to train on, for the first seed only.
SECOND_SET = "second set"
OWN_ANSWERS = "own answers"
OTHER_EXAMPLES = (SECOND_SET, OWN_ANSWERS)
#: Who is compared on them.
COMPARED = ("full", "SCU + all CU", "random large without SCU")
#: With which units frozen models of the second bench are fine-tuned, beside those with none.
ARMS = ("SCU + all CU", *names(DISJOINT))
#: The step that fine-tunes them at the usual dose; `MILDER` does at the milder one.
USUAL = "tuning"


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("tuning", {"seed": seed, "condition": condition}) for condition in TUNED]


def tunings(profile, seed: int) -> list[Need]:
    """What a seed of fine-tuning takes on the second bench, of the models that are tuned there."""
    if not profile.freezing.examples:
        return []
    return [Need(USUAL, {"seed": seed, "condition": name}) for name in (FULL.name, *ARMS)]


def milder(profile, seed: int) -> list[Need]:
    """The same at the milder dose, and the published rival, on which no word stands."""
    if not profile.milder.lr:
        return []
    return [Need(MILDER, {"seed": seed, "condition": name})
            for name in (FULL.name, *ARMS, CONSTRAINED.name)]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: other units, other examples, other measures."""
    other_units = [Need("tuning", {"seed": seed, "condition": condition})
                   for condition in names(FURTHER)]
    on_other_examples = [
        Need("tuning_on", {"seed": seed, "examples": examples, "condition": condition})
        for examples in OTHER_EXAMPLES for condition in COMPARED]
    other_measures = [Need("tuned_evaluation", {"seed": seed, "condition": condition})
                      for condition in (START.name, *KEPT)]
    return other_units + on_other_examples + other_measures


# ---- other examples --------------------------------------------------------------------------

def own_answers(context: Context, seed: int) -> tuple[list[dict], list[dict]]:
    """Examples as `instructions` has them, answered by the base model.

    None that the alignment of a seed has seen. Raises `SsahError` where too few are left.
    """
    texts = split_prompts(context, "benign", "align").set_index("id")["text"]
    records = json.loads((context.artifact("base_answers") / "answers.json").read_text())
    order = np.random.default_rng(seed).permutation(len(records))
    examples = []
    # `alignment_examples` takes the first of the same order
    for record in (records[i] for i in order[context.profile.alignment.benign:]):
        examples.append({"prompt": texts[record["id"]], "response": record["response"],
                         "ended": record["ended"]})
    n = context.profile.freezing.examples
    if len(examples) <= n:
        raise SsahError(f"{len(examples)} answers of the base model are left, more than {n} are "
                        "wanted; enlarge the align split")
    return examples[:n], examples[n:n + context.profile.freezing.unseen]


def _tuning_on_needs(profile, seed: int, examples: str, condition: str) -> list[Need]:
    if examples not in OTHER_EXAMPLES:
        raise SsahError(f"unknown examples {examples!r}; known: {', '.join(OTHER_EXAMPLES)}")
    find(FREEZING, condition)
    needs = [*tuning_needs(profile, seed, FULL.name), Need("base_answers", artifact=True)]
    if condition != FULL.name:
        full = {"seed": seed, "examples": examples, "condition": FULL.name}
        needs.append(Need("tuning_on", full))
    return needs


@step(version=1, reads=("model", "data", "alignment", "classification", "evaluation", "freezing",
                        "comparison"), minutes=7, needs=_tuning_on_needs, memory=trains_model)
def tuning_on(context: Context, seed: int, examples: str, condition: str) -> Result:
    """As `tuning`, on other examples.

    A second instruction set, or the base model's own answers (gentler).
    """
    chat = load_role(context, "aligned", seed, "float32")
    if examples == OWN_ANSWERS:
        chosen = own_answers(context, seed)
    else:
        chosen = instructions(context, chat, seed, context.profile.comparison.second)
    target = loss_to_reach(context, "tuning_on", condition, seed=seed, examples=examples)
    return freeze_units(context, chat, chosen, seed, find(FREEZING, condition), target=target)


# ---- a milder dose ---------------------------------------------------------------------------

def _milder_needs(profile, seed: int, condition: str) -> list[Need]:
    needs = tuning_needs(profile, seed, FULL.name)
    if find(FREEZING, condition) != FULL:
        needs.append(Need("milder_tuning", {"seed": seed, "condition": FULL.name}))
    return needs


@step(version=1, reads=("model", "data", "classification", "evaluation", "freezing", "milder"),
      minutes=8, needs=_milder_needs, memory=trains_model)
def milder_tuning(context: Context, seed: int, condition: str) -> Result:
    """As `tuning`, at the rate of the milder dose, and measured at equal loss alone.

    Weights are kept in the cache folder as those of `tuning` are. For models on which the usual dose does more harm than a fair comparison allows.
    """
    row = replace(find(FREEZING, condition), rate=milder_rate)
    chat = load_role(context, "aligned", seed, "float32")
    examples = instructions(context, chat, seed)
    target = loss_to_reach(context, "milder_tuning", condition, seed=seed)
    return freeze_units(context, chat, examples, seed, row, target=target, points={},
                        keep=row.kept)


# ---- other measures --------------------------------------------------------------------------

def _evaluation_needs(profile, seed: int, condition: str) -> list[Need]:
    if condition not in (START.name, *KEPT):
        known = ", ".join((START.name, *KEPT))
        raise SsahError(f"no weights are kept of {condition!r}; known: {known}")
    if condition == START.name:
        model = checkpoint_need(profile, "aligned", seed)
    else:
        model = [Need("tuning", {"seed": seed, "condition": condition}, artifact=True)]
    return [Need("splits"), Need("judge_threshold"), *model]


@step(version=1, reads=("model", "data", "evaluation"), minutes=2, needs=_evaluation_needs,
      memory=asks_model)
def tuned_evaluation(context: Context, seed: int, condition: str) -> Result:
    """What `tuning` leaves out to save time, at equal loss (`KEPT`) and at the start.

    The harmful requests of a set of which no other split has any (HarmBench; all of `evaluate`
    where there is none), and multiple choice.
    """
    if condition == START.name:
        chat = load_role(context, "aligned", seed)
    else:
        chat = load_tuned(context, seed, condition)
    options = context.profile.evaluation
    harmful = split_prompts(context, "harmful", "evaluate")
    is_other = harmful["source"].isin(context.profile.data.evaluate_only)
    chosen = harmful[is_other] if is_other.any() else harmful
    requests = chosen.iloc[:options.harmful].reset_index(drop=True)
    answers, texts = measure_answers(context, chat, load_base(context), requests,
                                     options.systems[:1])
    keep_answers(context, texts)
    return Result({}, {"answers": answers, "choice": measure_choice(context, chat)})
