"""The freezing experiment: what each condition freezes, on what it trains, when it is compared.

And how its table is read: on runs that are made by hand, and each margin of the rule by itself.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hand_made_runs import HandMadeRuns

from ssah.claims import rules
from ssah.claims.freezing import CLAIM, decide, natives, read
from ssah.claims.freezing.read import judge_c4
from ssah.claims.freezing.run import COMPARED, OTHER_EXAMPLES, own_answers
from ssah.claims.profiles import load_profile
from ssah.claims.shared import pictures
from ssah.claims.shared import runs as comparison
from ssah.claims.shared.conditions import (
    CONSTRAINED,
    DISJOINT,
    FREEZING,
    NAMES,
    SINGLE_WEIGHTS,
    STYLES,
    TABLE_2,
    UNIT_SHARES,
    WEIGHT_SHARES,
    Condition,
    Look,
    find,
)
from ssah.claims.shared.foundation import alignment_examples
from ssah.claims.shared.tuning import ADAPTERS, KEPT, TUNED, frozen_units, instructions
from ssah.classification import classify
from ssah.errors import SsahError
from ssah.inputs.prompts import load_prompts
from ssah.lab import Result
from ssah.lab.statistics import Estimate
from ssah.units import UnitIndex

LEAST = "least safety"
OPTIONS = SimpleNamespace(top_cu=0.06)      # of the profile's section `freezing`


# ---- the conditions --------------------------------------------------------------------------

@pytest.fixture
def units():
    """Four blocks; scores at random, so that every module has units of every kind."""
    index = UnitIndex(n_blocks=4, n_heads=4, n_kv_heads=2, head_dim=8, n_mlp=100, hidden=32)
    draw = np.random.default_rng(0)
    safety = draw.random(len(index))
    utility = draw.random(len(index))
    return classify(safety, utility, index=index, scu=0.02, ucu=0.13, ru=0.15)


def frozen(units, name, seed=0):
    return frozen_units(units, find(FREEZING, name), OPTIONS, seed)


def counts(units, mask):
    return units.index.table[mask].groupby(["block", "kind"]).size().to_dict()


def test_treated_sets(units):
    scu = frozen(units, "SCU")
    top = frozen(units, "SCU + top CU")
    all_cu = frozen(units, "SCU + all CU")
    n = len(units.index)
    assert scu.sum() == round(0.02 * n)
    assert top.sum() == round(0.02 * n) + round(0.06 * n)
    assert np.array_equal(all_cu, np.isin(units.labels, ["SCU", "CU"]))
    assert (scu <= top).all() and (top <= all_cu).all()
    added = top & ~scu
    left = units.mask("CU") & ~top
    assert units.safety[added].min() >= units.safety[left].max()        # the highest scaled I_S
    assert np.array_equal(frozen(units, "SCU + all CU + rest"), all_cu)
    assert not frozen(units, "full").any()
    assert not frozen(units, "full slower").any()


@pytest.mark.parametrize("random, twin", [
    ("random small", "SCU + top CU"),
    ("random large", "SCU + all CU"),
    ("random large without SCU", "SCU + all CU")])
def test_random_sets_have_their_twins_counts(units, random, twin):
    drawn = frozen(units, random)
    treated = frozen(units, twin)
    assert counts(units, drawn) == counts(units, treated)
    assert not np.array_equal(drawn, frozen(units, random, seed=1))
    has_scu = (drawn & units.mask("SCU")).any()
    assert has_scu == (random == "random large")        # an ordinary draw has some SCU


@pytest.mark.parametrize("row, of_attention, of_mlp", [
    ("random units 25 %", 8, 25), ("random units 70 %", 22, 70)])     # of 32 and of 100 units
def test_a_random_share_is_that_of_every_module(units, row, of_attention, of_mlp):
    drawn = frozen(units, row)
    wanted = {"attn": of_attention, "mlp": of_mlp}
    assert counts(units, drawn) == {(block, kind): n for block in range(4)
                                    for kind, n in wanted.items()}
    assert np.array_equal(drawn, frozen(units, row))
    assert not np.array_equal(drawn, frozen(units, row, seed=1))
    blocks = drawn.reshape(4, -1)
    assert not np.array_equal(blocks[0], blocks[1])     # each has a draw of its own


def test_the_least_important_units_by_module(units):
    """As many as SCU + all CU have in every module, and none outside is less important."""
    chosen = frozen(units, LEAST)
    assert counts(units, chosen) == counts(units, frozen(units, "SCU + all CU"))
    for _, _, where in units.index.modules():
        inside = chosen[where]
        assert units.safety[where][inside].max() <= units.safety[where][~inside].min()


def test_what_goes_on_and_what_is_kept():
    assert {row.name for row in TABLE_2 if row.doubled} == {
        "SCU", "SCU + top CU", "SCU + all CU", "random large without SCU"}
    assert set(KEPT) == set(COMPARED) == {"full", "SCU + all CU", "random large without SCU"}
    assert [row.name for row in FREEZING if row.rest] == ["SCU + all CU + rest"]
    profile = load_profile("smoke")
    slower = [row.name for row in FREEZING if row.rate(profile) != profile.freezing.lr]
    assert slower == ["full slower"]
    assert find(TABLE_2, "full slower").rate(profile) == profile.freezing.slower_lr


def test_a_row_is_all_that_a_condition_takes(units):
    def ucu(units, options, seed):
        return units.mask("UCU")

    row = Condition("UCU", "UCU", Look("#0072b2", "D"), frozen=ucu)
    mask = frozen_units(units, row, OPTIONS, seed=0)
    assert np.array_equal(mask, units.labels == "UCU")
    assert not (row.rest or row.doubled or row.kept)


#: Those that are in no table of the paper.
OTHER_ROWS = (*DISJOINT, *SINGLE_WEIGHTS, *UNIT_SHARES, *WEIGHT_SHARES, CONSTRAINED)


def test_names_and_looks_are_all_different():
    every = {"start", *TUNED, LEAST, *(row.name for row in OTHER_ROWS), *ADAPTERS}
    assert set(NAMES) == set(STYLES) == every
    assert len(set(NAMES.values())) == len(set(STYLES.values())) == len(every)
    for condition in every:
        is_hollow = pictures.style_of(condition)["markerfacecolor"] == "white"
        assert is_hollow == (condition.startswith("random") or condition == "remainder")


def test_the_plan_has_every_row():
    planned = [need.params["condition"] for need in CLAIM.core(0)]
    assert planned == list(TUNED) == [row.name for row in TABLE_2]
    further = [need for need in CLAIM.extended(0) if need.step == "tuning"]
    assert [need.params["condition"] for need in further] == [LEAST]


# ---- the runs of the smoke profile -----------------------------------------------------------

@pytest.fixture
def lab(smoke_lab):
    """What one test has computed the next one finds."""
    return smoke_lab


@pytest.fixture
def context(lab):
    """What a step sees."""
    return SimpleNamespace(profile=lab.profile, get=lab.get,
                           artifact=lambda name, **params: lab.artifact(name, params))


def run_of(lab, condition):
    return lab.get("tuning", seed=0, condition=condition)


def with_options(context, **options):
    """The context with other `freezing` options."""
    freezing = replace(context.profile.freezing, **options)
    profile = replace(context.profile, freezing=freezing)
    return SimpleNamespace(profile=profile, get=context.get)


def test_examples_come_from_no_evaluated_split(lab, context, chat):
    train, unseen = instructions(context, chat, 0)
    options = lab.profile.freezing
    assert (len(train), len(unseen)) == (options.examples, options.unseen)
    splits = lab.get("splits").tables["splits"].query("kind == 'benign'")
    text_of = load_prompts(lab.profile.data.benign[0]).set_index("id")["text"]
    chosen = {example["prompt"] for example in train + unseen}
    for split in ("identify", "select", "evaluate"):
        assert not set(text_of[splits.query("split == @split")["id"]]) & chosen
    assert len(chosen) == len(train) + len(unseen)
    assert instructions(context, chat, 0) == (train, unseen) != instructions(context, chat, 1)


def test_too_few_examples(context, chat):
    with pytest.raises(SsahError, match="504 are wanted; lower examples"):
        instructions(with_options(context, examples=500), chat, 0)


def test_runs_are_compared_at_the_full_runs_loss(lab):
    """At their first checkpoint at or below the loss at which `full` ends, or at the end."""
    full = run_of(lab, "full")
    target = full.values["probe_loss"]
    assert full.values["equal loss: probe_loss"] == target
    assert full.tables["checkpoints"]["probe_loss"].iloc[-1] == target
    assert full.tables["checkpoints"]["log_odds"].notna().all()
    assert set(full.tables["answers"]["at"]) == {"start", "one epoch", "equal loss", "end"}

    scu = run_of(lab, "SCU")
    losses = scu.tables["checkpoints"].set_index("epoch")["probe_loss"]
    assert scu.values["reached"]
    assert scu.values["equal loss: epoch"] == losses[losses <= target].index[0]
    assert losses.index.max() == 2 * full.tables["checkpoints"]["epoch"].max()


def test_a_run_that_never_reaches_the_loss_is_measured_at_its_end(lab):
    target = run_of(lab, "full").values["probe_loss"]
    held = run_of(lab, "SCU + all CU + rest")
    assert not held.values["reached"]
    assert (held.tables["checkpoints"]["probe_loss"] > target).all()
    assert set(held.tables["answers"]["at"]) == {"one epoch", "end"}
    at_end = held.tables["answers"].query("at == 'end'")
    assert (at_end["source"] == "borderline").any()     # all measures


def test_a_run_that_is_not_doubled_ends_at_equal_loss(lab):
    target = run_of(lab, "full").values["probe_loss"]
    checkpoints = run_of(lab, "random small").tables["checkpoints"]
    last = checkpoints["epoch"].iloc[-1]
    assert last == run_of(lab, "random small").values["equal loss: epoch"]
    assert last < run_of(lab, "SCU").tables["checkpoints"]["epoch"].max()
    assert (checkpoints["probe_loss"].iloc[:-1] > target).all()


def test_conditions_start_from_the_same_model(lab):
    starts = [run_of(lab, condition).tables["checkpoints"].iloc[0]
              for condition in ("full", "SCU", "full slower")]
    assert len({row["probe_loss"] for row in starts}) == 1
    assert len({row["log_odds"] for row in starts}) == 1


def test_weights_are_kept_where_the_row_says_so(lab):
    for condition in (*TUNED, LEAST):
        files = run_of(lab, condition).values["artifacts"]
        assert ("model/model.safetensors" in files) == (condition in KEPT), condition


# ---- other examples, more measures -----------------------------------------------------------

def test_own_answers_are_none_that_the_alignment_saw(lab, context):
    lab.get("base_answers")
    for seed in (0, 1):
        train, unseen = own_answers(context, seed)
        seen = {example["prompt"] for example in alignment_examples(context, "aligned", seed)}
        assert len(train) == lab.profile.freezing.examples and unseen
        prompts = [example["prompt"] for example in train + unseen]
        assert len(set(prompts)) == len(prompts)
        assert not seen & set(prompts)
        assert {"prompt", "response", "ended"} == set(train[0])


def test_of_a_second_set_all_are_taken_if_there_are_fewer(context, chat):
    larger = with_options(context, examples=300, unseen=150)
    train, unseen = instructions(larger, chat, 0, "tiny-benign")
    n = len(train) + len(unseen)
    assert 3 <= n < 450 and len(train) == n * 300 // 450
    enough = instructions(context, chat, 0, "tiny-benign")
    assert [len(part) for part in enough] == [8, 4]
    with pytest.raises(SsahError, match="nowhere has 0 short benign examples"):
        instructions(larger, chat, 0, "nowhere")


@pytest.mark.parametrize("examples", OTHER_EXAMPLES)
def test_other_examples_have_a_target_of_their_own(lab, examples):
    full, held = (lab.get("tuning_on", seed=0, examples=examples, condition=condition)
                  for condition in COMPARED[:2])
    target = full.values["probe_loss"]
    first, second = full.tables["checkpoints"], held.tables["checkpoints"]
    assert first["probe_loss"].iloc[0] == second["probe_loss"].iloc[0]
    # the smoke profile's second set is its first, of which both take all: the same run
    is_the_same = target == run_of(lab, "full").values["probe_loss"]
    assert is_the_same == (examples == "second set")
    assert held.values["reached"] == (second["probe_loss"] <= target).any()
    assert list(full.values["artifacts"]) == ["answers.json"]       # no weights


def test_more_measures_of_kept_models(lab):
    start, tuned = (lab.get("tuned_evaluation", seed=0, condition=condition)
                    for condition in ("start", "full"))
    columns = ["task", "id"]
    assert start.tables["choice"][columns].equals(tuned.tables["choice"][columns])
    before = start.tables["answers"]["log_odds"]
    assert not before.equals(tuned.tables["answers"]["log_odds"])
    # the same prompts by the same model: equal to what `tuning` measured at the start
    measured = run_of(lab, "full").tables["answers"]
    first = measured.query("at == 'start' and source != 'borderline'")
    np.testing.assert_array_equal(before, first["log_odds"])


@pytest.mark.parametrize("step, params, message", [
    ("tuning", {"condition": "all"}, "unknown condition 'all'; known: full, full slower, SCU"),
    ("tuning_on", {"examples": "poems", "condition": "full"},
     "unknown examples 'poems'; known: second set, own answers"),
    ("tuning_on", {"examples": "second set", "condition": "all"}, "unknown condition 'all'"),
    ("tuned_evaluation", {"condition": "SCU"}, "no weights are kept of 'SCU'; known: start, full"),
])
def test_what_is_unknown_is_refused(lab, step, params, message):
    with pytest.raises(SsahError, match=message):
        lab.get(step, seed=0, **params)


# ---- tables of runs made by hand -------------------------------------------------------------

def test_what_was_measured_is_a_row_a_run_and_point():
    values = {"share": 0.5, "reached": True, "start: epoch": 0, "end: epoch": 4, "end: loss": 1.5}
    table = comparison.measured({"full": {0: Result(values)}, "SCU": {1: Result(values)}})
    assert table["condition"].tolist() == ["full", "full", "SCU", "SCU"]
    assert table["seed"].tolist() == [0, 0, 1, 1]
    assert table["point"].tolist() == ["start", "end", "start", "end"]
    assert table["epoch"].tolist() == [0, 4, 0, 4]
    assert table["loss"].isna().tolist() == [True, False, True, False]
    assert set(table) == {"condition", "seed", "point", "epoch", "loss"}


def test_table_two_by_hand():
    table = comparison.table_two(comparison.tuned(HandMadeRuns()))
    assert list(table.index) == ["start", *TUNED]
    rates = dict.fromkeys(TUNED, 0.5) | {
        "start": 0.0, "full": 0.75, "SCU + all CU": 0.0, "SCU + all CU + rest": 0.25}
    assert table["ASR"].to_dict() == rates
    after = table.drop("start")
    reached = {name: float(name != "SCU + all CU + rest") for name in TUNED}
    assert after["reached"].to_dict() == reached
    assert after["trained"].to_dict() == {name: 1.0 if name == "full" else 0.25 for name in TUNED}
    # of the model before fine-tuning none of these is known
    assert table.loc["start", ["trained", "reached", "share"]].isna().all()
    assert table.loc["SCU + all CU + rest", "epoch"] == 4       # not reached: compared at the end


def test_at_the_end_are_those_who_went_on():
    end = comparison.table_two(comparison.tuned(HandMadeRuns()), "end")
    assert list(end.index) == ["start", "full", "SCU + all CU", "SCU + all CU + rest"]
    assert end.loc["SCU + all CU", "ASR"] == 0.5


def test_c4_facts_by_hand():
    facts = read.c4_facts(HandMadeRuns())
    assert facts["full - start"].mean == facts["full - SCU + all CU"].mean == 0.75
    assert facts["random - SCU + all CU"].mean == facts["slower - SCU + all CU"].mean == 0.5
    assert facts["reached: SCU + all CU"] == Estimate(1.0, 1.0, 1.0)
    assert facts["unseen"] == pytest.approx((0.05, 0.05, 0.05))
    # the unseen loss is 5 % higher
    assert CLAIM.verdict(HandMadeRuns()).verdict == "not met"


def test_a_verdict_takes_three_seeds():
    assert CLAIM.verdict(HandMadeRuns(seeds=(0,))).verdict == "not tested"


def test_runs_are_drawn_against_the_full_runs_own_loss():
    runs = comparison.along(comparison.tuned(HandMadeRuns()))
    ends = runs[runs["epoch"] == 2].set_index(["condition", "seed"])["to_go"]
    for seed in (0, 1, 2):
        assert ends["full", seed] == pytest.approx(0)
        assert ends["SCU", seed] == pytest.approx(-0.05)
    scu = runs[(runs["condition"] == "SCU") & (runs["seed"] == 0)]
    rates = scu.set_index("epoch")["keyword_asr"]
    assert rates[1] == 0.25 and rates[2] == 0.5 and np.isnan(rates[0])
    full = runs[(runs["condition"] == "full") & (runs["seed"] == 0)]
    assert full["keyword_asr"].tolist() == [0.0, 0.25, 0.75]        # at the start too
    assert len(runs) == 3 * 3 * len(TUNED)      # a checkpoint that is two points is one row


def test_log_odds_at_the_same_loss():
    """On the line from loss 1.5 and log-odds 0.5 to 0.95 and 0, where full fine-tuning ended: 1."""
    exact = comparison.log_odds_at_loss(comparison.tuned(HandMadeRuns()))
    assert exact.loc[0, "SCU"] == pytest.approx(0.5 * 0.05 / 0.55)
    assert exact.loc[0, "full"] == 0
    assert exact["SCU + all CU + rest"].isna().all()        # never came there


def test_contrasts_at_the_same_loss():
    table = comparison.contrasts(comparison.tuned(HandMadeRuns()))["log-odds at just L*"]
    assert table["nothing frozen", "SCU"] == "-0.06 [-0.07, -0.05]"
    assert table["nothing frozen", "before fine-tuning"] == "–"


def test_a_contrast_at_the_same_loss_takes_all_seeds():
    """Where one seed of three missed the loss there is no number, whatever the others say."""
    runs = comparison.tuned(HandMadeRuns(), ("full", "SCU", "SCU + all CU + rest"))
    runs["SCU"][1] = runs["SCU + all CU + rest"][1]
    table = comparison.contrasts(runs, [("full", "SCU")])["log-odds at just L*"]
    assert table.tolist() == ["–"]


def test_further_rows_by_hand():
    """Of four requests full fine-tuning leaves 1 refused, SCU + all CU frozen 4, all others 2."""
    further = read.further_runs(HandMadeRuns())
    assert list(further) == ["as above", "second set", "own answers"]
    asr = read.further_contrasts(further)["keyword ASR, points"].str.split().str[0].astype(float)
    assert asr["as above"].tolist() == [75, 50, 50]
    assert asr["second set"].tolist() == asr["own answers"].tolist() == [75, 50]
    table = read.further_table(further)
    rates = table.loc["own answers", "keyword ASR %"].str.split().str[0]
    assert rates.tolist() == ["0.0", "75.0", "0.0", "50.0"]
    assert len(table.loc["as above"]) == 5


def test_further_measures_by_hand():
    table = read.further_measures(HandMadeRuns())
    assert table.index.tolist() == [NAMES[name] for name in ("start", *COMPARED)]
    assert set(table["requests"]) == {"advbench (n = 4)"}
    asr = table["keyword ASR %"].str.split().str[0]
    assert asr.tolist() == ["0.0", "75.0", "0.0", "50.0"]
    assert table["accuracy %"].str.split().str[0].tolist() == ["100.0", "50.0", "50.0", "50.0"]


def test_the_summary_says_these_numbers():
    lab = HandMadeRuns()
    text = read.summary(lab, CLAIM.verdict(lab))
    assert "Before fine-tuning 0% (0%);" in text
    assert "after full fine-tuning on 8 benign instructions 75% (75%)." in text
    assert "SCU 50% (50%), SCU + top CU 50% (50%), SCU + all CU 0% (0%)." in text
    assert "than with as many random units by 50.0 points" in text
    assert text.endswith("not reached by: SCU + all CU + rest (in no seed).")
    assert len(text.splitlines()) == 8


def test_deviations_say_what_would_change():
    when, _, others = read.deviations(HandMadeRuns())
    assert when.otherwise.endswith("0% at equal loss, 50% at doubled epochs (nothing frozen 75%)")
    assert others.otherwise.endswith("these 75%, 0%; second set 75%, 0%; own answers 75%, 0%")


# ---- the rule --------------------------------------------------------------------------------

CERTAIN = Estimate(1.0, 1.0, 1.0)
FROZEN = {
    "full - start": Estimate(0.6, 0.5, 0.7),
    "full - SCU + all CU": Estimate(0.5, 0.4, 0.6),
    "full - SCU + top CU": Estimate(0.3, 0.2, 0.4),
    "random - SCU + all CU": Estimate(0.3, 0.2, 0.4),
    "slower - SCU + all CU": Estimate(0.3, 0.2, 0.4),
    "reached: SCU + all CU": CERTAIN,
    "reached: SCU + top CU": CERTAIN,
    "unseen": Estimate(0.01, 0.0, 0.02)}


def test_c4_reproduced_by_every_check():
    assert judge_c4(FROZEN).verdict == "met"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("full - start", (0.6, -0.1, 0.9), 0, "not met"),
    ("full - SCU + all CU", (0.29, 0.2, 0.4), 1, "not met"),
    ("full - SCU + all CU", (0.5, -0.01, 0.9), 1, "not met"),
    ("full - SCU + top CU", (0.14, 0.1, 0.2), 2, "partly met"),
    ("random - SCU + all CU", (0.09, 0.01, 0.2), 3, "partly met"),
    ("random - SCU + all CU", (0.3, -0.01, 0.6), 3, "partly met"),
    ("slower - SCU + all CU", (0.04, 0.01, 0.1), 4, "partly met"),
    ("reached: SCU + all CU", (2 / 3, 0.0, 1.0), 5, "not met"),
    ("reached: SCU + top CU", (2 / 3, 0.0, 1.0), 2, "partly met"),
    ("unseen", (0.03, 0.0, 0.05), 5, "not met")])
def test_c4_each_margin_can_fail_alone(fact, value, check, verdict):
    found = judge_c4(FROZEN | {fact: Estimate(*value)})
    assert [one.holds for one in found.checks] == [number != check for number in range(6)]
    assert found.verdict == verdict


def test_c4_without_any_harm_there_is_nothing_to_avoid():
    found = judge_c4(FROZEN | {"full - start": Estimate(0.0, -0.1, 0.1)})
    assert found.verdict == "not met"
    assert not found.checks[1].holds


def test_the_papers_table_is_as_published():
    table = read.PAPER_TABLE_2.set_index(["model", "instructions"])
    dolly = table.loc[("Llama2-7B-Chat", "Dolly")]
    assert dolly.tolist() == [0.19, 11.92, 3.65, 2.88]
    assert len(table) == 4


# ---- the second bench ------------------------------------------------------------------------

class OnTheWay(HandMadeRuns):
    """Of the second bench: the full run and some arms are stored, of one dose."""

    def __init__(self, *conditions, seeds=(0, 1), dose="tuning"):
        super().__init__(seeds)
        self.conditions = conditions
        self.dose = dose

    def stored(self, step):
        """All seeds of the conditions, but one: the last seed of the last condition."""
        if step != self.dose:
            return
        pairs = [(name, seed) for name in self.conditions for seed in self.seeds]
        for name, seed in pairs[:-1]:
            yield {"condition": name, "seed": seed}, None

    def has_all(self, needs):
        return all((need.params, None) in self.stored(need.step) for need in needs)


def test_arms_are_those_with_every_seed_and_none_without_the_full_run():
    lab = OnTheWay("remainder", "SCU + all CU", "full", "most safety")
    (usual,) = natives.doses(lab)
    assert list(usual.runs) == ["full", "SCU + all CU", "remainder"]
    without = OnTheWay("SCU + all CU", "full")
    assert natives.doses(without) == [] and natives.in_numbers(without) == ""
    assert [dose.lab for dose in natives.begun([lab, without])] == [lab]


def test_of_the_milder_dose_finished_seeds_count_and_begun_ones_are_shown():
    lab = OnTheWay("full", "SCU + all CU", "remainder", "most safety", dose="milder_tuning")
    assert decide.finished_seeds(lab) == (0,)       # the last seed of the last arm is not there
    (milder,) = natives.doses(lab)
    assert milder.seeds == (0,) and milder.title.endswith(", milder dose")
    assert list(milder.runs) == ["full", "SCU + all CU", "most safety", "remainder"]
    said = natives.seen(milder, comparison.table_two(milder.runs))
    assert "*Benign fine-tuning, milder dose* on" in said and "1 seed" in said
    begun = OnTheWay("SCU + all CU", "full", dose="milder_tuning")
    (milder,) = natives.doses(begun)
    assert decide.finished_seeds(begun) == () and milder.seeds == (0,)


def test_what_fine_tuning_did_is_said_in_numbers():
    lab = OnTheWay("full", "SCU + all CU", "remainder")
    (usual,) = natives.doses(lab)
    said = natives.seen(usual, comparison.table_two(usual.runs))
    assert said.startswith("**What we see** (")
    assert "takes keyword ASR from 0% (strict 0%) to 75% (strict 75%) with nothing frozen" in said
    assert "to 0% (strict 0%) with SCU + all CU frozen (50% of the units)." in said
    assert "missed" not in said and "milder" not in said


def of_dose(added: float) -> rules.Verdict:
    """The words on C4 after an attack that adds so much; freezing avoids half of it."""
    gates = [rules.Gate("guardrail", True, True, ""),
             rules.attack(decide.ROW, [added], [added], {}, n_prompts=100)]
    measured = rules.Measured(rules.exactly(0.5), rules.exactly(1.0))
    return rules.verdict_of(decide.ROW, measured, gates=gates, by_second_judge=measured)


@pytest.mark.parametrize("milder, usual, words", [
    (0.4, 0.7, "reproduced, specific"),             # the first whose attack is fair: the milder
    (0.4, 0.5, "reproduced, specific"),
    (0.1, 0.5, "reproduced, specific"),             # too little: the usual one
    (0.1, 0.7, "cannot tell: attack, not asked"),
])
def test_words_stand_on_the_milder_dose_whose_attack_is_fair(monkeypatch, milder, usual, words):
    profile = load_profile("tiny-pair")
    found = {"tuning": of_dose(usual), "milder_tuning": of_dose(milder)}
    monkeypatch.setattr(decide, "by_dose", lambda lab: found)
    verdict = decide.verdict(SimpleNamespace(profile=profile))
    assert str(verdict) == words
    decides = "milder_tuning" if milder >= 0.2 else "tuning"
    assert verdict.measured is found[decides].measured
    *_, other = verdict.gates
    rate = {"tuning": profile.milder.lr, "milder_tuning": profile.freezing.lr}[decides]
    assert (other.name, other.passed, other.blocking) == ("other dose", False, False)
    assert f"with a learning rate of {rate:g}: " in other.found
    assert other.found in rules.caveats(verdict)[-1]


def test_without_a_milder_dose_there_is_no_other(monkeypatch):
    found = {"tuning": of_dose(0.5)}
    monkeypatch.setattr(decide, "by_dose", lambda lab: found)
    assert decide.verdict(SimpleNamespace(profile=load_profile("organism"))) == found["tuning"]


def test_one_run_an_arm_is_a_caveat_and_three_are_none():
    for further, passed in (((), False), ((11, 12), True)):
        profile = SimpleNamespace(further_tunings=further)
        gate = decide.gates.training_runs(SimpleNamespace(seeds=(10,), profile=profile), decide.ROW)
        assert (gate.passed, gate.blocking) == (passed, False)
        assert f"in {1 + len(further)} run" in gate.found and "(at least 3)" in gate.found
