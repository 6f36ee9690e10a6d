"""Aligning by a part of the model: what trains, on which texts units are chosen, what is measured."""

import json

import numpy as np
import pytest

from ssah.inputs import prompts
from ssah.classification import LABELS
from ssah.errors import SsahError
from ssah.claims.shared.measuring import classify_scores, paper_kinds
from ssah.claims.redundant_units.run import BUDGETS, parse
from ssah.claims.profiles import load_profile


@pytest.fixture(scope="module")
def lab(smoke_lab):
    for trained in (*BUDGETS, "RU 5 %"):
        smoke_lab.get("budget", seed=0, trained=trained)
    return smoke_lab


def run(lab, trained):
    return lab.get("budget", seed=0, trained=trained)


def base_units(lab, ru):
    scu, ucu, _ = lab.profile.freezing.shares
    return classify_scores(lab.get("base_attribution", seed=0), lab.profile.classification.scale, scu=scu, ucu=ucu, ru=ru)


def test_who_trains(lab):
    """RU of the base model; the aligned model's SCU; as many random others in every module."""
    base = base_units(lab, 0.2)
    redundant, random, scu, twin = (run(lab, name).arrays["trained"] for name in ("RU", "random", "only SCU", "random like SCU"))
    assert redundant.tolist() == np.flatnonzero(base.mask("RU")).tolist() and len(redundant) == round(0.2 * len(base.index))
    for chosen, others in ((redundant, random), (scu, twin)):
        assert not set(chosen) & set(others)
        modules = [base.index.table.iloc[rows].groupby(["block", "kind"]).size().to_dict() for rows in (chosen, others)]
        assert modules[0] == modules[1]
    assert scu.tolist() == np.flatnonzero(paper_kinds(lab.profile, lab.get("attribution", seed=0)).mask("SCU")).tolist()
    assert run(lab, "RU 5 %").arrays["trained"].tolist() == np.flatnonzero(base_units(lab, 0.05).mask("RU")).tolist()
    assert len(run(lab, "full slower").arrays["trained"]) == len(run(lab, "LoRA").arrays["trained"]) == 0


def test_fewer_units_take_larger_steps(lab):
    lr, scu = lab.profile.budget.lr, len(run(lab, "only SCU").arrays["trained"]) / len(base_units(lab, 0.2).index)
    assert run(lab, "full").values["lr"] == lr and run(lab, "LoRA").values["lr"] == lab.profile.budget.lora_lr
    assert run(lab, "full slower").values["lr"] == pytest.approx(0.2 * lr)
    assert run(lab, "RU").values["lr"] == run(lab, "random").values["lr"] == pytest.approx(lr, rel=0.01)
    assert run(lab, "RU 5 %").values["lr"] == pytest.approx(4 * lr, rel=0.01)
    assert run(lab, "only SCU").values["lr"] == run(lab, "random like SCU").values["lr"] == pytest.approx(lr * 0.2 / scu)


def test_bytes_are_those_of_what_trains(lab):
    base = base_units(lab, 0.2)
    n = 4 * base.index.weights_in(base.mask("RU"))
    assert run(lab, "RU").values["moved_bytes"] == n
    assert run(lab, "LoRA").values["moved_bytes"] == pytest.approx(n, rel=0.35)     # a rank is a large step on the tiny model
    assert run(lab, "full").values["moved_bytes"] > 5 * n


def test_all_start_from_the_base_model_and_go_for_one_loss(lab):
    full = run(lab, "full")
    target = full.values["probe_loss"]
    for trained in BUDGETS[1:]:
        table = run(lab, trained).tables["checkpoints"]
        assert table["probe_loss"].iloc[0] == pytest.approx(full.tables["checkpoints"]["probe_loss"].iloc[0], rel=1e-5)
        assert run(lab, trained).values["reached"] == (table["probe_loss"] <= target).any()
    assert full.values["start: divergence"] == pytest.approx(0, abs=1e-6) and full.values["equal loss: divergence"] > 1e-3


def test_the_probe_has_refusals_and_benign_answers(lab):
    """A probe of benign examples alone would not see alignment: its loss at the start lies between both kinds' own."""
    from types import SimpleNamespace

    from ssah.claims.shared.foundation import alignment_examples, load_base
    from ssah.finetuning import encode_examples, mean_loss
    context = SimpleNamespace(profile=lab.profile, get=lab.get, artifact=lambda name, **params: lab.artifact(name, params))
    examples, chat = alignment_examples(context, "aligned", 0), load_base(context, "float32")
    n = lab.profile.alignment.benign
    benign, refusals = (mean_loss(chat, encode_examples(chat, part)[0], 8) for part in (examples[:n], examples[n:]))
    start = run(lab, "full").tables["checkpoints"]["probe_loss"].iloc[0]
    assert min(benign, refusals) < start < max(benign, refusals)


def test_units_are_chosen_before_any_alignment(lab):
    """Refusal wordings of the training split after harmful prompts of `identify`; no result of the aligned model."""
    texts = json.loads((lab.artifact("base_attribution", {"seed": 0}) / "texts.json").read_text())
    splits = lab.get("splits").tables["splits"].query("split == 'identify'")
    known = set(splits["hash"])
    assert all(prompts.text_hash(prompt) in known for kind in texts for prompt, _ in texts[kind])
    assert len(texts["harmful"]) == lab.profile.calibration.prompts
    from ssah.lab import find_step
    assert [need.step for need in find_step("base_attribution").needs(lab.profile, seed=0)] == ["splits"]


def test_answers_after_a_prefill(lab):
    options = lab.profile.budget
    table = run(lab, "full").tables["prefilled"]
    assert set(table["at"]) == {"start", "equal loss", "end"}
    assert table.groupby(["at", "length"]).size().eq(options.prefilled).all() and set(table["length"]) == set(options.prefills)


def test_units_after_alignment_have_labels(lab):
    counts = np.bincount(run(lab, "RU").arrays["labels"], minlength=len(LABELS))
    n = len(base_units(lab, 0.2).index)
    scu, ucu, ru = lab.profile.freezing.shares
    expected = {"SCU": round(scu * n), "UCU": round(ucu * n), "RU": round(ru * n)}
    assert {label: count for label, count in zip(LABELS, counts) if label in expected} == expected


@pytest.mark.parametrize("trained, expected", [
    ("RU", ("RU", 0.2)), ("full", ("full", 0.2)), ("RU 5 %", ("RU", 0.05)), ("random 40 %", ("random", 0.4)), ("only SCU", ("only SCU", 0.2)),
    ("random like SCU", ("random like SCU", 0.2))])
def test_conditions_are_understood(trained, expected):
    assert parse(load_profile("default"), trained) == pytest.approx(expected) or parse(load_profile("default"), trained) == expected


@pytest.mark.parametrize("trained", ("CU", "RU x %", "RU 0 %", "RU 120 %", "full 5 %", ""))
def test_what_is_unknown_is_refused(trained):
    with pytest.raises(SsahError, match="unknown condition .* known: full, full slower, RU, random, only SCU, random like SCU, LoRA"):
        parse(load_profile("default"), trained)
