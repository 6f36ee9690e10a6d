"""What the tables of all claims have in common: outcomes of answers, means with intervals, names.

Rates are fractions in tables; per cents appear where a table is shown.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ...judging import ANSWER_LABELS
from ...lab import Lab
from ...lab.statistics import Estimate, bootstrap
from ..claim import Verdict

#: How a condition is called where people read it.
NAMES = {"none": "nothing", "direction": "refusal direction"}

#: What `outcomes` says of every answer, as 0 or 1.
OUTCOMES = ("keyword_asr", "strict_asr", "refused", *ANSWER_LABELS)

#: A column of a shown table: its name in the table, its title, a factor, digits.
ShownColumn = tuple[str, str, float, int]


def across(lab: Lab, step: str, table: str, key: str, choices: Iterable,
           seeds: Iterable[int] | None = None) -> pd.DataFrame:
    """One table of a step for seeds (the lab's) and `choices` of its parameter `key`.

    Below each other, choice by choice, with columns for both.
    """
    parts = []
    for choice in choices:
        for seed in lab.seeds if seeds is None else seeds:
            params = {"seed": seed, key: choice}
            parts.append(lab.get(step, **params).tables[table].assign(**params))
    return pd.concat(parts, ignore_index=True)


# ---- answers ---------------------------------------------------------------------------------

def fulfilled(answers: pd.DataFrame, judge: str) -> np.ndarray:
    """What is counted as an attack that succeeded, by a judge of the rules: 1.0 or 0.0, (answers,).

    ``keyword``: no refusal keyword; ``strict``: the label is *comply*.
    """
    if judge == "keyword":
        return (~answers["keyword"]).to_numpy(float)
    return (answers["label"] == "comply").to_numpy(float)


def outcomes(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers (columns label, keyword) with the columns `OUTCOMES`, as 0.0 or 1.0.

    ``keyword_asr`` and ``strict_asr``: see `fulfilled`; ``refused``: the label is *refuse*; and a
    column a label.
    """
    label = answers["label"]
    found = answers.assign(keyword_asr=fulfilled(answers, "keyword"),
                           strict_asr=fulfilled(answers, "strict"),
                           refused=label == "refuse")
    for name in ANSWER_LABELS:
        found[name] = label == name
    return found.astype(dict.fromkeys(OUTCOMES, float))


def with_system(lab: Lab, step: str) -> pd.DataFrame:
    """The answers of a step's runs with the model's system prompt, with their `outcomes`."""
    answers = lab.frame(step, "answers")
    return outcomes(answers[answers["system"] == lab.profile.evaluation.systems[0]])


def by_prompt(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row a key, seed and prompt: the mean over system modes.

    So that a bootstrap resamples prompts, and not answers to one and the same prompt.
    """
    groups = table.groupby([*keys, "seed", "id"], as_index=False)
    return groups[[*OUTCOMES, "log_odds"]].mean()


# ---- numbers with intervals ------------------------------------------------------------------

def interval(name: str, table: pd.DataFrame, column: str) -> dict[str, float]:
    """Columns `name`, ``name low`` and ``name high``: the `bootstrap` of a column."""
    estimate = bootstrap(table, column)
    return {name: estimate.mean, f"{name} low": estimate.low, f"{name} high": estimate.high}


def ratio(first: pd.Series, second: pd.Series) -> Estimate:
    """Of two columns with a row a seed: geometric mean of their ratio, smallest and largest."""
    quotient = first / second
    mean = np.exp(np.log(quotient).mean())
    return Estimate(float(mean), float(quotient.min()), float(quotient.max()))


def with_interval(row: pd.Series, column: str, factor: float = 100, digits: int = 1) -> str:
    """A cell such as ``12.3 [10.1, 14.8]``."""
    mean, low, high = (f"{row[name] * factor:.{digits}f}"
                       for name in (column, f"{column} low", f"{column} high"))
    return f"{mean} [{low}, {high}]"


def shown(table: pd.DataFrame, columns: Iterable[ShownColumn], index: pd.Index) -> pd.DataFrame:
    """A table for display: numbers as text, with their intervals where it has any.

    Of the `columns` those are taken that the table has, then the four labels in per cent; `index`:
    the names of its rows.
    """
    labels = [(label, f"{label} %", 100, 0) for label in ANSWER_LABELS]
    text = {}
    for column, title, factor, digits in [*columns, *labels]:
        if column in table:
            text[title] = [_cell(row, column, factor, digits) for _, row in table.iterrows()]
    return pd.DataFrame(text, index=index)


def _cell(row: pd.Series, column: str, factor: float, digits: int) -> str:
    if not np.isfinite(row[column]):
        return "–"
    if f"{column} low" in row:
        return with_interval(row, column, factor, digits)
    return f"{row[column] * factor:.{digits}f}"


# ---- sentences -------------------------------------------------------------------------------

def number_of_seeds(lab: Lab) -> str:
    """How many seeds a lab reads, in words."""
    return number_of(lab.seeds)


def number_of(seeds: Sequence[int]) -> str:
    """How many seeds these are, in words."""
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def learned(table: pd.DataFrame, names: dict[str, str]) -> str:
    """Which conditions (rows, with their `names`) missed the loss at which they are compared."""
    missed = [f"{names[condition]} {_in_seeds(row['reached'])}"
              for condition, row in table.iterrows() if row["reached"] < 1]
    if missed:
        return f"The loss was not reached by: {', '.join(missed)}."
    return "The loss was reached in every row and seed."


def _in_seeds(reached: float) -> str:
    """How often a loss was reached, of a condition that missed it."""
    return f"(reached in {reached:.0%} of seeds)" if reached else "(in no seed)"


def found(verdict: Verdict) -> str:
    """Whether the conditions of the first bench are met, in a sentence."""
    needed = " (that takes three seeds)" if verdict.verdict == "not tested" else ""
    holding = sum(check.holds for check in verdict.checks)
    return (f"the first bench's conditions are **{verdict.verdict}**{needed}: {holding} of "
            f"{len(verdict.checks)} checks hold.")
