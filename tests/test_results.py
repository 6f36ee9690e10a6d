"""The committed results: whole, current, made by committed code, and what README and figures say."""

import json
import re

import pytest

from ssah.claims import PLACE, RESULTS, lab_of, plan, readme
from ssah.claims.profiles import load_profile
from ssah.lab import Store, code, find_step

pytestmark = pytest.mark.slow

DEFAULT = load_profile("default")
STORE = Store(RESULTS / "default")
PLANNED = plan(DEFAULT)


@pytest.fixture(scope="module")
def lab():
    return lab_of(DEFAULT, compute=False)


def provenance(step: str, slug: str) -> dict:
    return json.loads((STORE.root / step / f"{slug}.json").read_text())["provenance"]


@pytest.mark.parametrize("need", PLANNED, ids=lambda need: need.label)
def test_every_planned_result_is_there_and_current(lab, need):
    """Its key follows from today's config, sources, versions and inputs; all hashes hold; its code is known."""
    state, _, why = lab.look(need.step, need.params)
    assert state == "ok", f"{need.label} is {state}: {why}"


def test_no_result_is_orphaned():
    """Nothing lies in the store that the plan does not reach."""
    stored = {step if slug == "result" else f"{step}({slug})" for step, slug in STORE.slugs()}
    assert stored == {need.label for need in PLANNED}


def test_code_did_not_change_unnoticed():
    """The code behind a result is today's, or the change was run and accepted (else bump the step's version)."""
    accepted = json.loads(PLACE.accepted.read_text())
    for step, slug in STORE.slugs():
        now, then = code.fingerprint(find_step(step).run), code.recorded(provenance(step, slug))
        assert code.is_known(now, then, accepted.get(step)), \
            f"the code behind {step} changed: `ssah accept {step} --reason ...`, or bump its version and recompute"


def test_a_line_of_accepted_changes_says_what_it_was_compared_with():
    for step, line in json.loads(PLACE.accepted.read_text()).items():
        find_step(step)
        assert set(line) - {"largest_difference"} == {"code", "covers", "before", "reason"}
        assert 0 <= line.get("largest_difference", 0) < 1e-4
        assert re.fullmatch("[0-9a-f]{40}", line["before"]) and len(line["reason"]) > 10


@pytest.mark.parametrize("step, slug", STORE.slugs(), ids=lambda x: x)
def test_results_come_from_committed_code(step, slug):
    facts = provenance(step, slug)
    assert facts["clean"] and len(facts["commit"]) == 40
    assert facts["profile"] == "default"


def test_results_are_small_and_hold_no_text_of_answers():
    files = [p for p in RESULTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 40e6
    for step, slug in STORE.slugs():
        for name, table in STORE.load(step, slug).tables.items():
            texts = table.select_dtypes(include=["object", "string"])
            longest = max((texts[column].astype(str).str.len().max() for column in texts), default=0)
            assert longest <= 40, f"{step} {slug} {name} has a text of {longest} characters; commit ids, hashes and labels only"


def test_every_table_and_every_number_can_be_had_in_one_line(lab):
    """`frame` and `facts` of every planned step have a row a run, or more, and its parameters as columns."""
    for step in dict.fromkeys(need.step for need in PLANNED):
        runs = lab.planned(step)
        results = [lab.get(need.step, **need.params) for need in runs]
        assert len(lab.facts(step)) == len(runs)
        for table in {name for result in results for name in result.tables}:
            frame = lab.frame(step, table)
            assert set(runs[0].params) <= set(frame.columns)
            assert len(frame) == sum(len(result.tables[table]) for result in results if table in result.tables)


def test_readme_and_its_pages_say_what_the_store_says(lab):
    pages = {page: page.read_text("utf-8") for page in readme.PAGES}
    assert readme.render(pages, readme.sections(lab)) == pages, "run `ssah readme` to bring them up to date"
