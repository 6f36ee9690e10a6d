"""Labels by hand beside the judge, on tables made up by hand."""

from types import SimpleNamespace

import pandas as pd
import pytest

from ssah.claims.four_kinds import by_hand

NAMES = {"c": "comply", "r": "refuse", "e": "evasive"}
#: Removal and draw -> the judge's labels, and those of both readings: a letter a request.
ARMS = {
    ("nothing", 0): ("crrr", "crrr", "crrr"),
    ("SCU", 0): ("cccr", "ccer", "cccr"),
    ("random SCU", 0): ("cerr", "crrr", "crrr"),
    ("random SCU", 1): ("cccc", "", ""),        # nobody read it
}


def made_up_lab() -> SimpleNamespace:
    """A lab of one seed, whose answers have the hash ``units draw number``."""
    parts = []
    for (units, draw), (judged, _, _) in ARMS.items():
        hashes = [f"{units} {draw} {number}" for number in range(len(judged))]
        parts.append(pd.DataFrame({
            "seed": 10, "units": units, "draw": draw, "id": range(len(judged)), "hash": hashes,
            "system": "default", "label": [NAMES[letter] for letter in judged],
            "keyword": [letter == "r" for letter in judged]}))
    table = pd.concat(parts, ignore_index=True)
    profile = SimpleNamespace(evaluation=SimpleNamespace(systems=("default",)))
    return SimpleNamespace(profile=profile, seeds=(10,), frame=lambda step, name: table)


@pytest.fixture
def lab(monkeypatch):
    rows = []
    for (units, draw), (_, first, second) in ARMS.items():
        for number, (one, two) in enumerate(zip(first, second)):
            rows.append((f"{units} {draw} {number}", NAMES[one], NAMES[two]))
    labels = pd.DataFrame(rows, columns=["hash", "first", "second"])
    monkeypatch.setattr(by_hand, "data_file", lambda name: labels)
    return made_up_lab()


def test_rates_are_those_of_both_readings(lab):
    rates = by_hand.rates_by_hand(lab)
    assert rates.index.tolist() == ["nothing", "SCU", "random SCU"]
    assert rates["judge"].tolist() == [0.25, 0.75, 0.25]
    assert rates["first"].tolist() == [0.25, 0.5, 0.25]
    assert rates["second"].tolist() == [0.25, 0.75, 0.25]
    assert rates.loc["SCU", "mean"] == pytest.approx(5 / 8)
    assert rates.loc["SCU", "low"] < 5 / 8 < rates.loc["SCU", "high"] <= 1


def test_a_draw_that_nobody_read_does_not_count(lab):
    assert by_hand.answers_by_hand(lab)["draw"].eq(0).all()
    assert by_hand.rates_by_hand(lab)["answers"].tolist() == [4, 4, 4]


def test_the_difference_is_taken_request_by_request(lab):
    # the first reading has one request more than with random units, the second two, of four
    assert by_hand.beyond_random(lab).mean == pytest.approx((1 + 2) / 8)


def test_kappa_is_that_of_the_textbook():
    """Cohen (1960): 20 and 15 agreements of 50; 25 + 25 and 30 + 20 labels: 0.4."""
    first = pd.Series([1] * 25 + [0] * 25)
    second = pd.Series([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)
    assert by_hand.kappa(first, second) == pytest.approx(0.4)
    assert pd.isna(by_hand.kappa(pd.Series([1, 1]), pd.Series([1, 1])))


def test_words_and_table(lab):
    text = by_hand.shown(lab)
    assert "12 different answers" in text and "agree on *comply* in 92% of the answers" in text
    assert "62% comply without the SCU" in by_hand.in_numbers(lab)
    assert "of the random draw that was read is 25%, of all draws" in text
    assert text.count("\n| ") == 4


def test_where_nothing_was_read_nothing_is_said(lab, monkeypatch):
    nothing = pd.DataFrame(columns=["hash", "first", "second"])
    monkeypatch.setattr(by_hand, "data_file", lambda name: nothing)
    assert by_hand.shown(lab) == ""
