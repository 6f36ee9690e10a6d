"""Table 1 as printed and as recomputed here, as points of one picture."""

import pandas as pd

from ...lab import Lab
from ...lab.words import say
from ..shared.side_by_side import OURS, PAPER, Point, ends, table_of
from .read import PAPER_TABLE_1, WORDS, per_seed, table_one

#: The kinds that Table 1 removes.
KINDS = ("SCU", "UCU", "RU")
BEFORE = "nothing removed"
REMOVED = "these units removed"
RANDOM = "as many random units removed"

#: Panels: title, column of the printed table, column of ours.
WITH_SYSTEM = "ASR (%),\nsystem prompt"
WITHOUT_SYSTEM = "ASR (%),\nno system prompt"
ACCURACY = "accuracy (%),\nmultiple choice"
PERPLEXITY = "perplexity (log),\nWikipedia text"
PANELS = (
    (WITH_SYSTEM, "ASR w/ system %", "ASR default"),
    (WITHOUT_SYSTEM, "ASR w/o system %", "ASR none"),
    (ACCURACY, "accuracy %", "accuracy"),
    (PERPLEXITY, "wiki ppl", "wiki ppl"),
)

#: The picture's marks and their shapes, its panels and their scales (`pictures.paper_and_ours`).
MARKS = {BEFORE: "before", RANDOM: "random", REMOVED: "some"}
SCALES = {WITH_SYSTEM: "percent", WITHOUT_SYSTEM: "percent", ACCURACY: "free", PERPLEXITY: "log"}


def beside_paper(lab: Lab) -> pd.DataFrame:
    """Table 1's points: a group a removed kind, a row a model, a panel a measure.

    Ours have 95 % intervals; that of perplexity is from the lowest to the highest seed.
    """
    ours = with_seeds(table_one(lab), per_seed(lab))
    points = []
    for kind in KINDS:
        points += printed_points(kind)
        points += our_points(ours, kind)
    return table_of(points)


def with_seeds(table: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """`table_one` with the lowest and the highest seed's perplexity beside its mean."""
    perplexity = seeds.groupby("condition")["wiki ppl"]
    return table.assign(**{"wiki ppl low": perplexity.min(), "wiki ppl high": perplexity.max()})


def printed_points(kind: str) -> list[Point]:
    """What the paper prints of one kind: a row a model, named with the share that is removed."""
    points = []
    for model, rows in PAPER_TABLE_1.groupby("model", sort=False):
        by_kind = rows.set_index("removed")
        row = f"{model}, {by_kind.loc[kind, 'share %']:.1f} %"
        for panel, column, _ in PANELS:
            before = by_kind.loc["none", column]
            after = by_kind.loc[kind, column]
            points.append(Point(panel, group_of(kind), row, PAPER, BEFORE, before))
            points.append(Point(panel, group_of(kind), row, PAPER, REMOVED, after))
    return points


def our_points(table: pd.DataFrame, kind: str) -> list[Point]:
    """Ours of one kind, and of as many random units. `table`: of `with_seeds`."""
    row = f"ours, {table.loc[kind, 'share']:.2%}".replace("%", " %")
    points = []
    for panel, _, column in PANELS:
        of_panel = (panel, group_of(kind), row, OURS)
        points.append(Point(*of_panel, BEFORE, *measured(table.loc["none"], column)))
        points.append(Point(*of_panel, RANDOM, *measured(table.loc[f"random {kind}"], column)))
        points.append(Point(*of_panel, REMOVED, *measured(table.loc[kind], column)))
    return points


def measured(row: pd.Series, column: str) -> tuple[float, float, float]:
    """A column in the unit of the printed table: mean, low, high."""
    if column == "wiki ppl":
        return row[column], row[f"{column} low"], row[f"{column} high"]
    return ends(row, column)


def group_of(kind: str) -> str:
    """How the rows of a kind are called together."""
    return f"{kind} removed"


def beside_paper_summary(lab: Lab) -> str:
    """What one sees in the picture, in numbers."""
    table = table_one(lab)
    printed = PAPER_TABLE_1.set_index(["removed", "model"])
    column = "ASR w/ system %"
    added = printed.loc["SCU", column] - printed.loc["none", column]
    utility = printed.loc["UCU", "wiki ppl"] / printed.loc["none", "wiki ppl"]
    return say(
        WORDS,
        "beside_paper",
        added=added,
        utility=utility,
        nothing=table.loc["none"],
        scu=table.loc["SCU"],
        random_scu=table.loc["random SCU"],
        our_utility=table.loc["UCU", "wiki ppl"] / table.loc["none", "wiki ppl"],
    )
