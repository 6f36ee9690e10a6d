"""Adapters and single weights beside frozen units: the same start, the same target, as many.

And how their tables are read: on runs that are made by hand, and each margin of both rules by
itself.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hand_made_runs import HandMadeRuns, passed, run_of_hundred

from ssah.claims import rules
from ssah.claims.profiles.claim_sections import MilderSection
from ssah.claims.shared import runs as comparison
from ssah.claims.shared.conditions import FREEZING, UNIT_SHARES, WEIGHT_SHARES, find, names
from ssah.claims.shared.tuning import ADAPTERS
from ssah.claims.which_units import C5, C7, decide, read, run
from ssah.claims.which_units.read import judge_c5, judge_c7
from ssah.claims.which_units.run import REGIONS
from ssah.errors import NotStored, SsahError
from ssah.lab import Result
from ssah.lab.statistics import Estimate
from ssah.units import UnitIndex

# ---- the runs of the smoke profile -----------------------------------------------------------

@pytest.fixture
def lab(smoke_lab):
    """What one test has computed the next one finds."""
    return smoke_lab


@pytest.fixture
def runs(lab):
    """Every method and region -> its result."""
    adapters = {method: lab.get("adapter_tuning", seed=0, method=method) for method in ADAPTERS}
    weights = {region: lab.get("weight_tuning", seed=0, region=region) for region in REGIONS}
    return adapters | weights


@pytest.fixture
def full(lab):
    return lab.get("tuning", seed=0, condition="full")


def test_all_start_from_the_aligned_model(runs, full):
    first = full.tables["checkpoints"].iloc[0]
    for name, result in runs.items():
        losses = result.tables["checkpoints"]["probe_loss"]
        start = result.tables["checkpoints"].iloc[0]
        assert start["probe_loss"] == pytest.approx(first["probe_loss"], rel=1e-5), name
        assert start["log_odds"] == pytest.approx(first["log_odds"], rel=1e-4), name
        assert losses.iloc[-1] < losses.iloc[0], name


def test_all_are_compared_at_the_full_runs_loss(runs, full):
    target = full.values["probe_loss"]
    for name, result in runs.items():
        checkpoints = result.tables["checkpoints"]
        below = checkpoints[checkpoints["probe_loss"] <= target]
        assert result.values["reached"] == bool(len(below)), name
        if len(below):
            assert result.values["equal loss: epoch"] == below["epoch"].iloc[0], name


@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_are_measured_at_equal_epochs_too(lab, runs, full, method):
    result = runs[method]
    assert "equal epochs" in set(result.tables["answers"]["at"])
    assert result.values["equal epochs: epoch"] == lab.profile.freezing.epochs
    assert result.values["moved_bytes"] < full.values["moved_bytes"] / 5


def test_as_many_weights_as_the_units_have(lab, runs, full):
    units = lab.get("tuning", seed=0, condition="SCU + all CU")
    # float32; shared v rows that stay because one of their columns does are counted
    n = (full.values["moved_bytes"] - units.values["moved_bytes"]) / 4
    for region in REGIONS:
        assert runs[region].values["weights"] == pytest.approx(n, abs=14)   # rounded in 14 matrices
    scored, random = (runs[region].tables["answers"]["log_odds"].tolist() for region in REGIONS)
    assert scored != random


def frozen_weights(index: UnitIndex, mask) -> dict[str, int]:
    """Weights of every matrix that stay with some units frozen, unit by unit."""
    group = index.n_heads // index.n_kv_heads
    stay = {}
    for block, kind, channel in index.table[mask].itertuples(index=False):
        if kind == "mlp":
            vectors = [("mlp.gate_proj", channel), ("mlp.up_proj", channel),
                       ("mlp.down_proj", channel)]
        else:
            head = channel // index.head_dim
            # heads that share a value row; it stays if one of them needs it
            row = head // group * index.head_dim + channel % index.head_dim
            vectors = [("self_attn.o_proj", channel), ("self_attn.v_proj", row)]
        for name, number in vectors:
            stay.setdefault(f"model.layers.{block}.{name}.weight", set()).add(number)
    return {name: len(numbers) * index.hidden for name, numbers in stay.items()}


@pytest.mark.parametrize("of_units, of_weights",
                         list(zip(names(UNIT_SHARES), names(WEIGHT_SHARES))))
def test_as_many_weights_of_every_matrix_as_random_units_have(
        lab, chat, monkeypatch, of_units, of_weights):
    given = {}

    def tune(context, chat, examples, condition, **options):
        given.update(options, rate=condition.rate(context.profile))
        return Result({})

    def get(step, **params):
        if step == "milder_tuning":     # this profile has one dose alone
            assert params == {"seed": 0, "condition": "full"}
            return Result({"probe_loss": 0.75})
        return lab.get(step, **params)

    monkeypatch.setattr(run, "tune", tune)
    profile = replace(lab.profile, milder=MilderSection(lr=0.125))
    context = SimpleNamespace(profile=profile, get=get,
                              artifact=lambda name, **params: lab.artifact(name, params))
    result = run.milder_weight_tuning(context, 0, of_weights)
    index = UnitIndex.of(chat)
    units = find(FREEZING, of_units).frozen(SimpleNamespace(index=index), None, 0)
    expected = frozen_weights(index, units)
    masks = given["frozen"]
    assert {name: int(mask.sum()) for name, mask in masks.items()} == expected
    assert result.values["weights"] == sum(expected.values())
    assert given["target"] == 0.75 and given["rate"] == 0.125
    # single weights: no column of a matrix stays whole where a fourth of its weights do
    columns = masks["model.layers.0.mlp.down_proj.weight"].float().mean(dim=0)
    assert 0 < columns.min() and columns.max() < 1


@pytest.mark.parametrize("step, params, message", [
    ("adapter_tuning", {"method": "prefix"},
     "unknown method 'prefix'; known: LoRA, LLaMA-Adapter"),
    ("weight_tuning", {"region": "top"},
     "unknown region 'top'; known: SNIP difference, random weights"),
    ("milder_weight_tuning", {"region": "random weights"},
     "unknown region 'random weights'; known: random weights 25 %, random weights 70 %"),
])
def test_what_is_unknown_is_refused(lab, step, params, message):
    with pytest.raises(SsahError, match=message):
        lab.get(step, seed=0, **params)


# ---- tables of runs made by hand -------------------------------------------------------------

def test_c5_facts_by_hand():
    """Of four requests 1 is refused after full fine-tuning, 0 after LoRA, 2 with LLaMA-Adapter.

    At equal epochs LoRA refuses 3.
    """
    facts = read.c5_facts(HandMadeRuns())
    means = {name: round(fact.mean, 6) for name, fact in facts.items()}
    assert means == {
        "LoRA - full": 0.25,
        "LLaMA-Adapter - full": -0.25,
        "LoRA - full, equal epochs": -0.5,
        "LoRA - SCU + all CU": 1.0,
        "random large without SCU - SCU + all CU": 0.5,
        "reached: SCU + all CU": 1.0,
        "reached: random large without SCU": 1.0,
        "reached: LoRA": 1.0,
        "reached: LLaMA-Adapter": 0.0,
        "trained: LoRA": 0.02,
        "trained: LLaMA-Adapter": 0.25,
        "trained: SCU + all CU": 0.25}


def test_frozen_weights_count_as_frozen():
    table = comparison.table_two(read.weights(HandMadeRuns()))
    assert table.loc["SNIP difference", "trained"] == 0.25      # 75 of 100 float32 weights stay
    assert list(table.index) == ["start", "full", "random large without SCU", "SCU + all CU",
                                 "random large", "SNIP difference", "random weights"]


def test_c7_facts_by_hand():
    facts = read.c7_facts(HandMadeRuns())
    assert facts["SNIP difference - SCU + all CU"].mean == 0.5
    assert facts["random large without SCU - SCU + all CU"].mean == 0.5
    assert facts["random weights - SNIP difference"].mean == 0.0
    reached = {name: fact.mean for name, fact in facts.items() if name.startswith("reached")}
    assert reached == {f"reached: {name}": 1.0 for name in (*comparison.WHICH_UNITS, *REGIONS)}


def test_at_equal_epochs_full_fine_tuning_stands_at_its_end():
    table = comparison.table_two(read.early(read.adapters(HandMadeRuns())), "equal epochs")
    assert table["ASR"].to_dict() == {
        "start": 0.0, "full": 0.75, "LoRA": 0.25, "LLaMA-Adapter": 0.0}
    assert table["epoch"].to_dict() == {"start": 0, "full": 4, "LoRA": 2, "LLaMA-Adapter": 2}


def test_contrasts_are_paired_differences():
    table = comparison.contrasts(read.adapters(HandMadeRuns()), read.C5_CONTRASTS)
    lora = table.loc["LoRA (every weight of the maps moves)"]
    assert lora.loc["SCU + all CU", "keyword ASR, points"].startswith("+100.0")
    assert lora.loc["nothing frozen", "log-odds"].startswith("-0.5")


def test_adapters_hold_none_of_the_models_parameters():
    """What adapters train is none of the model's, so the share that stays is not theirs."""
    table = comparison.shown_table_two(comparison.table_two(read.adapters(HandMadeRuns())))
    stay = table["parameters %"]
    assert stay["LoRA (every weight of the maps moves)"] == stay["before fine-tuning"] == "–"
    assert stay["SCU + all CU"] == "75.0" and stay["nothing frozen"] == "0.0"


def test_the_summaries_say_these_numbers():
    lab = HandMadeRuns()
    text = read.adapter_summary(lab, C5.verdict(lab))
    assert "nothing frozen 75% (strict 75%, trained 100.0%); " \
        "LoRA 100% (strict 100%, trained 2.0%); " \
        "LLaMA-Adapter 50% (strict 50%, trained 25.0%); SCU + all CU frozen 0%" in text
    assert "LoRA minus nothing frozen is -50.0 points" in text
    assert text.endswith("LLaMA-Adapter (no weight moves) (in no seed).")
    assert len(text.splitlines()) == 1
    text = read.weight_summary(lab, C7.verdict(lab))
    assert "units (SCU + all CU) 0% (strict 0%), random units 50% (strict 50%); " \
        "single weights by SNIP 50% (strict 50%), random weights 50% (strict 50%)." in text
    assert len(text.splitlines()) == 1


def test_deviations_say_what_would_change():
    adapters, _ = read.deviations(HandMadeRuns())
    assert adapters.otherwise == ("keyword ASR with LoRA: 100% at equal loss, 25% after the epochs "
                                  "of full fine-tuning")


# ---- the rule of C5 --------------------------------------------------------------------------

CERTAIN = Estimate(1.0, 1.0, 1.0)
ADAPTED = {
    "LoRA - full": Estimate(0.1, 0.05, 0.2),
    "LLaMA-Adapter - full": Estimate(0.1, 0.05, 0.2),
    "LoRA - full, equal epochs": Estimate(0.1, 0.05, 0.2),
    "LoRA - SCU + all CU": Estimate(0.3, 0.2, 0.4),
    "random large without SCU - SCU + all CU": Estimate(0.3, 0.2, 0.4),
    "reached: LoRA": CERTAIN,
    "reached: LLaMA-Adapter": CERTAIN,
    "reached: SCU + all CU": CERTAIN,
    "reached: random large without SCU": CERTAIN,
    "trained: LoRA": Estimate(0.02, 0.02, 0.02),
    "trained: LLaMA-Adapter": Estimate(0.01, 0.01, 0.01),
    "trained: SCU + all CU": Estimate(0.5, 0.5, 0.5)}


def failed(verdict) -> set[int]:
    return {number for number, check in enumerate(verdict.checks) if not check.holds}


def test_c5_reproduced_by_every_check():
    assert judge_c5(ADAPTED).verdict == "met"


@pytest.mark.parametrize("fact, value, checks, verdict", [
    ("LoRA - full", (0.04, 0.01, 0.1), {0}, "not met"),
    ("LoRA - full", (0.3, -0.01, 0.6), {0}, "not met"),
    ("reached: SCU + all CU", (2 / 3, 0.0, 1.0), {3, 4}, "not met"),
    ("reached: random large without SCU", (2 / 3, 0.0, 1.0), {4}, "partly met"),
    ("reached: LoRA", (2 / 3, 0.0, 1.0), {0, 3}, "not met"),
    ("LLaMA-Adapter - full", (0.04, 0.01, 0.1), {1}, "partly met"),
    ("reached: LLaMA-Adapter", (2 / 3, 0.0, 1.0), {1}, "partly met"),
    ("LoRA - full, equal epochs", (0.04, 0.01, 0.1), {2}, "partly met"),
    ("LoRA - SCU + all CU", (0.09, 0.01, 0.2), {3}, "not met"),
    ("trained: SCU + all CU", (0.01, 0.01, 0.01), {3}, "not met"),
    ("random large without SCU - SCU + all CU", (0.3, -0.01, 0.6), {4}, "partly met")])
def test_c5_each_margin_can_fail_alone(fact, value, checks, verdict):
    found = judge_c5(ADAPTED | {fact: Estimate(*value)})
    assert failed(found) == checks
    assert found.verdict == verdict


# ---- the rule of C7 --------------------------------------------------------------------------

WEIGHTS = {
    "SNIP difference - SCU + all CU": Estimate(0.3, 0.2, 0.4),
    "random large without SCU - SCU + all CU": Estimate(0.3, 0.2, 0.4),
    "random weights - SNIP difference": Estimate(0.0, -0.09, 0.09),
    "reached: SCU + all CU": CERTAIN,
    "reached: random large without SCU": CERTAIN,
    "reached: SNIP difference": CERTAIN,
    "reached: random weights": CERTAIN}


def test_c7_reproduced_by_every_check():
    assert judge_c7(WEIGHTS).verdict == "met"


@pytest.mark.parametrize("fact, value, checks, verdict", [
    ("SNIP difference - SCU + all CU", (0.09, 0.01, 0.2), {0}, "not met"),
    ("SNIP difference - SCU + all CU", (0.3, -0.01, 0.6), {0}, "not met"),
    ("random large without SCU - SCU + all CU", (0.09, 0.01, 0.2), {1}, "not met"),
    ("random weights - SNIP difference", (0.06, 0.01, 0.11), {2}, "partly met"),
    ("random weights - SNIP difference", (-0.06, -0.11, 0.01), {2}, "partly met"),
    ("reached: SNIP difference", (2 / 3, 0.0, 1.0), {0, 2}, "not met"),
    ("reached: random weights", (2 / 3, 0.0, 1.0), {2}, "partly met"),
    ("reached: random large without SCU", (2 / 3, 0.0, 1.0), {1}, "not met")])
def test_c7_each_margin_can_fail_alone(fact, value, checks, verdict):
    found = judge_c7(WEIGHTS | {fact: Estimate(*value)})
    assert failed(found) == checks
    assert found.verdict == verdict


# ---- the word on C7 --------------------------------------------------------------------------

class Weighed:
    """Stands in for a Lab: refusal log-odds of the arms, and what full fine-tuning does."""

    profile = SimpleNamespace(model=SimpleNamespace(aligned=""), further_tunings=())
    seeds = (10, 11, 12)

    def __init__(self, units=(2.0, 3.0), weights=(1.0, 1.6), missed="", lacking=()):
        self.lacking = lacking      # steps and seeds that were not run
        self.log_odds = dict(zip(names((*UNIT_SHARES, *WEIGHT_SHARES)), (*units, *weights)))
        self.missed = missed

    def has_all(self, needs):
        return not any((need.step, need.params["seed"]) in self.lacking for need in needs)

    def get(self, step, seed, condition=None, region=None):
        if (step, seed) in self.lacking:
            raise NotStored("not run")
        if condition == "full":
            return run_of_hundred({"start": 5, "equal loss": 45})
        name = condition or region
        point = "end" if name == self.missed else "equal loss"
        # seeds are as far apart with units as with weights
        return run_of_hundred({point: 20}, self.log_odds[name] + 10 * seed, point == "equal loss")


@pytest.fixture
def guarded(monkeypatch):
    monkeypatch.setattr(decide.gates, "guardrail", passed("guardrail"))


def test_units_minus_weights_by_hand(guarded):
    found = decide.weight_verdict(Weighed())
    assert (found.first.word, found.second.word) == ("no published comparison", rules.SPECIFIC)
    contrast = found.second.estimate
    assert contrast.n == "3 seeds x 100 prompts"
    # the mean of both shares, paired by seed and request: neither spreads the interval
    for end in (contrast.low, contrast.mean, contrast.high):
        assert end == pytest.approx((2.0 + 3.0) / 2 - (1.0 + 1.6) / 2)
    assert [gate.name for gate in found.gates] == ["guardrail", "attack", "runs", "seeds"]
    assert rules.caveats(found) == []


@pytest.mark.parametrize("step", ["milder_tuning", "milder_weight_tuning"])
def test_of_c7_finished_seeds_count(guarded, step):
    found = decide.weight_verdict(Weighed(lacking=[(step, 11)]))
    assert found.second.estimate.n == "2 seeds x 100 prompts"
    assert [gate.name for gate in found.gates if not gate.passed] == ["runs", "seeds"]
    with pytest.raises(NotStored):
        decide.weight_verdict(Weighed(lacking=[(step, seed) for seed in (10, 11, 12)]))


@pytest.mark.parametrize("lab, words", [
    (Weighed(units=(1.0, 1.6), weights=(2.0, 3.0)),
     ("no published comparison", "the control does better")),
    # more at one share, and as much less at the other
    (Weighed(units=(2.0, 1.0), weights=(1.0, 2.0)), ("no published comparison", "any units do"))])
def test_the_words_on_c7_follow_from_the_weights(guarded, lab, words):
    found = decide.weight_verdict(lab)
    assert (found.first.word, found.second.word) == words


@pytest.mark.parametrize("arm", names((*UNIT_SHARES, *WEIGHT_SHARES)))
def test_an_arm_of_c7_that_missed_the_loss_is_named(guarded, arm):
    (caveat,) = rules.caveats(decide.weight_verdict(Weighed(missed=arm)))
    assert f"the loss was not reached in every seed by: {arm} (gate" in caveat
