"""Attribute transfer: parts of the calibration texts, flows between labels, what the verdict asks, the figures."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from ssah import figures
from ssah.classification import LABELS, classify, iou
from ssah.errors import SsahError
from ssah.lab import Lab
from ssah.claims.attribute_transfer.run import (CATEGORIES, FRACTIONS, PARTS, RESCORED, core,
                                                extended, labels_of, of_category, part_of)
from ssah.claims.shared.measuring import score_units
from ssah.claims.profiles import load_profile
from ssah.lab import Result
from ssah.claims.attribute_transfer import read as transfer
from ssah.units import UnitIndex

matplotlib.use("Agg")
INDEX = UnitIndex(n_blocks=2, n_heads=4, n_kv_heads=2, head_dim=8, n_mlp=100, hidden=32)
SMOKE = load_profile("smoke")


def kept(labels, index=INDEX, harmful=10) -> Result:
    """A result that keeps labels alone."""
    return Result({"index": index.to_dict(), "examples": {"harmful": harmful, "benign": harmful}},
                  arrays={"labels": pd.Categorical(labels, LABELS).codes})


# ---- parts of the texts ----------------------------------------------------------------------

@pytest.fixture
def pairs():
    return {"harmful": [(f"h{i}", [i]) for i in range(25)], "benign": [(f"b{i}", [i]) for i in range(18)]}


def prompts_of(part, kind):
    return {prompt for prompt, _ in part[kind]}


def test_parts_are_nested_and_opposite_ones_disjoint(pairs):
    parts = {part: part_of(pairs, part, seed=3) for part in PARTS}
    for kind, texts in pairs.items():
        own = {part: prompts_of(chosen, kind) for part, chosen in parts.items()}
        assert own["first sixth"] < own["first third"] < own["first half"] < own["first two thirds"] < {p for p, _ in texts}
        assert own["last sixth"] < own["last third"] < own["last half"]
        for name in ("sixth", "third", "half"):
            assert not own[f"first {name}"] & own[f"last {name}"]
            assert len(own[f"first {name}"]) == len(own[f"last {name}"]) == int(FRACTIONS[name] * len(texts))
    assert parts["first half"] == part_of(pairs, "first half", 3) != part_of(pairs, "first half", 4)


@pytest.mark.parametrize("part", ["half", "first", "second half", "first 16", "last two thirds", ""])
def test_an_unknown_part(pairs, part):
    with pytest.raises(SsahError, match="known: first sixth, last sixth"):
        part_of(pairs, part, 0)


def test_categories_share_no_text(pairs):
    one, other = CATEGORIES
    labels = [one] * 8 + [f"{one}; Autonomy"] * 2 + [f"{other}; {one}"] * 7 + [other] * 8
    pool = pd.DataFrame({"text": [f"h{i}" for i in range(25)], "category": labels})
    first, second = (of_category(pairs, name, pool, 0) for name in CATEGORIES)
    assert prompts_of(first, "harmful") < {f"h{i}" for i in range(10)}              # those of both are left out
    assert prompts_of(second, "harmful") < {f"h{i}" for i in range(17, 25)}
    assert not prompts_of(first, "benign") & prompts_of(second, "benign")
    for kind in pairs:      # as many as the random parts with which they are compared
        assert len(first[kind]) == len(second[kind]) == len(part_of(pairs, "first sixth", 0)[kind])


def test_categories_that_are_not_there(pairs):
    pool = pd.DataFrame({"text": ["h0", "h1"], "category": [CATEGORIES[0], np.nan]})
    assert of_category(pairs, CATEGORIES[0], pool, 0) == {}                         # too few
    assert of_category(pairs, CATEGORIES[0], pool[["text"]], 0) == {}
    with pytest.raises(SsahError, match="unknown category 'Weather'; known: Financial"):
        of_category(pairs, "Weather", pool, 0)


# ---- the steps, on the smoke profile ---------------------------------------------------------

@pytest.fixture
def lab(tmp_path):
    return Lab(SMOKE, root=tmp_path / "results", n_seeds=1)


def test_all_texts_give_the_attribution(lab):
    """The score here and in the step `attribution` are one."""
    from types import SimpleNamespace

    from ssah.claims.shared.foundation import calibration_pairs, load_role

    folders = {"calibration": lab.artifact("calibration", {"seed": 0}),
               "checkpoint": lab.artifact("checkpoint", {"role": "aligned", "seed": 0})}
    context = SimpleNamespace(profile=SMOKE, artifact=lambda name, **params: folders[name])
    scored = score_units(load_role(context, "aligned", 0), calibration_pairs(context, 0, "refusals"), SMOKE.calibration.system)
    expected = lab.get("attribution", seed=0)
    for name in ("safety", "utility"):
        assert np.array_equal(scored.arrays[name], expected.arrays[name])
    assert scored.values == expected.values


def test_rescored_models_and_parts(lab):
    aligned, base, tuned = (lab.get("attribution", seed=0), lab.get("reattribution", seed=0, model="base"),
                            lab.get("reattribution", seed=0, model="full"))
    assert aligned.values == base.values == tuned.values                            # one index, the same texts
    assert base.arrays["safety"].dtype == np.float32
    for one, other in ((aligned, base), (aligned, tuned), (base, tuned)):
        assert not np.array_equal(one.arrays["safety"], other.arrays["safety"])
    half, third = (lab.get("subsample", seed=0, part=part) for part in ("first half", "first third"))
    assert set(half.arrays) == {"safety", "utility"} and set(third.arrays) == {"labels"}
    assert third.arrays["labels"].dtype == np.int8 and len(third.arrays["labels"]) == len(half.arrays["safety"])
    assert half.values["examples"]["harmful"] == aligned.values["examples"]["harmful"] // 2
    left_out = lab.get("subsample", seed=0, part=f"category {CATEGORIES[0]}")
    assert "no categories" in left_out.values["left out"] and not left_out.arrays


def test_unknown_models_and_parts_are_said_before_anything_is_computed(lab):
    with pytest.raises(SsahError, match="unknown model 'aligned'; known: base, full"):
        lab.get("reattribution", seed=0, model="aligned")
    assert not lab.fresh
    with pytest.raises(SsahError, match="unknown part 'third half'"):
        lab.get("subsample", seed=0, part="third half")


def test_the_plan_names_every_model_and_part_once():
    planned = [(need.step, *need.params.values()) for need in core(1) + extended(1)]
    assert len(set(planned)) == len(planned) == len(RESCORED) + len(PARTS) + len(CATEGORIES)
    assert all(need.params["seed"] == 1 for need in core(1) + extended(1))


def test_kept_labels_have_no_other_scale():
    labels = np.resize(LABELS, len(INDEX))
    assert np.array_equal(labels_of(SMOKE, kept(labels)), labels)
    assert np.array_equal(labels_of(SMOKE, kept(labels), SMOKE.classification.scale), labels)
    with pytest.raises(SsahError, match="'rank' need scores.*first half, last half"):
        labels_of(SMOKE, kept(labels), "rank")


# ---- flows -----------------------------------------------------------------------------------

BEFORE = ["SCU", "SCU", "UCU", "UCU", "CU", "CU", "CU", "CU", "RU", "RU"]
AFTER = ["SCU", "CU", "UCU", "CU", "UCU", "CU", "CU", "CU", "RU", "RU"]


def test_a_flow_by_hand():
    expected = pd.DataFrame([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 3, 0], [0, 0, 0, 2]], index=LABELS, columns=LABELS)
    assert np.array_equal(transfer.flow(BEFORE, AFTER), expected)
    told = transfer.changes(transfer.as_rows(transfer.flow(BEFORE, AFTER), comparison="toy", run="one")).set_index("label")
    assert told["left"].to_dict() == {"SCU": 0.5, "UCU": 0.5, "CU": 0.25, "RU": 0.0}
    assert told["iou"].to_dict() == {"SCU": 1 / 2, "UCU": pytest.approx(1 / 3), "CU": 3 / 6, "RU": 1.0}
    assert told.loc["RU", "chance"] == pytest.approx(0.2 / (2 - 0.2))               # p / (2 - p)
    assert told.loc["SCU", "chance"] == pytest.approx(0.02 / (0.2 + 0.1 - 0.02))    # 2 before, 1 after


def test_a_flows_marginals_are_the_sizes_of_the_kinds():
    before, after = np.random.default_rng(0).choice(LABELS, (2, 500), p=[0.01, 0.2, 0.6, 0.19])
    counts = transfer.flow(before, after)
    for label in LABELS:
        assert counts.loc[label].sum() == (before == label).sum() and counts[label].sum() == (after == label).sum()
    told = transfer.changes(transfer.as_rows(counts, comparison="x", run="y")).set_index("label")
    assert told.loc["UCU", "iou"] == pytest.approx(iou(before == "UCU", after == "UCU"))
    assert np.array_equal(transfer.flow(before, before), np.diag([(before == label).sum() for label in LABELS]))


def test_flows_of_bad_labels():
    with pytest.raises(SsahError, match="labels of 10 and of 9 units"):
        transfer.flow(BEFORE, AFTER[:9])
    with pytest.raises(SsahError, match="unknown labels SRU; known: SCU"):
        transfer.flow(BEFORE, ["SRU", *AFTER[1:]])


def test_flows_compare_common_runs_of_one_index_alone():
    labels = np.resize(LABELS, len(INDEX))
    one = {"seed 0": kept(labels), "seed 1": kept(labels)}
    assert set(transfer.flows({"x": (one, {"seed 1": kept(labels)})}, SMOKE)["run"]) == {"seed 1"}
    with pytest.raises(SsahError, match="no common run to compare; before: seed 0, seed 1; after: seed 2"):
        transfer.flows({"x": (one, {"seed 2": kept(labels)})}, SMOKE)
    other = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=2, head_dim=16, n_mlp=100, hidden=32)    # as many units
    with pytest.raises(SsahError, match="x, seed 0: units of different models.*'head_dim': 8.*'head_dim': 16"):
        transfer.flows({"x": (one, {"seed 0": kept(labels, other)})}, SMOKE)


def test_cutoffs_keep_labels_where_nothing_changed_and_let_kinds_shrink():
    draw = np.random.default_rng(0)
    safety, utility = draw.lognormal(size=(2, len(INDEX)))
    before = classify(safety, utility, index=INDEX, scu=0.05, ucu=0.13, ru=0.15)
    assert np.array_equal(transfer.at_cutoffs(before, before), before.labels)
    halfway = classify(safety * utility, utility * safety, index=INDEX, scu=0.05, ucu=0.13, ru=0.15)
    after = transfer.at_cutoffs(before, halfway)            # no difference is left, and sums reach further
    assert not {"SCU", "UCU"} & set(after) and (after == "RU").sum() > 0


# ---- tables and facts ------------------------------------------------------------------------

def changed(labels, n_leaving):
    """The first `n_leaving` SCU swap places with as many CU."""
    labels = labels.copy()
    scu, cu = np.flatnonzero(labels == "SCU")[:n_leaving], np.flatnonzero(labels == "CU")[:n_leaving]
    labels[scu], labels[cu] = "CU", "SCU"
    return labels


class HandMade:
    """Stands in for a Lab: two seeds; of ten SCU some leave (`LEAVING`), and attacks succeed in seed 0 likewise."""

    profile, seeds = SMOKE, (0, 1)
    labels = np.array(["SCU"] * 10 + ["UCU"] * 30 + ["CU"] * 188 + ["RU"] * 36)
    LEAVING = {"full": 8, "SCU + all CU": 3, "random large without SCU": 6, "base": 10, "last half": 2}

    def get(self, step, seed, model=None, part=None, condition=None, positions=None):
        if step == "tuning":
            succeed = {"full": 4, "SCU + all CU": 1, "random large without SCU": 4 if seed else 2}[condition]
            rows = pd.DataFrame({"id": list("abcd"), "source": "x", "label": "comply", "log_odds": 0.0,
                                 "keyword": [i >= succeed for i in range(4)]})
            return Result({"reached": True}, {"answers": pd.concat([rows.assign(at="equal loss"), rows.assign(at="start")])})
        name = model or part
        if str(name).startswith("category"):
            return Result({"left out": "none"})
        return kept(changed(self.labels, self.LEAVING.get(name, 0)))


def test_c3_facts_by_hand():
    facts = transfer.c3_facts(HandMade())
    assert facts["left: full"] == (0.8, 0.8, 0.8)
    assert facts["left: full - halves"] == pytest.approx((0.6, 0.6, 0.6))
    assert facts["left: full - SCU + all CU"] == pytest.approx((0.5, 0.5, 0.5))
    assert facts["left: random - SCU + all CU"] == pytest.approx((0.3, 0.3, 0.3))
    assert facts["iou: halves"][0] == pytest.approx(8 / 12)
    assert facts["ordered"] == (pytest.approx(5 / 6), 0.0, 1.0)     # seed 1: random and full have the same rate


def test_tables_by_hand():
    lab = HandMade()
    moves = transfer.transfers(lab)
    assert set(moves["comparison"]) == {"halves", "seeds", "full", "SCU + all CU", "random large without SCU", "base"}
    assert set(moves.query("comparison == 'seeds'")["run"]) == {"seeds 0 and 1"}
    full = transfer.mean_flow(moves, "full")
    assert full.loc["SCU", "CU"] == full.loc["CU", "SCU"] == 8 / 264 and full.to_numpy().sum() == pytest.approx(1)
    assert transfer.shown_changes(moves).loc["nothing frozen", "SCU"] == "80 [80, 80]"
    stable = transfer.stability(lab)
    assert stable["iou"].between(0, 1).all() and not stable["comparison"].str.contains("harm").any()
    assert "a half and another half 0.67" in transfer.stability_summary(stable)
    assert "100% CU" in transfer.alignment_summary(moves)


def test_one_seed_has_no_other_to_be_compared_with():
    lab = HandMade()
    lab.seeds = (0,)
    assert "seeds" not in set(transfer.transfers(lab)["comparison"])


def test_the_papers_flows_are_as_printed():
    figure = transfer.PAPER_FLOWS.set_index(["figure", "from", "to"])["paper %"]
    assert figure["Fig. 5", "SCU", "CU"] == 0.85
    assert figure["Fig. 6"].loc["UCU"].sum() + 13.27 == pytest.approx(85.1, abs=0.02)       # 13.27 % stay UCU


# ---- figures ---------------------------------------------------------------------------------

def test_figures_draw():
    lab, draw = HandMade(), figures.attribute_transfer
    moves = transfer.transfers(lab)
    panels = transfer.panels(moves, "halves", "full")
    flow = draw.alluvial(panels)
    assert len(flow.axes) == 4 and "3.8" in "".join(t.get_text() for t in flow.axes[0].texts)      # 10 of 264 are SCU
    assert len(draw.alluvial({"toy": transfer.flow(BEFORE, AFTER)}, zoom=None).axes) == 1
    matrix = draw.matrices(panels)
    assert "80\n(3.03)" in {t.get_text() for t in matrix.axes[1].texts}
    assert len(draw.stability(transfer.stability(lab)).axes) == len(LABELS)
    assert draw.harm(transfer.harm(lab, moves), 0.2).axes[0].get_legend() is not None
    matplotlib.pyplot.close("all")


def test_bars_do_not_overlap_and_ribbons_fill_them():
    sizes = pd.Series({"SCU": 0.1, "UCU": 0.2, "CU": 0.6, "RU": 0.1})
    tops = figures.attribute_transfer._tops(sizes)
    ends = tops - sizes.to_numpy()
    assert (ends[:-1] > tops[1:]).all() and ends[-1] == pytest.approx(0)
