"""Table 2 as printed and as recomputed here, as points of one picture."""

import pandas as pd

from ...lab import Lab
from ...lab.words import say
from ..published import FROZEN, PAPER_TABLE_2_OTHERS, freezing_effects
from ..shared.runs import gap, harmful_answers, table_two, tuned
from ..shared.side_by_side import OURS, PAPER, Point, ends, share_of, table_of
from .read import PAPER_TABLE_2, WORDS

BEFORE = "before fine-tuning"
FULL = "nothing frozen"
RANDOM = "random, as many as SCU + all CU"

ATTACKS = "attack success (%)"
AVOIDED = "avoided by freezing,\nof what full fine-tuning adds (%)"

#: The picture's marks and their shapes, its panels and their scales (`pictures.paper_and_ours`).
MARKS = {BEFORE: "before", FULL: "full", FROZEN[0]: "some", RANDOM: "random", FROZEN[1]: "most"}
SCALES = {ATTACKS: "percent", AVOIDED: "change"}

#: Our two judges: its rows' name, the column of `table_two`, that of the answers.
JUDGES = (("keywords", "ASR", "keyword_asr"),
          ("strict", "strict ASR", "strict_asr"))
#: Our conditions: what they are called in the picture, and in the runs.
CONDITIONS = ((BEFORE, "start"), (FULL, "full"), (FROZEN[0], "SCU + top CU"),
              (RANDOM, "random large without SCU"), (FROZEN[1], "SCU + all CU"))
#: The paper's judges of attack success in per cent, as they are called here. Scores from 1 to 5
#: have another unit.
PRINTED_JUDGES = {"keywords": "keywords", "llama3-guard": "Llama Guard 3", "gpt4 rate": "GPT-4"}


def printed_rows() -> pd.DataFrame:
    """All printed rows of Table 2 in per cent, with the columns `group` and `row`."""
    by_keyword = PAPER_TABLE_2.assign(requests="AdvBench", judge="keywords")
    rows = pd.concat([by_keyword, PAPER_TABLE_2_OTHERS], ignore_index=True)
    rows = rows[rows["judge"] != "gpt4 score"]
    model = rows["model"].str.replace("-Instruct, blocks 1-12", ", blocks 1-12")
    attack = rows["judge"].where(rows["requests"] == "HarmBench")
    judge = rows["judge"].map(PRINTED_JUDGES)
    group = rows["requests"] + ", judge: " + judge
    row = model + ", " + rows["instructions"]
    return rows.assign(
        group=group.fillna("HarmBench under attack"),
        row=row.where(attack.isna(), row + ", " + attack.fillna("")))


def beside_paper(lab: Lab) -> pd.DataFrame:
    """Table 2's points: a group a set of requests and a judge, a row a model and instructions.

    Ours at equal training loss, with 95 % intervals; in the second panel what full fine-tuning
    adds is taken as exact.
    """
    rows = printed_rows()
    by_keyword = rows["judge"] == "keywords"
    points = printed_points(rows[by_keyword])
    for judge in JUDGES:
        points += our_points(lab, *judge)
    points += printed_points(rows[~by_keyword])
    return table_of(points)


def printed_points(rows: pd.DataFrame) -> list[Point]:
    """What the paper prints, and the same as a share of what full fine-tuning adds."""
    points = []
    for _, printed in rows.iterrows():
        of_row = (printed["group"], printed["row"], PAPER)
        for mark, column in ((BEFORE, "start"), (FULL, "full"), *zip(FROZEN, FROZEN)):
            points.append(Point(ATTACKS, *of_row, mark, printed[column]))
    for _, effect in freezing_effects(rows).iterrows():
        of_row = (effect["group"], effect["row"], PAPER)
        points.append(Point(AVOIDED, *of_row, effect["frozen"], effect["effect"] * 100))
    return points


def our_points(lab: Lab, judge: str, column: str, outcome: str) -> list[Point]:
    """Ours by one judge: the same two panels, with the random units beside SCU + all CU."""
    runs = tuned(lab)
    table = table_two(runs)
    answered = harmful_answers(runs)
    added = table.loc["full", column] - table.loc["start", column]
    of_row = (f"AdvBench, judge: {judge}", "ours", OURS)
    points = []
    for mark, condition in CONDITIONS:
        points.append(Point(ATTACKS, *of_row, mark, *ends(table.loc[condition], column)))
    for mark, condition in CONDITIONS[2:]:
        avoided = gap(answered, "full", condition, outcome)
        points.append(Point(AVOIDED, *of_row, mark, *share_of(avoided, added)))
    return points


def beside_paper_summary(table: pd.DataFrame) -> str:
    """What one sees in the picture, in numbers. `table`: of `beside_paper`."""
    avoided = table[table["panel"] == AVOIDED]
    all_cu = avoided[avoided["mark"] == FROZEN[1]].groupby("source")["value"]
    ours = avoided[avoided["source"] == OURS].pivot(index="group", columns="mark", values="value")
    return say(WORDS, "beside_paper", printed=all_cu.get_group(PAPER), ours=ours.to_dict("index"),
               all_cu=FROZEN[1], random=RANDOM)
