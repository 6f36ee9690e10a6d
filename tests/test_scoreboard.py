"""The scoreboard and README, from claims made up by hand and from the real ones."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from ssah.claims import CLAIMS, claim, lab_of, load_profile, plan, readme, questions, scoreboard
from ssah.claims.claim import (Check, Claim, Deviation, Verdict, above, all_reached, clear,
                               conclude, points, times)
from ssah.errors import SsahError
from ssah.inputs.archives import REPOSITORY
from ssah.lab import STEPS, find_step
from ssah.lab.statistics import Estimate

LAB = SimpleNamespace(seeds=(0, 1, 2), profile=SimpleNamespace(seeds=(0, 1, 2)), require=lambda needs: None,
                      once=lambda form, **options: form(LAB, **options))


def made_up(**changed) -> Claim:
    """A claim whose one check holds; its fact is the rate that it was asked for."""
    def rule(facts):
        turns = Check("turns?", facts["rate"], facts["rate"] == "keyword_asr")
        return Verdict("C1", "partly met", (Check("is it?", "half", True), turns))

    return Claim(**{**dict(
        id="C1", text="it is", where="Fig. 1", paper="1 %", notebook="01_notebook",
        facts=lambda lab, rate="keyword_asr": {"rate": rate}, rule=rule, by_rate=True,
        least_seeds=3, ours=lambda lab, facts: f"ours {facts['rate']}", step="probe",
        figures={"01_figure": ("probe",)},
        deviations=lambda lab: [Deviation("Model", "large", "small", "a laptop", "not measured")]),
        **changed})


@pytest.fixture
def two_claims(monkeypatch):
    """A claim with a notebook and one without, in place of the real ones."""
    claims = (made_up(), Claim("C9", "it is not", "Fig. 2", "2 %"))
    monkeypatch.setattr(scoreboard, "CLAIMS", claims)
    monkeypatch.setattr(scoreboard, "TESTED", claims[:1])
    return claims


def test_the_ledger_has_a_row_a_claim_with_links_and_origin(two_claims):
    head, _, first, second = scoreboard.ledger(LAB, "notebooks/", "figures/").splitlines()
    assert head.count("|") == first.count("|") == second.count("|")
    assert ("partly met: 2 of 2 checks hold | ours keyword_asr, 3 seeds | 1 % | Fig. 1 | recomputed | "
            "[01](notebooks/01_notebook.ipynb), [figure](figures/01_figure.png) | `ssah recompute probe`") in first
    assert "not tested | – | 2 % | Fig. 2 | paper-reported |" in second


def test_too_few_seeds_are_no_test(two_claims):
    one_seed = SimpleNamespace(**{**vars(LAB), "seeds": (0,)})
    assert "not tested: 2 of 2 checks hold | ours keyword_asr, 1 seed" in scoreboard.ledger(one_seed)


def test_checks_have_a_row_each(two_claims):
    lines = scoreboard.checks(LAB).splitlines()
    assert lines[2:] == ["| C1 | yes | is it? | half |", "| C1 | yes | turns? | keyword_asr |"]


def test_strict_asr_may_turn_checks(two_claims):
    """Only the check that differs has a row, and the verdict is named."""
    lines = scoreboard.by_strict(LAB).splitlines()
    assert lines[2:] == ["| C1 | turns? | yes: keyword_asr | no: strict_asr |", "",
                         "Conditions by strict ASR: C1 partly met."]


def test_deviations_are_those_of_the_claims(two_claims):
    assert scoreboard.deviations(LAB).splitlines()[2:] == [
        "| **Model** | large | small | a laptop | not measured |"]


def test_every_figure_is_traced_to_commands_that_are_there():
    """Each figure of the repository belongs to a claim, and each step that it names exists."""
    traces = scoreboard.traces()
    assert "not listed" not in traces
    pictures = {path.stem for path in (REPOSITORY / "figures").glob("*.png")}
    listed = [name for one in CLAIMS for name in one.figures]
    assert len(listed) == len(set(listed)) and set(listed) <= pictures
    assert pictures - set(listed) == {"00_toy_units", *questions.FIGURES}
    for one in CLAIMS:
        for steps in one.figures.values():
            assert set(steps) <= set(STEPS)


def test_a_claim_that_the_first_bench_did_not_test_links_its_notebook_all_the_same(monkeypatch):
    monkeypatch.setattr(scoreboard, "CLAIMS", (claim("C8"),))
    _, _, row = scoreboard.ledger(LAB, "notebooks/", "figures/").splitlines()
    assert "not tested | – | no number" in row
    assert "[07](notebooks/07_every_step.ipynb), [figure](figures/07_after_prefill.png)" in row


@pytest.mark.parametrize("one", [one for one in CLAIMS if one.rule], ids=lambda one: one.id)
def test_a_claim_with_a_rule_has_all_that_the_ledger_asks_for(one):
    assert (REPOSITORY / "notebooks" / f"{one.notebook}.ipynb").exists()
    assert one.facts and one.rule and one.ours and one.figures and one.parts
    find_step(one.step)
    assert one.core(0) and all(need.step in STEPS for need in one.core(0) + one.extended(0))


def test_the_plan_has_what_every_claim_needs():
    planned = {need.label for need in plan(load_profile("default"))}
    for one in CLAIMS:
        for seed in (0, 1, 2):
            assert {need.label for need in one.core(seed)} <= planned
        assert {need.label for need in one.extended(0)} <= planned


def test_claims_are_found_by_their_id():
    assert [one.id for one in CLAIMS] == [f"C{number}" for number in range(1, 9)]
    assert claim("C4") is CLAIMS[3]
    with pytest.raises(SsahError, match="unknown claim 'C12'; known: C1, "):
        claim("C12")


def test_a_claim_requires_its_runs_of_the_labs_seeds():
    asked = []
    lab = SimpleNamespace(seeds=(0, 2), profile=SimpleNamespace(seeds=(0, 1, 2)), require=asked.extend)
    made_up(core=lambda seed: [("core", seed)], extended=lambda seed: [("extended", seed)]).require(lab)
    assert asked == [("core", 0), ("core", 2), ("extended", 0)]


# ---- parts of rules --------------------------------------------------------------------------

FACTS = {"a - b": Estimate(0.123, 0.05, 0.2), "wide": Estimate(0.4, -0.01, 0.8), "ratio": Estimate(0.84, 0.73, 0.94),
         "reached: a": Estimate(1, 1, 1), "reached: b": Estimate(0.67, 0, 1)}


def test_differences_and_ratios_as_text():
    assert points(FACTS, "a - b") == "12.3 points [5.0, 20.0]"
    assert times(FACTS, "ratio") == "0.84 x [0.73, 0.94]"


@pytest.mark.parametrize("name, margin, expected", [("a - b", 0.12, True), ("a - b", 0.13, False), ("wide", 0.1, False)])
def test_clear_is_the_margin_and_a_whole_interval_above_zero(name, margin, expected):
    assert clear(FACTS, name, margin) == expected


def test_what_is_compared_must_have_come_to_the_loss():
    assert all_reached(FACTS, "a") and not all_reached(FACTS, "a", "b")
    assert not above("is it?", FACTS, "a", "b", 0.1).holds
    assert above("is it?", FACTS | {"reached: b": Estimate(1, 1, 1)}, "a", "b", 0.1).holds


@pytest.mark.parametrize("holds, partly, verdict", [((True, True), False, "met"), ((True, False), True, "partly met"),
                                                    ((True, False), False, "not met")])
def test_a_verdict_follows_from_its_checks(holds, partly, verdict):
    checks = tuple(Check("?", "", one) for one in holds)
    assert conclude("C1", checks, partly) == Verdict("C1", verdict, checks)


# ---- README ----------------------------------------------------------------------------------

def test_readme_sections_are_replaced_and_nothing_else():
    pages = {"one": "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n", "two": "text\n"}
    rendered = readme.render(pages, {"a": r"new \1"})
    assert rendered == {"one": "before\n<!-- a -->\nnew \\1\n<!-- /a -->\nafter\n", "two": "text\n"}
    for name, elsewhere in (("b", "text\n"), ("a", pages["one"])):     # nowhere, and in two pages
        with pytest.raises(SsahError, match=f"<!-- {name} -->"):
            readme.render({**pages, "two": elsewhere}, {name: "new"})


def test_readme_names_every_folder_of_the_package():
    """The tree in README has a line for each folder, and none that is not there."""
    tree = readme.README.read_text().split("## How it is laid out")[1].split("```")[1]
    folders = {path.parent.name for path in (REPOSITORY / "ssah").glob("*/__init__.py")}
    assert {"inputs", "lab", "claims", "cli"} < folders
    for folder in (*folders, "shared"):
        assert f" {folder}/ " in tree, folder
    for path in (REPOSITORY / "ssah").glob("*.py"):
        assert path.stem in tree or path.stem == "__init__", path.stem


def test_a_lab_of_the_real_claims_reads_the_committed_results():
    lab = lab_of(replace(load_profile("default")), compute=False)
    verdict = claim("C4").verdict(lab)
    assert verdict.claim == "C4" and len(verdict.checks) == 6


def test_two_ledgers_stand_side_by_side(two_claims):
    """One of them has no results yet: its cell names the command."""
    from ssah.errors import SsahError as Missing

    def require(needs):
        raise Missing("not in the store")

    def lab(label, **changed):
        model = SimpleNamespace(label=label)
        return SimpleNamespace(**{**vars(LAB), **changed, "profile": SimpleNamespace(
            seeds=(0, 1, 2), model=model, option=" --profile model:x")})

    head, _, first, second = scoreboard.comparison(lab("ours"), lab("theirs", require=require)).splitlines()
    assert head == "|  | claim | ours | theirs | the paper's number |"
    assert "| partly met: ours keyword_asr, 3 seeds | not computed (`ssah run 01 --recompute --profile model:x`) | 1 % |" in first
    assert second.count("not tested") == 2
