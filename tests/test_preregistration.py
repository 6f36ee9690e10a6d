"""Rules and profiles are those that were registered before the second bench ran."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssah.claims import lab_of, planning, preregistration, rules
from ssah.claims.profiles import BENCH


@pytest.fixture(scope="module")
def registered() -> dict:
    return preregistration.read()


@pytest.mark.parametrize("part", ["rows", "gates", "excluded"])
def test_what_was_fixed_is_what_runs(registered, part):
    assert registered[part] == preregistration.fixed()[part]


def test_profiles_are_those_that_were_fixed(registered):
    """In every section that there was then; one for a claim that was built later may be new."""
    today = preregistration.fixed()["profiles"]
    assert set(today) == set(registered["profiles"])
    for name, sections in registered["profiles"].items():
        assert {section: today[name][section] for section in sections} == sections


def test_a_moved_margin_would_be_seen(registered, monkeypatch):
    monkeypatch.setattr(rules.gates, "PLACEBO_MOST", 0.2)
    assert registered["gates"] != preregistration.fixed()["gates"]


@pytest.mark.parametrize("name", BENCH)
def test_results_stand_on_the_registered_prompts(registered, name):
    lab = lab_of(BENCH[name], compute=False)
    state, _, _ = lab.look("splits", {})
    if state != "missing":
        assert preregistration.prompt_ids(lab) == registered["prompts"][name]
    harmful = registered["prompts"][name]
    assert not set(harmful["harmful select"]) & set(harmful["harmful evaluate"])
    assert len(harmful["harmful select"]) >= rules.GATE_PROMPTS


def test_no_row_can_only_end_in_cannot_tell(registered):
    """In every row some truth leads to another first word in half of the cases or more."""
    for row_id in planning.PLANS:
        told = [entry["probability"] for entry in registered["probabilities"]
                if entry["row"] == row_id and entry["question"] == "first"
                and entry["word"] != rules.CANNOT_TELL]
        assert max(told) >= 0.5, row_id


@pytest.mark.parametrize("row_id, word, told", [
    ("C2-SCU", rules.CANNOT_TELL, ["C2-SCU"]),      # unlikely, whatever the truth
    ("C2-SCU", rules.REPRODUCED, []),
    ("C8", rules.CANNOT_TELL, [])])                 # likely, where there is nothing
def test_what_was_unlikely_is_said_afterwards(row_id, word, told):
    spoken = {row_id: SimpleNamespace(first=rules.Answer(word))}
    assert preregistration.unlikely(spoken) == told
    assert bool(preregistration.looked_back(spoken)) == bool(told)


def test_probabilities_come_from_the_rules(registered):
    """One row simulated again, with other random numbers."""
    row = rules.ROWS["C4"]
    plan = planning.PLANS["C4"]
    effect, contrast = planning.truths(row, plan)["nothing"]
    table = rules.probability_of_words(
        row, effect, contrast, n_seeds=plan.seeds, n_prompts=plan.prompts, spread=plan.spread,
        contrast_spread=plan.contrast_spread, rng=np.random.default_rng(7), draws=200)
    found = table.set_index(["question", "word"])["probability"]
    for entry in registered["probabilities"]:
        if (entry["row"], entry["truth"]) == ("C4", "nothing"):
            # 200 and 400 draws: a standard deviation of at most 0.044
            assert found[entry["question"], entry["word"]] == pytest.approx(
                entry["probability"], abs=0.2)
