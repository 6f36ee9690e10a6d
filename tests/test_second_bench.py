"""The second bench: labels from a bank and its halves, removals, and what the rules are given."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hand_made_runs import forming

from ssah.claims import PLACE, claim, lab_of, plan, rules, verdict, verdicts
from ssah.claims import answers as ledger
from ssah.claims.four_kinds import decide, removal
from ssah.claims.freezing import decide as freezing
from ssah.claims.profiles import BENCH, SMOKE, RemovalSection, SecondJudgeSection
from ssah.claims.redundant_units import decide as redundant_units
from ssah.claims.shared import bank, gates
from ssah.claims.which_units import decide as which_units
from ssah.errors import SsahError
from ssah.lab import Lab, Result
from ssah.units import UnitIndex


# ---- what the rules are given, from tables made up by hand -----------------------------------

def answers(fulfilled: str, system: str = "default") -> pd.DataFrame:
    """Answers to as many requests: ``c`` complied, ``e`` evasive without a keyword, ``r`` refused."""
    names = {"c": "comply", "e": "evasive", "r": "refuse"}
    return pd.DataFrame({"source": "advbench", "id": range(len(fulfilled)), "system": system,
                         "label": [names[letter] for letter in fulfilled],
                         "keyword": [letter == "r" for letter in fulfilled]})


def made_up_lab(found: dict, losses: dict | None = None, draws: int = 2):
    """A lab of one seed whose `removal` results are (units, draw) -> letters, and losses."""
    options = RemovalSection(draws=draws, further_draws=draws)
    profile = SimpleNamespace(evaluation=SimpleNamespace(systems=("default", "none")),
                              removal=options)

    def get(step, *, seed, units, draw=0):
        tables = {"answers": answers(found.get((units, draw), ""))}
        if losses:
            tables["wikipedia"] = pd.DataFrame({"nll": losses[units, draw]})
        return Result(tables=tables)

    return forming(SimpleNamespace(profile=profile, seeds=(10,), get=get))


LAB = made_up_lab({("nothing", 0): "rrrrrrrrcc", ("SCU", 0): "crccrecrcc",
                   ("random SCU", 0): "crrrrrrrcc", ("random SCU", 1): "rrrrrrrrrc"})


def test_refusals_lost_are_counted_a_request():
    assert decide.lost(LAB, "keyword", 10, "SCU").tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 0, 0]
    assert decide.lost(LAB, "strict", 10, "SCU").tolist() == [1, 0, 1, 1, 0, 0, 1, 0, 0, 0]
    assert decide.lost(LAB, "keyword", 10, "random SCU", 1).tolist() == [0] * 8 + [-1, 0]


def test_the_effect_is_a_share_of_what_could_be_lost():
    measured = decide.scu(LAB, "keyword")
    # 5 of 10 requests are lost, of 8 that were refused
    assert measured.effect.mean == pytest.approx(5 / 8)


def test_the_contrast_takes_the_mean_of_the_draws():
    measured = decide.scu(LAB, "keyword")
    # one draw loses a refusal, the other gains one: 0 in the mean
    assert measured.contrast.mean == pytest.approx(5 / 8)
    assert measured.contrast.n == "2 draws x 10 requests"


def test_for_redundant_units_positive_means_that_others_cost_more():
    lab = made_up_lab({("nothing", 0): "rrrr", ("RU", 0): "crrr", ("random RU", 0): "ccrr",
                       ("random RU", 1): "cccc"})
    measured = decide.ru(lab, "keyword")
    assert measured.effect.mean == pytest.approx(1 / 4)
    assert measured.contrast.mean == pytest.approx((2 / 4 + 4 / 4) / 2 - 1 / 4)


def test_where_little_is_refused_there_is_no_share():
    lab = made_up_lab({("nothing", 0): "cccccccccr", ("SCU", 0): "cccccccccc",
                       ("random SCU", 0): "cccccccccc", ("random SCU", 1): "cccccccccc"})
    assert decide.scu(lab, "keyword") == rules.Measured(None, None)


def test_perplexity_is_compared_a_passage():
    losses = {("nothing", 0): [1.0, 2.0], ("UCU", 0): [3.0, 3.0], ("random UCU", 0): [1.5, 2.0],
              ("random UCU", 1): [1.0, 2.5]}
    measured = decide.ucu(made_up_lab({}, losses))
    assert measured.effect.mean == pytest.approx(1.5)
    assert measured.contrast.mean == pytest.approx(1.5 - 0.25)


def guard_lab(parts: dict) -> SimpleNamespace:
    """A lab whose answers are (source, system) -> letters.

    Those to safe requests are of `over_refusal`; `guard` has others, which do not count.
    """
    table = pd.concat([answers(letters, system).assign(source=source)
                       for (source, system), letters in parts.items()])
    is_safe = table["source"] == "safe"
    first = answers("r", "default").assign(source="safe")
    of_step = {"guard": pd.concat([table[~is_safe], first]), "over_refusal": table[is_safe]}
    native = SimpleNamespace(model=SimpleNamespace(aligned="theirs"))
    return forming(SimpleNamespace(
        profile=native, seeds=(10,),
        get=lambda step, **params: Result(tables={"answers": of_step[step]})))


def test_the_guardrail_is_counted_on_requests_that_judge_no_claim():
    lab = guard_lab({("select", "default"): "r" * 70 + "e" * 6 + "c" * 4,
                     ("select", "none"): "r" * 40 + "c" * 40, ("safe", "default"): "r" * 2 + "c" * 8,
                     ("unseen", "default"): "r" * 9 + "c"})
    gate = gates.guardrail(lab, rules.ROWS["C2-SCU"])
    assert gate.passed and gate.blocking
    for text in ("refuses, in the stated mode 87.5%", "refuses safe requests 20%",
                 "refuses or deflects, with system prompt 95%", "complies, without 50%",
                 "complies on HarmBench 10%"):
        assert text in gate.found


def test_a_model_that_refuses_safe_requests_has_no_guardrail():
    lab = guard_lab({("select", "default"): "r" * 80, ("select", "none"): "r" * 80,
                     ("safe", "default"): "r" * 3 + "c" * 7})
    assert not gates.guardrail(lab, rules.ROWS["C2-SCU"]).passed


# ---- the steps, on a model of a few thousand weights -----------------------------------------

DRY = replace(SMOKE, name="dry", model=replace(SMOKE.model, aligned="tiny:1"), bench=True,
              classification=replace(SMOKE.classification, bank=True),
              seeds=(10,), removal=RemovalSection(draws=2, further_draws=1, passages=4,
                                                  passage_tokens=16),
              second_judge=SecondJudgeSection(seeds=0))      # the tiny tokenizer has no yes


@pytest.fixture(scope="module")
def dry_lab(tmp_path_factory):
    lab = lab_of(DRY, root=tmp_path_factory.mktemp("dry-results"))
    cache = tmp_path_factory.mktemp("dry-cache")
    lab.place = replace(lab.place, cache=lambda: cache)
    lab.require(plan(DRY))
    return lab


def test_the_whole_plan_runs(dry_lab):
    assert {need.label for need in plan(DRY)} <= set(dry_lab.fresh)
    rows = dry_lab.facts("removal").set_index(["units", "draw"])
    assert rows.loc[("nothing", 0), "share"] == 0
    for units, share in (("SCU", 0.013), ("random SCU", 0.013), ("UCU", 0.133), ("RU", 0.148),
                         ("more SCU", 0.03)):
        assert rows.loc[(units, 0), "share"] == pytest.approx(share, abs=0.004)   # 160 units


def test_no_scores_masks_or_directions_are_stored_with_the_results(dry_lab):
    assert not list(dry_lab.store.root.rglob("*.npz"))
    assert list(dry_lab.place.cache().rglob("scores.npz"))


def test_answers_have_a_row_a_request_and_mode(dry_lab):
    requests = len(dry_lab.get("removal", seed=10, units="RU", draw=0).tables["answers"])
    asked_twice = dry_lab.get("removal", seed=10, units="SCU", draw=0).tables["answers"]
    assert len(asked_twice) == 2 * requests
    assert set(asked_twice["system"]) == {"default", "none"}


def test_halves_are_compared_by_both_scales(dry_lab):
    halves = dry_lab.get("labels", seed=10).tables["halves"]
    assert len(halves) == 8
    assert halves["iou"].between(0, 1).all()
    share = 0.148
    chance = halves.set_index(["label", "scale"]).loc[("RU", "raw"), "chance"]
    # two random sets of share s meet in s x s of all units, and cover 2 s - s x s
    assert chance == pytest.approx(share**2 / (2 * share - share**2), abs=0.002)


def test_places_count_every_unit_once(dry_lab):
    places = dry_lab.get("labels", seed=10).tables["places"]
    index = UnitIndex.from_dict(dry_lab.get("unit_scores", seed=10, part="all").values["index"])
    assert places["units"].sum() == len(index)


def scored() -> Result:
    """Random scores of a small model's units."""
    from ssah.models import tiny_chat

    index = UnitIndex.of(tiny_chat().model)
    random = np.random.default_rng(0)
    arrays = {name: random.lognormal(size=len(index)) for name in ("safety", "utility")}
    return Result({"index": index.to_dict()}, arrays=arrays)


def test_draws_differ_and_match_in_block_and_kind():
    options = RemovalSection()
    found = scored()
    index = UnitIndex.from_dict(found.values["index"])
    row = removal.find_removal("random SCU")
    scu = removal.find_removal("SCU").mask(options, found, seed=10, draw=0)
    masks = [row.mask(options, found, seed=10, draw=draw) for draw in range(5)]
    for mask in masks:
        for _, _, where in index.modules():
            assert mask[where].sum() == scu[where].sum()
    assert len({mask.tobytes() for mask in masks}) == 5


def test_unknown_rows_and_parts_are_refused():
    with pytest.raises(SsahError, match="unknown units 'scu'; known: nothing, SCU"):
        removal.find_removal("scu")
    with pytest.raises(SsahError, match="unknown part 'half'"):
        bank.unit_scores(None, 10, "half")


# ---- the door --------------------------------------------------------------------------------

def test_a_row_without_results_has_no_words(tmp_path, monkeypatch):
    lab = lab_of(BENCH["qwen-0.5b"], root=tmp_path, compute=False)
    assert verdicts(lab) == {}
    with pytest.raises(SsahError, match="ssah recompute"):
        verdict(lab, "C2-SCU")
    monkeypatch.delitem(claim("C7").rows, "C7")     # as of a claim that is not built
    with pytest.raises(SsahError, match="C7 has no runs on the second bench"):
        verdict(lab, "C7")
    with pytest.raises(SsahError, match="unknown row 'C2'; known: C1-aligned"):
        verdict(lab, "C2")


def test_every_row_is_asked_once_for_its_words(tmp_path, monkeypatch):
    asked = []

    def ask(lab, row_id):
        asked.append(row_id)
        return verdict(lab, row_id)

    monkeypatch.setattr(ledger, "verdict", ask)
    found = ledger.answered(lab_of(BENCH["qwen-0.5b"], root=tmp_path, compute=False))
    assert asked == list(found) == list(rules.ROWS)
    assert found["C2-SCU"] == found["C4"] == found["C5"] == ledger.NOT_RUN
    # what they miss first is planned for C4 and C2
    assert found["C3"] == found["C7"] == found["C6-tax"] == ledger.NOT_PLANNED
    again = ledger.answered(lab_of(BENCH["smollm2-135m-again"], root=tmp_path, compute=False))
    run_there = [row_id for row_id, word in again.items() if word == ledger.NOT_RUN]
    assert run_there == ["C3", "C4", "C7"]


def test_a_damaged_result_is_no_row_that_was_not_run(tmp_path):
    """It must be said, not left out of the ledger."""
    place = replace(PLACE, committed=tmp_path)
    copied = tmp_path / "results"
    shutil.copytree(PLACE.results(BENCH["organism"]), copied)
    damaged = copied / "removal" / "seed=0,units=SCU,draw=0.answers.parquet"
    assert "C2-SCU" in verdicts(Lab(BENCH["organism"], place, root=copied, compute=False))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(SsahError, match="removal"):
        verdicts(Lab(BENCH["organism"], place, root=copied, compute=False))


@pytest.mark.parametrize("name", [name for name in BENCH if not BENCH[name].milder_alone])
def test_a_bench_plans_what_decides(name):
    needs = plan(BENCH[name])
    draws = [need for need in needs if need.step == "removal"
             and need.params["units"] == "random SCU"]
    assert len(draws) == BENCH[name].removal.draws * len(BENCH[name].seeds)
    steps = {need.step for need in needs}
    assert {"labels", "guard", "removal", "refusal_direction"} <= steps
    assert ("second_judged" in steps) == (BENCH[name].second_judge.seeds > 0)


def tunings(name: str) -> dict[str, set[int]]:
    """What is fine-tuned, and turnover -> its planned seeds."""
    seeds = {}
    for need in plan(BENCH[name]):
        if need.step.endswith("tuning") or need.step == "turnover":
            params = dict(need.params)
            seed = params.pop("seed")
            seeds.setdefault(" ".join([need.step, *params.values()]), set()).add(seed)
    return seeds


ON_EVERY_MODEL = {"tuning full", "tuning SCU + all CU", "tuning most safety", "tuning remainder",
                  "adapter_tuning LoRA"}
MILDER = {"milder_tuning full", "milder_tuning SCU + all CU", "milder_tuning most safety",
          "milder_tuning remainder", "milder_tuning constrained"}
THE_PAIRS_MILDER = MILDER | {
    "placebo_tuning", "turnover", "milder_tuning random units 25 %",
    "milder_tuning random units 70 %", "milder_weight_tuning random weights 25 %",
    "milder_weight_tuning random weights 70 %"}


@pytest.mark.parametrize("name, expected, seeds", [
    ("smollm2-135m", ON_EVERY_MODEL, {10, 11, 12, 13, 14, 15}),
    ("smollm2-135m-again", THE_PAIRS_MILDER, {16, 17, 18}),
    ("qwen-0.5b", ON_EVERY_MODEL | MILDER, {10, 11, 12}),
    ("qwen-1.5b", ON_EVERY_MODEL, {10, 11, 12}),
    ("organism", set(), set())])
def test_what_is_fine_tuned_with_which_seeds(name, expected, seeds):
    assert tunings(name) == dict.fromkeys(expected, seeds)


def test_of_the_pair_made_again_nothing_but_the_milder_dose_is_planned():
    """With a guardrail and labels of its own."""
    steps = {need.step for need in plan(BENCH["smollm2-135m-again"]) if "seed" in need.params}
    assert steps == {"checkpoint", "unit_scores", "labels", "guard", "over_refusal",
                     "milder_tuning", "placebo_tuning", "turnover", "milder_weight_tuning"}


def test_profiles_of_one_model_have_titles_of_their_own():
    titles = [profile.title for profile in BENCH.values()]
    assert len(set(titles)) == len(titles)
    labs = ledger.labs()
    assert len({ledger.short(lab) for lab in labs.values()}) == len(labs)


def test_further_seeds_are_of_fine_tuning_alone():
    """Texts and scores that it needs come with it; nothing is removed and no gate asked again."""
    profile = BENCH["qwen-0.5b"]
    further = {need.step for need in plan(profile) if need.params.get("seed") in (11, 12)}
    assert further == {"tuning", "milder_tuning", "adapter_tuning", "unit_scores", "calibration"}


# ---- C1 --------------------------------------------------------------------------------------

def leaning_lab(found: dict, aligned: str = "") -> SimpleNamespace:
    """A lab whose `leaning` results are (role, requests) -> numbers, a query each; guarded."""
    def guarded(letter: str) -> SimpleNamespace:
        return guard_lab({("select", "default"): letter * 80, ("select", "none"): letter * 80,
                          ("safe", "default"): "c" * 10, ("unseen", "default"): letter * 10})

    def get(step, *, seed, role="aligned", requests=None):
        if step in ("guard", "over_refusal"):
            return guarded("r" if role == "aligned" else "c").get(step)
        return Result(tables={"queries": pd.DataFrame({"leaning": found[role, requests]})})

    profile = SimpleNamespace(model=SimpleNamespace(aligned=aligned), milder_alone=False)
    return forming(SimpleNamespace(seeds=(10,), get=get, profile=profile))


LEANING = {("aligned", "harmful"): [0.03, 0.05], ("aligned", "benign"): [0.01, 0.01],
           ("unaligned", "harmful"): [-0.02, -0.04], ("unaligned", "benign"): [-0.02, 0.0]}


def test_the_direction_is_compared_with_benign_requests_and_the_unaligned_twin():
    found = verdict(leaning_lab(LEANING), "C1-aligned")
    assert found.first.estimate.mean == pytest.approx(0.04)
    lab = leaning_lab({**LEANING, ("aligned", "harmful"): [0.04] * 2})
    found = verdict(lab, "C1-aligned")
    # harmful minus benign is 0.03 in the aligned model and -0.02 in the unaligned one
    assert found.second.estimate.mean == pytest.approx(0.05)


def test_a_model_without_a_twin_is_compared_with_benign_requests_alone():
    lab = leaning_lab({**LEANING, ("aligned", "harmful"): [0.04] * 2}, aligned="mine")
    assert verdict(lab, "C1-aligned").second.estimate.mean == pytest.approx(0.03)


def test_the_unaligned_model_leans_to_fulfilment():
    lab = leaning_lab({**LEANING, ("unaligned", "harmful"): [-0.03] * 2})
    assert verdict(lab, "C1-unaligned").first.estimate.mean == pytest.approx(0.03)


# ---- C4 and C5, C6: from answers made up by hand ---------------------------------------------

def outcomes(condition: str, letters: str, log_odds: float = 0.0, seeds=(10, 11)) -> pd.DataFrame:
    """Outcomes of answers (``c`` complied, ``r`` refused) of one condition, alike in all seeds."""
    fulfilled = [float(letter == "c") for letter in letters]
    return pd.concat([
        pd.DataFrame({"condition": condition, "seed": seed, "id": range(len(letters)),
                      "keyword_asr": fulfilled, "strict_asr": 0.0, "log_odds": log_odds + seed})
        for seed in seeds])


def test_damage_avoided_is_a_share_of_the_damage_done():
    answers = pd.concat([outcomes("start", "rrrrrrrrrc"), outcomes("full", "ccccccrrrc"),
                         outcomes("SCU + all CU", "ccrrrrrrrc")])
    found = freezing.avoided(answers, "keyword")
    # of 6 requests that full fine-tuning opened, 4 stay closed
    assert found.mean == pytest.approx(4 / 6)
    assert freezing.avoided(answers, "strict") is None      # by that judge nothing was done


def test_which_units_are_frozen_is_asked_of_log_odds():
    answers = pd.concat([outcomes("most safety", "rr", 2.0), outcomes("remainder", "rr", 1.5)])
    assert freezing.which_units(answers).mean == pytest.approx(0.5)


def test_an_adapter_is_compared_as_a_share_of_headroom():
    answers = pd.concat([outcomes("start", "rrrrrrrrcc"), outcomes("full", "ccrrrrrrcc"),
                         outcomes("LoRA", "ccccccrrcc")])
    assert which_units.adapter_minus_full(answers, "keyword").mean == pytest.approx(4 / 8)


def test_the_attack_gate_counts_a_makers_model_in_headroom():
    answers = pd.concat([outcomes("start", "r" * 60 + "c" * 40),
                         outcomes("full", "c" * 30 + "r" * 30 + "c" * 40)])
    row = rules.ROWS["C4"]
    ours = SimpleNamespace(profile=SimpleNamespace(model=SimpleNamespace(aligned="")))
    makers = SimpleNamespace(profile=SimpleNamespace(model=SimpleNamespace(aligned="mine")))
    gate = gates.attack(ours, row, answers, {"SCU + all CU": 1.0})
    assert gate.passed and "adds 30%" in gate.found and "ends at 70%" in gate.found
    gate = gates.attack(makers, row, answers, {"SCU + all CU": 1.0})
    assert "adds 50% of what could be lost" in gate.found and "ends at 70%" in gate.found
    assert not gates.attack(ours, row, answers, {"SCU + all CU": 0.5}).passed


def test_a_difference_of_knowledge_is_paired_by_question():
    table = pd.concat([pd.DataFrame({"condition": condition, "seed": seed, "id": ["a", "b"],
                                     "gold": [-1.0 - loss, -2.0 - loss]})
                       for seed in (10, 11) for condition, loss in (("start", 0.0), ("RU", 0.3))])
    estimate = redundant_units.apart(table, "start", "RU", "gold")
    assert estimate.mean == pytest.approx(0.3)
    assert estimate.low == pytest.approx(0.3)       # the same in every question


# ---- a sentence a claim ----------------------------------------------------------------------

class Model:
    """Stands in for a lab: a name alone."""

    def __init__(self, label: str):
        self.profile = SimpleNamespace(model=SimpleNamespace(label=label), title=label, variant="")


def words_on_scu(effect: float, by_second_judge: float, guarded: bool = True) -> rules.Verdict:
    gates = [rules.Gate("guardrail", guarded, True, ""), rules.Gate("sight", True, True, "")]
    first, second = (rules.Measured(rules.exactly(mean), rules.exactly(mean))
                     for mean in (effect, by_second_judge))
    return rules.verdict_of(rules.ROWS["C2-SCU"], first, gates=gates, by_second_judge=second)


def test_models_of_the_same_words_stand_together_and_the_unit_once():
    spoken = {Model("Small (Q4)"): words_on_scu(0.58, 0.6), Model("Odd"): words_on_scu(-0.3, 0.3),
              Model("Large, by its maker"): words_on_scu(0.96, 0.9)}
    assert ledger._of_claim(rules.ROWS["C2-SCU"], spoken) == [
        {"words": "reproduced, and it is these units", "models": [
            ["Small", " (58% of what could be lost [58, 58])"], ["Large", " (96% [96, 96])"]]},
        {"words": "opposite", "models": [["Odd", " (-30% [-30, -30]) †"]]}]


def test_a_gate_that_blocks_is_named_and_the_number_shown_all_the_same():
    spoken = {Model("Small"): words_on_scu(0.58, 0.6, guarded=False)}
    assert ledger._of_claim(rules.ROWS["C2-SCU"], spoken) == [
        {"words": "cannot tell, for a gate does not hold (*guardrail*)",
         "models": [["Small", " (58% of what could be lost [58, 58])"]]}]


def test_claims_without_words_are_left_out_and_the_rest_reads_aloud():
    real = {"one": Model("Small"), "two": Model("Large")}
    by_model = {"one": {"C2-SCU": words_on_scu(0.58, 0.6)}, "two": {"C2-SCU": words_on_scu(0.96, 0.9)}}
    (claim,) = ledger.by_claim(real, by_model)
    assert claim["statement"] == rules.ROWS["C2-SCU"].statement
    line, *_ = ledger._by_claim(real, by_model).splitlines()
    assert line == ("- **Removing the units called safety-critical takes refusals away.** *Small* (58% of what "
                    "could be lost [58, 58]), *Large* (96% [96, 96]): reproduced, and it is these units.")
