"""What one sees in the figures of notebook 02, in numbers."""

import pandas as pd

from ...lab import Result
from ...lab.words import say
from .read import WORDS


def judge_seen(judged: Result) -> str:
    """The judge's cut. `judged`: of the step `judge_threshold`."""
    table = judged.tables["nll"]
    threshold = judged.values["threshold"]
    passes = table["nll"] <= threshold
    rates = passes.groupby([table["split"], table["corrupted"]]).mean()
    return say(
        WORDS,
        "judge_seen",
        threshold=threshold,
        coherent=rates["evaluate", False],
        shuffled=rates["evaluate", True],
    )


def scan_seen(table: pd.DataFrame) -> str:
    """The ratio scan. `table`: of `choices.ratio_scan`."""
    chosen = table[table["chosen"]].set_index("label")
    intact = table[table["label"] == "none"].iloc[0]
    return say(WORDS, "scan_seen", intact=intact, chosen=chosen)


def table_one_seen(table: pd.DataFrame) -> str:
    """Table 1 as points. `table`: of `read.table_one`."""
    return say(WORDS, "table_one_seen", rows=table)


def labels_seen(table: pd.DataFrame) -> str:
    """The four labels of the answers. `table`: of `read.table_one`."""
    return say(WORDS, "labels_seen", rows=table)


def map_seen(units: pd.DataFrame) -> str:
    """Where the kinds are. `units`: a row a unit with block (from 0), kind and label."""
    in_mlp = units["kind"] == "mlp"
    parts = in_mlp.groupby(units["label"]).mean()
    shares = pd.crosstab(units["block"], units["label"], normalize="index")
    blocks = shares.idxmax() + 1
    return say(
        WORDS,
        "map_seen",
        in_mlp=parts,
        of_all=in_mlp.mean(),
        blocks=blocks,
        highest=shares.max(),
    )


