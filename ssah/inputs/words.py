"""The hand-made word lists: refusals, openings, borderline requests, keywords."""

import functools

import pandas as pd

from .archives import hand_made


def data_file(name: str) -> pd.DataFrame:
    """A hand-made table (refusals, openings, borderline, ...) as text columns."""
    return pd.read_csv(hand_made(f"{name}.csv"), dtype=str, keep_default_na=False)


@functools.cache
def refusal_keywords() -> tuple[str, ...]:
    """The published keyword list behind keyword ASR (origin in the file's first lines)."""
    lines = hand_made("refusal_keywords.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))
