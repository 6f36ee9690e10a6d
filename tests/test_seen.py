"""What one sees in figures: the sentences say the numbers that the tables have."""

from types import SimpleNamespace

import pandas as pd

from ssah.claims.attribute_transfer import seen as flows_seen
from ssah.claims.four_kinds import seen as kinds_seen
from ssah.claims.reasoning_direction import read as direction_read
from ssah.claims.redundant_units import seen as budget_seen
from ssah.claims.shared.side_by_side import OURS, PAPER, Point, table_of
from ssah.claims.which_units import paper as table_3
from ssah.claims.which_units import seen as methods_seen


def test_the_cut_of_the_judge_is_told_by_the_split_on_which_it_was_not_set():
    losses = pd.DataFrame({"split": ["select", "evaluate", "evaluate", "evaluate", "evaluate"],
                           "corrupted": [False, False, False, True, True],
                           "nll": [9.0, 1.0, 9.0, 8.0, 9.0]})
    judged = SimpleNamespace(tables={"nll": losses}, values={"threshold": 5.0})
    said = kinds_seen.judge_seen(judged)
    assert said.startswith("**What we see.**")
    assert "(5.00 nats a token)" in said
    assert "50% of the answers as they are, and 0% of those with their words shuffled" in said


def test_the_scan_says_where_no_share_meets_its_rule():
    table = pd.DataFrame({"label": ["none", "SCU", "SCU", "RU"],
                          "share": [0.0, 0.01, 0.02, 0.05],
                          "refusing": [1.0, 0.5, 0.1, 0.4],
                          "perplexity": [9.0, 9.1, 9.2, 12.0],
                          "chosen": [False, False, True, True],
                          "meets_rule": [False, False, True, False]})
    said = kinds_seen.scan_seen(table)
    assert "from 100% refusals and a perplexity of 9.0" in said
    assert "without the SCU (2.00%) 10% and 9.2; " in said
    assert said.endswith("without the RU (5.00%) 40% and 12.0, where no share meets the rule.")


def test_the_map_counts_blocks_from_one():
    units = pd.DataFrame({"block": [0, 0, 1, 1], "kind": ["attn", "mlp", "mlp", "mlp"],
                          "label": ["UCU", "RU", "SCU", "RU"]})
    said = kinds_seen.map_seen(units)
    assert "MLP units are 75% of all units, and 100% of the SCU, 0% of the UCU, 100% of" in said
    assert "SCU block 2 (50.0% of its units), UCU block 1 (50.0% of its units)" in said


def test_a_toy_flow_in_words():
    counts = pd.DataFrame({"SCU": [1, 0], "CU": [2, 4]}, index=["SCU", "CU"])
    assert "2 of the 3 SCU before became CU" in flows_seen.toy_seen(counts)


def test_blocks_are_clear_where_the_interval_lies_on_the_claimed_side():
    table = pd.DataFrame({"role": ["aligned"] * 3, "block": [1, 2, 3],
                          "low": [0.1, -0.1, -0.3], "high": [0.3, 0.3, -0.1],
                          "right": [True, True, False]})
    said = direction_read.size_summary({"AdvBench": table})
    assert said.startswith("**What we see.** Of 3 blocks")
    assert "AdvBench, aligned 2 (1)." in said


def test_table_four_in_words():
    rows = pd.DataFrame({"ASR": [0.94, 0.07, 0.08, 0.05], "accuracy": [0.3, 0.4, 0.38, 0.36],
                         "divergence": [0.0, 0.49, 0.41, 0.42]},
                        index=["start", "full", "RU", "random"])
    said = budget_seen.table_seen(rows)
    assert "falls from 94% to 7% with everything trained, 8% with RU and 5% with as many" in said
    assert "between 30% and 40%" in said and "0.49, 0.41 and 0.42 nats" in said


def test_methods_stand_by_how_much_of_the_model_trains():
    rows = pd.DataFrame({"trained": [float("nan"), 1.0, 0.018], "ASR": [0.1, 0.8, 0.7],
                         "strict ASR": [0.0, 0.5, 0.4]}, index=["start", "full", "LoRA"])
    said = methods_seen.few_seen(rows)
    assert said.endswith("1.8% 70% (40%; LoRA (every weight of the maps moves)), 100.0% 80% (50%; nothing "
                         "frozen).")


def test_table_three_beside_the_paper_in_words():
    points = table_3.printed_points("LoRA", "LoRA")
    points += table_3.printed_points(table_3.FROZEN, table_3.FROZEN)
    for heading in ("LoRA", table_3.FROZEN, table_3.RANDOM):
        for judge, _, _ in table_3.JUDGES:
            points.append(Point(table_3.BEYOND, heading, judge, OURS, table_3.METHOD, -15, -23, -8))
    said = table_3.beside_paper_summary(table_of(points))
    # printed: (25.2 - 16.1) / 99.7 and (27.2 - 18.78) / 99.7
    assert "LoRA loses +8 to +9 % beyond full fine-tuning in the paper" in said
    assert "in ours -15 % [-23, -8] (keywords), -15 % [-23, -8] (strict judge)." in said
    assert {point.source for point in points} == {PAPER, OURS}
