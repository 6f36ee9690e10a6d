"""How likely each word is at the planned size, by simulation, before anything is run.

A row that could only end in *cannot tell* would be a waste of its runs; this shows how likely
that is. Spreads are those of the first bench, rounded up; the truths are assumed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..lab.words import markdown_table
from .rules import ROWS, Row, Spread, probability_of_words

#: Attack success, a request, between two arms (refusals lost without SCU; damage avoided by
#: freezing SCU + all CU).
SUCCESS = Spread(seeds=0.05, prompts=0.10, rest=0.46)
#: Refusal log-odds between two arms of fine-tuning at equal loss, nats.
LOG_ODDS = Spread(seeds=0.08, prompts=0.05, rest=0.11)
#: log P of right answers between the base model and one that learnt to refuse, nats.
KNOWLEDGE = Spread(seeds=0.11, prompts=0.87, rest=0.45)

#: How often each truth is simulated.
DRAWS = 400


@dataclass(frozen=True)
class Plan:
    """The size of a row's runs on our own pair, and how its numbers spread."""

    seeds: int
    prompts: int
    spread: Spread
    contrast_spread: Spread
    #: An effect of which one would say that it is there, where the paper prints none.
    effect: float | None = None
    #: The same of the contrast, where it is not in the unit of the effect.
    contrast: float | None = None


#: Rows whose spreads the first bench shows.
PLANS = {
    "C2-SCU": Plan(6, 160, SUCCESS, SUCCESS),
    "C2-RU": Plan(6, 160, SUCCESS, SUCCESS, effect=0.3),
    "C4": Plan(6, 100, SUCCESS, LOG_ODDS, contrast=0.6),
    "C5": Plan(4, 100, SUCCESS, SUCCESS, effect=0.2),
    "C6-aligns": Plan(4, 100, SUCCESS, SUCCESS, effect=0.4),
    "C6-tax": Plan(4, 600, KNOWLEDGE, KNOWLEDGE, effect=0.6),
    "C7": Plan(3, 100, LOG_ODDS, LOG_ODDS, effect=0.6),
    "C8": Plan(3, 100, SUCCESS, SUCCESS, effect=0.4),
}


def truths(row: Row, plan: Plan) -> dict[str, tuple[float, float]]:
    """Assumed truths by name: the effect and the contrast, in the units of the row's questions.

    Of a row that claims no harm the effect is harm: all of it is there where the claim is wrong.
    """
    there = plan.effect or row.smallest_published
    contrast = plan.contrast or there
    if row.claims_no_harm:
        return {"no harm, others do harm": (0.0, contrast), "no harm, nor by others": (0.0, 0.0),
                "harm, as by others": (there, 0.0)}
    return {"there, by these units": (there, contrast), "there, by any units": (there, 0.0),
            "nothing": (0.0, 0.0)}


def probabilities(seed: int = 0) -> pd.DataFrame:
    """A row a ledger row, truth, question and word: its probability (0 to 1)."""
    parts = []
    for row_id, plan in PLANS.items():
        row = ROWS[row_id]
        for name, (effect, contrast) in truths(row, plan).items():
            table = probability_of_words(
                row, effect, contrast, n_seeds=plan.seeds, n_prompts=plan.prompts,
                spread=plan.spread, contrast_spread=plan.contrast_spread,
                rng=np.random.default_rng(seed), draws=DRAWS)
            parts.append(table.assign(row=row_id, truth=name))
    return pd.concat(parts, ignore_index=True)


def shown(table: pd.DataFrame) -> str:
    """The probabilities as Markdown, a row a ledger row and truth."""
    rows = []
    for (row_id, truth), part in table.groupby(["row", "truth"], sort=False):
        plan = PLANS[row_id]
        size = f"{plan.seeds} seeds × {plan.prompts}"
        rows.append([row_id, size, truth, _words(part, "first"), _words(part, "second")])
    return markdown_table(["", "size", "if the truth were", "first word", "second word"], rows)


def _words(part: pd.DataFrame, question: str) -> str:
    """The words that come out in one case of fifty or more, the likeliest first."""
    likely = part[(part["question"] == question) & (part["probability"] >= 0.02)]
    likely = likely.sort_values("probability", ascending=False, kind="stable")
    return ", ".join(f"{word} {share:.0%}"
                     for word, share in zip(likely["word"], likely["probability"]))
