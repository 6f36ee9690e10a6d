"""Notebook 08's own answers, on labels, answers and splits made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssah.claims.profiles import BENCH
from ssah.claims.questions import answered as sentences
from ssah.claims.questions import objectives, preferred, read, run, unseen
from ssah.classification import Units
from ssah.errors import SsahError
from ssah.lab import Result
from ssah.units import UnitIndex

#: Two blocks of 2 heads x 3 channels and 6 MLP channels.
INDEX = UnitIndex.from_dict({
    "n_blocks": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 3, "n_mlp": 6, "hidden": 6})


def labelled(scu: list[int]) -> Units:
    """Units of which those with these numbers are SCU, all others CU."""
    labels = np.full(len(INDEX), "CU", dtype=object)
    labels[scu] = "SCU"
    scores = np.zeros(len(INDEX))
    return Units(labels, INDEX, scores, scores, {})


# ---- exclusive -------------------------------------------------------------------------------

class Ablations:
    """A lab of one seed and two prompts: without SCU nothing is refused, without RU all is."""

    profile = SimpleNamespace(evaluation=SimpleNamespace(systems=("default",)))

    def frame(self, step: str, table: str) -> pd.DataFrame:
        rows = []
        for condition in ("none", *read.REMOVED, *(f"random {kind}" for kind in read.REMOVED)):
            for prompt in ("a", "b"):
                refused = condition != "SCU"
                rows.append({"condition": condition, "seed": 0, "id": prompt, "system": "default",
                             "label": "refuse" if refused else "comply", "keyword": refused,
                             "log_odds": 0.0, "correct": condition != "UCU"})
        return pd.DataFrame(rows)


def test_a_kind_that_moves_one_measure_alone():
    table = read.exclusive(Ablations())
    means = table.set_index(["kind", "compared", "measure"])["mean"]
    for compared in read.REFERENCES:
        assert means["SCU", compared, "refusals"] == -100
        assert means["SCU", compared, "accuracy"] == 0
        assert means["UCU", compared, "refusals"] == 0
        assert means["UCU", compared, "accuracy"] == -100
    said = read.exclusive_seen(table)
    assert "SCU move refusals; UCU move accuracy; RU move nothing clearly." in said
    assert "no proof of nothing (points): SCU on accuracy [0, 0];" in said
    assert read.shown_exclusive(table).shape == (6, 2)
    said = read.instead_of_refusals(Ablations())
    assert "100% refuse with nothing removed and 0% without the SCU" in said
    assert "0% and 100% comply (strict ASR; keyword ASR 0% and 100%)" in said


# ---- a sentence a question ----------------------------------------------------------------------

def test_the_answers_say_the_numbers_of_the_tables():
    overlaps = pd.DataFrame({"label": "SCU", "comparison": ["halves", "seeds"], "iou": [0.45, 0.2],
                             "chance": 0.01, "run": ["seed 0", "seeds 0 and 1"]})
    sizes = pd.DataFrame({"billions": [0.1, 0.1, 1.5], "overlap": [0.6, 0.6, 0.5]})
    said = sentences.stable(overlaps, sizes)
    assert "In part" in said and "an IoU of 0.45" in said and "two seeds' models 0.20." in said
    assert said.endswith("two halves have 0.60 (100 million weights), 0.50 (1500 million weights).")
    assert "second bench" not in sentences.stable(overlaps, sizes[:0])
    # kinds of harm are of one seed, and so are the sixths beside them
    sixths = pd.DataFrame({"label": "SCU", "comparison": ["categories", "sixths", "sixths"],
                           "iou": [0.4, 0.36, 0.1], "run": ["seed 0", "seed 0", "seed 1"]})
    said = sentences.stable(pd.concat([overlaps, sixths]), sizes)
    assert "each, 0.40, where any two sixths have 0.36 (seed 0 alone)." in said

    rows = pd.DataFrame({"ASR": [0.1, 0.2, 0.3, 0.4, 0.5], "reached": [1, 1, 1, 0.5, 1]},
                        index=["full", "RU", "random", "only SCU", "random like SCU"])
    said = sentences.aligned_by_a_part(rows)
    assert "RU alone 20%, as many random units 30%, everything 10%; the SCU alone 40%" in said
    assert "in 50% of the seeds" in said and "nobody trained against" not in said
    said = sentences.aligned_by_a_part(rows.assign(**{"other ASR": 0.7}))
    assert "(in brackets: on the set that nobody trained against)" in said and "20% (70%)" in said

    refused = pd.DataFrame({"role": "aligned", "prefilled": [0, 1, 5], "mean": [0.9, 0.3, 0.1]})
    said = sentences.unseen_prefills(refused)
    assert said == ("**Answer.** Most refusals do not survive a prefill. Without a prefill 90% of the answers refuse; after one of "
                    "1 token 30%, of 5 tokens 10%.")
    assert "survive" not in sentences.unseen_prefills(refused.assign(mean=0.9))


# ---- where -----------------------------------------------------------------------------------

def test_units_are_counted_by_head():
    # block 0: two channels of the first head; block 1: one of each head, and one of the MLP
    units = labelled([0, 2, 12, 15, 18])
    counts = read.per_head(units, units.mask("SCU"))
    np.testing.assert_array_equal(counts, [[2, 0], [1, 1]])


def test_whole_heads_are_as_uneven_as_can_be():
    whole = np.array([[3, 0], [3, 0]])
    random = np.random.default_rng(0)
    drawn = [read.unevenness(dealt) for dealt in read.dealt(whole, 3, random)]
    # of the 20 ways to deal 3 of 6 channels, 2 fill a head: in both blocks 1 draw of 100
    assert np.mean(np.array(drawn) >= read.unevenness(whole)) == pytest.approx(0.01, abs=0.012)
    # variance over two heads: 2.25 in 2 ways, 0.25 in 18
    assert np.mean(drawn) == pytest.approx(0.1 * 2.25 + 0.9 * 0.25, abs=0.05)


def test_parts_of_the_depth_and_of_attention():
    found = read._parts(labelled([]), np.isin(np.arange(len(INDEX)), [0, 1, 6, 13]))
    assert found["in attention"] == 0.75
    assert found["first third"] == 0.75         # of two blocks the first is in the first third
    assert found["middle third"] == 0.25
    assert found["last third"] == 0


# ---- leakage ---------------------------------------------------------------------------------

def test_a_text_and_a_near_copy_in_two_splits_are_seen():
    table = pd.DataFrame({
        "kind": "harmful",
        "split": ["align", "align", "identify", "identify", "spare"],
        "hash": ["a", "b", "b", "c", "a"],
        "cluster": [1, 2, 2, 1, 1]})
    lab = SimpleNamespace(get=lambda step: Result({}, {"splits": table}))
    found = read.shared_prompts(lab)
    assert found.loc[("harmful", "align and identify")].tolist() == [1, 2]
    assert "1 texts and 2 groups" in read.leakage_seen(found)


# ---- attacks that nobody trained against -----------------------------------------------------

def answered(fulfilled: str, **params) -> pd.DataFrame:
    """Answers to as many requests: ``c`` complied, ``r`` refused."""
    return pd.DataFrame({"id": range(len(fulfilled)), "system": "default", "seed": 10,
                         "label": ["comply" if letter == "c" else "refuse" for letter in fulfilled],
                         "keyword": [letter == "r" for letter in fulfilled], **params})


class Attacked:
    """A lab in which one attack makes 6 of 12 requests succeed, and rounding none."""

    profile = SimpleNamespace(evaluation=SimpleNamespace(systems=("default",)), seeds=(10,),
                              model=SimpleNamespace(label="a model"))

    def frame(self, step: str, table: str) -> pd.DataFrame:
        if step == "removal":
            return pd.concat([answered("r" * 12, units="nothing"), answered("c" * 12, units="SCU")])
        return pd.concat([answered("cr" * 6, attack="prefix injection"),
                          answered("r" * 12, attack="8 bits")])


def test_attacks_stand_beside_the_model_as_it_is():
    table = unseen.attacked(Attacked())
    assert table.index.tolist() == ["nothing", "prefix injection", "8 bits"]
    assert [rate.mean for rate in table["keyword_asr"]] == [0, 0.5, 0]
    change = table.loc["prefix injection", "change"]
    # Student's interval over 12 requests: 0.5 +- 2.2010 * sqrt(0.25 / 11)
    assert change.low == pytest.approx(0.5 - 2.2010 * np.sqrt(0.25 / 11), abs=1e-4)
    said = unseen.seen(Attacked(), table)
    assert "clearly higher: asked to begin with" in said and "lower" not in said
    assert "not clearly changed: weights rounded to 8 bits (0%, keyword 0%). Not run on it: " in said
    missing = [attack.title for attack in run.ATTACKS if attack.name not in table.index]
    assert said.endswith(f"Not run on it: {'; '.join(missing)}.") and len(missing) == 3
    assert "| as it is | 0 [0, 0] | 0 [0, 0] |  |" in unseen.shown(table)


def test_what_is_asked_holds_the_request_and_nothing_else_of_it():
    for attack in run.ATTACKS:
        assert attack.template.format(request="bake a cake").count("bake a cake") == 1
    with pytest.raises(SsahError, match="unknown attack 'flattery'; known: prefix injection"):
        run._attack_needs(BENCH["organism"], 0, "flattery")


def test_a_made_up_language_is_attacked_by_rounding_alone():
    planned = [need for need in run.bench(BENCH["organism"], 0) if need.step == "unseen_attack"]
    assert [need.params["attack"] for need in planned] == ["8 bits", "4 bits"]
    assert len(run.bench(BENCH["qwen-0.5b"], 10)) == len(run.ATTACKS)
    assert run.bench(BENCH["smollm2-135m"], 11) == []


# ---- DPO instead of SFT ----------------------------------------------------------------------

def test_dpo_is_tried_where_there_is_a_base_model_that_refuses_nothing():
    for name, tried in (("organism", True), ("smollm2-135m", True), ("qwen-0.5b", False)):
        profile = BENCH[name]
        steps = [need.step for need in run.bench(profile, profile.seeds[0])]
        assert ("preferred" in steps) == tried, name


def test_units_of_two_trainings_are_compared_label_by_label():
    def with_labels(scu, ru):
        units = labelled(scu)
        units.labels[ru] = "RU"
        return units

    table = preferred.overlaps({"one": with_labels([0, 1, 2], [9]), "two": with_labels([2, 3], [9]),
                                "three": with_labels([0, 1, 2], [8])})
    found = table.set_index(["first", "second", "label"])["iou"]
    assert found["one", "two", "SCU"] == 1 / 4 and found["one", "two", "RU"] == 1
    assert found["one", "three", "SCU"] == 1 and found["one", "three", "RU"] == 0
    assert len(table) == 9 and np.isnan(found["one", "two", "UCU"])      # neither has any


class Preferred:
    """A lab in which DPO refuses half, and shares a third of its SCU with SFT."""

    profile = SimpleNamespace(model=SimpleNamespace(label="a model"))

    def frame(self, step, table):
        titles = [objectives.NOTHING, *(training.title for training in preferred.TRAININGS)]
        if table == "models":
            refused = dict(zip(titles, (0.0, 0.5, 0.9, 1.0, 1.0)))
            return pd.DataFrame([{"trained": title, "asked": kind, "n": 10,
                                  "refused": share if kind == "harmful" else 0.0}
                                 for title, share in refused.items() for kind in ("harmful", "benign")])
        common = {("DPO", "SFT"): 1 / 3, ("DPO and SFT", "SFT"): 0.4, ("SFT", "SFT, another order"): 0.7}
        return pd.DataFrame([{"first": first, "second": second, "label": "SCU", "iou": value}
                             for (first, second), value in common.items()])


def test_dpo_is_told_beside_two_runs_of_sft():
    said = objectives.said(Preferred())
    assert "from 0% to 50%, with SFT's loss added to 90%, and SFT on the preferred answers to 100%" in said
    assert "0.33 is in common with SFT's after DPO, 0.40 after DPO with SFT's loss, and 0.70" in said
    assert said.endswith("more of them change with the objective than with the order.")
    rows = objectives.shown(Preferred()).splitlines()
    assert rows[2:] == ["| nothing | 0% | 0% |  |", "| DPO | 50% | 0% | 0.33 |", "| DPO and SFT | 90% | 0% | 0.40 |",
                        "| SFT | 100% | 0% |  |", "| SFT, another order | 100% | 0% | 0.70 |"]


def test_titles_are_those_of_the_trainings():
    assert [training.title for training in preferred.TRAININGS] == [
        objectives.DPO, objectives.ANCHORED, objectives.SFT, objectives.AGAIN]
