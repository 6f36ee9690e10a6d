"""Table 4 as printed and as recomputed here, as points of one picture."""

import pandas as pd

from ...lab import Lab
from ...lab.statistics import bootstrap, difference
from ...lab.words import say
from ..shared.runs import taken
from ..shared.side_by_side import OURS, PAPER, Point, table_of
from .read import PAPER_TABLE_4, WORDS, budgets

BEFORE = "before"
FULL = "everything trained"
RU = "only RU trained"
RANDOM = "as many random units trained"

LEVEL = "ability (% of the most there is)"
CHANGE = "change from before (points)"

#: The picture's marks and their shapes, its panels and their scales (`pictures.paper_and_ours`).
MARKS = {BEFORE: "before", FULL: "full", RANDOM: "random", RU: "most"}
SCALES = {LEVEL: "percent", CHANGE: "change"}

#: MT-Bench scores go to ten; as per cents they are on the axis of the others.
OF_TEN = ("MT-Bench 1", "MT-Bench 2")
#: How our sets are called where people read it.
TASKS = {"openbookqa": "OpenBookQA", "piqa": "PIQA", "commonsenseqa": "CommonsenseQA"}
PRINTED = "Llama-7B, trained on Alpaca"
RECOMPUTED = "ours, trained to refuse"
#: Columns of the printed table by their mark; then our conditions.
COLUMNS = {BEFORE: "pretrained", FULL: "full", RU: "only RU 20 %"}
CONDITIONS = {BEFORE: "start", FULL: "full", RANDOM: "random", RU: "RU"}


def beside_paper(lab: Lab) -> pd.DataFrame:
    """Table 4's points: a row a test of ability, one panel for its level and one for its change.

    Ours at equal training loss: multiple choice, with 95 % intervals.
    """
    questions = taken(budgets(lab), "choice").astype({"correct": float})
    points = printed_points()
    for task, of_task in questions.groupby("task", sort=False):
        points += our_points(of_task, TASKS.get(task, task))
    points += our_points(questions, "all three")
    return table_of(points)


def printed_points() -> list[Point]:
    """What the paper prints; MT-Bench times ten."""
    points = []
    for test, row in PAPER_TABLE_4.iterrows():
        factor = 10 if test in OF_TEN else 1
        name = f"{test} (score x 10)" if test in OF_TEN else test
        of_row = (PRINTED, name, PAPER)
        for mark, column in COLUMNS.items():
            points.append(Point(LEVEL, *of_row, mark, row[column] * factor))
        for mark in (FULL, RU):
            change = (row[COLUMNS[mark]] - row["pretrained"]) * factor
            points.append(Point(CHANGE, *of_row, mark, change))
    return points


def our_points(questions: pd.DataFrame, name: str) -> list[Point]:
    """Ours on some questions; changes are paired by question and seed."""
    of_row = (RECOMPUTED, name, OURS)
    parts = {mark: questions[questions["condition"] == condition]
             for mark, condition in CONDITIONS.items()}
    points = []
    for mark, part in parts.items():
        level = (value * 100 for value in bootstrap(part, "correct"))
        points.append(Point(LEVEL, *of_row, mark, *level))
    for mark in (FULL, RANDOM, RU):
        change = difference(parts[mark], parts[BEFORE], "correct")
        points.append(Point(CHANGE, *of_row, mark, *(value * 100 for value in change)))
    return points


def beside_paper_summary(table: pd.DataFrame) -> str:
    """What one sees in the picture, in numbers. `table`: of `beside_paper`."""
    changes = table[table["panel"] == CHANGE]
    printed = changes[changes["source"] == PAPER]
    ours = changes[changes["row"] == "all three"].set_index("mark")
    by_test = printed.pivot(index="row", columns="mark", values="value")
    return say(WORDS, "beside_paper",
               better=(by_test > 0).sum(),
               tests=len(by_test),
               ru_above_full=(by_test[RU] > by_test[FULL]).sum(),
               ours=ours,
               full=FULL,
               random=RANDOM,
               ru=RU)
