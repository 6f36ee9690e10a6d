"""C2: ratio scan, Table 1, the transplant, and the choices that could have been made otherwise."""

from contextlib import nullcontext

import numpy as np
import pandas as pd

from ... import judging
from ...classification import Units
from ...errors import SsahError
from ...inputs import prompts
from ...lab import Context, Need, Result, step
from ..shared.foundation import (
    ROLES,
    calibration_pairs,
    checkpoint_need,
    load_base,
    load_role,
    split_prompts,
)
from ..shared.measuring import (
    answer_perplexity,
    benign_prompts,
    classified,
    classify_scores,
    evaluation_requests,
    keep_answers,
    measure_answers,
    measure_utility,
    reference_nll,
)

CONDITIONS = ("none", "SCU", "UCU", "RU", "random SCU", "random UCU", "random RU", "direction")
TRANSPLANTS = ("none", "SCU", "random SCU")
#: One choice changed at a time (seed 0): everything else as in Table 1's SCU row.
VARIATIONS = {
    "as in Table 1": {},
    "scale z": {"scale": "z"}, "scale rank": {"scale": "rank"}, "scale raw": {"scale": "raw"},
    "score wanda": {"method": "wanda"}, "score gradient": {"method": "gradient"},
    "positions response": {"positions": "response"},
    "mean instead of zero": {"value": "mean"},
    "refusals on benign prompts": {"safety_set": "benign-refusals"},
}


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("ablation", {"seed": seed, "condition": condition}) for condition in CONDITIONS]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: the transplant, the pair itself, other choices."""
    return [*(Need("transplant", {"seed": seed, "units": units}) for units in TRANSPLANTS),
            *(Need("behaviour", {"seed": seed, "role": role}) for role in ROLES),
            *(Need("variation", {"seed": seed, "variation": name}) for name in VARIATIONS)]


# ---- the ratio scan --------------------------------------------------------------------------

def scan_points(profile) -> list[tuple[str, float]]:
    """(label, share) of every point of the scan."""
    grids = profile.classification
    return [(name.upper(), share) for name in ("scu", "ucu", "ru") for share in getattr(grids, f"{name}_grid")]


@step(version=1, reads=("model", "data", "classification", "evaluation"), minutes=4,
      needs=lambda profile, seed: [Need("splits"), Need("attribution", {"seed": seed}),
                                   *checkpoint_need("aligned", seed)])
def scan(context: Context, seed: int) -> Result:
    """Ablate more and more of each kind alone, and watch refusal and utility on `select` (paper, Sec. 4)."""
    from tqdm.auto import tqdm

    from ...ablation import ablated
    from ...evaluation import generate

    chat, scored = load_role(context, "aligned", seed), context.get("attribution", seed=seed)
    harmful = split_prompts(context, "harmful", "select")["text"].tolist()
    benign = split_prompts(context, "benign", "select")
    rows = []
    for kind, share in tqdm([("none", 0.0), *scan_points(context.profile)], desc="ratio scan", leave=False):
        units = classify_scores(scored, context.profile.classification.scale,
                                **{k: share if k.upper() == kind else 0.0 for k in ("scu", "ucu", "ru")})
        mask = units.mask(kind) if kind != "none" else np.zeros(len(units.index), bool)
        with ablated(chat.model, units.index, mask):
            answers = generate(chat, harmful, max_new_tokens=context.profile.evaluation.answer_tokens)
            loss = reference_nll(chat, benign, context.profile.evaluation.benign_tokens)
        rows.append({"label": kind, "share": share, "parameter_share": units.index.parameter_share(mask),
                     "refusing": np.mean([judging.is_refusal(text) for text in answers.texts]),
                     "perplexity": answer_perplexity(loss)})
    return Result(tables={"scan": pd.DataFrame(rows)})


@step(version=1, needs=lambda profile: [Need("scan", {"seed": profile.seeds[0]})])
def shares(context: Context) -> Result:
    """The default shares, by rule, from the scan of the first seed (and then the same for every seed)."""
    (table,) = [r.tables["scan"] for r in context.inputs.values()]
    return Result(choose_shares(table))


def choose_shares(table: pd.DataFrame) -> dict[str, float]:
    """The rule, fixed before the scan was looked at. Compared with the intact model on `select`:

    - SCU: the smallest share after which fewer than a fifth of the refusals are left (else the one that leaves fewest);
    - UCU: the smallest share after which perplexity on benign answers is at least 10 x as high (else the largest);
    - RU: the largest share after which perplexity is at most 1.5 x as high and 9 in 10 refusals stay (else the first).
    """
    scu, ucu, ru = (table[table["label"] == kind].sort_values("share") for kind in ("SCU", "UCU", "RU"))
    broken, ruined, harmless = (part[meets_rule(table, part)]["share"] for part in (scu, ucu, ru))
    return {"scu": float(broken.iloc[0] if len(broken) else scu.loc[scu["refusing"].idxmin(), "share"]),
            "ucu": float(ruined.iloc[0] if len(ruined) else ucu["share"].iloc[-1]),
            "ru": float(harmless.iloc[-1] if len(harmless) else ru["share"].iloc[0])}


def meets_rule(table: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Which rows of a scan satisfy the condition that `choose_shares` states for their label (Boolean)."""
    intact = table[table["label"] == "none"].iloc[0]
    kind, refusing, perplexity = rows["label"], rows["refusing"], rows["perplexity"]
    return ((kind == "SCU") & (refusing < 0.2 * intact["refusing"])
            | (kind == "UCU") & (perplexity >= 10 * intact["perplexity"])
            | (kind == "RU") & (perplexity <= 1.5 * intact["perplexity"]) & (refusing >= 0.9 * intact["refusing"]))


# ---- Table 1 ---------------------------------------------------------------------------------

def _ablation_needs(profile, seed: int, condition: str) -> list[Need]:
    extra = {"none": [], "direction": [Need("direction", {"seed": seed})]}.get(
        condition, [Need("attribution", {"seed": seed}), Need("shares")])
    return [Need("splits"), Need("judge_threshold"), *checkpoint_need("aligned", seed), *extra]


@step(version=1, reads=("model", "data", "classification", "evaluation"), minutes=2.5, needs=_ablation_needs)
def ablation(context: Context, seed: int, condition: str) -> Result:
    """One row of Table 1: the aligned model without one kind of unit, matched random ones, or a direction."""
    chat = load_role(context, "aligned", seed)
    facts, edit = {"share": 0.0, "parameter_share": 0.0}, nullcontext()
    if condition == "direction":
        from ...ablation import without_direction

        edit = without_direction(chat.model, context.get("direction", seed=seed).arrays["direction"])
    elif condition != "none":
        from ...ablation import ablated

        units = classified(context, seed)
        mask = condition_mask(units, condition, seed)
        facts = {"share": float(mask.mean()), "parameter_share": units.index.parameter_share(mask)}
        edit = ablated(chat.model, units.index, mask)
    with edit:
        requests = evaluation_requests(context, context.profile.evaluation.harmful)
        answers, texts = measure_answers(context, chat, load_base(context), requests,
                                         context.profile.evaluation.systems)
        utility, benign, choice = measure_utility(context, chat)
    keep_answers(context, texts)
    return Result({**facts, **utility}, {"answers": answers, "benign": benign, "choice": choice})


def condition_mask(units: Units, condition: str, seed: int) -> np.ndarray:
    """Mask of ``SCU`` ... or of ``random SCU`` ...: as many random units per block x kind, outside the set itself."""
    if condition not in CONDITIONS[1:-1]:
        raise SsahError(f"unknown condition {condition!r}; known: {', '.join(CONDITIONS)}")
    name = condition.removeprefix("random ")
    mask = units.mask(name)
    return mask if name == condition else units.index.matched_random(mask, seed)


@step(version=1, reads=("model", "data", "calibration", "evaluation"), minutes=1.5,
      needs=lambda profile, seed: [Need("splits"), Need("calibration", {"seed": seed}, artifact=True),
                                   *checkpoint_need("aligned", seed)])
def direction(context: Context, seed: int) -> Result:
    """The refusal direction (Arditi et al. 2024), (hidden,): mean residual at the last prompt token, harmful - benign.

    The block is the one whose direction, projected out everywhere, leaves the lowest refusal log-odds on `select`.
    """
    from ...ablation import without_direction
    from ...evaluation import refusal_log_odds

    chat = load_role(context, "aligned", seed)
    pairs = calibration_pairs(context, seed, "refusals")
    means = {kind: mean_residuals(chat, [p for p, _ in pairs[kind]], context.profile.calibration.system)
             for kind in pairs}
    candidates = means["harmful"] - means["benign"]                 # (block, hidden)
    harmful = split_prompts(context, "harmful", "select")["text"].tolist()
    rows = []
    for block in range(len(candidates) // 5, max(len(candidates) * 4 // 5, 1), 2):
        with without_direction(chat.model, candidates[block]):
            rows.append({"block": block, "log_odds": refusal_log_odds(chat, harmful).mean()})
    table = pd.DataFrame(rows)
    best = int(table.loc[table["log_odds"].idxmin(), "block"])
    return Result({"block": best}, {"blocks": table}, {"direction": candidates[best].astype(np.float32)})


def mean_residuals(chat, texts: list[str], system: str) -> np.ndarray:
    """Mean residual stream after every block at the last prompt token; (block, hidden); the last one is normed."""
    import torch

    from ...models import pad

    heads, total = [chat.encode(text, system=system)[0] for text in texts], 0
    with torch.inference_mode():
        for start in range(0, len(heads), 32):
            batch = pad(heads[start:start + 32], chat.tokenizer.pad_token_id, "left", chat.model.device)
            states = chat.model.base_model(
                **batch, use_cache=False, output_hidden_states=True,
                position_ids=(batch["attention_mask"].cumsum(1) - 1).clamp(min=0)).hidden_states
            total = total + torch.stack([s[:, -1].float().sum(0) for s in states[1:]])
    return (total / len(heads)).cpu().numpy()


# ---- sufficiency and the pair itself ---------------------------------------------------------

@step(version=1, reads=("model", "data", "classification", "evaluation"), minutes=1.2,
      needs=lambda profile, seed, units: [Need("splits"), Need("judge_threshold"),
                                          Need("attribution", {"seed": seed}), Need("shares"),
                                          *checkpoint_need("aligned", seed), *checkpoint_need("unaligned", seed)])
def transplant(context: Context, seed: int, units: str) -> Result:
    """Copy the aligned weights of some units (see `TRANSPLANTS`) into the unaligned model: does it begin to refuse?"""
    from ...ablation import transplanted

    chat, donor = load_role(context, "unaligned", seed), load_role(context, "aligned", seed)
    kinds = classified(context, seed)
    mask = np.zeros(len(kinds.index), bool) if units == "none" else condition_mask(kinds, units, seed)
    with transplanted(chat.model, donor.model, kinds.index, mask):
        requests = evaluation_requests(context, context.profile.evaluation.harmful)
        answers, texts = measure_answers(context, chat, load_base(context), requests,
                                         context.profile.evaluation.systems[:1])
    keep_answers(context, texts)
    return Result({"share": float(mask.mean())}, {"answers": answers})


@step(version=1, reads=("model", "data", "evaluation"), minutes=2,
      needs=lambda profile, seed, role: [Need("splits"), Need("judge_threshold"), *checkpoint_need(role, seed)])
def behaviour(context: Context, seed: int, role: str) -> Result:
    """What a model does with other requests: harmful of the last source (never trained on), borderline, benign."""
    chat, options = load_role(context, role, seed), context.profile.evaluation
    harmful = split_prompts(context, "harmful", "evaluate").query(
        "source == @context.profile.data.harmful[-1]").iloc[:options.harmful // 2]
    borderline = prompts.load_prompts(options.borderline).assign(source="borderline")
    benign = benign_prompts(context).assign(source="benign")
    requests = pd.concat([harmful, borderline, benign], ignore_index=True)[["id", "source", "text"]]
    answers, texts = measure_answers(context, chat, load_base(context), requests, options.systems[:1])
    keep_answers(context, texts)
    return Result(tables={"answers": answers})


# ---- what other choices would have given -----------------------------------------------------

def attribution_params(seed: int, variation: str) -> dict:
    """Which `attribution` result a variation classifies."""
    if variation not in VARIATIONS:
        raise SsahError(f"unknown variation {variation!r}; known: {', '.join(VARIATIONS)}")
    return {"seed": seed} | {k: v for k, v in VARIATIONS[variation].items()
                             if k in ("method", "positions", "safety_set")}


@step(version=1, reads=("model", "data", "classification", "evaluation"), minutes=0.8,
      needs=lambda profile, seed, variation: [Need("splits"), Need("judge_threshold"), Need("shares"),
                                              *checkpoint_need("aligned", seed),
                                              Need("attribution", attribution_params(seed, variation))])
def variation(context: Context, seed: int, variation: str) -> Result:
    """Table 1's SCU row with one choice changed (see `VARIATIONS`): half the requests, one system mode, benign loss."""
    from ...ablation import ablated

    changed = VARIATIONS[variation]
    scored = context.get("attribution", **attribution_params(seed, variation))
    units = classify_scores(scored, changed.get("scale", context.profile.classification.scale),
                            **context.get("shares").values)
    chat = load_role(context, "aligned", seed)
    with ablated(chat.model, units.index, units.mask("SCU"), changed.get("value", "zero"), scored.arrays["means"]):
        requests = evaluation_requests(context, context.profile.evaluation.harmful // 2)
        answers, texts = measure_answers(context, chat, load_base(context), requests,
                                         context.profile.evaluation.systems[:1])
        losses = reference_nll(chat, benign_prompts(context), context.profile.evaluation.benign_tokens)
    keep_answers(context, texts)
    return Result({"mlp_share": float((units.index.table["kind"][units.mask("SCU")] == "mlp").mean()),
                   "overlaps": units.overlaps},
                  {"answers": answers, "benign": losses}, {"scu": np.flatnonzero(units.mask("SCU")).astype(np.int32)})
