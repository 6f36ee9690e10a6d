"""C5 and C7: other ways to hold a model's weights than by units, compared like those (Table 3)."""

from dataclasses import replace

from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.foundation import calibration_pairs, checkpoint_need, load_role, scoring_batches
from ..shared.measuring import paper_kinds
from ..shared.tuning import ADAPTERS, frozen_units, instructions, lora, tune

#: Single weights that are frozen, as many as those of SCU + all CU (C7).
REGIONS = ("SNIP difference", "random weights")


def adapter_core(seed: int) -> list[Need]:
    """What C5 needs for one seed, beside the runs of C4."""
    return [Need("adapter_tuning", {"seed": seed, "method": method}) for method in ADAPTERS]


def weight_core(seed: int) -> list[Need]:
    """What C7 needs for one seed, beside the runs of C4."""
    return [Need("weight_tuning", {"seed": seed, "region": region}) for region in REGIONS]


def llama_adapter(chat, tokens: int):
    """LLaMA-Adapter in every block."""
    import peft

    return peft.AdaptionPromptConfig(adapter_len=tokens, adapter_layers=chat.model.config.num_hidden_layers,
                                     task_type="CAUSAL_LM")


def _target(context: Context, seed: int) -> float:
    return context.get("tuning", seed=seed, condition="full").values["probe_loss"]


def _adapter_needs(profile, seed: int, method: str) -> list[Need]:
    if method not in ADAPTERS:
        raise SsahError(f"unknown method {method!r}; known: {', '.join(ADAPTERS)}")
    return [Need("splits"), Need("judge_threshold"), *checkpoint_need("aligned", seed),
            Need("tuning", {"seed": seed, "condition": "full"})]


@step(version=1, reads=("model", "data", "evaluation", "freezing", "comparison"), minutes=9, needs=_adapter_needs)
def adapter_tuning(context: Context, seed: int, method: str) -> Result:
    """One row of Table 3: as `tuning` without anything frozen, but of an adapter (`ADAPTERS`).

    Answers are taken after the epochs of full fine-tuning (``equal epochs``) and at equal loss, and at the end where
    that is not reached.
    """
    chat, options = load_role(context, "aligned", seed, "float32"), context.profile.comparison
    config, rate = ((lora(options.lora_rank), options.lora_lr) if method == "LoRA" else
                    (llama_adapter(chat, options.prompt_tokens), options.prompt_lr))
    return tune(context, chat, instructions(context, chat, seed), method, seed=seed, target=_target(context, seed),
                lr=rate, adapter=config, longer=options.longer,
                points={"equal epochs": context.profile.freezing.epochs})


def _weight_needs(profile, seed: int, region: str) -> list[Need]:
    if region not in REGIONS:
        raise SsahError(f"unknown region {region!r}; known: {', '.join(REGIONS)}")
    return [*_adapter_needs(profile, seed, "LoRA"), Need("attribution", {"seed": seed}),
            Need("calibration", {"seed": seed}, artifact=True)]


@step(version=1, reads=("model", "data", "calibration", "classification", "evaluation", "freezing"), minutes=8,
      needs=_weight_needs)
def weight_tuning(context: Context, seed: int, region: str) -> Result:
    """As `tuning`, with single weights frozen (`REGIONS`): in every matrix as many as with SCU + all CU frozen.

    The SNIP difference leaves out the weights of highest utility score, as large a share as UCU are of the units.
    """
    from ...alternatives import random_weights, set_difference
    from ...attribution import linear_weights, weight_importance
    from ...masking import unit_linears

    chat = load_role(context, "aligned", seed, "float32")
    units = paper_kinds(context.profile, context.get("attribution", seed=seed))
    held = frozen_units(units, "SCU + all CU", context.profile.freezing.top_cu, seed)
    weights = linear_weights(chat.model)
    name_of = {weight: name for name, weight in weights.items()}
    shares = {name_of[linear.weight]: 1 - float(moved.mean())
              for linear, _, moved in unit_linears(chat.model, units.index, ~held)}
    if region == "random weights":
        masks = random_weights(weights, shares, seed)
    else:
        system, pairs = context.profile.calibration.system, calibration_pairs(context, seed, "refusals")
        safety, utility = (weight_importance(chat.model, scoring_batches(chat, pairs[kind], system, "predicting"))
                           for kind in ("harmful", "benign"))
        masks = set_difference(safety, utility, shares, float(units.mask("UCU").mean()))
    result = tune(context, chat, instructions(context, chat, seed), region, seed=seed, target=_target(context, seed),
                  frozen=masks)
    return replace(result, values={"weights": sum(int(mask.sum()) for mask in masks.values()), **result.values})
