"""C2: whether the units suffice: put into the unaligned model (first seed)."""

from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ..shared.material import checkpoint_need, load_role
from ..shared.measuring import classified
from ..shared.memory import asks_model
from .conditions import TRANSPLANTS, find_condition
from .run import answers_with_system


def _transplant_needs(profile, seed: int, units: str) -> list[Need]:
    return [
        Need("splits"),
        Need("judge_threshold"),
        Need("attribution", {"seed": seed}),
        Need("shares"),
        *checkpoint_need(profile, "aligned", seed),
        *checkpoint_need(profile, "unaligned", seed),
    ]


@step(
    version=1,
    reads=("model", "data", "classification", "evaluation"),
    minutes=1.2,
    needs=_transplant_needs,
    memory=asks_model,
)
def transplant(context: Context, seed: int, units: str) -> Result:
    """Copy the aligned weights of some units into the unaligned model: does it begin to refuse?

    `units`: the name of a condition of Table 1 that removes units, or ``none``.
    """
    from ...ablation import transplanted

    chat = load_role(context, "unaligned", seed)
    donor = load_role(context, "aligned", seed)
    kinds = classified(context, seed)
    chosen = find_condition(units)
    if chosen.is_direction:
        raise SsahError(f"{units!r} has no units; known: {', '.join(TRANSPLANTS)}")
    mask = chosen.mask(kinds, seed)
    with transplanted(chat.model, donor.model, kinds.index, mask):
        answers = answers_with_system(
            context, chat, context.profile.evaluation.harmful
        )
    return Result({"share": float(mask.mean())}, {"answers": answers})
