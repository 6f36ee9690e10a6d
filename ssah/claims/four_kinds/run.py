"""C2: ratio scan, Table 1, the transplant, and the choices that could have been made otherwise."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ... import judging
from ...classification import Units
from ...errors import SsahError
from ...inputs import prompts
from ...lab import Context, Need, Result, step
from ...units import UnitIndex
from ..shared.foundation import calibration_pairs
from ..shared.material import ROLES, checkpoint_need, load_base, load_role, split_prompts
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
from ..shared.memory import asks_model

# ---- the conditions of Table 1 ---------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """A row of Table 1: what is taken out of the aligned model."""

    name: str  # the parameter of the step
    title: str  # where people read it
    kind: str = ""  # whose units: SCU, UCU or RU; empty where no units are removed
    random: bool = False  # as many other units instead, at random in the same modules
    is_direction: bool = False  # no units, but the refusal direction

    def mask(self, units: Units, seed: int) -> np.ndarray:
        """Boolean (len(index),): the units that it removes, none without a `kind`."""
        if not self.kind:
            return np.zeros(len(units.index), bool)
        mask = units.mask(self.kind)
        if self.random:
            return units.index.matched_random(mask, seed)
        return mask


CONDITIONS = (
    Condition("none", "nothing"),
    Condition("SCU", "SCU", kind="SCU"),
    Condition("UCU", "UCU", kind="UCU"),
    Condition("RU", "RU", kind="RU"),
    Condition("random SCU", "random SCU", kind="SCU", random=True),
    Condition("random UCU", "random UCU", kind="UCU", random=True),
    Condition("random RU", "random RU", kind="RU", random=True),
    Condition("direction", "refusal direction", is_direction=True),
)

#: Whose weights are copied from the aligned model into the unaligned one.
TRANSPLANTS = ("none", "SCU", "random SCU")


def find_condition(name: str) -> Condition:
    """The condition of this name; `SsahError` with the known names otherwise."""
    return _named("condition", name, CONDITIONS)


def _named(what: str, name: str, rows: tuple):
    for row in rows:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in rows)
    raise SsahError(f"unknown {what} {name!r}; known: {known}")


# ---- choices that could have been made otherwise ---------------------------------------------


@dataclass(frozen=True)
class Variation:
    """Table 1's SCU row with one choice changed."""

    name: str  # the parameter of the step
    choice: str  # which one: scale, score, positions, value, texts; or nothing
    scale: str = ""  # of the scores; empty: the profile's
    scores: dict[str, str] = field(default_factory=dict)  # parameters of `attribution`
    value: str = "zero"  # what the activation of a removed unit becomes

    def scale_in(self, profile) -> str:
        """The scale on which it subtracts I_U from I_S."""
        return self.scale or profile.classification.scale

    def attribution(self, seed: int) -> dict:
        """The parameters of the `attribution` result that it classifies."""
        return {"seed": seed, **self.scores}


VARIATIONS = (
    Variation("as in Table 1", "nothing"),
    Variation("scale z", "scale", scale="z"),
    Variation("scale rank", "scale", scale="rank"),
    Variation("scale raw", "scale", scale="raw"),
    Variation("score wanda", "score", scores={"method": "wanda"}),
    Variation("score gradient", "score", scores={"method": "gradient"}),
    Variation("positions response", "positions", scores={"positions": "response"}),
    Variation("mean instead of zero", "value", value="mean"),
    Variation(
        "refusals on benign prompts", "texts", scores={"safety_set": "benign-refusals"}
    ),
)


def find_variation(name: str) -> Variation:
    """The variation of this name; `SsahError` with the known names otherwise."""
    return _named("variation", name, VARIATIONS)


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


# ---- the ratio scan --------------------------------------------------------------------------

#: SCU: so much of the intact model's refusals must not be left.
REFUSALS_BROKEN = 0.2
#: UCU: perplexity must be at least so many times that of the intact model.
PERPLEXITY_RUINED = 10
#: RU: perplexity must be at most so many times that of the intact model,
PERPLEXITY_SPARED = 1.5
#: and so much of its refusals must stay.
REFUSALS_SPARED = 0.9


def scan_points(profile) -> list[tuple[str, float]]:
    """(label, share) of every point of the scan."""
    grids = profile.classification
    points = [("none", 0.0)]
    points += [("SCU", share) for share in grids.scu_grid]
    points += [("UCU", share) for share in grids.ucu_grid]
    points += [("RU", share) for share in grids.ru_grid]
    return points


def _scan_needs(profile, seed: int) -> list[Need]:
    return [
        Need("splits"),
        Need("attribution", {"seed": seed}),
        *checkpoint_need(profile, "aligned", seed),
    ]


@step(
    version=1,
    reads=("model", "data", "classification", "evaluation"),
    minutes=4,
    needs=_scan_needs,
    memory=asks_model,
)
def scan(context: Context, seed: int) -> Result:
    """Ablate more and more of each kind alone, and watch `select` (paper, Sec. 4)."""
    from tqdm.auto import tqdm

    from ...ablation import ablated

    chat = load_role(context, "aligned", seed)
    scored = context.get("attribution", seed=seed)
    harmful = split_prompts(context, "harmful", "select")["text"].tolist()
    benign = split_prompts(context, "benign", "select")
    rows = []
    for label, share in tqdm(
        scan_points(context.profile), desc="ratio scan", leave=False
    ):
        units = _kind_alone(context.profile, scored, label, share)
        mask = units.labels == label  # no unit is called "none"
        with ablated(chat.model, units.index, mask):
            row = _watched(context.profile.evaluation, chat, harmful, benign)
        parameter_share = units.index.parameter_share(mask)
        rows.append(
            {"label": label, "share": share, "parameter_share": parameter_share, **row}
        )
    return Result(tables={"scan": pd.DataFrame(rows)})


def _kind_alone(profile, scored: Result, label: str, share: float) -> Units:
    """The units when only one kind is taken, at a share of all, and the others not at all."""
    sizes = {"scu": 0.0, "ucu": 0.0, "ru": 0.0}
    if label != "none":
        sizes[label.lower()] = share
    return classify_scores(scored, profile.classification.scale, **sizes)


def _watched(
    options, chat, harmful: list[str], benign: pd.DataFrame
) -> dict[str, float]:
    """Which part of the harmful prompts is refused; perplexity of the benign answers."""
    from ...evaluation import generate

    answers = generate(chat, harmful, max_new_tokens=options.answer_tokens)
    refused = [judging.is_refusal(text, options.judge_version) for text in answers.texts]
    losses = reference_nll(chat, benign, options.benign_tokens)
    return {"refusing": np.mean(refused), "perplexity": answer_perplexity(losses)}


@step(version=1, needs=lambda profile: [Need("scan", {"seed": profile.seeds[0]})])
def shares(context: Context) -> Result:
    """The shares of all seeds, by rule, from the scan of the first seed."""
    (first,) = context.inputs.values()
    return Result(choose_shares(first.tables["scan"]))


def choose_shares(table: pd.DataFrame) -> dict[str, float]:
    """The rule, fixed before the scan was looked at. Compared with the intact model on `select`:

    - SCU: the smallest share after which fewer than a fifth of the refusals are left
      (else the one that leaves fewest);
    - UCU: the smallest share after which perplexity on benign answers is at least 10 x as high
      (else the largest);
    - RU: the largest share after which perplexity is at most 1.5 x as high and 9 in 10 refusals
      stay (else the first).
    """
    scu = _of_kind(table, "SCU")
    ucu = _of_kind(table, "UCU")
    ru = _of_kind(table, "RU")
    breaking = scu.loc[meets_rule(table, scu), "share"]
    ruining = ucu.loc[meets_rule(table, ucu), "share"]
    harmless = ru.loc[meets_rule(table, ru), "share"]
    fewest_refusals = scu.loc[scu["refusing"].idxmin(), "share"]
    return {
        "scu": float(breaking.iloc[0] if len(breaking) else fewest_refusals),
        "ucu": float(ruining.iloc[0] if len(ruining) else ucu["share"].iloc[-1]),
        "ru": float(harmless.iloc[-1] if len(harmless) else ru["share"].iloc[0]),
    }


def _of_kind(table: pd.DataFrame, label: str) -> pd.DataFrame:
    return table[table["label"] == label].sort_values("share")


def meets_rule(table: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Which rows of a scan satisfy what `choose_shares` asks of their label (Boolean)."""
    intact = table[table["label"] == "none"].iloc[0]
    refusing = rows["refusing"]
    perplexity = rows["perplexity"]
    is_broken = refusing < REFUSALS_BROKEN * intact["refusing"]
    is_ruined = perplexity >= PERPLEXITY_RUINED * intact["perplexity"]
    is_fluent = perplexity <= PERPLEXITY_SPARED * intact["perplexity"]
    is_safe = refusing >= REFUSALS_SPARED * intact["refusing"]
    label = rows["label"]
    return (
        (label == "SCU") & is_broken
        | (label == "UCU") & is_ruined
        | (label == "RU") & is_fluent & is_safe
    )


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


# ---- sufficiency and the pair itself ---------------------------------------------------------


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
        answers = _answers_with_system(
            context, chat, context.profile.evaluation.harmful
        )
    return Result({"share": float(mask.mean())}, {"answers": answers})


def _answers_with_system(context: Context, chat, n: int) -> pd.DataFrame:
    """Labelled answers to the first `n` harmful requests, in the first system mode."""
    requests = evaluation_requests(context, n)
    system = context.profile.evaluation.systems[:1]
    answers, texts = measure_answers(
        context, chat, load_base(context), requests, system
    )
    keep_answers(context, texts)
    return answers


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


# ---- what other choices would have given -----------------------------------------------------


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
        answers = _answers_with_system(context, chat, options.harmful // 2)
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
