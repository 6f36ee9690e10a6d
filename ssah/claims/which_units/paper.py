"""Table 3 as printed and as recomputed here, as points of one picture."""

import pandas as pd

from ...lab import Lab
from ...lab.words import say
from ..published import ADAPTERS as PRINTED_ADAPTERS
from ..published import adapter_effects
from ..shared.runs import Runs, gap, harmful_answers, table_two
from ..shared.side_by_side import OURS, PAPER, Point, ends, share_of, table_of
from .read import PAPER_TABLE_3, WORDS, adapters

BEFORE = "before fine-tuning"
FULL = "everything trained"
METHOD = "trained as the heading says"

RATE = "harmful answers (%)"
BEYOND = "more than with everything trained,\nof what could be lost (%)"

#: The picture's marks and their shapes, its panels and their scales (`pictures.paper_and_ours`).
MARKS = {BEFORE: "before", FULL: "full", METHOD: "some"}
SCALES = {RATE: "percent", BEYOND: "change"}

#: The row of Table 3 with frozen units, and ours.
FROZEN = "SCU + CU frozen"
RANDOM = "as many random units frozen"
#: Groups of rows: heading, row of the printed table, our condition; none where there is none.
METHODS = (
    ("LoRA", "LoRA", "LoRA"),
    ("LLaMA-Adapter", "LLaMA-Adapter", "LLaMA-Adapter"),
    ("prefix tuning", "prefix", None),
    (FROZEN, FROZEN, "SCU + all CU"),
    (RANDOM, None, "random large without SCU"),
)
#: Our two judges: the name of the row, the column of `table_two`, that of the answers.
JUDGES = (("ours (keywords)", "ASR", "keyword_asr"),
          ("ours (strict judge)", "strict ASR", "strict_asr"))


def beside_paper(lab: Lab) -> pd.DataFrame:
    """Table 3's points: a group a method, a row a model, instructions and judge.

    Ours at equal training loss, with 95 % intervals; in the second panel what could be lost is
    taken as exact.
    """
    runs = adapters(lab)
    points = []
    for heading, printed, condition in METHODS:
        if printed is not None:
            points += printed_points(heading, printed)
        if condition is not None:
            points += our_points(runs, heading, condition)
    return table_of(points)


def printed_points(heading: str, method: str) -> list[Point]:
    """What the paper prints of one method, a row a set of instructions."""
    effects = effects_of_all()
    points = []
    for instructions in PAPER_TABLE_3:
        of_row = (heading, f"Llama2-7B-Chat, {instructions} (GPT-4)", PAPER)
        rates = PAPER_TABLE_3[instructions]
        for mark, name in ((BEFORE, BEFORE), (FULL, "full"), (METHOD, method)):
            points.append(Point(RATE, *of_row, mark, rates[name]))
        effect = effects.loc[method, instructions] * 100
        points.append(Point(BEYOND, *of_row, METHOD, effect))
    return points


def effects_of_all() -> pd.DataFrame:
    """The printed effects of the adapters, and of frozen units in the same unit."""
    frozen = PAPER_TABLE_3.loc[FROZEN] - PAPER_TABLE_3.loc["full"]
    effect = frozen / (100 - PAPER_TABLE_3.loc[BEFORE])
    of_adapters = adapter_effects(PAPER_TABLE_3).loc[list(PRINTED_ADAPTERS)]
    return pd.concat([of_adapters, effect.to_frame(FROZEN).T])


def our_points(runs: Runs, heading: str, condition: str) -> list[Point]:
    """Ours of one method, a row a judge."""
    table = table_two(runs)
    answered = harmful_answers(runs)
    points = []
    for row, column, outcome in JUDGES:
        of_row = (heading, row, OURS)
        for mark, name in ((BEFORE, "start"), (FULL, "full"), (METHOD, condition)):
            points.append(Point(RATE, *of_row, mark, *ends(table.loc[name], column)))
        could_be_lost = 1 - table.loc["start", column]
        beyond = gap(answered, condition, "full", outcome)
        points.append(Point(BEYOND, *of_row, METHOD, *share_of(beyond, could_be_lost)))
    return points


def beside_paper_summary(table: pd.DataFrame) -> str:
    """What one sees in the picture, in numbers. `table`: of `beside_paper`."""
    beyond = table[table["panel"] == BEYOND]
    printed = beyond[beyond["source"] == PAPER].groupby("group")["value"]
    ours = beyond[beyond["source"] == OURS].set_index(["group", "row"])
    return say(WORDS, "beside_paper", lowest=printed.min(), highest=printed.max(), ours=ours,
               judges=[row for row, _, _ in JUDGES], frozen=FROZEN, random=RANDOM)
