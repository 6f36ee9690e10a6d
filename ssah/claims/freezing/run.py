"""C4: other examples and other measures beside the tuned models that all claims share (Table 2)."""

import json

import numpy as np

from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.foundation import checkpoint_need, load_base, load_role, split_prompts
from ..shared.measuring import keep_answers, measure_answers, measure_choice
from ..shared.tuning import KEPT, LEAST, TUNED, freeze_units, instructions, load_tuned, tuning_needs

#: Other examples to train on, for the first seed only, and who is compared on them.
OTHER_EXAMPLES = ("second set", "own answers")

COMPARED = KEPT


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("tuning", {"seed": seed, "condition": condition}) for condition in TUNED]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: other units, other examples, other measures."""
    return [Need("tuning", {"seed": seed, "condition": LEAST}),
            *[Need("tuning_on", {"seed": seed, "examples": examples, "condition": condition})
              for examples in OTHER_EXAMPLES for condition in COMPARED],
            *[Need("tuned_evaluation", {"seed": seed, "condition": condition}) for condition in ("start", *KEPT)]]


def own_answers(context: Context, seed: int) -> tuple[list[dict], list[dict]]:
    """Examples as `instructions` has them, answered by the base model; none that the alignment of a seed has seen."""
    texts = split_prompts(context, "benign", "align").set_index("id")["text"]
    records = json.loads((context.artifact("base_answers") / "answers.json").read_text())
    # `alignment_examples` takes the first of the same order
    order = np.random.default_rng(seed).permutation(len(records))[context.profile.alignment.benign:]
    examples = [{"prompt": texts[records[i]["id"]], "response": records[i]["response"], "ended": records[i]["ended"]}
                for i in order]
    n = context.profile.freezing.examples
    if len(examples) <= n:
        raise SsahError(f"{len(examples)} answers of the base model are left, more than {n} are wanted; "
                        "enlarge the align split")
    return examples[:n], examples[n:n + context.profile.freezing.unseen]


def _tuning_on_needs(profile, seed: int, examples: str, condition: str) -> list[Need]:
    if examples not in OTHER_EXAMPLES:
        raise SsahError(f"unknown examples {examples!r}; known: {', '.join(OTHER_EXAMPLES)}")
    target = [] if condition == "full" else [Need("tuning_on", {"seed": seed, "examples": examples,
                                                                "condition": "full"})]
    return [*tuning_needs(profile, seed, "full"), Need("base_answers", artifact=True), *target]


@step(version=1, reads=("model", "data", "alignment", "classification", "evaluation", "freezing", "comparison"), minutes=7, needs=_tuning_on_needs)
def tuning_on(context: Context, seed: int, examples: str, condition: str) -> Result:
    """As `tuning`, on other examples: a second instruction set, or the base model's own answers (gentler)."""
    chat = load_role(context, "aligned", seed, "float32")
    chosen = own_answers(context, seed) if examples == "own answers" else \
        instructions(context, chat, seed, context.profile.comparison.second)
    target = None if condition == "full" else \
        context.get("tuning_on", seed=seed, examples=examples, condition="full").values["probe_loss"]
    return freeze_units(context, chat, chosen, seed, condition, target=target)


def _evaluation_needs(profile, seed: int, condition: str) -> list[Need]:
    if condition not in ("start", *KEPT):
        raise SsahError(f"no weights are kept of {condition!r}; known: start, {', '.join(KEPT)}")
    model = checkpoint_need("aligned", seed) if condition == "start" else \
        [Need("tuning", {"seed": seed, "condition": condition}, artifact=True)]
    return [Need("splits"), Need("judge_threshold"), *model]


@step(version=1, reads=("model", "data", "evaluation"), minutes=2, needs=_evaluation_needs)
def tuned_evaluation(context: Context, seed: int, condition: str) -> Result:
    """What `tuning` leaves out to save time, at equal loss (`KEPT`) and at the start: the harmful requests of a set of
    which no other split has any (HarmBench; all of `evaluate` where there is none), and multiple choice."""
    chat = load_role(context, "aligned", seed) if condition == "start" else load_tuned(context, seed, condition)
    harmful, options = split_prompts(context, "harmful", "evaluate"), context.profile.evaluation
    other = harmful["source"].isin(context.profile.data.evaluate_only)
    requests = harmful[other if other.any() else ~other].iloc[:options.harmful].reset_index(drop=True)
    answers, texts = measure_answers(context, chat, load_base(context), requests, options.systems[:1])
    keep_answers(context, texts)
    return Result({}, {"answers": answers, "choice": measure_choice(context, chat)})
