"""C2: what the pair itself does with other requests than Table 1's (first seed)."""

import pandas as pd

from ...inputs import prompts
from ...lab import Context, Need, Result, step
from ..shared.material import checkpoint_need, load_base, load_role, split_prompts
from ..shared.measuring import benign_prompts, keep_answers, measure_answers
from ..shared.memory import asks_model


def _behaviour_needs(profile, seed: int, role: str) -> list[Need]:
    return [Need("splits"), Need("judge_threshold"), *checkpoint_need(profile, role, seed)]


@step(
    version=1,
    reads=("model", "data", "evaluation"),
    minutes=2,
    needs=_behaviour_needs,
    memory=asks_model,
)
def behaviour(context: Context, seed: int, role: str) -> Result:
    """What a model does with other requests than those of Table 1.

    Harmful ones of the last source (never trained on), borderline and benign ones.
    """
    chat = load_role(context, role, seed)
    requests = _other_requests(context)
    system = context.profile.evaluation.systems[:1]
    answers, texts = measure_answers(
        context, chat, load_base(context), requests, system
    )
    keep_answers(context, texts)
    return Result(tables={"answers": answers})


def _other_requests(context: Context) -> pd.DataFrame:
    """Columns id, source, text."""
    options = context.profile.evaluation
    harmful = split_prompts(context, "harmful", "evaluate")
    harmful = harmful[harmful["source"] == context.profile.data.harmful[-1]]
    borderline = prompts.load_prompts(options.borderline).assign(source="borderline")
    benign = benign_prompts(context).assign(source="benign")
    parts = [harmful.iloc[: options.harmful // 2], borderline, benign]
    return pd.concat(parts, ignore_index=True)[["id", "source", "text"]]
