"""Verdict rules on made-up facts: each margin can tip the verdict."""

import pytest

from ssah.claims.claim import (CLAIMS, judge_c1, judge_c2, judge_c3, judge_c4, judge_c5, judge_c6,
                               judge_c7)

GOOD = {"keyword: SCU - random SCU": (0.8, 0.7, 0.9), "strict: SCU - random SCU": (0.6, 0.5, 0.7), "keyword: RU - none": (0.0, 0.0, 0.1),
        "strict: RU - none": (0.02, 0.0, 0.05), "accuracy: none - SCU": (0.01, 0.0, 0.02), "share: SCU": (0.013, 0.013, 0.013),
        "perplexity: SCU / none": (1.1, 1.0, 1.2), "perplexity: UCU / none": (30.0, 20.0, 40.0), "perplexity: random UCU / none": (1.3, 1.2, 1.4),
        "perplexity: RU / none": (1.2, 1.1, 1.3), "perplexity: random RU / none": (5.0, 4.0, 6.0)}


def test_all_margins_met_is_reproduced():
    verdict = judge_c2(GOOD)
    assert verdict.verdict == "reproduced" and all(check.holds for check in verdict.checks)


@pytest.mark.parametrize("fact, value, check", [
    ("share: SCU", (0.05, 0.05, 0.05), 0),
    ("keyword: SCU - random SCU", (0.29, 0.2, 0.4), 0),
    ("keyword: SCU - random SCU", (0.4, -0.01, 0.8), 0),
    ("strict: SCU - random SCU", (0.1, 0.0, 0.2), 1),
    ("accuracy: none - SCU", (0.05, 0.01, 0.09), 2),
    ("perplexity: SCU / none", (1.3, 1.2, 1.4), 2),
    ("perplexity: UCU / none", (4.9, 4.0, 6.0), 3),
    ("perplexity: random UCU / none", (31.0, 30.0, 32.0), 3),
    ("strict: RU - none", (0.2, 0.1, 0.3), 4),
    ("strict: RU - none", (-0.2, -0.3, -0.1), 4),
    ("perplexity: RU / none", (1.6, 1.5, 1.7), 4),
    ("perplexity: random RU / none", (1.1, 1.0, 1.2), 4)])
def test_each_margin_can_fail_alone(fact, value, check):
    verdict = judge_c2(GOOD | {fact: value})
    assert [c.holds for c in verdict.checks] == [i != check for i in range(5)]
    assert verdict.verdict == ("partly" if check else "not reproduced")


def test_too_few_checks_is_not_reproduced():
    bad = GOOD | {"strict: SCU - random SCU": (0.0, 0.0, 0.0), "accuracy: none - SCU": (0.5, 0.4, 0.6), "perplexity: UCU / none": (1.0, 1.0, 1.0)}
    assert judge_c2(bad).verdict == "not reproduced"


def test_the_ledger_names_every_claim_once():
    assert [claim.id for claim in CLAIMS] == [f"C{i}" for i in range(1, 9)]


# ---- C1 --------------------------------------------------------------------------------------

LEANS = {f"{role}: {what}": 1.0 for role in ("aligned", "unaligned") for what in ("steps", "steps, unseen", "blocks", "pairs")}


def test_c1_reproduced_by_every_check():
    assert judge_c1(LEANS).verdict == "reproduced"
    assert judge_c1({name: 0.8 for name in LEANS}).verdict == "reproduced"      # the margin itself is enough


@pytest.mark.parametrize("fact", LEANS)
def test_c1_each_share_can_tip_the_verdict(fact):
    verdict = judge_c1(LEANS | {fact: 0.79})
    assert sum(not c.holds for c in verdict.checks) == 1
    assert verdict.verdict == ("not reproduced" if fact.endswith(": steps") else "partly")


# ---- C3 --------------------------------------------------------------------------------------

LEFT = {"left: full": (0.7, 0.6, 0.8), "left: full - halves": (0.3, 0.2, 0.4), "left: full - SCU + all CU": (0.2, 0.1, 0.3),
        "left: random - SCU + all CU": (0.1, 0.05, 0.2), "iou: halves": (0.6, 0.5, 0.7), "iou: chance": (0.01, 0.01, 0.01),
        "ordered": (0.9, 0.7, 1.0)}


def test_c3_reproduced_by_every_check():
    assert judge_c3(LEFT).verdict == "reproduced"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("left: full", (0.49, 0.4, 0.6), 0, "not reproduced"),
    ("left: full - halves", (0.09, 0.05, 0.2), 1, "not reproduced"),
    ("left: full - halves", (0.3, -0.01, 0.6), 1, "not reproduced"),
    ("left: full - SCU + all CU", (0.09, 0.05, 0.2), 2, "partly"),
    ("left: full - SCU + all CU", (0.2, -0.01, 0.4), 2, "partly"),
    ("left: random - SCU + all CU", (0.04, 0.01, 0.1), 3, "partly"),
    ("left: random - SCU + all CU", (0.1, -0.01, 0.2), 3, "partly"),
    ("iou: halves", (0.49, 0.4, 0.6), 4, "partly"),
    ("ordered", (0.79, 0.3, 1.0), 5, "partly")])
def test_c3_each_margin_can_fail_alone(fact, value, check, verdict):
    found = judge_c3(LEFT | {fact: value})
    assert [c.holds for c in found.checks] == [i != check for i in range(6)]
    assert found.verdict == verdict


# ---- C4 --------------------------------------------------------------------------------------

FROZEN = {"full - start": (0.6, 0.5, 0.7), "full - SCU + all CU": (0.5, 0.4, 0.6), "full - SCU + top CU": (0.3, 0.2, 0.4),
          "random - SCU + all CU": (0.3, 0.2, 0.4), "slower - SCU + all CU": (0.3, 0.2, 0.4), "reached: SCU + all CU": (1.0, 1.0, 1.0), "reached: SCU + top CU": (1.0, 1.0, 1.0),
          "unseen": (0.01, 0.0, 0.02)}


def test_c4_reproduced_by_every_check():
    assert judge_c4(FROZEN).verdict == "reproduced"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("full - start", (0.6, -0.1, 0.9), 0, "not reproduced"),
    ("full - SCU + all CU", (0.29, 0.2, 0.4), 1, "not reproduced"),
    ("full - SCU + all CU", (0.5, -0.01, 0.9), 1, "not reproduced"),
    ("full - SCU + top CU", (0.14, 0.1, 0.2), 2, "partly"),
    ("random - SCU + all CU", (0.09, 0.01, 0.2), 3, "partly"),
    ("random - SCU + all CU", (0.3, -0.01, 0.6), 3, "partly"),
    ("slower - SCU + all CU", (0.04, 0.01, 0.1), 4, "partly"),
    ("reached: SCU + all CU", (2 / 3, 0.0, 1.0), 5, "not reproduced"),
    ("reached: SCU + top CU", (2 / 3, 0.0, 1.0), 2, "partly"),
    ("unseen", (0.03, 0.0, 0.05), 5, "not reproduced")])
def test_c4_each_margin_can_fail_alone(fact, value, check, verdict):
    found = judge_c4(FROZEN | {fact: value})
    assert [c.holds for c in found.checks] == [i != check for i in range(6)]
    assert found.verdict == verdict


def test_c4_without_any_harm_there_is_nothing_to_avoid():
    found = judge_c4(FROZEN | {"full - start": (0.0, -0.1, 0.1)})
    assert found.verdict == "not reproduced" and not found.checks[1].holds


# ---- C5, C7 ----------------------------------------------------------------------------------

ADAPTED = {"LoRA - full": (0.1, 0.05, 0.2), "LLaMA-Adapter - full": (0.1, 0.05, 0.2), "LoRA - full, equal epochs": (0.1, 0.05, 0.2),
           "LoRA - SCU + all CU": (0.3, 0.2, 0.4), "random large without SCU - SCU + all CU": (0.3, 0.2, 0.4), "reached: LoRA": (1.0, 1.0, 1.0),
           "reached: LLaMA-Adapter": (1.0, 1.0, 1.0), "trained: LoRA": (0.02, 0.02, 0.02), "trained: LLaMA-Adapter": (0.01, 0.01, 0.01),
           "trained: SCU + all CU": (0.5, 0.5, 0.5), "reached: SCU + all CU": (1.0, 1.0, 1.0), "reached: random large without SCU": (1.0, 1.0, 1.0)}


def test_c5_reproduced_by_every_check():
    assert judge_c5(ADAPTED).verdict == "reproduced"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("LoRA - full", (0.04, 0.01, 0.1), 0, "not reproduced"),
    ("LoRA - full", (0.3, -0.01, 0.6), 0, "not reproduced"),
    ("reached: SCU + all CU", (2 / 3, 0.0, 1.0), (3, 4), "not reproduced"),
    ("reached: random large without SCU", (2 / 3, 0.0, 1.0), 4, "partly"),
    ("reached: LoRA", (2 / 3, 0.0, 1.0), (0, 3), "not reproduced"),
    ("LLaMA-Adapter - full", (0.04, 0.01, 0.1), 1, "partly"),
    ("reached: LLaMA-Adapter", (2 / 3, 0.0, 1.0), 1, "partly"),
    ("LoRA - full, equal epochs", (0.04, 0.01, 0.1), 2, "partly"),
    ("LoRA - SCU + all CU", (0.09, 0.01, 0.2), 3, "not reproduced"),
    ("trained: SCU + all CU", (0.01, 0.01, 0.01), 3, "not reproduced"),
    ("random large without SCU - SCU + all CU", (0.3, -0.01, 0.6), 4, "partly")])
def test_c5_each_margin_can_fail_alone(fact, value, check, verdict):
    found = judge_c5(ADAPTED | {fact: value})
    assert {i for i, c in enumerate(found.checks) if not c.holds} == ({check} if isinstance(check, int) else set(check))
    assert found.verdict == verdict


WEIGHTS = {"SNIP difference - SCU + all CU": (0.3, 0.2, 0.4), "random large without SCU - SCU + all CU": (0.3, 0.2, 0.4), "random weights - SNIP difference": (0.0, -0.09, 0.09),
           **{f"reached: {name}": (1.0, 1.0, 1.0) for name in ("SCU + all CU", "random large without SCU", "SNIP difference", "random weights")}}


def test_c7_reproduced_by_every_check():
    assert judge_c7(WEIGHTS).verdict == "reproduced"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("SNIP difference - SCU + all CU", (0.09, 0.01, 0.2), 0, "not reproduced"),
    ("SNIP difference - SCU + all CU", (0.3, -0.01, 0.6), 0, "not reproduced"),
    ("random large without SCU - SCU + all CU", (0.09, 0.01, 0.2), 1, "not reproduced"),
    ("random weights - SNIP difference", (0.06, 0.01, 0.11), 2, "partly"),
    ("random weights - SNIP difference", (-0.06, -0.11, 0.01), 2, "partly"),
    ("reached: SNIP difference", (2 / 3, 0.0, 1.0), (0, 2), "not reproduced"),
    ("reached: random weights", (2 / 3, 0.0, 1.0), 2, "partly"),
    ("reached: random large without SCU", (2 / 3, 0.0, 1.0), 1, "not reproduced")])
def test_c7_each_margin_can_fail_alone(fact, value, check, verdict):
    found = judge_c7(WEIGHTS | {fact: value})
    assert {i for i, c in enumerate(found.checks) if not c.holds} == ({check} if isinstance(check, int) else set(check))
    assert found.verdict == verdict


# ---- C6 --------------------------------------------------------------------------------------

BUDGET = {"base - RU": (0.5, 0.4, 0.6), "RU - full": (0.0, -0.1, 0.1), "reached: RU": (1.0, 1.0, 1.0), "reached: random": (1.0, 1.0, 1.0), "accuracy: base - RU": (0.0, -0.02, 0.02),
          "perplexity: RU / base": (1.01, 1.0, 1.02), "divergence: RU / full": (0.7, 0.6, 0.8), "divergence: RU / random": (0.7, 0.6, 0.8)}


def test_c6_reproduced_by_every_check():
    assert judge_c6(BUDGET).verdict == "reproduced"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("base - RU", (0.19, 0.1, 0.3), 0, "not reproduced"),
    ("base - RU", (0.5, -0.01, 0.9), 0, "not reproduced"),
    ("RU - full", (0.06, -0.1, 0.2), 1, "partly"),
    ("reached: RU", (2 / 3, 0.0, 1.0), (1, 3, 4), "partly"),
    ("reached: random", (2 / 3, 0.0, 1.0), 4, "partly"),
    ("accuracy: base - RU", (0.02, -0.1, 0.04), 2, "not reproduced"),
    ("perplexity: RU / base", (1.03, 1.0, 1.1), 2, "not reproduced"),
    ("divergence: RU / full", (0.95, 0.9, 0.99), 3, "partly"),
    ("divergence: RU / full", (0.7, 0.5, 1.1), 3, "partly"),
    ("divergence: RU / random", (0.95, 0.9, 0.99), 4, "partly")])
def test_c6_each_margin_can_fail_alone(fact, value, check, verdict):
    found = judge_c6(BUDGET | {fact: value})
    assert {i for i, c in enumerate(found.checks) if not c.holds} == ({check} if isinstance(check, int) else set(check))
    assert found.verdict == verdict
