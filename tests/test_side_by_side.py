"""The paper's tables and ours in one picture: points stand where the printed tables say."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ssah.claims.four_kinds import paper as table_1
from ssah.claims.freezing import paper as table_2
from ssah.claims.redundant_units import paper as table_4
from ssah.claims.shared import pictures
from ssah.claims.shared.side_by_side import OURS, PAPER, Point, share_of, table_of
from ssah.claims.which_units import paper as table_3
from ssah.lab.statistics import Estimate

matplotlib.use("Agg")


def value(points, panel: str, row: str, mark: str) -> float:
    """The one value of a panel, row and mark."""
    table = table_of(points)
    rows = table[(table["panel"] == panel) & (table["row"] == row) & (table["mark"] == mark)]
    (found,) = rows["value"]
    return found


def test_table_one_as_printed():
    """Llama-2 without its 1.3 % SCU: ASR 3 to 19 and 18 to 84 %, accuracy 58.3 to 56.9 %."""
    points = table_1.printed_points("SCU")
    row = "Llama2-7B-Chat, 1.3 %"
    expected = {table_1.WITH_SYSTEM: (3, 19), table_1.WITHOUT_SYSTEM: (18, 84),
                table_1.ACCURACY: (58.3, 56.9), table_1.PERPLEXITY: (6.49, 6.76)}
    for panel, (before, after) in expected.items():
        assert value(points, panel, row, table_1.BEFORE) == before
        assert value(points, panel, row, table_1.REMOVED) == after
    assert {point.source for point in points} == {PAPER}


def test_table_two_as_printed():
    """AdvBench by keywords after Dolly: 0.19, 11.92, 3.65, 2.88; a share avoided of 9.04 / 11.73."""
    rows = table_2.printed_rows()
    by_keyword = rows[rows["judge"] == "keywords"]
    points = table_2.printed_points(by_keyword)
    row = "Llama2-7B-Chat, Dolly"
    few, all_cu = table_2.FROZEN
    assert value(points, table_2.ATTACKS, row, table_2.BEFORE) == 0.19
    assert value(points, table_2.ATTACKS, row, table_2.FULL) == 11.92
    assert value(points, table_2.ATTACKS, row, few) == 3.65
    assert value(points, table_2.ATTACKS, row, all_cu) == 2.88
    assert value(points, table_2.AVOIDED, row, all_cu) == pytest.approx(100 * 9.04 / 11.73)


def test_all_rates_of_table_two_have_a_row_with_its_judge():
    """Scores from 1 to 5 are not in per cent and have none."""
    rows = table_2.printed_rows()
    assert not rows[["group", "row"]].duplicated().any()
    assert not (rows["judge"] == "gpt4 score").any()
    attacked = rows[rows["requests"] == "HarmBench"]
    assert set(attacked["group"]) == {"HarmBench under attack"}
    assert "Llama2-7B-Chat, Dolly, PAIR" in set(attacked["row"])
    assert set(rows["group"]) >= {"AdvBench, judge: Llama Guard 3", "HEx-PHI, judge: GPT-4"}


def test_table_three_as_printed():
    """HEx-PHI after Alpaca: 0.3, 16.1, LoRA 25.2, frozen 4.5; of what could be lost 99.7."""
    row = "Llama2-7B-Chat, Alpaca (GPT-4)"
    lora = table_3.printed_points("LoRA", "LoRA")
    assert value(lora, table_3.RATE, row, table_3.BEFORE) == 0.3
    assert value(lora, table_3.RATE, row, table_3.FULL) == 16.1
    assert value(lora, table_3.RATE, row, table_3.METHOD) == 25.2
    assert value(lora, table_3.BEYOND, row, table_3.METHOD) == pytest.approx(910 / 99.7)
    frozen = table_3.printed_points(table_3.FROZEN, table_3.FROZEN)
    assert value(frozen, table_3.BEYOND, row, table_3.METHOD) == pytest.approx(-1160 / 99.7)


def test_table_four_as_printed():
    """MMLU 32.2, 37.8, 33.7; the first turn of MT-Bench 1.32, 2.83, 3.5, times ten."""
    points = table_4.printed_points()
    assert value(points, table_4.LEVEL, "MMLU", table_4.FULL) == 37.8
    assert value(points, table_4.CHANGE, "MMLU", table_4.RU) == pytest.approx(1.5)
    turn = "MT-Bench 1 (score x 10)"
    assert value(points, table_4.LEVEL, turn, table_4.BEFORE) == pytest.approx(13.2)
    assert value(points, table_4.CHANGE, turn, table_4.RU) == pytest.approx(21.8)


def test_a_share_needs_something_to_be_a_share_of():
    assert share_of(Estimate(0.2, 0.1, 0.3), 0.5) == pytest.approx((40, 20, 60))
    assert np.isnan(share_of(Estimate(0.2, 0.1, 0.3), 0.0)).all()


# ---- the picture -----------------------------------------------------------------------------

@pytest.fixture
def figure():
    """A printed row with two marks, and one of ours with intervals."""
    points = [Point("ASR (%)", "SCU removed", "Llama", PAPER, "before", 3),
              Point("ASR (%)", "SCU removed", "Llama", PAPER, "after", 19),
              Point("ASR (%)", "SCU removed", "ours", OURS, "before", 10, 5, 15),
              Point("ASR (%)", "SCU removed", "ours", OURS, "after", 30, 20, 40)]
    marks = {"before": "before", "after": "some"}
    yield pictures.paper_and_ours(table_of(points), marks, {"ASR (%)": "percent"})
    plt.close("all")


def test_marks_stand_at_their_values_and_only_ours_have_intervals(figure):
    (axis,) = figure.axes
    marks = [line for line in axis.get_lines() if line.get_marker() not in ("None", None)]
    assert [line.get_xdata()[0] for line in marks] == [3, 19, 10, 30]
    blue, orange = (pictures.SOURCES[source][0] for source in (PAPER, OURS))
    assert [line.get_color() for line in marks] == [blue, blue, orange, orange]
    ends = [tuple(line.get_xdata()) for line in axis.get_lines() if len(line.get_xdata()) == 2]
    assert (5, 15) in ends and (20, 40) in ends
    assert (3, 19) in ends                      # a line joins what the paper prints of a model


def test_rows_have_names_in_the_colour_of_whose_they_are(figure):
    (axis,) = figure.axes
    names = {label.get_text(): label for label in axis.get_yticklabels()}
    assert list(names) == ["SCU removed", "Llama", "ours"]
    assert names["SCU removed"].get_fontweight() == "bold"
    assert names["ours"].get_color() == pictures.SOURCES[OURS][0]
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key[2:] == ["before", "after"]


def test_marks_with_intervals_do_not_hide_each_other():
    table = pd.DataFrame([("g", "ours", OURS, mark, 1.0, 0.5, 1.5) for mark in "ab"],
                         columns=["group", "row", "source", "mark", "value", "low", "high"])
    lines = pictures.row_places(table.assign(panel="p"))
    assert lines["height"].tolist() == [1, pictures.WITH_INTERVALS]
    figure = pictures.paper_and_ours(table.assign(panel="p"), {"a": "some", "b": "most"},
                                     {"p": "change"})
    heights = {line.get_ydata()[0] for line in figure.axes[0].get_lines()
               if line.get_marker() in ("D", "^")}
    assert max(heights) - min(heights) == pytest.approx(pictures.SPREAD)
    plt.close(figure)
