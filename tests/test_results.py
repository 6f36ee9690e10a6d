"""The committed results: whole, current, made by committed code, and what README says."""

import json

import pytest

from ssah.claims import readme
from ssah.inputs import archives
from ssah.claims import code_fingerprint, core, extended
from ssah.lab import Lab, find_step, label
from ssah.claims.profiles import load_profile
from ssah.lab import Store
from ssah.lab.store import RESULTS

DEFAULT = load_profile("default")
STORE = Store(RESULTS / "default")
PLANNED = [n for seed in DEFAULT.seeds for n in core(seed)] + extended(DEFAULT.seeds[0])


def provenance(step: str, slug: str) -> dict:
    return json.loads((STORE.root / step / f"{slug}.json").read_text())["provenance"]


@pytest.mark.parametrize("need", PLANNED, ids=lambda n: label(n.step, n.params))
def test_every_planned_result_is_there_and_current(need):
    """Its key follows from today's config, sources, versions and the content of its inputs; all hashes hold."""
    lab = Lab(DEFAULT, compute=False)
    state, _, why = lab.look(need.step, need.params)
    assert state == "ok", f"{label(need.step, need.params)} is {state}: {why}"


def test_no_result_is_orphaned():
    """Nothing lies in the store that the plan does not reach."""
    lab = Lab(DEFAULT, compute=False)
    for need in PLANNED:
        lab.get(need.step, **need.params)
    assert {label(step, {}) + ("" if slug == "result" else f"({slug})") for step, slug in STORE.slugs()} == set(lab.fresh)


@pytest.mark.parametrize("step, slug", STORE.slugs(), ids=lambda x: x)
def test_code_did_not_change_unnoticed(step, slug):
    """The code behind a result is today's, or the change is recorded as output-neutral (else bump the step's version)."""
    neutral = {(n["code"], n["from"]): n["to"] for n in json.loads((archives.DATA / "output_neutral.json").read_text())}
    then, now = provenance(step, slug)["code"], code_fingerprint(find_step(step))
    for code, digest in then.items():
        seen = digest
        while seen != now.get(code) and (code, seen) in neutral:
            seen = neutral[code, seen]
        assert seen == now.get(code), (f"{code} changed since {step} {slug} was computed ({digest} -> {now.get(code)}): bump the step's version "
                                       "and recompute, or record the change in data/output_neutral.json with its reason")


@pytest.mark.parametrize("step, slug", STORE.slugs(), ids=lambda x: x)
def test_results_come_from_committed_code(step, slug):
    facts = provenance(step, slug)
    assert facts["clean"] and len(facts["commit"]) == 40
    assert facts["profile"] == "default"


def test_results_are_small_and_hold_no_text_of_answers():
    files = [p for p in RESULTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 30e6
    for step, slug in STORE.slugs():
        for name, table in STORE.load(step, slug).tables.items():
            longest = max((table[c].astype(str).str.len().max() for c in table.select_dtypes(include=["object", "string"])), default=0)
            assert longest <= 40, f"{step} {slug} {name} has a text of {longest} characters; commit ids, hashes and labels only"


def test_readme_says_what_the_store_says():
    text = readme.README.read_text()
    assert readme.render(text, readme.sections(Lab(DEFAULT, compute=False))) == text, "run `ssah run` (or `ssah readme`) to bring README up to date"
