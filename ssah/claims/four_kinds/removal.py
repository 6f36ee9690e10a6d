"""C2 on the second bench: what an aligned model does without some of its units."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...classification import Units
from ...errors import SsahError
from ...inputs import prompts
from ...lab import Context, Need, Result, step
from ...units import MatchedDraw, UnitIndex, matched_importance
from ..shared.bank import labelled
from ..shared.material import checkpoint_need, load_base, load_role, split_prompts
from ..shared.measuring import (
    LARGE_BATCH,
    benign_prompts,
    evaluation_requests,
    keep_answers,
    measure_answers,
    reference_nll,
    stored_scores,
)
from ..shared.memory import asks_model
from ..shared.two_by_two import highest, stored_two_by_two
from .direction import directions, log_odds_without

#: Random draws of a seed have numbers below this one.
MOST_DRAWS = 1000
#: All that is measured of a model: its answers to harmful requests, and the losses of two texts.
TABLES = ("answers", "benign", "wikipedia")
#: Harmful requests of `select` by which the block of the refusal direction is chosen.
DIRECTION_REQUESTS = 40


@dataclass(frozen=True)
class Removal:
    """A row of the second bench's Table 1: what is taken out of the aligned model."""

    name: str  # the parameter of the step
    title: str  # where people read it
    kind: str = ""  # whose units: SCU, UCU or RU; empty where no units are removed
    random: bool = False  # as many other units instead, at random in the same modules
    as_important: bool = False  # and these of about the same I_S in sum in every module
    two_by_two: bool = False  # as many units as SCU, by the 2 × 2 score instead of I_S - I_U
    dose: int | None = None  # number of another share of SCU, in the section's `doses`
    scale: str = "log-z"  # of the scores
    value: str = "zero"  # what the activation of a removed unit becomes
    is_direction: bool = False  # no units, but the refusal direction
    every_system: bool = False  # asked in all system modes, not in the first alone
    further: tuple[str, ...] = TABLES  # what its draws after the first are measured by

    def mask(self, options, scored: Result, seed: int, draw: int) -> np.ndarray:
        """Boolean (len(index),): the units that it removes.

        `options`: the profile's section; `scored`: see `stored_scores`; `draw`: of random ones.
        """
        if self.as_important:
            return self.match(options, scored, seed, draw).mask
        units = self._labelled(options, scored)
        mask = units.mask(self.kind)
        if self.random:
            return units.index.matched_random(mask, seed * MOST_DRAWS + draw)
        return mask

    def match(self, options, scored: Result, seed: int, draw: int) -> MatchedDraw:
        """A draw of units as many and as important as its own, and how near it came."""
        units = self._labelled(options, scored)
        safety = scored.arrays["safety"]
        return matched_importance(units.index, units.mask(self.kind), safety,
                                  seed * MOST_DRAWS + draw)

    def _labelled(self, options, scored: Result) -> Units:
        share = None if self.dose is None else options.doses[self.dose]
        return labelled(options, scored, self.scale, share)


REMOVALS = (
    Removal("nothing", "nothing", every_system=True),
    Removal("SCU", "SCU", kind="SCU", every_system=True),
    Removal("random SCU", "random, as many as SCU", kind="SCU", random=True,
            further=("answers",)),
    Removal("UCU", "UCU", kind="UCU"),
    Removal("random UCU", "random, as many as UCU", kind="UCU", random=True,
            further=("wikipedia",)),
    Removal("RU", "RU", kind="RU"),
    Removal("random RU", "random, as many as RU", kind="RU", random=True,
            further=("answers",)),
    Removal("direction", "refusal direction", is_direction=True),
    Removal("less SCU", "half as many SCU", kind="SCU", dose=0),
    Removal("more SCU", "twice as many SCU", kind="SCU", dose=1),
    Removal("raw SCU", "SCU by the formula as printed", kind="SCU", scale="raw"),
    Removal("RU at mean", "RU, held at their mean", kind="RU", value="mean"),
    Removal("random RU at mean", "random, as many as RU, held at their mean", kind="RU",
            random=True, value="mean", further=("answers",)),
    Removal("important random SCU", "random, as many and as important as SCU", kind="SCU",
            random=True, as_important=True, further=("answers",)),
    Removal("two by two", "as many as SCU, by the 2 × 2 score", two_by_two=True),
)


def find_removal(name: str) -> Removal:
    """The row of this name; `SsahError` with the known names otherwise."""
    for row in REMOVALS:
        if row.name == name:
            return row
    raise SsahError(f"unknown units {name!r}; known: {', '.join(row.name for row in REMOVALS)}")


def draws_of(profile) -> dict[str, int]:
    """How many draws each random row has."""
    options = profile.removal
    return {"random SCU": options.draws, "random UCU": options.further_draws,
            "random RU": options.further_draws, "random RU at mean": options.further_draws,
            "important random SCU": options.further_draws}


def bench(profile, seed: int) -> list[Need]:
    """All that a seed of the second bench takes, what decides most first."""
    draws = draws_of(profile)
    needs = [Need("labels", {"seed": seed}), Need("guard", {"seed": seed, "role": "aligned"}),
             Need("over_refusal", {"seed": seed})]
    if not profile.model.aligned:       # our own pair has a twin
        needs.append(Need("guard", {"seed": seed, "role": "unaligned"}))
    for row in REMOVALS:
        for draw in range(draws.get(row.name, 1)):
            needs.append(Need("removal", {"seed": seed, "units": row.name, "draw": draw}))
    return needs


# ---- the refusal direction -------------------------------------------------------------------

def _direction_needs(profile, seed: int) -> list[Need]:
    return [Need("splits"), Need("calibration", {"seed": seed}, artifact=True),
            *checkpoint_need(profile, "aligned", seed)]


@step(version=1, reads=("model", "data", "calibration", "evaluation"), minutes=2,
      needs=_direction_needs, memory=asks_model)
def refusal_direction(context: Context, seed: int) -> Result:
    """The refusal direction (Arditi et al. 2024), (hidden,), into the cache folder.

    As `direction`, of the first bench: by the block whose direction, projected out, leaves the
    lowest refusal log-odds on `select`.
    """
    chat = load_role(context, "aligned", seed)
    candidates = directions(context, chat, seed)
    harmful = split_prompts(context, "harmful", "select")["text"].tolist()
    table = log_odds_without(chat, candidates, harmful[:DIRECTION_REQUESTS])
    best = int(table.loc[table["log_odds"].idxmin(), "block"])
    np.savez_compressed(context.folder / "direction.npz",
                        direction=candidates[best].astype(np.float32))
    return Result({"block": best}, {"blocks": table})


def _stored_direction(context: Context, seed: int) -> np.ndarray:
    folder = context.artifact("refusal_direction", seed=seed)
    with np.load(folder / "direction.npz", allow_pickle=False) as loaded:
        return loaded["direction"]


# ---- removing --------------------------------------------------------------------------------

def _removal_needs(profile, seed: int, units: str, draw: int = 0) -> list[Need]:
    row = find_removal(units)
    needs = [Need("splits"), Need("judge_threshold"), *checkpoint_need(profile, "aligned", seed)]
    if row.kind:
        needs.append(Need("unit_scores", {"seed": seed, "part": "all"}, artifact=True))
    if row.two_by_two:
        needs.append(Need("opening_scores", {"seed": seed}, artifact=True))
    if row.is_direction:
        needs.append(Need("refusal_direction", {"seed": seed}, artifact=True))
    return needs


@step(version=1, reads=("model", "data", "evaluation", "removal"), minutes=3,
      needs=_removal_needs, memory=asks_model)
def removal(context: Context, seed: int, units: str, draw: int = 0) -> Result:
    """The aligned model without some units (paper, Table 1): its answers and its text losses.

    Tables: ``answers`` to the harmful requests of `evaluate`, ``benign`` (NLL of reference
    answers) and ``wikipedia`` (NLL of passages), nats a token. Of a random draw after the first
    only what its row is judged by, and no log-odds.
    """
    chat = load_role(context, "aligned", seed)
    row = find_removal(units)
    wanted = row.further if draw else TABLES
    tables = {}
    removed, edit = _without(context, chat, row, seed, draw)
    with edit:
        if "answers" in wanted:
            tables["answers"] = _answers(context, chat, row, with_log_odds=draw == 0)
        if "benign" in wanted:
            n_tokens = context.profile.evaluation.benign_tokens
            tables["benign"] = reference_nll(chat, benign_prompts(context), n_tokens)
        if "wikipedia" in wanted:
            tables["wikipedia"] = passage_nll(context, chat)
    return Result(removed, tables)


def _answers(context: Context, chat, row: Removal, with_log_odds: bool) -> pd.DataFrame:
    """The model's labelled answers to the harmful requests of `evaluate`."""
    options = context.profile.evaluation
    systems = options.systems if row.every_system else options.systems[:1]
    requests = evaluation_requests(context, options.harmful)
    answers, texts = measure_answers(context, chat, load_base(context), requests, systems,
                                     with_log_odds=with_log_odds, batch_size=LARGE_BATCH)
    keep_answers(context, texts)
    return answers


def _without(context: Context, chat, row: Removal, seed: int,
             draw: int) -> tuple[dict[str, float], AbstractContextManager]:
    """What share of units and parameters a row removes, and the edit that removes it."""
    from ...ablation import ablated, without_direction

    nothing = {"share": 0.0, "parameter_share": 0.0}
    if row.is_direction:
        return nothing, without_direction(chat.model, _stored_direction(context, seed))
    index = UnitIndex.of(chat.model)
    if row.two_by_two:
        share, _, _ = context.profile.removal.shares
        mask = highest(stored_two_by_two(context, seed), share)
        return _shares(index, mask), ablated(chat.model, index, mask)
    if not row.kind:
        return nothing, nullcontext()
    scored = stored_scores(context, seed)
    options = context.profile.removal
    mask = row.mask(options, scored, seed, draw)
    safety = scored.arrays["safety"]
    removed = {**_shares(index, mask), "safety_share": float(safety[mask].sum() / safety.sum())}
    if row.as_important:
        match = row.match(options, scored, seed, draw)
        removed |= {"importance_ratio": match.ratio, "modules_missed": match.missed,
                    "modules": match.modules}
    return removed, ablated(chat.model, index, mask, row.value, scored.arrays["means"])


def _shares(index: UnitIndex, mask: np.ndarray) -> dict[str, float]:
    """Which part of all units, and of their parameters, a mask removes."""
    return {"share": float(mask.mean()), "parameter_share": index.parameter_share(mask)}


def passage_nll(context: Context, chat) -> pd.DataFrame:
    """Mean NLL (nats a token) of passages of Wikipedia, of equal length: passage, nll."""
    from ...likelihood import token_log_probs

    options = context.profile.removal
    articles = prompts.load_prompts(context.profile.evaluation.wiki)["text"].tolist()
    begin = chat.plain("")
    tokens = chat.plain("\n".join(articles))[len(begin):]
    heads = []
    tails = []
    for number in range(options.passages):
        start = number * options.passage_tokens
        passage = tokens[start:start + options.passage_tokens]
        if len(passage) < options.passage_tokens:
            break
        # without a begin-of-text token, the first token has nothing before it
        heads.append(begin or passage[:1])
        tails.append(passage if begin else passage[1:])
    losses = [-scores.mean() for scores in token_log_probs(chat, heads, tails)]
    return pd.DataFrame({"passage": range(len(losses)), "nll": losses})
