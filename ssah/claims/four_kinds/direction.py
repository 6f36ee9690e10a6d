"""C2: the refusal direction, which Table 1 takes out instead of units."""

import numpy as np
import pandas as pd

from ...lab import Context, Need, Result, step
from ..shared.foundation import calibration_pairs
from ..shared.material import checkpoint_need, load_role, split_prompts
from ..shared.memory import asks_model


def _direction_needs(profile, seed: int) -> list[Need]:
    return [
        Need("splits"),
        Need("calibration", {"seed": seed}, artifact=True),
        *checkpoint_need(profile, "aligned", seed),
    ]


@step(
    version=1,
    reads=("model", "data", "calibration", "evaluation"),
    minutes=1.5,
    needs=_direction_needs,
    memory=asks_model,
)
def direction(context: Context, seed: int) -> Result:
    """The refusal direction (Arditi et al. 2024), (hidden,).

    Mean residual at the last prompt token, harmful - benign, after the block whose direction,
    projected out everywhere, leaves the lowest refusal log-odds on `select`.
    """
    chat = load_role(context, "aligned", seed)
    candidates = directions(context, chat, seed)
    harmful = split_prompts(context, "harmful", "select")["text"].tolist()
    table = log_odds_without(chat, candidates, harmful)
    best = int(table.loc[table["log_odds"].idxmin(), "block"])
    chosen = candidates[best].astype(np.float32)
    return Result({"block": best}, {"blocks": table}, {"direction": chosen})


def directions(context: Context, chat, seed: int) -> np.ndarray:
    """Mean residual of harmful minus that of benign prompts; (block, hidden)."""
    system = context.profile.calibration.system
    means = {}
    for kind, pairs in calibration_pairs(context, seed, "refusals").items():
        texts = [prompt for prompt, _ in pairs]
        means[kind] = mean_residuals(chat, texts, system)
    return means["harmful"] - means["benign"]


def log_odds_without(chat, candidates: np.ndarray, harmful: list[str]) -> pd.DataFrame:
    """Mean refusal log-odds (nats) without the direction of a block: a row a block.

    Every second block of the middle three fifths.
    """
    from ...ablation import without_direction
    from ...evaluation import refusal_log_odds

    n_blocks = len(candidates)
    end = max(n_blocks * 4 // 5, 1)
    rows = []
    for block in range(n_blocks // 5, end, 2):
        with without_direction(chat.model, candidates[block]):
            log_odds = refusal_log_odds(chat, harmful).mean()
        rows.append({"block": block, "log_odds": log_odds})
    return pd.DataFrame(rows)


def mean_residuals(chat, texts: list[str], system: str) -> np.ndarray:
    """Mean residual stream after every block at the last prompt token; (block, hidden).

    The last one is normed.
    """
    import torch

    encoded = [chat.encode(text, system=system)[0] for text in texts]
    total = 0
    with torch.inference_mode():
        for start in range(0, len(encoded), 32):
            total = total + _summed_residuals(chat, encoded[start : start + 32])
    return (total / len(encoded)).cpu().numpy()


def _summed_residuals(chat, encoded: list[list[int]]):
    """Tensor (block, hidden): sum over prompts of the residual stream at their last token."""
    import torch

    from ...models import pad

    batch = pad(encoded, chat.tokenizer.pad_token_id, "left", chat.model.device)
    # padded on the left, so positions are counted from the first real token
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    states = chat.model.base_model(
        **batch, use_cache=False, output_hidden_states=True, position_ids=positions
    ).hidden_states
    # the first is the embedding
    return torch.stack([state[:, -1].float().sum(0) for state in states[1:]])
