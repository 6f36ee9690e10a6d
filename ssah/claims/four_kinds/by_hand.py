"""Table 1 of the second bench by hand: answers that were read twice, beside the judge. No torch.

Labels stand in ``data/removal_labels.csv`` by the hash of an answer, so that no text is stored.
"""

import pandas as pd

from ...inputs.words import data_file
from ...lab import Lab
from ...lab.words import markdown_table, say
from .. import rules
from ..shared.tables import with_system
from .read import WORDS
from .removal import REMOVALS

#: The columns of the file: what each of the two readings says, of the labels of the judge.
READINGS = ("first", "second")
#: An arm of which fewer answers have labels is not shown: they would be no fair sample of it.
LEAST_LABELLED = 0.95


def answers_by_hand(lab: Lab) -> pd.DataFrame:
    """The answers (with system prompt) that have labels by hand: a row each.

    Columns of `with_system`, and `READINGS`. Of an arm with few labels nothing; where a removal has
    several random draws, those are left out that nobody read.
    """
    answers = with_system(lab, "removal")
    both = answers.merge(data_file("removal_labels"), on="hash", how="left")
    is_read = both[READINGS[0]].notna()
    share = is_read.groupby([both["units"], both["seed"], both["draw"]]).transform("mean")
    return both[is_read & (share >= LEAST_LABELLED)]


def kappa(first: pd.Series, second: pd.Series) -> float:
    """Cohen's kappa: how often two readings agree beyond what chance gives, 1 at most.

    NaN where both have one and the same label everywhere.
    """
    agree = (first.to_numpy() == second.to_numpy()).mean()
    shares = first.value_counts(normalize=True), second.value_counts(normalize=True)
    by_chance = shares[0].mul(shares[1], fill_value=0).sum()
    return float("nan") if by_chance == 1 else float((agree - by_chance) / (1 - by_chance))


def rates_by_hand(lab: Lab) -> pd.DataFrame:
    """A row a removal with labels, in the order of the plan, as fractions.

    Columns: title, answers (a count), judge (*comply*), first and second (*comply*, by reading),
    mean, low and high (both readings, with a 95 % interval that crosses readings with requests).
    """
    labelled = answers_by_hand(lab)
    rows = {}
    for removal in REMOVALS:
        part = labelled[labelled["units"] == removal.name]
        if len(part):
            complies = _complies(part)
            both = rules.satterthwaite(complies.to_numpy().T, factors=("readings", "answers"))
            rows[removal.name] = {
                "title": removal.title, "answers": len(part), "judge": part["strict_asr"].mean(),
                **complies.mean(), "mean": both.mean,
                "low": max(both.low, 0.0), "high": min(both.high, 1.0)}
    return pd.DataFrame.from_dict(rows, orient="index")


def beyond_random(lab: Lab) -> rules.Estimate:
    """How many more requests are complied with without SCU than without random units, a fraction.

    Request by request; the interval crosses readings with requests.
    """
    labelled = answers_by_hand(lab)
    parts = []
    for name in ("SCU", "random SCU"):
        part = labelled[labelled["units"] == name].set_index(["seed", "id"])
        parts.append(_complies(part))
    of_units, of_random = parts
    differences = (of_units - of_random).dropna()
    return rules.satterthwaite(differences.to_numpy().T, factors=("readings", "requests"))


def _complies(answers: pd.DataFrame) -> pd.DataFrame:
    """Whether an answer complies, by each reading: 0.0 or 1.0."""
    return (answers[[*READINGS]] == "comply").astype(float)


def in_numbers(lab: Lab) -> str:
    """The rates in a sentence; empty where nothing was read."""
    rates = rates_by_hand(lab)
    return "" if rates.empty else say(WORDS, "by_hand_numbers", rows=rates)


def shown(lab: Lab) -> str:
    """What was read, and `rates_by_hand`, as Markdown; empty where nothing was read."""
    rates = rates_by_hand(lab)
    if rates.empty:
        return ""
    labelled = answers_by_hand(lab)
    complies = _complies(labelled)
    agree = (complies["first"] == complies["second"]).mean()
    said = say(WORDS, "by_hand", n=labelled["hash"].nunique(), agree=agree,
               kappa=kappa(complies["first"], complies["second"]),
               beyond=rules.POINTS.shown(beyond_random(lab)),
               read_draw=rates.loc["random SCU", "judge"],
               all_draws=_strict_asr(lab, "random SCU"))
    return f"{said}\n\n{_table(rates)}"


def _strict_asr(lab: Lab, units: str) -> float:
    """Strict ASR of a removal by the judge, over all its draws."""
    answers = with_system(lab, "removal")
    return float(answers.loc[answers["units"] == units, "strict_asr"].mean())


def _table(rates: pd.DataFrame) -> str:
    rows = []
    for _, row in rates.iterrows():
        together = f"{row['mean']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"
        rows.append([row["title"], f"{row['answers']}", f"{row['judge']:.0%}",
                     f"{row['first']:.0%}", f"{row['second']:.0%}", together])
    head = ["removed", "answers", "comply: judge", "first reading", "second reading",
            "both readings"]
    return markdown_table(head, rows)
