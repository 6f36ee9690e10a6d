"""Attribute transfer: parts of the calibration texts, flows between labels, verdict, figures."""

from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hand_made_runs import passed, run_of_hundred

from ssah.claims import lab_of, rules
from ssah.claims.attribute_transfer import decide, draw, read, run, turned
from ssah.claims.attribute_transfer.run import (
    CATEGORIES,
    FRACTIONS,
    PARTS,
    RESCORED,
    core,
    extended,
    of_category,
    part_of,
)
from ssah.claims.profiles import load_profile
from ssah.claims.shared import ribbons
from ssah.claims.shared.flows import (
    Comparison,
    changes,
    flow,
    flows,
    labels_of,
    mean_and_range,
    mean_and_range_text,
    mean_flow,
    panels,
    tidy_flow,
)
from ssah.claims.shared.foundation import calibration_pairs
from ssah.claims.shared.material import load_role
from ssah.claims.shared.measuring import score_units
from ssah.classification import LABELS, classify, iou
from ssah.errors import SsahError
from ssah.lab import Need, Result
from ssah.lab.statistics import Estimate
from ssah.units import UnitIndex

pytestmark = pytest.mark.slow

matplotlib.use("Agg")
INDEX = UnitIndex(n_blocks=2, n_heads=4, n_kv_heads=2, head_dim=8, n_mlp=100, hidden=32)
SMOKE = load_profile("smoke")


def labels_alone(labels, index=INDEX, harmful=10) -> Result:
    """A result that keeps labels alone."""
    examples = {"harmful": harmful, "benign": harmful}
    codes = pd.Categorical(labels, LABELS).codes
    return Result({"index": index.to_dict(), "examples": examples}, arrays={"labels": codes})


# ---- parts of the texts ----------------------------------------------------------------------

@pytest.fixture
def pairs():
    return {"harmful": [(f"h{i}", [i]) for i in range(25)],
            "benign": [(f"b{i}", [i]) for i in range(18)]}


def prompts_of(part, kind):
    return {prompt for prompt, _ in part[kind]}


@pytest.mark.parametrize("kind, n", [("harmful", 25), ("benign", 18)])
def test_parts_are_nested_and_opposite_ones_disjoint(pairs, kind, n):
    parts = {part: prompts_of(part_of(pairs, part, seed=3), kind) for part in PARTS}
    assert parts["first sixth"] < parts["first third"] < parts["first half"]
    assert parts["first half"] < parts["first two thirds"] < prompts_of(pairs, kind)
    assert parts["last sixth"] < parts["last third"] < parts["last half"]
    for name in ("sixth", "third", "half"):
        first = parts[f"first {name}"]
        last = parts[f"last {name}"]
        assert not first & last
        assert len(first) == len(last) == int(FRACTIONS[name] * n)


def test_a_part_is_drawn_once_a_seed(pairs):
    half = part_of(pairs, "first half", 3)
    assert part_of(pairs, "first half", 3) == half
    assert part_of(pairs, "first half", 4) != half


@pytest.mark.parametrize("part", ["half", "first", "second half", "first 16", "last two thirds",
                                  ""])
def test_an_unknown_part(pairs, part):
    with pytest.raises(SsahError, match="known: first sixth, last sixth"):
        part_of(pairs, part, 0)


def test_categories_share_no_text(pairs):
    one, other = CATEGORIES
    labels = [one] * 8 + [f"{one}; Autonomy"] * 2 + [f"{other}; {one}"] * 7 + [other] * 8
    pool = pd.DataFrame({"text": [f"h{i}" for i in range(25)], "category": labels})
    first = of_category(pairs, one, pool, 0)
    second = of_category(pairs, other, pool, 0)
    # those of both are left out
    assert prompts_of(first, "harmful") < {f"h{i}" for i in range(10)}
    assert prompts_of(second, "harmful") < {f"h{i}" for i in range(17, 25)}
    assert not prompts_of(first, "benign") & prompts_of(second, "benign")
    sixth = part_of(pairs, "first sixth", 0)        # with which they are compared
    for kind in pairs:
        assert len(first[kind]) == len(second[kind]) == len(sixth[kind])


def test_categories_that_are_not_there(pairs):
    pool = pd.DataFrame({"text": ["h0", "h1"], "category": [CATEGORIES[0], np.nan]})
    assert of_category(pairs, CATEGORIES[0], pool, 0) == {}                         # too few
    assert of_category(pairs, CATEGORIES[0], pool[["text"]], 0) == {}
    with pytest.raises(SsahError, match="unknown category 'Weather'; known: Financial"):
        of_category(pairs, "Weather", pool, 0)


# ---- the steps, on the smoke profile ---------------------------------------------------------

@pytest.fixture
def lab(tmp_path):
    return lab_of(SMOKE, root=tmp_path / "results", n_seeds=1)


def test_all_texts_give_the_attribution(lab):
    """The score here and in the step `attribution` are one."""
    folders = {"calibration": lab.artifact("calibration", {"seed": 0}),
               "checkpoint": lab.artifact("checkpoint", {"role": "aligned", "seed": 0})}
    context = SimpleNamespace(profile=SMOKE, artifact=lambda name, **params: folders[name])
    chat = load_role(context, "aligned", 0)
    pairs = calibration_pairs(context, 0, "refusals")
    scored = score_units(chat, pairs, SMOKE.calibration.system)
    expected = lab.get("attribution", seed=0)
    assert np.array_equal(scored.arrays["safety"], expected.arrays["safety"])
    assert np.array_equal(scored.arrays["utility"], expected.arrays["utility"])
    assert scored.values == expected.values


def test_rescored_models_and_parts(lab):
    aligned = lab.get("attribution", seed=0)
    base = lab.get("reattribution", seed=0, model="base")
    tuned = lab.get("reattribution", seed=0, model="full")
    assert aligned.values == base.values == tuned.values            # one index, the same texts
    assert base.arrays["safety"].dtype == np.float32
    for one, other in ((aligned, base), (aligned, tuned), (base, tuned)):
        assert not np.array_equal(one.arrays["safety"], other.arrays["safety"])
    half = lab.get("subsample", seed=0, part="first half")
    third = lab.get("subsample", seed=0, part="first third")
    assert set(half.arrays) == {"safety", "utility"}
    assert set(third.arrays) == {"labels"}
    assert third.arrays["labels"].dtype == np.int8
    assert len(third.arrays["labels"]) == len(half.arrays["safety"])
    assert half.values["examples"]["harmful"] == aligned.values["examples"]["harmful"] // 2
    left_out = lab.get("subsample", seed=0, part=f"category {CATEGORIES[0]}")
    assert "no categories" in left_out.values["left out"]
    assert not left_out.arrays


def test_unknown_models_and_parts_are_said_before_anything_is_computed(lab):
    with pytest.raises(SsahError, match="unknown model 'aligned'; known: base, full"):
        lab.get("reattribution", seed=0, model="aligned")
    assert not lab.fresh
    with pytest.raises(SsahError, match="unknown part 'third half'"):
        lab.get("subsample", seed=0, part="third half")


def test_the_plan_names_every_model_and_part_once():
    needs = core(1) + extended(1)
    planned = {need.label for need in needs}
    assert len(planned) == len(needs) == len(RESCORED) + len(PARTS) + len(CATEGORIES)
    assert all(need.params["seed"] == 1 for need in needs)


def test_what_is_compared_is_planned():
    planned = [(need.step, {name: value for name, value in need.params.items() if name != "seed"})
               for need in core(0) + extended(0)]
    for comparison in (*read.COMPARISONS, read.TWO_KINDS, *read.OTHER_CHOICES):
        for need in (comparison.before, comparison.after):
            assert need.step == "attribution" or (need.step, need.params) in planned


def test_stored_labels_have_no_other_scale():
    labels = np.resize(LABELS, len(INDEX))
    result = labels_alone(labels)
    assert np.array_equal(labels_of(SMOKE, result), labels)
    assert np.array_equal(labels_of(SMOKE, result, SMOKE.classification.scale), labels)
    with pytest.raises(SsahError, match="'rank' need scores.*first half, last half"):
        labels_of(SMOKE, result, "rank")


# ---- flows -----------------------------------------------------------------------------------

BEFORE = ["SCU", "SCU", "UCU", "UCU", "CU", "CU", "CU", "CU", "RU", "RU"]
AFTER = ["SCU", "CU", "UCU", "CU", "UCU", "CU", "CU", "CU", "RU", "RU"]


def changes_of(counts) -> pd.DataFrame:
    """`changes` of one flow, by label."""
    return changes(tidy_flow(counts, comparison="toy", run="one")).set_index("label")


def test_a_flow_by_hand():
    expected = pd.DataFrame([[1, 0, 1, 0],
                             [0, 1, 1, 0],
                             [0, 1, 3, 0],
                             [0, 0, 0, 2]], index=LABELS, columns=LABELS)
    counts = flow(BEFORE, AFTER)
    assert np.array_equal(counts, expected)
    assert list(counts.index) == list(counts.columns) == list(LABELS)
    assert (counts.index.name, counts.columns.name) == ("before", "after")


def test_changes_by_hand():
    toy = changes_of(flow(BEFORE, AFTER))
    assert toy["left"].to_dict() == {"SCU": 0.5, "UCU": 0.5, "CU": 0.25, "RU": 0.0}
    assert toy["iou"].to_dict() == {"SCU": 1 / 2, "UCU": pytest.approx(1 / 3), "CU": 3 / 6,
                                    "RU": 1.0}
    assert toy.loc["RU", "chance"] == pytest.approx(0.2 / (2 - 0.2))            # p / (2 - p)
    # 2 before, 1 after
    assert toy.loc["SCU", "chance"] == pytest.approx(0.02 / (0.2 + 0.1 - 0.02))


def test_changes_of_a_kind_without_units():
    toy = changes_of(flow(["CU", "CU"], ["CU", "RU"]))
    assert toy.loc["SCU", ["left", "iou", "chance"]].isna().all()
    assert np.isnan(toy.loc["RU", "left"])          # none that could leave
    assert toy.loc["RU", "iou"] == 0
    assert toy.loc["CU", "left"] == 0.5


def test_a_flows_marginals_are_the_sizes_of_the_kinds():
    before, after = np.random.default_rng(0).choice(LABELS, (2, 500), p=[0.01, 0.2, 0.6, 0.19])
    counts = flow(before, after)
    for label in LABELS:
        assert counts.loc[label].sum() == (before == label).sum()
        assert counts[label].sum() == (after == label).sum()
    overlap = changes_of(counts).loc["UCU", "iou"]
    assert overlap == pytest.approx(iou(before == "UCU", after == "UCU"))
    sizes = [(before == label).sum() for label in LABELS]
    assert np.array_equal(flow(before, before), np.diag(sizes))


def test_flows_of_bad_labels():
    with pytest.raises(SsahError, match="labels of 10 and of 9 units"):
        flow(BEFORE, AFTER[:9])
    with pytest.raises(SsahError, match="unknown labels SRU; known: SCU"):
        flow(BEFORE, ["SRU", *AFTER[1:]])


def test_mean_and_range():
    assert mean_and_range([0.1, 0.2, 0.6]) == Estimate(pytest.approx(0.3), 0.1, 0.6)
    assert mean_and_range_text([0.1, 0.2, 0.6]) == "30% [10, 60]"
    assert mean_and_range_text([0.126]) == "13%"
    assert mean_and_range_text([0.5, 0.25], factor=1, digits=2, unit="") == "0.38 [0.25, 0.50]"


class Stored:
    """Stands in for a Lab: results by step and seed."""

    profile = SMOKE

    def __init__(self, results: dict[tuple[str, int], Result]):
        self.results = results
        self.seeds = tuple(sorted({seed for _, seed in results}))

    def get(self, step, seed):
        return self.results[step, seed]


ONE_AND_OTHER = Comparison("x", "what is compared", Need("one"), Need("other"))


def test_flows_have_a_run_a_seed():
    labels = labels_alone(np.resize(LABELS, len(INDEX)), harmful=7)
    lab = Stored({(step, seed): labels for step in ("one", "other") for seed in (0, 1)})
    table = flows([ONE_AND_OTHER], lab)
    assert len(table) == 2 * len(LABELS) ** 2
    assert set(table["run"]) == {"seed 0", "seed 1"}
    assert set(table["title"]) == {"what is compared"}
    assert set(table["texts"]) == {7}
    assert table.groupby("run")["units"].sum().tolist() == [len(INDEX)] * 2
    assert np.array_equal(mean_flow(table, "x") * len(INDEX), np.eye(4) * len(INDEX) / 4)
    assert list(panels(table)) == ["what is compared"]


def test_flows_compare_units_of_one_index_alone():
    labels = np.resize(LABELS, len(INDEX))
    as_many = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=2, head_dim=16, n_mlp=100, hidden=32)
    lab = Stored({("one", 0): labels_alone(labels), ("other", 0): labels_alone(labels, as_many)})
    message = "x, seed 0: units of different models.*'head_dim': 8.*'head_dim': 16"
    with pytest.raises(SsahError, match=message):
        flows([ONE_AND_OTHER], lab)


def test_flows_without_a_run():
    left_out = Result({"left out": "too few texts"})
    lab = Stored({("one", 0): left_out, ("other", 0): left_out})
    with pytest.raises(SsahError, match="no run to compare"):
        flows([ONE_AND_OTHER], lab)
    with pytest.raises(SsahError, match="no run to compare.*n_seeds=2"):
        flows([read.SEEDS], lab)


def test_cutoffs_keep_labels_where_nothing_changed_and_let_kinds_shrink():
    draws = np.random.default_rng(0)
    safety, utility = draws.lognormal(size=(2, len(INDEX)))
    shares = {"scu": 0.05, "ucu": 0.13, "ru": 0.15}
    before = classify(safety, utility, index=INDEX, **shares)
    assert np.array_equal(read.at_cutoffs(before, before), before.labels)
    same = safety * utility         # no difference is left, and sums reach further
    after = classify(same, same, index=INDEX, **shares)
    labels = read.at_cutoffs(before, after)
    assert not {"SCU", "UCU"} & set(labels)
    assert (labels == "RU").sum() > 0


# ---- tables and facts ------------------------------------------------------------------------

def swapped(labels, n_leaving):
    """The first `n_leaving` SCU swap places with as many CU."""
    labels = labels.copy()
    leaving = np.flatnonzero(labels == "SCU")[:n_leaving]
    coming = np.flatnonzero(labels == "CU")[:n_leaving]
    labels[leaving] = "CU"
    labels[coming] = "SCU"
    return labels


class HandMade:
    """Stands in for a Lab: two seeds; of ten SCU some leave, and attacks succeed in seed 0 alike.

    In seed 1 as many attacks succeed with random units frozen as with none.
    """

    profile = SMOKE
    labels = np.array(["SCU"] * 10 + ["UCU"] * 30 + ["CU"] * 188 + ["RU"] * 36)
    leaving = {"full": 8, "SCU + all CU": 3, "random large without SCU": 6, "base": 10,
               "last half": 2}
    succeeding = {(0, "full"): 4, (0, "SCU + all CU"): 1, (0, "random large without SCU"): 2,
                  (1, "full"): 4, (1, "SCU + all CU"): 1, (1, "random large without SCU"): 4}

    def __init__(self, seeds=(0, 1)):
        self.seeds = seeds

    def get(self, step, seed, **params):
        if step == "tuning":
            return self.tuned(self.succeeding[seed, params["condition"]])
        name = params.get("model", params.get("part", ""))
        if name.startswith("category"):
            return Result({"left out": "none"})
        return labels_alone(swapped(self.labels, self.leaving.get(name, 0)))

    def tuned(self, n_succeeding: int) -> Result:
        """Four answers, of which some have no refusal keyword."""
        answers = pd.DataFrame({
            "id": list("abcd"), "source": "x", "label": "comply", "log_odds": 0.0,
            "keyword": [number >= n_succeeding for number in range(4)]})
        points = [answers.assign(at=point) for point in ("equal loss", "start")]
        return Result({"reached": True}, {"answers": pd.concat(points)})


def summary_of(lab) -> str:
    return read.summary(lab, read.judge_c3(read.c3_facts(lab)))


def test_c3_facts_by_hand():
    facts = read.c3_facts(HandMade())
    assert facts["left: full"] == (0.8, 0.8, 0.8)
    assert facts["left: full - halves"] == pytest.approx((0.6, 0.6, 0.6))
    assert facts["left: full - SCU + all CU"] == pytest.approx((0.5, 0.5, 0.5))
    assert facts["left: random - SCU + all CU"] == pytest.approx((0.3, 0.3, 0.3))
    assert facts["iou: halves"].mean == pytest.approx(8 / 12)
    share = 10 / 264
    assert facts["iou: chance"].mean == pytest.approx(share / (2 - share))
    # seed 1: random and full have the same rate
    assert facts["ordered"] == (pytest.approx(5 / 6), 0.0, 1.0)


def test_in_order_by_hand():
    models = pd.DataFrame({"condition": ["a", "b", "c"], "run": "seed 0",
                           "left": [0.1, 0.2, 0.3], "keyword_asr": [0.5, 0.9, 0.5]})
    # b over a rises, c under b falls, c and a are equal
    assert sorted(read.in_order(models)) == [0.0, 0.0, 1.0]
    other_seed = models.assign(run="seed 1", keyword_asr=models["left"])
    assert read.in_order(pd.concat([models, other_seed])).sum() == 1 + 3


def test_tables_by_hand():
    moves = read.transfers(HandMade())
    assert set(moves["comparison"]) == {"halves", "seeds", "full", "SCU + all CU",
                                        "random large without SCU", "base"}
    assert set(moves.query("comparison == 'seeds'")["run"]) == {"seeds 0 and 1"}
    full = mean_flow(moves, "full")
    assert full.loc["SCU", "CU"] == full.loc["CU", "SCU"] == 8 / 264
    assert full.to_numpy().sum() == pytest.approx(1)
    assert read.left_by_kind(moves).loc["nothing frozen", "SCU"] == "80 [80, 80]"
    assert read.left_by_kind(moves).loc["two seeds' aligned models", "SCU"] == "0"
    assert "100% CU" in read.alignment_summary(moves)


def test_stability_by_hand():
    table = read.stability(HandMade())
    assert table["iou"].between(0, 1).all()
    assert not table["title"].str.contains("harm").any()        # left out by its step
    assert set(table["group"]) == {"disjoint", "nested", "other"}
    assert set(table["texts"]) == {10}
    assert "a half and another half 0.67" in read.stability_summary(table)


def test_one_seed_has_no_other_to_be_compared_with():
    one_seed = HandMade(seeds=(0,))
    moves = read.transfers(one_seed)
    assert "seeds" not in set(moves["comparison"])
    phrase = "between two seeds' aligned models"
    assert phrase not in summary_of(one_seed)
    assert f"{phrase} 0%" in summary_of(HandMade())


def test_the_summary_counts_ties():
    text = summary_of(HandMade())
    assert "in 5 of 6 pairs of tuned models of a seed (as many attacks in 1: not more)" in text
    assert "After full fine-tuning 80% [80, 80] of the SCU have another label (3.03% of" in text


@pytest.mark.parametrize("log_z, rank, expected", [
    (0.1, 0.2, "moves fewer SCU than other texts do on log-z, rank (IoU of the halves 0.50 to "
               "0.50). The verdict takes log-z."),
    (0.1, 0.4, "moves fewer SCU than other texts do on log-z (IoU of the halves 0.50 to 0.50), and "
               "as many or more (by 10 points at most) on rank (IoU of the halves 0.50 to 0.50)."),
    (0.3, 0.5, "moves as many or more (by 20 points at most) on log-z, rank (IoU")])
def test_on_which_scales_other_texts_do_more(log_z, rank, expected):
    table = pd.DataFrame({"scale": ["log-z", "log-z", "rank", "rank"], "iou": 0.5,
                          "comparison": ["halves", "full"] * 2, "left": [0.3, log_z, 0.3, rank]})
    assert expected in read.scale_summary(table)


def test_models_with_the_same_scores():
    safety, utility = np.random.default_rng(1).lognormal(size=(2, len(INDEX)))
    result = Result({"index": INDEX.to_dict(), "examples": {"harmful": 5, "benign": 5}},
                    arrays={"safety": safety, "utility": utility})
    lab = SimpleNamespace(profile=SMOKE, seeds=(0, 1), get=lambda step, seed, **params: result)
    table = read.cutoff_table(read.with_cutoffs(lab))
    assert (table["SCU that left"] == "0 [0, 0]").all()
    assert read.by_scale(lab)["left"].eq(0).all()
    two_kinds = mean_flow(read.base_of_two_kinds(lab), "base of two kinds")
    assert two_kinds.loc[["SCU", "CU"]].to_numpy().sum() == 0
    assert two_kinds.loc["RU", "RU"] == two_kinds.loc["RU"].sum() > 0


def test_the_papers_flows_are_as_printed():
    printed = read.PAPER_FLOWS.set_index(["figure", "from", "to"])["paper %"]
    assert printed["Fig. 5", "SCU", "CU"] == 0.85
    stays = 13.27       # % of all units that are UCU in the aligned model
    assert printed["Fig. 6"].loc["UCU"].sum() + stays == pytest.approx(85.1, abs=0.02)


def test_the_papers_flows_stand_beside_ours():
    lab = HandMade()
    moves = read.transfers(lab)
    two_kinds = moves.query("comparison == 'base'").assign(comparison="base of two kinds")
    table = read.beside_paper(moves, two_kinds)
    assert table.loc[("Fig. 5", "SCU", "CU"), "ours %"] == pytest.approx(8 / 264 * 100)
    assert table.loc[("Fig. 6", "RU", "RU"), "ours %"] == pytest.approx(36 / 264 * 100)


# ---- the rule --------------------------------------------------------------------------------

GOOD = {"left: full": Estimate(0.7, 0.6, 0.8),
        "left: full - halves": Estimate(0.3, 0.2, 0.4),
        "left: full - SCU + all CU": Estimate(0.2, 0.1, 0.3),
        "left: random - SCU + all CU": Estimate(0.1, 0.05, 0.2),
        "iou: halves": Estimate(0.6, 0.5, 0.7),
        "iou: chance": Estimate(0.01, 0.01, 0.01),
        "ordered": Estimate(0.9, 0.7, 1.0)}


def test_c3_reproduced_by_every_check():
    assert read.judge_c3(GOOD).verdict == "met"


@pytest.mark.parametrize("fact, value, check, verdict", [
    ("left: full", (0.49, 0.4, 0.6), 0, "not met"),
    ("left: full - halves", (0.09, 0.05, 0.2), 1, "not met"),
    ("left: full - halves", (0.3, -0.01, 0.6), 1, "not met"),
    ("left: full - SCU + all CU", (0.09, 0.05, 0.2), 2, "partly met"),
    ("left: full - SCU + all CU", (0.2, -0.01, 0.4), 2, "partly met"),
    ("left: random - SCU + all CU", (0.04, 0.01, 0.1), 3, "partly met"),
    ("left: random - SCU + all CU", (0.1, -0.01, 0.2), 3, "partly met"),
    ("iou: halves", (0.49, 0.4, 0.6), 4, "partly met"),
    ("ordered", (0.79, 0.3, 1.0), 5, "partly met")])
def test_c3_each_margin_can_fail_alone(fact, value, check, verdict):
    judged = read.judge_c3(GOOD | {fact: Estimate(*value)})
    assert [found.holds for found in judged.checks] == [place != check for place in range(6)]
    assert judged.verdict == verdict


def test_our_number_says_what_the_texts_alone_do():
    text = read.ours(HandMade(), read.c3_facts(HandMade()))
    assert text == ("80% of the SCU change their label in fine-tuning, 20% where only the texts "
                    "change; difference 60.0 points [60.0, 60.0] (brackets: seeds); n = all units")


# ---- the second bench: turnover on disjoint texts ---------------------------------------------

#: The labels of eight units by their letters, of a model on each half of the texts.
HALVES_BY_HAND = {
    "aligned": {"first half": "SSSSCCRU", "second half": "SSSCSCRU"},
    "full": {"first half": "SCCCCCRU", "second half": "CCRUSCRU"},
    "placebo": {"first half": "SSSSCCRU", "second half": "SSSCSCRU"}}
LETTERS = {"S": "SCU", "C": "CU", "R": "RU", "U": "UCU"}


def mask_of(letters: str):
    """Stands in for `Units`."""
    labels = np.array([LETTERS[letter] for letter in letters])
    return SimpleNamespace(mask=lambda label: labels == label)


@pytest.fixture
def turnover_by_hand(monkeypatch) -> pd.DataFrame:
    """The table of `turnover`, of the eight units."""
    folders = {"milder_tuning": "full", "placebo_tuning": "placebo"}
    monkeypatch.setattr(run, "stored_scores",
                        lambda context, seed, part: HALVES_BY_HAND["aligned"][part])
    monkeypatch.setattr(run, "load_kept", lambda context, folder: folder)
    monkeypatch.setattr(run, "bank_pairs", lambda context, seed, part: part)
    monkeypatch.setattr(run, "score_units", lambda chat, part, system: HALVES_BY_HAND[chat][part])
    monkeypatch.setattr(run, "labelled", lambda options, letters: mask_of(letters))
    context = SimpleNamespace(profile=SMOKE, artifact=lambda name, **params: folders[name])
    return run.turnover(context, 0).tables["turnover"]


def test_scu_of_one_half_are_looked_up_on_the_other(turnover_by_hand):
    shares = turnover_by_hand.set_index(["model", "scored_on", "label"])["share"]
    # units 0 to 3 are SCU on the first half, and 0, 1, 2 and 4 on the second
    for half in ("first half", "second half"):
        assert shares["aligned", half].to_dict() == {"SCU": 0.75, "UCU": 0, "CU": 0.25, "RU": 0}
    assert shares["full", "first half"].to_dict() == {
        "SCU": 0, "UCU": 0.25, "CU": 0.5, "RU": 0.25}
    assert shares["full", "second half"].to_dict() == {"SCU": 0.25, "UCU": 0, "CU": 0.75, "RU": 0}
    assert shares["placebo"].equals(shares["aligned"])
    lab = SimpleNamespace(get=lambda step, seed: Result(tables={"turnover": turnover_by_hand}))
    assert decide.turnover(lab, (0,)).loc[0].to_dict() == {
        "aligned": 0.25, "full": 1 - 0.25 / 2, "placebo": 0.25}


class Turned:
    """Stands in for a Lab: turnover of three seeds, and what fine-tuning does to 100 requests.

    Some seeds are finished.
    """

    turnover = {"aligned": (0.2, 0.2, 0.2), "full": (0.5, 0.6, 0.7), "placebo": (0.3, 0.2, 0.4)}
    seeds = (10, 11, 12)
    profile = SimpleNamespace(model=SimpleNamespace(aligned=""), title="made up",
                              further_tunings=(), milder_alone=True)
    full = {"start": 5, "equal loss": 45}

    def __init__(self, control: dict, finished=(10, 11, 12), **turnover):
        self.control = control
        self.finished = finished
        self.turnover = self.turnover | turnover

    def has_all(self, needs):
        return all(need.params["seed"] in self.finished for need in needs)

    def get(self, step, seed, condition=None):
        if step == "milder_tuning":
            return run_of_hundred(self.full)
        if step == "placebo_tuning":
            return run_of_hundred(self.control, reached="equal loss" in self.control)
        rows = []
        for model, shares in self.turnover.items():
            # a little more on one half than on the other
            left = shares[seed - 10]
            for half, more in (("first half", 0.1), ("second half", -0.1)):
                moved = left + more
                rows.append({"model": model, "scored_on": half, "label": "SCU", "share": 1 - moved})
                rows.append({"model": model, "scored_on": half, "label": "CU", "share": moved})
        return Result(tables={"turnover": pd.DataFrame(rows)})


@pytest.fixture
def guarded(monkeypatch):
    """The gates that no fine-tuning enters hold."""
    for name in ("guardrail", "labels"):
        monkeypatch.setattr(decide.gates, name, passed(name))


def test_tuned_minus_aligned_and_minus_the_control_by_hand(guarded):
    found = decide.verdict(Turned({"equal loss": 10}))      # 5 points more than before
    assert found.first.word == rules.REPRODUCED and found.second.word == rules.SPECIFIC
    effect = found.first.estimate
    assert effect.mean == pytest.approx((0.3 + 0.4 + 0.5) / 3)
    # Student's t with 2 degrees of freedom, and a standard deviation of 0.1
    assert effect.mean - effect.low == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert found.second.estimate.mean == pytest.approx((0.2 + 0.4 + 0.3) / 3)
    names = ["guardrail", "labels", "attack", "placebo tuning", "runs", "seeds"]
    assert [gate.name for gate in found.gates] == names
    assert all(gate.passed for gate in found.gates)


@pytest.mark.parametrize("control, turnover, finished, words", [
    # 10 points more than before: a control that loses refusals itself
    ({"equal loss": 15}, {}, (10, 11, 12), ("reproduced", "cannot tell: placebo tuning")),
    ({"end": 5}, {}, (10, 11, 12), ("cannot tell: attack", "not asked")),
    ({"equal loss": 5}, {"placebo": (0.7, 0.8, 0.9)}, (10, 11, 12),
     ("reproduced", "the control does better")),
    ({"equal loss": 5}, {"aligned": (0.7, 0.8, 0.9)}, (10, 11, 12), ("opposite", "not asked")),
    ({"equal loss": 5}, {"aligned": (0.5, 0.6, 0.7)}, (10, 11, 12), ("not found", "not asked")),
    ({"equal loss": 5}, {}, (10,), ("cannot tell", "not asked"))])
def test_the_words_on_c3_follow_from_controls(guarded, control, turnover, finished, words):
    found = decide.verdict(Turned(control, finished, **turnover))
    assert (found.first.word, found.second.word) == words
    noted = {gate.name: gate.passed for gate in found.gates}
    assert noted["runs"] == noted["seeds"] == (len(finished) == 3)


def test_what_became_of_the_scu_is_shown_by_seed_and_model():
    lab = Turned({"equal loss": 10}, finished=(10, 12))
    table = turned.turned(lab).set_index(["seed", "model"])
    assert list(table.index) == [(seed, model) for seed in (10, 12) for model in turned.TITLES]
    # means of both halves
    assert table.loc[12, "left"].tolist() == pytest.approx([0.2, 0.7, 0.4])
    assert table["CU"].tolist() == pytest.approx(table["left"].tolist())
    assert (table["UCU"] == 0).all() and (table["SCU"] + table["left"]).tolist() == [1] * 6
    assert table.loc[10, "keyword_asr"].tolist() == pytest.approx([0.05, 0.45, 0.10])
    means = turned.shown(table.reset_index())
    assert means.loc[turned.TITLES["full"], "CU"] == pytest.approx(60)
    assert [one for one in turned.begun([lab, Turned({}, finished=())])] == [lab]


def test_what_one_sees_of_the_turnover_is_said():
    lab = Turned({"equal loss": 10}, placebo=(0.3, 0.65, 0.4))
    said = turned.seen(lab, turned.turned(lab))
    assert "**What we see** (made up, 3 seeds)" in said
    assert "20% have another label" in said and "from 5% to 45%, it is 60%" in said
    assert "in 3 of 3 seeds, and more than its control in 2." in said


def test_the_turnover_draws():
    table = turned.turned(Turned({"equal loss": 10}))
    figure = draw.turnover({"made up": table}, turned.TITLES)
    left, attacks = figure.axes
    *seeds, means = left.lines
    assert [line.get_xdata().tolist() for line in seeds][1] == pytest.approx([20, 60, 20])
    assert dict(zip(means.get_ydata(), means.get_xdata())) == pytest.approx({0: 20, 1: 60, 2: 30})
    assert [text.get_text() for text in left.get_yticklabels()] == list(turned.TITLES.values())
    assert attacks.lines[0].get_xdata().tolist() == pytest.approx([5, 45, 10])
    plt.close(figure)


# ---- figures ---------------------------------------------------------------------------------

@pytest.fixture
def moves():
    yield read.transfers(HandMade())
    plt.close("all")


def test_ribbons_draw(moves):
    figure = ribbons.alluvial(panels(moves.query("comparison in ('halves', 'full')")))
    assert len(figure.axes) == 4
    texts = "".join(text.get_text() for text in figure.axes[0].texts)
    assert "SCU\n3.8" in texts                                      # 10 of 264 are SCU
    assert figure.axes[3].texts[0].get_text() == "SCU\n100.0"       # before, in the zoom
    assert len(ribbons.alluvial({"toy": flow(BEFORE, AFTER)}, zoom=None).axes) == 1


def test_matrices_draw(moves):
    figure = draw.matrices(panels(moves.query("comparison in ('halves', 'full')")))
    assert "80\n(3.03)" in {text.get_text() for text in figure.axes[1].texts}
    toy = draw.matrices({"no SCU": flow(["CU", "RU"], ["CU", "SCU"])})
    assert [text.get_text() for text in toy.axes[0].texts[:4]] == ["–"] * 4


def test_stability_draws(moves):
    table = read.stability(HandMade())
    figure = draw.stability(table)
    assert [axis.get_title() for axis in figure.axes] == list(LABELS)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == "a sixth and another sixth  (10)"
    assert len(names) == table["title"].nunique() == 9


def test_harm_draws(moves):
    noise = changes(moves).query("comparison == 'halves' and label == 'SCU'")
    figure = draw.harm(read.harm(HandMade(), moves), noise)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["nothing frozen", "SCU + all CU frozen", "as many random units frozen",
                     "noise: two halves of the texts"]
    floor = figure.axes[0].get_lines()[-1]
    assert floor.get_xdata()[0] == pytest.approx(20)                # 2 of 10 SCU


def test_bars_do_not_overlap_and_fill_the_panel():
    sizes = pd.Series({"SCU": 0.1, "UCU": 0.2, "CU": 0.6, "RU": 0.1})
    tops = ribbons._tops(sizes)
    bottoms = tops - sizes
    gaps = bottoms.to_numpy()[:-1] - tops.to_numpy()[1:]
    assert gaps == pytest.approx([ribbons.GAP] * 3)
    assert bottoms["RU"] == pytest.approx(0)
