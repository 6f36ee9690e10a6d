"""Table 1 of the second bench: what the aligned model does without each set of units. No torch."""

import numpy as np
import pandas as pd

from ...lab import Lab
from ...lab.words import markdown_table, say
from .. import rules
from ..shared.tables import outcomes, with_system
from .read import WORDS
from .removal import REMOVALS, draws_of

#: Our columns and the measures of an answer to a request, that they are means of.
RATES = {"ASR": "keyword_asr", "strict ASR": "strict_asr"}
#: Random units as important as the SCU, and as many units by the 2 x 2 score.
AS_IMPORTANT = "important random SCU"
BY_HARM = "two by two"
#: The part of what the SCU add that is hardly anything.
HARDLY = 0.1


def is_complete(lab: Lab, units: str) -> bool:
    """Whether a removal was done with every seed, and as often as is planned."""
    stored = [params for params, _ in lab.stored("removal") if params["units"] == units]
    n_draws = draws_of(lab.profile).get(units, 1)
    return len(stored) == n_draws * len(lab.seeds)


def per_draw(lab: Lab) -> pd.DataFrame:
    """A row a removal, seed and draw, of those that are complete: rates and perplexities.

    Columns keyword_asr, strict_asr (fractions; with system prompt), wiki ppl.
    """
    keys = ["units", "seed", "draw"]
    answers = with_system(lab, "removal").groupby(keys)[[*RATES.values()]].mean()
    passages = lab.frame("removal", "wikipedia").groupby(keys)["nll"].mean()
    table = answers.join(np.exp(passages).rename("wiki ppl"), how="outer").reset_index()
    complete = [name for name in table["units"].unique() if is_complete(lab, name)]
    return table[table["units"].isin(complete)].assign(condition=table["units"])


def table_one(lab: Lab) -> pd.DataFrame:
    """A row a removal that is complete, as fractions, with 95 % intervals ``low`` and ``high``.

    Columns ASR and strict ASR (with system prompt), incoherent, wiki ppl (geometric mean), how many
    runs both stand on (``answered``, ``read``: seeds times draws), share and title.
    """
    answers = with_system(lab, "removal")
    points = per_draw(lab)
    shares = lab.facts("removal").groupby("units")["share"].mean()
    rows = {}
    for removal in REMOVALS:
        name = removal.name
        part = answers[answers["units"] == name]
        of_row = points[points["units"] == name]
        if len(of_row):
            perplexity = np.exp(np.log(of_row["wiki ppl"]).mean())
            rows[name] = {"title": removal.title, "share": shares[name],
                          "answered": of_row["keyword_asr"].count(),
                          "read": of_row["wiki ppl"].count(),
                          **_estimates(part), "incoherent": part["incoherent"].mean(),
                          "wiki ppl": perplexity}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("removed")


def _estimates(answers: pd.DataFrame) -> dict[str, float]:
    """Both rates of some answers with their intervals.

    Requests are crossed with seeds, each the mean of its draws; with one seed alone, with draws.
    """
    found = {}
    runs = ["seed"] if answers["seed"].nunique() > 1 else ["draw"]
    for column, measure in RATES.items():
        table = answers.pivot_table(index=runs, columns="id", values=measure, aggfunc="mean")
        estimate = rules.satterthwaite(table.to_numpy())
        found |= {column: estimate.mean, f"{column} low": max(estimate.low, 0.0),
                  f"{column} high": min(estimate.high, 1.0)}
    return found


def shown(lab: Lab) -> str:
    """`table_one` as Markdown: per cent with intervals, perplexity."""
    rows = []
    for _, row in lab.once(table_one).iterrows():
        rates = [f"{row[name]:.0%} [{row[f'{name} low']:.0%}, {row[f'{name} high']:.0%}]"
                 for name in RATES]
        rows.append([row["title"], f"{row['share']:.2%}", *rates, f"{row['answered']:.0f}",
                     f"{row['wiki ppl']:.1f}", f"{row['read']:.0f}"])
    head = ["removed", "units", "keyword ASR", "strict ASR", "runs",
            "Wikipedia perplexity (mean over passages)", "runs"]
    return markdown_table(head, rows)


def in_numbers(lab: Lab) -> str:
    """What each removal did, beside as many random units: a line a subject."""
    facts = lab.facts("removal")
    matched = facts["importance_ratio"].mean() if "importance_ratio" in facts else None
    rows = lab.once(table_one)
    nothing_by_harm = (BY_HARM in rows.index
                       and _adds(rows, BY_HARM, "ASR") < HARDLY * _adds(rows, "SCU", "ASR"))
    return say(WORDS, "removed_numbers", rows=rows, bare=_without_system(lab), matched=matched,
               parts=parts_as_important(rows), nothing_by_harm=nothing_by_harm)


def parts_as_important(rows: pd.DataFrame) -> dict[str, float]:
    """What random units as important as the SCU add, as a part of what these add; by both rates.

    `rows`: of `table_one`. Empty where either was not removed, or the SCU add nothing.
    """
    if not {"SCU", AS_IMPORTANT} <= set(rows.index):
        return {}
    by_scu = {rate: _adds(rows, "SCU", rate) for rate in RATES}
    if min(by_scu.values()) <= 0:
        return {}
    return {rate: _adds(rows, AS_IMPORTANT, rate) / added for rate, added in by_scu.items()}


def _adds(rows: pd.DataFrame, units: str, rate: str) -> float:
    """By how much a rate is higher without these units than with nothing removed."""
    return rows.loc[units, rate] - rows.loc["nothing", rate]


def _without_system(lab: Lab) -> float | None:
    """Keyword ASR with nothing removed and no system prompt; None where that was not asked."""
    answers = lab.frame("removal", "answers").query("units == 'nothing' and system == 'none'")
    return float(outcomes(answers)["keyword_asr"].mean()) if len(answers) else None


def seen(lab: Lab) -> str:
    """What one sees in the table: `in_numbers`, under the model's name."""
    lines = "".join(f"- {line}\n" for line in in_numbers(lab).splitlines())
    return say(WORDS, "removed_seen", numbers=lines, model=lab.profile.model.label)
