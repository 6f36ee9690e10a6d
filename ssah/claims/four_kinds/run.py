"""C2: Table 1 on the first bench, and the plan of what the claim needs."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pandas as pd

from ...lab import Context, Need, Result, step
from ...units import UnitIndex
from ..shared.material import ROLES, checkpoint_need, load_base, load_role
from ..shared.measuring import (
    classified,
    evaluation_requests,
    keep_answers,
    measure_answers,
    measure_utility,
)
from ..shared.memory import asks_model
from .conditions import CONDITIONS, TRANSPLANTS, VARIATIONS, Condition, find_condition

# ---- the plan --------------------------------------------------------------------------------


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed, and how good the judge is."""
    judge = [Need("judge_on_people"), Need("judge_threshold")]
    ablations = [
        Need("ablation", {"seed": seed, "condition": condition.name})
        for condition in CONDITIONS
    ]
    return [*judge, *ablations]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: the transplant, the pair itself, other choices."""
    transplants = [
        Need("transplant", {"seed": seed, "units": name}) for name in TRANSPLANTS
    ]
    behaviours = [Need("behaviour", {"seed": seed, "role": role}) for role in ROLES]
    variations = [
        Need("variation", {"seed": seed, "variation": variation.name})
        for variation in VARIATIONS
    ]
    return [*transplants, *behaviours, *variations]


# ---- Table 1 ---------------------------------------------------------------------------------


def _ablation_needs(profile, seed: int, condition: str) -> list[Need]:
    chosen = find_condition(condition)
    needs = [Need("splits"), Need("judge_threshold"), *checkpoint_need(profile, "aligned", seed)]
    if chosen.is_direction:
        needs.append(Need("direction", {"seed": seed}))
    if chosen.kind:
        needs += [Need("attribution", {"seed": seed}), Need("shares")]
    return needs


@step(
    version=1,
    reads=("model", "data", "classification", "evaluation"),
    minutes=2.5,
    needs=_ablation_needs,
    memory=asks_model,
)
def ablation(context: Context, seed: int, condition: str) -> Result:
    """One row of Table 1: the aligned model without what a condition removes."""
    chat = load_role(context, "aligned", seed)
    removed, edit = without(context, chat, find_condition(condition), seed)
    options = context.profile.evaluation
    with edit:
        requests = evaluation_requests(context, options.harmful)
        answers, texts = measure_answers(
            context, chat, load_base(context), requests, options.systems
        )
        utility, benign, choice = measure_utility(context, chat)
    keep_answers(context, texts)
    tables = {"answers": answers, "benign": benign, "choice": choice}
    return Result({**removed, **utility}, tables)


def without(
    context: Context, chat, condition: Condition, seed: int
) -> tuple[dict[str, float], AbstractContextManager]:
    """The shares of what a condition removes (`shares_of`), and the edit that removes it."""
    from ...ablation import ablated, without_direction

    nothing = {"share": 0.0, "parameter_share": 0.0}
    if condition.is_direction:
        refusal = context.get("direction", seed=seed).arrays["direction"]
        return nothing, without_direction(chat.model, refusal)
    if not condition.kind:
        return nothing, nullcontext()
    units = classified(context, seed)
    mask = condition.mask(units, seed)
    return shares_of(mask, units.index), ablated(chat.model, units.index, mask)


def shares_of(mask: np.ndarray, index: UnitIndex) -> dict[str, float]:
    """Which part of all units a mask (len(index),) chooses, and of all parameters."""
    return {"share": float(mask.mean()), "parameter_share": index.parameter_share(mask)}


def answers_with_system(context: Context, chat, n: int) -> pd.DataFrame:
    """Labelled answers to the first `n` harmful requests, in the first system mode."""
    requests = evaluation_requests(context, n)
    system = context.profile.evaluation.systems[:1]
    answers, texts = measure_answers(
        context, chat, load_base(context), requests, system
    )
    keep_answers(context, texts)
    return answers
