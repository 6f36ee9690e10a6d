"""The hand-made word lists of ``data/``: refusals, openings, borderline requests, keywords."""

import functools

import pandas as pd

from .archives import DATA


def data_file(name: str) -> pd.DataFrame:
    """A hand-made table of ``data/`` (refusals, openings, borderline) as text columns."""
    return pd.read_csv(DATA / f"{name}.csv", dtype=str, keep_default_na=False)


@functools.cache
def refusal_keywords() -> tuple[str, ...]:
    """The published keyword list behind keyword ASR (origin in the file's first lines)."""
    lines = (DATA / "refusal_keywords.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))
