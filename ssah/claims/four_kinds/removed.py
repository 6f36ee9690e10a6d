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
    draws or seeds both stand on (``answered``, ``read``), share and title. An interval crosses
    requests with draws or with seeds.
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
    """Both rates of some answers with their intervals."""
    found = {}
    for column, measure in RATES.items():
        runs = answers.pivot(index=["seed", "draw"], columns="id", values=measure)
        estimate = rules.satterthwaite(runs.to_numpy())
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
    head = ["removed", "units", "keyword ASR", "strict ASR", "draws", "Wikipedia perplexity",
            "draws"]
    return markdown_table(head, rows)


def in_numbers(lab: Lab) -> str:
    """What each removal did, beside as many random units: a line a subject."""
    facts = lab.facts("removal")
    matched = facts["importance_ratio"].mean() if "importance_ratio" in facts else None
    return say(WORDS, "removed_numbers", rows=lab.once(table_one), bare=_without_system(lab),
               matched=matched)


def _without_system(lab: Lab) -> float | None:
    """Keyword ASR with nothing removed and no system prompt; None where that was not asked."""
    answers = lab.frame("removal", "answers").query("units == 'nothing' and system == 'none'")
    return float(outcomes(answers)["keyword_asr"].mean()) if len(answers) else None


def seen(lab: Lab) -> str:
    """What one sees in the table: `in_numbers`, under the model's name."""
    lines = "".join(f"- {line}\n" for line in in_numbers(lab).splitlines())
    return say(WORDS, "removed_seen", numbers=lines, model=lab.profile.model.label)
