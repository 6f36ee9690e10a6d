"""C2: Table 1's SCU row with one choice changed at a time (first seed)."""

import numpy as np

from ...classification import Units
from ...lab import Context, Need, Result, step
from ..shared.material import checkpoint_need, load_role
from ..shared.measuring import benign_prompts, classify_scores, reference_nll
from ..shared.memory import asks_model
from .conditions import Variation, find_variation
from .run import answers_with_system


def _variation_needs(profile, seed: int, variation: str) -> list[Need]:
    return [
        Need("splits"),
        Need("judge_threshold"),
        Need("shares"),
        *checkpoint_need(profile, "aligned", seed),
        Need("attribution", find_variation(variation).attribution(seed)),
    ]


@step(
    version=1,
    reads=("model", "data", "classification", "evaluation"),
    minutes=0.8,
    needs=_variation_needs,
    memory=asks_model,
)
def variation(context: Context, seed: int, variation: str) -> Result:
    """Table 1's SCU row with one choice changed (see `VARIATIONS`).

    Half the requests, one system mode, benign loss.
    """
    from ...ablation import ablated

    options = context.profile.evaluation
    changed = find_variation(variation)
    scored = context.get("attribution", **changed.attribution(seed))
    units = varied_units(context, changed, seed)
    mask = units.mask("SCU")
    chat = load_role(context, "aligned", seed)
    with ablated(chat.model, units.index, mask, changed.value, scored.arrays["means"]):
        answers = answers_with_system(context, chat, options.harmful // 2)
        losses = reference_nll(chat, benign_prompts(context), options.benign_tokens)
    is_mlp = units.index.table["kind"][mask] == "mlp"
    facts = {"mlp_share": float(is_mlp.mean()), "overlaps": units.overlaps}
    tables = {"answers": answers, "benign": losses}
    return Result(facts, tables, {"scu": np.flatnonzero(mask).astype(np.int32)})


def varied_units(lab, changed: Variation, seed: int) -> Units:
    """The four kinds by a variation, from stored scores and shares (`lab`: a Lab or a Context)."""
    scored = lab.get("attribution", **changed.attribution(seed))
    sizes = lab.get("shares").values
    return classify_scores(scored, changed.scale_in(lab.profile), **sizes)
