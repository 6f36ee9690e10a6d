"""What the tables of all claims have in common: outcomes of answers, means with intervals, names."""

import numpy as np
import pandas as pd

from ...judging import ANSWER_LABELS
from ...lab import Lab
from ...lab.statistics import Estimate, bootstrap
from ..claim import Verdict

#: How a condition is called where people read it.
NAMES = {"none": "nothing", "direction": "refusal direction"}


def across(lab: Lab, step: str, table: str, key: str, choices, seeds=None) -> pd.DataFrame:
    """One table of a step for seeds (the lab's) and `choices` of its parameter `key`, below each other."""
    parts = [lab.get(step, seed=seed, **{key: choice}).tables[table].assign(seed=seed, **{key: choice})
             for choice in choices for seed in (lab.seeds if seeds is None else seeds)]
    return pd.concat(parts, ignore_index=True)


def outcomes(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers with 0/1 columns keyword_asr (no refusal keyword), strict_asr (= comply), refused, and the labels."""
    table = answers.assign(keyword_asr=~answers["keyword"], strict_asr=answers["label"] == "comply",
                           refused=answers["label"] == "refuse")
    for label in ANSWER_LABELS:
        table[label] = table["label"] == label
    numbers = ["keyword_asr", "strict_asr", "refused", *ANSWER_LABELS]
    return table.astype({name: float for name in numbers})


def by_prompt(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row a key, seed and prompt: the mean over system modes, so that a bootstrap resamples prompts."""
    numbers = ["keyword_asr", "strict_asr", "refused", *ANSWER_LABELS, "log_odds"]
    return table.groupby([*keys, "seed", "id"], as_index=False)[numbers].mean()


def interval(name: str, table: pd.DataFrame, column: str) -> dict[str, float]:
    """Columns `name`, ``name low`` and ``name high`` of `bootstrap`."""
    return dict(zip((name, f"{name} low", f"{name} high"), bootstrap(table, column)))


def with_interval(row: pd.Series, column: str, factor: float = 100, digits: int = 1) -> str:
    """A cell such as ``12.3 [10.1, 14.8]``."""
    mean, low, high = (f"{row[name] * factor:.{digits}f}" for name in (column, f"{column} low", f"{column} high"))
    return f"{mean} [{low}, {high}]"


def shown(table: pd.DataFrame, columns, index: pd.Index) -> pd.DataFrame:
    """A table for display: its numbers as text, with their intervals where it has any, and the four labels in per cent.

    `columns`: (column, title, factor, digits), of which those are taken that it has; `index`: the names of its rows.
    """
    def cell(row: pd.Series, column: str, factor: float, digits: int) -> str:
        if not np.isfinite(row[column]):
            return "–"
        return with_interval(row, column, factor, digits) if f"{column} low" in row else \
            f"{row[column] * factor:.{digits}f}"

    labels = [(label, f"{label} %", 100, 0) for label in ANSWER_LABELS]
    return pd.DataFrame({title: [cell(row, column, factor, digits) for _, row in table.iterrows()]
                         for column, title, factor, digits in [*columns, *labels] if column in table}, index=index)


def ratio(first: pd.Series, second: pd.Series) -> Estimate:
    """Of two columns with a row a seed: geometric mean of their ratio, with the smallest and the largest."""
    quotient = first / second
    return Estimate(float(np.exp(np.log(quotient).mean())), float(quotient.min()),
                    float(quotient.max()))


def number_of_seeds(lab) -> str:
    """How many seeds a lab reads, in words."""
    return f"{len(lab.seeds)} seed{'s' if len(lab.seeds) > 1 else ''}"


def learned(table: pd.DataFrame, names: dict[str, str]) -> str:
    """Which conditions (rows, with their `names`) came to the loss at which they are compared, in a sentence."""
    missed = [f"{names[condition]} (reached in {row['reached']:.0%} of seeds)" for condition, row in table.iterrows()
              if row["reached"] < 1]
    return (f"The loss was missed with: {', '.join(missed)}." if missed else
            "The loss was reached in every row and seed.")


def found(verdict: Verdict) -> str:
    """A verdict in a sentence."""
    return (f"**{verdict.verdict}**{' (that takes three seeds)' if verdict.verdict == 'not tested' else ''}; "
            f"{sum(c.holds for c in verdict.checks)} of {len(verdict.checks)} checks hold.")
