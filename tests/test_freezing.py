"""The freezing experiment: what each condition freezes, on what it trains, when it is compared."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssah.classification import classify
from ssah.errors import SsahError
from ssah.lab import Lab
from ssah.claims.freezing.run import (COMPARED, KEPT, LEAST, OTHER_EXAMPLES, TUNED, frozen_units,
                                      instructions)
from ssah.claims.profiles import load_profile
from ssah.units import UnitIndex


@pytest.fixture
def units():
    """Four blocks; scores at random, so that every module has units of every kind."""
    index = UnitIndex(n_blocks=4, n_heads=4, n_kv_heads=2, head_dim=8, n_mlp=100, hidden=32)
    draw = np.random.default_rng(0)
    return classify(draw.random(len(index)), draw.random(len(index)), index=index, scu=0.02, ucu=0.13, ru=0.15)


def counts(units, mask):
    return units.index.table[mask].groupby(["block", "kind"]).size().to_dict()


def test_treated_sets(units):
    scu, top, all_cu = (frozen_units(units, name, 0.06, 0) for name in ("SCU", "SCU + top CU", "SCU + all CU"))
    n = len(units.index)
    assert scu.sum() == round(0.02 * n) and top.sum() == round(0.02 * n) + round(0.06 * n)
    assert np.array_equal(all_cu, np.isin(units.labels, ["SCU", "CU"]))
    assert (scu <= top).all() and (top <= all_cu).all()
    added, left = top & ~scu, units.mask("CU") & ~top
    assert units.safety[added].min() >= units.safety[left].max()        # the highest scaled I_S
    assert np.array_equal(frozen_units(units, "SCU + all CU + rest", 0.06, 0), all_cu)
    assert not frozen_units(units, "full", 0.06, 0).any() and not frozen_units(units, "full slower", 0.06, 0).any()


@pytest.mark.parametrize("random, twin", [("random small", "SCU + top CU"), ("random large", "SCU + all CU"),
                                          ("random large without SCU", "SCU + all CU")])
def test_random_sets_have_their_twins_counts(units, random, twin):
    drawn, treated = frozen_units(units, random, 0.06, 0), frozen_units(units, twin, 0.06, 0)
    assert counts(units, drawn) == counts(units, treated)
    assert not np.array_equal(drawn, frozen_units(units, random, 0.06, 1))
    assert (drawn & units.mask("SCU")).any() == (random == "random large")      # an ordinary draw has some SCU


def test_the_least_important_units_by_module(units):
    """As many of every module as SCU + all CU have there, and no unit outside is less important than one inside."""
    chosen = frozen_units(units, LEAST, 0.06, 0)
    assert counts(units, chosen) == counts(units, frozen_units(units, "SCU + all CU", 0.06, 0))
    for _, _, where in units.index.modules():
        inside = chosen[where]
        assert units.safety[where][inside].max() <= units.safety[where][~inside].min()


def test_an_unknown_condition(units):
    with pytest.raises(SsahError, match="known: full, full slower, SCU"):
        frozen_units(units, "all", 0.06, 0)


@pytest.fixture
def lab(tmp_path):
    return Lab(load_profile("smoke"), root=tmp_path / "results")


def test_examples_come_from_no_evaluated_split(lab, chat):
    context = SimpleNamespace(profile=lab.profile, get=lab.get)
    train, unseen = instructions(context, chat, 0)
    options = lab.profile.freezing
    assert (len(train), len(unseen)) == (options.examples, options.unseen)
    splits = lab.get("splits").tables["splits"].query("kind == 'benign'")
    texts = lab.profile.data.benign[0]
    from ssah.inputs.prompts import load_prompts
    text_of = load_prompts(texts).set_index("id")["text"]
    for split in ("identify", "select", "evaluate"):
        taken = set(text_of[splits.query("split == @split")["id"]])
        assert not taken & {e["prompt"] for e in train + unseen}
    assert not {e["prompt"] for e in train} & {e["prompt"] for e in unseen}
    assert instructions(context, chat, 0) == (train, unseen) != instructions(context, chat, 1)


def test_too_few_examples(lab, chat):
    from dataclasses import replace
    profile = replace(lab.profile, freezing=replace(lab.profile.freezing, examples=500))
    with pytest.raises(SsahError, match="504 are wanted; lower examples"):
        instructions(SimpleNamespace(profile=profile, get=lab.get), chat, 0)


def test_runs_are_compared_at_the_full_runs_loss(lab):
    """`full` ends at the loss L*; the others are measured at their first checkpoint at or below it, or at the end."""
    full, scu, held = (lab.get("tuning", seed=0, condition=c) for c in ("full", "SCU", "SCU + all CU + rest"))
    target = full.values["probe_loss"]
    assert full.values["equal loss: probe_loss"] == target == full.tables["checkpoints"]["probe_loss"].iloc[-1]
    losses = scu.tables["checkpoints"].set_index("epoch")["probe_loss"]
    assert scu.values["reached"] and scu.values["equal loss: epoch"] == losses[losses <= target].index[0]
    assert not held.values["reached"] and (held.tables["checkpoints"]["probe_loss"] > target).all()
    assert set(full.tables["answers"]["at"]) == {"start", "one epoch", "equal loss", "end"}
    assert set(held.tables["answers"]["at"]) == {"one epoch", "end"}
    assert (held.tables["answers"].query("at == 'end'")["source"] == "borderline").any()    # all measures at the end
    assert scu.tables["checkpoints"]["epoch"].max() == 2 * full.tables["checkpoints"]["epoch"].max()
    assert full.tables["checkpoints"]["log_odds"].notna().all()
    slower = lab.get("tuning", seed=0, condition="random small")        # ends where it reached the loss
    assert slower.tables["checkpoints"]["epoch"].iloc[-1] == slower.values["equal loss: epoch"] < scu.tables["checkpoints"]["epoch"].max()
    assert (slower.tables["checkpoints"]["probe_loss"].iloc[:-1] > target).all()


def test_conditions_start_from_the_same_model(lab):
    starts = {c: lab.get("tuning", seed=0, condition=c).tables["checkpoints"].iloc[0] for c in ("full", "SCU", "full slower")}
    assert len({row["probe_loss"] for row in starts.values()}) == len({row["log_odds"] for row in starts.values()}) == 1


# ---- other examples, more measures -----------------------------------------------------------

def test_own_answers_are_none_that_the_alignment_saw(lab):
    from ssah.claims.shared.foundation import alignment_examples
    from ssah.claims.freezing.run import own_answers
    lab.get("base_answers")
    context = SimpleNamespace(profile=lab.profile, get=lab.get, artifact=lambda name, **params: lab.artifact(name, params))
    for seed in (0, 1):
        train, unseen = own_answers(context, seed)
        seen = {e["prompt"] for e in alignment_examples(context, "aligned", seed)}
        assert len(train) == lab.profile.freezing.examples and unseen
        prompts = [e["prompt"] for e in train + unseen]
        assert len(set(prompts)) == len(prompts) and not seen & set(prompts)
        assert {"prompt", "response", "ended"} == set(train[0])


def test_of_a_second_set_all_are_taken_if_there_are_fewer(lab, chat):
    from dataclasses import replace
    profile = replace(lab.profile, freezing=replace(lab.profile.freezing, examples=300, unseen=150))
    context = SimpleNamespace(profile=profile, get=lab.get)
    train, unseen = instructions(context, chat, 0, "tiny-benign")
    n = len(train) + len(unseen)
    assert 3 <= n < 450 and len(train) == n * 300 // 450
    assert [len(part) for part in instructions(SimpleNamespace(profile=lab.profile, get=lab.get), chat, 0, "tiny-benign")] == [8, 4]
    with pytest.raises(SsahError, match="nowhere has 0 short benign examples"):
        instructions(context, chat, 0, "nowhere")


@pytest.mark.parametrize("examples", OTHER_EXAMPLES)
def test_other_examples_have_a_target_of_their_own(lab, examples):
    full, frozen = (lab.get("tuning_on", seed=0, examples=examples, condition=c) for c in COMPARED[:2])
    target = full.values["probe_loss"]
    assert full.tables["checkpoints"]["probe_loss"].iloc[0] == frozen.tables["checkpoints"]["probe_loss"].iloc[0]
    # the smoke profile's second set is its first, of which both take all that they ask for: the same run
    assert (target == lab.get("tuning", seed=0, condition="full").values["probe_loss"]) == (examples == "second set")
    assert frozen.values["reached"] == (frozen.tables["checkpoints"]["probe_loss"] <= target).any()
    assert "artifacts" in full.values and list(full.values["artifacts"]) == ["answers.json"]        # no weights


def test_more_measures_of_kept_models(lab):
    start, tuned = (lab.get("tuned_evaluation", seed=0, condition=c) for c in ("start", KEPT[0]))
    assert start.tables["choice"][["task", "id"]].equals(tuned.tables["choice"][["task", "id"]])
    assert not start.tables["answers"]["log_odds"].equals(tuned.tables["answers"]["log_odds"])
    # the same prompts by the same model: equal to what `tuning` measured at the start
    first = lab.get("tuning", seed=0, condition="full").tables["answers"].query("at == 'start' and source != 'borderline'")
    np.testing.assert_array_equal(start.tables["answers"]["log_odds"], first["log_odds"])


@pytest.mark.parametrize("step, params, message", [
    ("tuning_on", {"examples": "poems", "condition": "full"}, "unknown examples 'poems'; known: second set, own answers"),
    ("tuned_evaluation", {"condition": "SCU"}, "no weights are kept of 'SCU'; known: start, full"),
])
def test_what_is_unknown_is_refused(lab, step, params, message):
    with pytest.raises(SsahError, match=message):
        lab.get(step, seed=0, **params)


def test_every_condition_has_a_name_and_a_style():
    from ssah.claims.which_units.run import ADAPTERS, REGIONS
    from ssah.claims.freezing.draw import STYLES
    from ssah.claims.freezing.read import NAMES, ROWS
    assert set(NAMES) == set(STYLES) == {"start", *TUNED, LEAST, *ADAPTERS, *REGIONS}
    assert set(ROWS) == set(TUNED)
