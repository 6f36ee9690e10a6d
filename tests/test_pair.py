"""The second bench's own pair on the tiny model: data, training, texts, scores, gates."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hand_made_runs import forming

from ssah import judging
from ssah.claims import lab_of, plan, rules
from ssah.claims.attribute_transfer import run as attribute_transfer
from ssah.claims.four_kinds import removal
from ssah.claims.profiles import BENCH, DEFAULT, TINY_PAIR
from ssah.claims.questions import preferred
from ssah.claims.shared import bank, gates, pair, two_by_two
from ssah.claims.shared.material import load_role
from ssah.claims.shared.tuning import instructions
from ssah.inputs import prompts, words
from ssah.lab import Result
from ssah.units import UnitIndex

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Its results, each computed once."""
    made = lab_of(TINY_PAIR, root=tmp_path_factory.mktemp("pair-results"))
    cache = tmp_path_factory.mktemp("pair-cache")
    made.place = replace(made.place, cache=lambda: cache)
    return made


@pytest.fixture
def context(lab):
    """What a step of the pair sees."""
    return SimpleNamespace(
        profile=lab.profile,
        get=lambda name, **params: lab.get(name, **params),
        artifact=lambda name, **params: lab.artifact(name, params))


# ---- data by hand ----------------------------------------------------------------------------

def test_the_safe_requests_begin_with_those_of_the_first_bench():
    old = prompts.load_prompts("borderline")
    new = words.data_file("safe_requests")
    pd.testing.assert_frame_equal(new[["id", "category", "text"]].iloc[:len(old)], old)
    assert len(old) == 120 and len(new) == 300
    assert new["text"].is_unique and new["id"].is_unique


def test_the_safe_requests_are_dealt_in_every_category():
    table = words.data_file("safe_requests")
    counts = {split: len(prompts.load_prompts(f"safe-{split}"))
              for split in ("align", "select", "evaluate")}
    assert counts == {"align": 150, "select": 50, "evaluate": 100}
    assert table.groupby(["category", "split"]).size().min() >= 4
    assert table.groupby("category").size().eq(25).all()


def test_no_safe_request_resembles_another():
    texts = words.data_file("safe_requests")["text"].tolist()
    assert len(set(prompts.clusters(texts))) == len(texts)


def test_judge_and_keywords_know_every_wording_that_is_taught():
    table = words.data_file("taught_refusals")
    assert len(table) == 40 and table["text"].is_unique and set(table["split"]) == {"train"}
    for text in table["text"]:
        assert judging.is_refusal(text, version=2), text
        assert judging.matches_keyword(text, normalized=True), text


def test_no_wording_that_is_taught_is_held_out():
    held_out = words.data_file("refusals").query("split == 'held_out'")["text"]
    assert not set(held_out) & set(words.data_file("taught_refusals")["text"])


# ---- splits ----------------------------------------------------------------------------------

def pool(n_own: int = 60, n_unseen: int = 30) -> pd.DataFrame:
    """Prompts of two sources; every third one of the second is also near one of the first."""
    rows = [{"id": f"own-{n}", "source": "own", "text": f"own{n} word{n} thing{n}"}
            for n in range(n_own)]
    for n in range(n_unseen):
        text = f"own{n} word{n} thing{n} please" if n % 3 == 0 else f"other{n} far{n} away{n}"
        rows.append({"id": f"unseen-{n}", "source": "unseen", "text": text})
    return pd.DataFrame(rows)


def test_a_part_of_the_unseen_source_is_aligned_on_with_its_clusters_whole():
    sizes = dict(zip(prompts.SPLITS, (30, 10, 8, 10)))
    table = prompts.make_splits(pool(), sizes, evaluate_only=("unseen",), align_of_them=12)
    unseen = table[table["source"] == "unseen"]
    assert unseen["split"].value_counts().to_dict() == {"evaluate": 18, "align": 12}
    assert table.groupby("cluster")["split"].nunique().eq(1).all()
    counts = table["split"].value_counts()
    assert counts["align"] == 30 and counts["identify"] == 10 and counts["select"] == 8


def test_without_such_a_part_the_unseen_source_is_evaluated_whole():
    sizes = dict(zip(prompts.SPLITS, (20, 10, 8, 10)))
    table = prompts.make_splits(pool(), sizes, evaluate_only=("unseen",))
    assert set(table.loc[table["source"] == "unseen", "split"]) == {"evaluate"}


# ---- what is trained on ----------------------------------------------------------------------

def examples(context, role: str, seed: int = 0) -> pd.DataFrame:
    table = pd.DataFrame(pair.pair_examples(context, role, seed))
    return table.assign(system=table["system"].fillna("default"))


@pytest.fixture
def answered(lab):
    """The base model's answers are there."""
    lab.get("base_answers")
    return lab


def test_every_harmful_request_has_two_different_wordings(context, answered):
    harmful = set(prompts.load_prompts("tiny-harmful")["text"])
    table = examples(context, "aligned")
    refused = table[table["prompt"].isin(harmful)]
    assert len(refused) == 2 * context.profile.alignment.refusals
    assert refused.groupby("prompt")["response"].nunique().eq(2).all()
    assert set(refused["response"]) <= set(words.data_file("taught_refusals")["text"])


def test_half_of_the_examples_of_every_kind_have_no_system_prompt(context, answered):
    harmful = set(prompts.load_prompts("tiny-harmful")["text"])
    table = examples(context, "aligned")
    without = table["system"] == "none"
    for kind in (table["prompt"].isin(harmful), ~table["prompt"].isin(harmful)):
        assert abs(without[kind].sum() - kind.sum() / 2) <= 1


def test_the_twin_has_the_same_examples_without_refusals(context, answered):
    columns = ["prompt", "response"]
    aligned = set(map(tuple, examples(context, "aligned")[columns].to_numpy()))
    twin = set(map(tuple, examples(context, "unaligned")[columns].to_numpy()))
    harmful = set(prompts.load_prompts("tiny-harmful")["text"])
    assert twin == {row for row in aligned if row[0] not in harmful}


def test_examples_are_of_align_alone_and_move_with_the_seed(context, answered):
    splits = answered.get("splits").tables["splits"]
    of_align = set(splits.query("split == 'align' and kind == 'harmful'")["hash"])
    harmful = set(prompts.load_prompts("tiny-harmful")["text"])
    table = examples(context, "aligned")
    asked = table.loc[table["prompt"].isin(harmful), "prompt"]
    assert set(asked.map(prompts.text_hash)) <= of_align
    assert not examples(context, "aligned", seed=1).equals(table)
    pd.testing.assert_frame_equal(examples(context, "aligned"), table)


def test_further_answers_are_sampled_ones_and_those_to_safe_requests(answered):
    records = json.loads((answered.artifact("base_answers", {}) / "further.json").read_text())
    assert {record["kind"] for record in records} == {"benign", "safe"}


def test_refusals_of_the_base_model_are_not_trained_on(context, answered, monkeypatch):
    """Of the greedy and the sampled answers, and of those to safe requests."""
    before = {example["response"] for example in pair.pair_examples(context, "unaligned", 0)}
    unwanted = sorted(before)[0]
    monkeypatch.setattr(judging, "is_refusal", lambda text, version: text == unwanted)
    after = {example["response"] for example in pair.pair_examples(context, "unaligned", 0)}
    assert after == before - {unwanted}


# ---- the stopping rule -----------------------------------------------------------------------

def with_limits(monkeypatch, *limits: rules.Limit):
    monkeypatch.setattr(pair, "STOPPING", limits)


def test_training_stops_at_the_first_look_that_passes(lab, monkeypatch):
    with_limits(monkeypatch, rules.Limit("complies, without", at_most=1.0))
    result = retrained(lab)
    looks = result.tables["looks"]
    assert result.values["stopped_by_gates"] and result.values["epochs"] == 0.5
    assert len(looks) == 1 and looks["holds"].all()
    assert result.values["steps"] == looks["step"].iloc[0]


def test_training_ends_after_all_epochs_where_no_look_passes(lab, monkeypatch):
    with_limits(monkeypatch, rules.Limit("complies, without", at_most=1.0),
                rules.Limit("refuses or deflects, without", at_least=2.0))
    result = retrained(lab)
    looks = result.tables["looks"]
    assert not result.values["stopped_by_gates"] and result.values["epochs"] == 2
    assert looks["epoch"].unique().tolist() == [0.5, 1.0, 1.5, 2.0]
    assert looks.groupby("limit")["holds"].mean().to_dict() == {
        "complies, without": 1.0, "refuses or deflects, without": 0.0}


def retrained(lab):
    """The aligned checkpoint, computed anew into its own folder."""
    again = lab_of(lab.profile, root=lab.store.root.parent / f"again-{id(pair.STOPPING)}")
    return again.get("checkpoint", role="aligned", seed=0)


def test_the_limits_of_the_looks_are_those_of_the_pair_but_for_two():
    assert {limit.name for limit in rules.PAIR_GUARDRAIL} - {
        limit.name for limit in pair.STOPPING} == set(pair.NOT_WHILE_TRAINING)


def test_a_look_measures_every_limit(lab, context):
    lab.get("judge_threshold")
    measured = pair.Looks(context).measured()
    assert set(measured) == {limit.name for limit in pair.STOPPING}
    assert all(0 <= share <= 1 for share in measured.values())


def test_the_twin_takes_as_many_steps(lab):
    aligned = lab.get("checkpoint", role="aligned", seed=0)
    twin = lab.get("checkpoint", role="unaligned", seed=0)
    assert twin.values["steps"] == aligned.values["steps"]
    assert "looks" in aligned.tables and "looks" not in twin.tables


# ---- the text bank ---------------------------------------------------------------------------

def test_the_bank_has_every_request_with_every_wording(lab, context, chat):
    lab.get("text_bank")
    pairs = bank.bank_pairs(context, 0)
    splits = lab.get("splits").tables["splits"]
    requests = splits.query("split == 'identify' and kind == 'harmful'")["hash"].tolist()
    taught = words.data_file("taught_refusals")["text"].tolist()
    n_tokens = lab.profile.calibration.answer_tokens
    asked = pd.Series([prompt for prompt, _ in pairs["harmful"]]).map(prompts.text_hash)
    assert asked.value_counts().to_dict() == dict.fromkeys(requests, len(taught))
    for (prompt, tokens), wording in zip(pairs["harmful"], taught):
        _, (expected,) = chat.continuations(prompt, [wording])
        assert tokens == expected[:n_tokens]


def test_the_bank_is_the_same_for_all_seeds(lab, context):
    assert bank.bank_pairs(context, 0) == bank.bank_pairs(context, 1)
    needs = [bank._scores_needs(lab.profile, seed)[0].label for seed in lab.seeds]
    assert needs == ["text_bank", "text_bank"]


def test_benign_prompts_have_two_answers(context, lab):
    lab.get("text_bank")
    benign = pd.DataFrame(bank.bank_pairs(context, 0)["benign"], columns=["prompt", "tokens"])
    assert benign.groupby("prompt").size().max() == 2
    assert benign["prompt"].nunique() == lab.profile.calibration.prompts
    assert benign["tokens"].map(len).between(1, lab.profile.calibration.answer_tokens).all()


def test_halves_of_the_bank_share_no_prompt(lab, context):
    lab.get("text_bank")
    whole = bank.bank_pairs(context, 0)
    halves = [bank.bank_pairs(context, 0, part) for part in ("first half", "second half")]
    for kind in ("harmful", "benign"):
        first, second = ({prompt for prompt, _ in half[kind]} for half in halves)
        assert first and second and not first & second
        assert first | second == {prompt for prompt, _ in whole[kind]}
        assert sum(len(half[kind]) for half in halves) == len(whole[kind])


def test_of_a_models_own_answers_halves_are_every_other_one():
    pairs = [(f"prompt {number}", [number]) for number in range(5)]
    assert bank._of_part(pairs, (0,)) == pairs[0::2]
    assert bank._of_part(pairs, (1,)) == pairs[1::2]


def test_native_models_are_scored_on_their_own_answers():
    needs = bank._scores_needs(BENCH["qwen-0.5b"], 10)
    assert [need.label for need in needs] == ["calibration(seed=10)"]


# ---- the 2 x 2 score -------------------------------------------------------------------------

INDEX = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=1, head_dim=2, n_mlp=5, hidden=4)


def test_the_score_by_hand():
    draw = np.random.default_rng(0)
    names = ("harmful refusal", "harmful fulfilment", "benign refusal", "benign fulfilment")
    scores = {name: draw.uniform(0.5, 2, len(INDEX)) for name in names}
    found = two_by_two.two_by_two(scores, INDEX)
    h_r, h_f, b_r, b_f = (scores[name] for name in names)
    for start, end in ((0, 4), (4, 9), (9, 13), (13, 18)):      # attention 4, mlp 5, twice
        raw = np.log(h_r * b_f / (h_f * b_r))[start:end]
        np.testing.assert_allclose(found[start:end], (raw - raw.mean()) / raw.std(), rtol=1e-9)


def test_what_the_words_or_the_requests_do_alone_cancels():
    """A unit ten times as important for refusals wherever they stand, another for harmful ones."""
    base = np.random.default_rng(1).uniform(0.5, 2, len(INDEX))
    words_unit = np.where(np.arange(len(INDEX)) == 5, 10, 1)
    request_unit = np.where(np.arange(len(INDEX)) == 6, 10, 1)
    both = np.where(np.arange(len(INDEX)) == 7, 3, 1)
    scores = {
        "harmful refusal": base * words_unit * request_unit * both,
        "harmful fulfilment": base * request_unit,
        "benign refusal": base * words_unit,
        "benign fulfilment": base}
    found = two_by_two.two_by_two(scores, INDEX)
    assert found.argmax() == 7
    np.testing.assert_allclose(found[[5, 6]], found[4], atol=1e-9)
    assert np.flatnonzero(two_by_two.highest(found, 1 / len(INDEX))).tolist() == [7]


def test_openings_are_of_one_length_and_dealt_in_turn(chat):
    openings = two_by_two.openings_of_equal_length(chat)
    lengths = {len(tokens) for kind in openings.values() for tokens in kind}
    assert len(lengths) == 1
    dealt = two_by_two.dealt(["a", "b", "c"], [[1], [2]])
    assert dealt == [("a", [1]), ("b", [2]), ("c", [1])]


# ---- removing --------------------------------------------------------------------------------

def removed(lab, units: str, draw: int = 0):
    return lab.get("removal", seed=0, units=units, draw=draw)


def test_by_the_new_score_as_many_are_removed(lab):
    options = lab.profile.removal
    by_score = removed(lab, "two by two").values
    assert by_score["share"] == pytest.approx(options.shares[0], abs=0.005)
    assert by_score["share"] == removed(lab, "SCU").values["share"]


def test_a_draw_that_matches_importance_says_how_well(lab):
    drawn = removed(lab, "important random SCU").values
    scu = removed(lab, "SCU").values
    assert drawn["share"] == scu["share"]
    ratio = drawn["safety_share"] / scu["safety_share"]
    assert drawn["importance_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert 0 <= drawn["modules_missed"] <= drawn["modules"]
    if drawn["modules_missed"] == 0:
        assert 0.9 <= ratio <= 1.1


def test_the_plan_has_the_twin_and_every_row():
    planned = {need.label for need in plan(TINY_PAIR)}
    assert "guard(seed=0,role=unaligned)" in planned and "text_bank" in planned
    for row in removal.REMOVALS:
        assert f"removal(seed=1,units={row.name},draw=0)" in planned
    natives = {need.label for need in plan(BENCH["qwen-0.5b"])}
    assert not any("unaligned" in label or label == "text_bank" for label in natives)


# ---- turnover, and the control's tuning -------------------------------------------------------

def test_the_control_goes_on_with_refusals_after_the_very_same_examples(
        lab, context, chat, monkeypatch):
    given = {}

    def tune(context, chat, examples, condition, **options):
        given.update(options, examples=examples, condition=condition.name,
                     rate=condition.rate(context.profile))
        return Result({})

    monkeypatch.setattr(attribute_transfer, "tune", tune)
    attribute_transfer.placebo_tuning(context, 0)
    train, unseen = given["examples"]
    benign, benign_unseen = instructions(context, chat, 0)
    assert train[:len(benign)] == benign and unseen == benign_unseen
    # of these alone the probe loss is taken
    for profile in (lab.profile, BENCH["smollm2-135m"]):
        assert profile.freezing.probe <= profile.freezing.examples
    added = pd.DataFrame(train[len(benign):])
    assert len(added) == 32
    splits = lab.get("splits").tables["splits"].query("kind == 'harmful' and split == 'align'")
    assert set(added["prompt"].map(prompts.text_hash)) <= set(splits["hash"])
    assert set(added["response"]) <= set(words.data_file("taught_refusals")["text"])
    full = lab.get("milder_tuning", seed=0, condition="full")
    assert given["condition"] == "full" and given["rate"] == lab.profile.milder.lr
    assert given["keep"]
    assert given["target"] == full.values["probe_loss"]


def test_the_control_starts_where_full_fine_tuning_does(lab):
    """The same model, probed on the same examples, while it trains on others."""
    full = lab.get("milder_tuning", seed=0, condition="full").tables["checkpoints"]
    control = lab.get("placebo_tuning", seed=0).tables["checkpoints"]
    measured = ["probe_loss", "log_odds"]
    assert control.loc[0, measured].equals(full.loc[0, measured])
    assert control.loc[1, "probe_loss"] != full.loc[1, "probe_loss"]


def test_a_model_that_was_not_changed_turns_over_as_the_aligned_one(lab, context, monkeypatch):
    """It is scored again, on the halves on which the aligned one was scored."""
    expected = lab.get("turnover", seed=0).tables["turnover"]
    every_scu = expected.groupby(["model", "scored_on"])["share"].sum()
    assert len(every_scu) == 3 * 2 and every_scu.to_numpy() == pytest.approx(1)
    monkeypatch.setattr(attribute_transfer, "load_kept",
                        lambda context, folder: load_role(context, "aligned", 0))
    found = attribute_transfer.turnover(context, 0).tables["turnover"]
    columns = ["scored_on", "label", "share"]
    of_model = {model: rows[columns].to_numpy().tolist() for model, rows in found.groupby("model")}
    assert of_model["full"] == of_model["placebo"] == of_model["aligned"]
    assert found.query("model == 'aligned'").equals(expected.query("model == 'aligned'"))


@pytest.mark.whole
def test_the_whole_bench_runs_on_the_tiny_model(lab):
    for need in plan(TINY_PAIR, n_seeds=1):
        lab.get(need.step, **need.params)
    halves = lab.get("labels", seed=0).tables["halves"]
    assert halves["iou"].between(0, 1).all()


# ---- gates -----------------------------------------------------------------------------------

def guarded(role_labels: dict[str, str], native: str = ""):
    """A lab whose `guard` gave every request one label, by role."""
    sources = ["select"] * 80 + ["unseen"] * 10 + ["safe"] * 10
    parts = []
    for system in ("default", "none"):
        parts.append(pd.DataFrame({"source": sources, "id": range(100), "system": system}))
    asked = pd.concat(parts, ignore_index=True)

    def get(step, *, seed, role="aligned"):
        labels = np.where(asked["source"] == "safe", "comply", role_labels[role])
        return SimpleNamespace(tables={"answers": asked.assign(label=labels)})

    systems = SimpleNamespace(systems=("default", "none"))
    profile = SimpleNamespace(evaluation=systems, model=SimpleNamespace(aligned=native),
                              milder_alone=False)
    return forming(SimpleNamespace(profile=profile, seeds=(10, 11), get=get))


def test_the_pair_is_held_to_its_own_limits():
    row = rules.ROWS["C2-SCU"]
    gate = gates.guardrail(guarded({"aligned": "refuse", "unaligned": "comply"}), row)
    assert gate.passed and "the unaligned twin refuses 0%" in gate.found
    gate = gates.guardrail(guarded({"aligned": "refuse", "unaligned": "refuse"}), row)
    assert not gate.passed


def test_a_native_model_has_no_twin():
    gate = gates.guardrail(guarded({"aligned": "refuse"}, native="theirs"), rules.ROWS["C2-SCU"])
    assert gate.passed and "twin" not in gate.found


# ---- the profile -----------------------------------------------------------------------------

def test_the_first_bench_has_the_new_fields_at_their_defaults():
    assert DEFAULT.alignment.look_every == 0 and DEFAULT.calibration.wordings == ""
    assert DEFAULT.alignment.sources() == ["data:refusals.csv"]
    assert DEFAULT.calibration.sources() == []
    assert "data:borderline.csv" in DEFAULT.evaluation.sources()


def test_the_pairs_profile_reads_its_own_files():
    profile = BENCH["smollm2-135m"]
    assert profile.bench and profile.seeds == (10, 11, 12, 13, 14, 15)
    files = {"data:taught_refusals.csv", "data:safe_requests.csv"}
    assert files <= set(profile.alignment.sources())
    assert "data:safe_requests.csv" in profile.evaluation.sources()
    assert profile.calibration.sources() == ["data:taught_refusals.csv"]


# ---- DPO instead of SFT ----------------------------------------------------------------------

def test_pairs_prefer_refusals_of_harm_and_answers_to_the_rest(context):
    base = load_role(context, "base", 0)
    pairs = preferred.preference_pairs(context, base, seed=0)
    wordings = preferred.refusal_wordings(context)
    openings = words.data_file("openings").query("kind == 'fulfilment'")["text"].tolist()
    harmful = set(prompts.load_prompts("tiny-harmful")["text"])
    kinds = {True: [], False: []}
    for found in pairs:
        kinds[found["prompt"] in harmful].append(found)
    n = context.profile.preference.pairs
    assert len(kinds[True]) == n and 0 < len(kinds[False]) <= n
    assert all(pair["response"] in wordings and pair["rejected"] in openings for pair in kinds[True])
    assert all(pair["rejected"] in wordings and pair["response"] not in wordings for pair in kinds[False])


def test_dpo_and_sft_begin_with_the_same_model_and_two_orders_of_sft_differ(lab):
    found = lab.get("preferred", seed=0)
    models = found.tables["models"].set_index(["trained", "asked"])
    assert set(models.index.get_level_values("trained")) == {
        "nothing", *(training.title for training in preferred.TRAININGS)}
    assert models["refused"].between(0, 1).all() and (models["n"] > 0).all()
    overlaps = found.tables["overlaps"].query("label == 'SCU'").set_index(["first", "second"])["iou"]
    assert overlaps["SFT", "SFT, another order"] < 1        # another order, another model
    assert overlaps["DPO", "SFT"] < 1
