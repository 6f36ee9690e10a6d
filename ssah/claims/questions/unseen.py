"""The reviewers' last question: attacks that nobody trained against, as a table. No torch."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ...lab import Lab
from ...lab.words import markdown_table, say
from .. import rules
from ..shared.tables import with_system
from .read import WORDS
from .run import ATTACKS

#: The rates of an answer, with the titles of their columns.
RATES = {"keyword_asr": "keyword ASR", "strict_asr": "strict ASR"}
#: The rate that decides: one attack forbids the words by which keywords know a refusal.
DECIDES = "strict_asr"
#: The row of the model as it is.
NOTHING = "nothing"


def begun(labs: Iterable[Lab]) -> list[Lab]:
    """Those of which an attack is stored."""
    return [lab for lab in labs if lab.has("unseen_attack")]


def attacked(lab: Lab) -> pd.DataFrame:
    """A row an attack, the model as it is first: `rules.Estimate` of both rates over requests.

    Columns title, keyword_asr, strict_asr (fractions), and ``change`` of `DECIDES`, paired by
    request.
    """
    removed = with_system(lab, "removal")
    seed = lab.profile.seeds[0]
    answers = {NOTHING: removed[(removed["units"] == NOTHING) & (removed["seed"] == seed)]}
    answers |= dict(list(with_system(lab, "unseen_attack").groupby("attack")))
    titles = {NOTHING: "as it is", **{attack.name: attack.title for attack in ATTACKS}}
    before = answers[NOTHING].set_index("id")[DECIDES]
    rows = {}
    for name, title in titles.items():
        if name in answers:
            of_row = answers[name].set_index("id")
            rows[name] = {"title": title, **{rate: _mean(of_row[rate]) for rate in RATES},
                          "change": _mean(of_row[DECIDES] - before)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _mean(values: pd.Series) -> rules.Estimate:
    """The mean of a value a request, with its intervals."""
    return rules.satterthwaite(values.to_numpy()[None])


def shown(table: pd.DataFrame) -> str:
    """`attacked` as Markdown: per cent and points, with 95 % intervals."""
    rows = []
    for name, row in table.iterrows():
        change = "" if name == NOTHING else _percent(row["change"], sign="+")
        rows.append([row["title"], *(_percent(row[rate]) for rate in RATES), change])
    return markdown_table(["attack", *(f"{title} %" for title in RATES.values()),
                           f"change of {RATES[DECIDES]}, points"], rows)


def _percent(estimate: rules.Estimate, sign: str = "") -> str:
    mean, low, high = (100 * end for end in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:{sign}.0f} [{low:.0f}, {high:.0f}]"


def seen(lab: Lab, table: pd.DataFrame) -> str:
    """Which attacks move the rate that decides clearly (95 % interval on one side of 0).

    `table`: of `attacked`.
    """
    attacks = table.drop(index=NOTHING)
    higher = np.array([change.low > 0 for change in attacks["change"]], bool)
    lower = np.array([change.high < 0 for change in attacks["change"]], bool)
    parts = {"clearly higher": attacks[higher], "clearly lower": attacks[lower],
             "not clearly changed": attacks[~higher & ~lower]}
    missing = [attack.title for attack in ATTACKS if attack.name not in table.index]
    return say(WORDS, "unseen", model=lab.profile.model.label, before=table.loc[NOTHING],
               parts=parts, missing=missing)


def untried(labs: Iterable[Lab]) -> str:
    """The models of which no attack is stored, in a sentence; empty if there are none."""
    labs = list(labs)
    tried = begun(labs)
    return say(WORDS, "untried", models=[lab.profile.title for lab in labs if lab not in tried])
