"""C5 and C7: other ways to hold a model's weights than by units, compared like those (Table 3)."""

from dataclasses import replace

from ...classification import Units
from ...lab import Context, Need, Result, step
from ..shared.conditions import (
    SINGLE_WEIGHTS,
    TABLE_3,
    UNIT_SHARES,
    WEIGHT_SHARES,
    Condition,
    find,
    names,
)
from ..shared.foundation import calibration_pairs, sorted_batches
from ..shared.material import load_role
from ..shared.measuring import paper_kinds, scores_need, seed_scores
from ..shared.memory import trains_model
from ..shared.tuning import (
    ADAPTERS,
    MILDER,
    compared_needs,
    instructions,
    loss_to_reach,
    milder_rate,
    tune,
)

#: Single weights that are frozen, as many as those of SCU + all CU (C7).
REGIONS = names(SINGLE_WEIGHTS)


def adapter_core(seed: int) -> list[Need]:
    """What C5 needs for one seed, beside the runs of C4."""
    return [Need("adapter_tuning", {"seed": seed, "method": method}) for method in ADAPTERS]


def weight_core(seed: int) -> list[Need]:
    """What C7 needs for one seed, beside the runs of C4."""
    return [Need("weight_tuning", {"seed": seed, "region": region}) for region in REGIONS]


def adapter_tunings(profile, seed: int) -> list[Need]:
    """What a seed of fine-tuning takes for C5 on the second bench, beside the runs of C4."""
    if not profile.freezing.examples:
        return []
    return [Need("adapter_tuning", {"seed": seed, "method": "LoRA"})]


def weight_milder(profile, seed: int) -> list[Need]:
    """What a seed of the milder dose takes for C7: of our own pair alone."""
    if profile.model.aligned or not profile.milder.lr:
        return []
    units = [Need(MILDER, {"seed": seed, "condition": name}) for name in names(UNIT_SHARES)]
    weights = [Need("milder_weight_tuning", {"seed": seed, "region": name})
               for name in names(WEIGHT_SHARES)]
    return units + weights


# ---- adapters --------------------------------------------------------------------------------

def _adapter_needs(profile, seed: int, method: str) -> list[Need]:
    find(TABLE_3, method, "method")
    return compared_needs(profile, seed)


@step(version=1, reads=("model", "data", "evaluation", "freezing", "comparison"), minutes=9,
      needs=_adapter_needs, memory=trains_model)
def adapter_tuning(context: Context, seed: int, method: str) -> Result:
    """One row of Table 3: as `tuning` without anything frozen, but of an adapter (`ADAPTERS`).

    Answers are taken after the epochs of full fine-tuning (``equal epochs``) and at equal loss, and
    at the end where that is not reached.
    """
    row = find(TABLE_3, method, "method")
    options = context.profile.comparison
    chat = load_role(context, "aligned", seed, "float32")
    return tune(
        context,
        chat,
        instructions(context, chat, seed),
        row,
        seed=seed,
        target=loss_to_reach(context, "tuning", method, seed=seed),
        adapter=row.adapter(chat, options),
        longer=options.longer,
        points={"equal epochs": context.profile.freezing.epochs})


# ---- single weights --------------------------------------------------------------------------

def _weight_needs(profile, seed: int, region: str) -> list[Need]:
    find(SINGLE_WEIGHTS, region, "region")
    return [
        *compared_needs(profile, seed),
        scores_need(profile, seed),
        Need("calibration", {"seed": seed}, artifact=True)]


@step(version=1, reads=("model", "data", "calibration", "classification", "evaluation", "freezing"),
      minutes=8, needs=_weight_needs, memory=trains_model)
def weight_tuning(context: Context, seed: int, region: str) -> Result:
    """As `tuning`, with single weights frozen (`REGIONS`).

    In every matrix as many as with SCU + all CU frozen. The SNIP difference leaves out the weights
    of highest utility score, as large a share as UCU are of the units.
    """
    from ...alternatives import set_difference

    row = find(SINGLE_WEIGHTS, region, "region")
    chat = load_role(context, "aligned", seed, "float32")
    units = paper_kinds(context.profile, seed_scores(context, seed))
    if row.scored:
        shares = frozen_shares(chat.model, units, row, context.profile.freezing, seed)
        safety, utility = (snip_scores(context, chat, seed, kind) for kind in ("harmful", "benign"))
        masks = set_difference(safety, utility, shares, float(units.mask("UCU").mean()))
    else:
        masks = at_random(chat.model, units, row, context.profile.freezing, seed)
    target = loss_to_reach(context, "tuning", region, seed=seed)
    return freeze_weights(context, chat, masks, seed, row, target=target)


def _milder_weight_needs(profile, seed: int, region: str) -> list[Need]:
    find(WEIGHT_SHARES, region, "region")
    return [*compared_needs(profile, seed, MILDER), scores_need(profile, seed)]


@step(version=1, reads=("model", "data", "classification", "evaluation", "freezing", "milder"),
      minutes=8, needs=_milder_weight_needs, memory=trains_model)
def milder_weight_tuning(context: Context, seed: int, region: str) -> Result:
    """As `milder_tuning`, with single weights frozen at random, as many as with a share of units."""
    row = replace(find(WEIGHT_SHARES, region, "region"), rate=milder_rate)
    chat = load_role(context, "aligned", seed, "float32")
    units = paper_kinds(context.profile, seed_scores(context, seed))
    masks = at_random(chat.model, units, row, context.profile.freezing, seed)
    target = loss_to_reach(context, MILDER, region, seed=seed)
    return freeze_weights(context, chat, masks, seed, row, target=target, points={})


def freeze_weights(context: Context, chat, masks: dict, seed: int, condition: Condition,
                   **options) -> Result:
    """`tune` with single weights frozen (masks by matrix), and how many these are."""
    examples = instructions(context, chat, seed)
    result = tune(context, chat, examples, condition, seed=seed, frozen=masks, **options)
    n_weights = sum(int(mask.sum()) for mask in masks.values())
    return replace(result, values={"weights": n_weights, **result.values})


def at_random(model, units: Units, condition: Condition, options, seed: int) -> dict:
    """Masks of single weights drawn at random, as many of every matrix as `frozen_shares` says."""
    from ...alternatives import random_weights
    from ...attribution import linear_weights

    shares = frozen_shares(model, units, condition, options, seed)
    return random_weights(linear_weights(model), shares, seed)


def frozen_shares(model, units: Units, condition: Condition, options, seed: int) -> dict[str, float]:
    """Name of a matrix made of units -> the share of its weights that stays with frozen units.

    With those of the condition's `frozen`; `options`: the section `freezing`.
    """
    from ...attribution import linear_weights
    from ...masking import unit_linears

    frozen = condition.frozen(units, options, seed)
    name_of = {weight: name for name, weight in linear_weights(model).items()}
    shares = {}
    for linear, _, moved in unit_linears(model, units.index, ~frozen):
        shares[name_of[linear.weight]] = 1 - float(moved.mean())
    return shares


def snip_scores(context: Context, chat, seed: int, kind: str) -> dict:
    """What the removal of every weight would cost by SNIP, by matrix.

    `kind`: on refusals (``harmful``) or on benign answers (``benign``).
    """
    from ...attribution import weight_importance

    system = context.profile.calibration.system
    pairs = calibration_pairs(context, seed, "refusals")[kind]
    batches = sorted_batches(chat, pairs, system)
    return weight_importance(chat.model, batches, progress=f"scoring weights, {kind}")
