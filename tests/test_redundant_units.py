"""C6: what trains, on which texts units are chosen, what is measured, and what tables say of it."""

import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from ssah.claims.profiles import load_profile
from ssah.claims.redundant_units import CLAIM, draw, read
from ssah.claims.redundant_units.run import (
    BUDGETS,
    FULL,
    OTHER_SHARES,
    START,
    WITH_SHARE,
    names,
    parse,
)
from ssah.claims.shared.foundation import alignment_examples
from ssah.claims.shared.material import load_base
from ssah.claims.shared.measuring import classify_scores, paper_kinds
from ssah.claims.shared.style import LOOKS
from ssah.classification import LABELS
from ssah.errors import SsahError
from ssah.finetuning import encode_examples, mean_loss
from ssah.inputs import prompts
from ssah.lab import Result, find_step
from ssah.lab.statistics import Estimate

pytestmark = pytest.mark.slow

matplotlib.use("Agg")

DEFAULT = load_profile("default")


# ---- the conditions --------------------------------------------------------------------------

@pytest.mark.parametrize("trained, name, share", [
    ("RU", "RU", 0.2),
    ("full", "full", 0.2),
    ("RU 5 %", "RU", 0.05),
    ("RU 2.5 %", "RU", 0.025),
    ("random 40 %", "random", 0.4),
    ("only SCU", "only SCU", 0.2),
    ("random like SCU", "random like SCU", 0.2)])
def test_conditions_are_understood(trained, name, share):
    row, found = parse(DEFAULT, trained)
    assert row.name == name
    assert found == pytest.approx(share)


@pytest.mark.parametrize("trained", [
    "CU", "RU x %", "RU 0 %", "RU 120 %", "RU 5", "full 5 %", "only SCU 5 %", "start", ""])
def test_what_is_unknown_is_refused(trained):
    known = ("known: full, full slower, RU, random, only SCU, random like SCU, LoRA, RU SHARE %, "
             "random SHARE %")
    with pytest.raises(SsahError, match=f"unknown condition '{trained}'; {known}"):
        parse(DEFAULT, trained)


def test_every_planned_run_is_understood():
    planned = [need.params["trained"] for need in [*CLAIM.core(0), *CLAIM.extended(0)]]
    assert len(planned) == len(set(planned)) == len(BUDGETS) + len(WITH_SHARE) * len(OTHER_SHARES)
    for trained in planned:
        parse(DEFAULT, trained)


def test_every_condition_has_a_look_and_controls_are_hollow():
    for row in (START, *BUDGETS):
        is_control = row.random or row.name == "full slower"
        assert (LOOKS[row.look].line == ":") == is_control


# ---- the runs --------------------------------------------------------------------------------

@pytest.fixture
def lab(smoke_lab):
    return smoke_lab


def run(lab, trained):
    return lab.get("budget", seed=0, trained=trained)


def units_trained(lab, trained):
    return run(lab, trained).arrays["trained"].tolist()


def base_units(lab, ru):
    scu, ucu, _ = lab.profile.freezing.shares
    scored = lab.get("base_attribution", seed=0)
    scale = lab.profile.classification.scale
    return classify_scores(scored, scale, scu=scu, ucu=ucu, ru=ru)


def test_who_trains(lab):
    """RU of the base model; SCU of the aligned one."""
    base = base_units(lab, 0.2)
    assert units_trained(lab, "RU") == np.flatnonzero(base.mask("RU")).tolist()
    assert len(units_trained(lab, "RU")) == round(0.2 * len(base.index))
    aligned = paper_kinds(lab.profile, lab.get("attribution", seed=0))
    assert units_trained(lab, "only SCU") == np.flatnonzero(aligned.mask("SCU")).tolist()
    fewer = base_units(lab, 0.05)
    assert units_trained(lab, "RU 5 %") == np.flatnonzero(fewer.mask("RU")).tolist()
    assert units_trained(lab, "full") == units_trained(lab, "full slower") == []
    assert units_trained(lab, "LoRA") == []


@pytest.mark.parametrize("trained, twin", [("RU", "random"), ("only SCU", "random like SCU")])
def test_random_twins_are_others_of_the_same_modules(lab, trained, twin):
    table = base_units(lab, 0.2).index.table
    chosen = units_trained(lab, trained)
    others = units_trained(lab, twin)
    assert not set(chosen) & set(others)
    counts = [table.iloc[units].groupby(["block", "kind"]).size().to_dict()
              for units in (chosen, others)]
    assert counts[0] == counts[1]


def test_fewer_units_take_larger_steps(lab):
    options = lab.profile.budget
    rates = {trained: run(lab, trained).values["lr"] for trained in (*names(BUDGETS), "RU 5 %")}
    assert rates["full"] == options.lr
    assert rates["LoRA"] == options.lora_lr
    assert rates["full slower"] == pytest.approx(0.2 * options.lr)
    assert rates["RU"] == rates["random"] == pytest.approx(options.lr, rel=0.01)
    assert rates["RU 5 %"] == pytest.approx(4 * options.lr, rel=0.01)
    scu = len(units_trained(lab, "only SCU")) / len(base_units(lab, 0.2).index)
    assert rates["only SCU"] == rates["random like SCU"] == pytest.approx(options.lr * 0.2 / scu)


def test_bytes_are_those_of_what_trains(lab):
    base = base_units(lab, 0.2)
    n_bytes = 4 * base.index.weights_in(base.mask("RU"))
    assert run(lab, "RU").values["moved_bytes"] == n_bytes
    # a rank is a large step on the tiny model
    assert run(lab, "LoRA").values["moved_bytes"] == pytest.approx(n_bytes, rel=0.35)
    assert run(lab, "full").values["moved_bytes"] > 5 * n_bytes


def test_all_start_from_the_base_model_and_go_for_one_loss(lab):
    full = run(lab, "full")
    target = full.values["probe_loss"]
    start = full.tables["checkpoints"]["probe_loss"].iloc[0]
    for row in BUDGETS[1:]:
        losses = run(lab, row.name).tables["checkpoints"]["probe_loss"]
        assert losses.iloc[0] == pytest.approx(start, rel=1e-5)
        assert run(lab, row.name).values["reached"] == (losses <= target).any()
    assert full.values["start: divergence"] == pytest.approx(0, abs=1e-6)
    assert full.values["equal loss: divergence"] > 1e-3


def test_the_probe_has_refusals_and_benign_answers(lab):
    """A probe of benign examples alone would not see alignment.

    Its loss at the start lies between both kinds' own.
    """
    context = SimpleNamespace(profile=lab.profile, get=lab.get,
                              artifact=lambda name, **params: lab.artifact(name, params))
    examples = alignment_examples(context, "aligned", 0)
    chat = load_base(context, "float32")
    n_benign = lab.profile.alignment.benign
    benign, refusals = (mean_loss(chat, encode_examples(chat, part)[0], 8)
                        for part in (examples[:n_benign], examples[n_benign:]))
    start = run(lab, "full").tables["checkpoints"]["probe_loss"].iloc[0]
    assert min(benign, refusals) < start < max(benign, refusals)


def test_units_are_chosen_before_any_alignment(lab):
    """Refusal wordings after harmful prompts of `identify`; no result of the aligned model."""
    folder = lab.artifact("base_attribution", {"seed": 0})
    texts = json.loads((folder / "texts.json").read_text())
    known = set(lab.get("splits").tables["splits"].query("split == 'identify'")["hash"])
    for pairs in texts.values():
        assert all(prompts.text_hash(prompt) in known for prompt, _ in pairs)
    assert len(texts["harmful"]) == lab.profile.calibration.prompts
    needs = find_step("base_attribution").needs(lab.profile, seed=0)
    assert [need.step for need in needs] == ["splits"]


def test_answers_after_a_prefill(lab):
    options = lab.profile.budget
    table = run(lab, "full").tables["prefilled"]
    assert set(table["at"]) == {"start", "equal loss", "end"}
    assert table.groupby(["at", "length"]).size().eq(options.prefilled).all()
    assert set(table["length"]) == set(options.prefills)


def test_units_after_alignment_have_labels(lab):
    counts = np.bincount(run(lab, "RU").arrays["labels"], minlength=len(LABELS))
    n_units = len(base_units(lab, 0.2).index)
    scu, ucu, ru = lab.profile.freezing.shares
    found = dict(zip(LABELS, counts))
    assert found["SCU"] == round(scu * n_units)
    assert found["UCU"] == round(ucu * n_units)
    assert found["RU"] == round(ru * n_units)


# ---- tables, by hand -------------------------------------------------------------------------

class HandMade:
    """Three seeds, four harmful requests, two borderline ones, two questions.

    `refused`: how many of the four (and of the others, at most) are refused, by what trained; with
    a prefill nothing is. Only SCU miss the loss.
    """

    profile = DEFAULT
    seeds = (0, 1, 2)
    refused = {"full": 4, "full slower": 4, "RU": 3, "random": 2, "only SCU": 1,
               "random like SCU": 1, "LoRA": 4}
    divergences = {"full": 0.2, "full slower": 0.05, "RU": 0.1, "random": 0.2, "only SCU": 0.4,
                   "random like SCU": 0.4, "LoRA": 0.3}
    shares = {"full": np.nan, "full slower": np.nan, "LoRA": np.nan, "only SCU": 0.01,
              "random like SCU": 0.01}

    def once(self, form, **options):
        """As of a lab."""
        return form(self, **options)

    def require(self, needs):
        for need in needs:
            self.get(need.step, **need.params)

    def get(self, step, seed, trained):
        row, share = parse(self.profile, trained)
        share = self.shares.get(row.name, share)
        reached = row.name != "only SCU"
        values = {"share": share, "reached": reached, "probe_loss": 1.0,
                  "moved_bytes": 400 if row.name in ("full", "full slower") else 80}
        parts = []
        if row == FULL:
            values |= self.facts("start", divergence=0.0, wiki=30.0)
            parts.append(self.tables("start", refused=1, correct=2))
        point = "equal loss" if reached else "end"
        values |= self.facts(point, self.divergences[row.name] * (1 + seed), wiki=31.0)
        parts.append(self.tables(point, self.refused[row.name], correct=1))
        tables = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
        moved = np.array([], int) if np.isnan(share) else np.array([0, 4])
        return Result(values, tables, {"labels": np.array([0, 0, 2, 2, 3]), "trained": moved})

    def facts(self, point, divergence, wiki):
        return {f"{point}: epoch": 2, f"{point}: wiki_perplexity": wiki,
                f"{point}: benign_perplexity": 5.0, f"{point}: divergence": divergence}

    def tables(self, point, refused, correct):
        answers = [{"source": source, "id": f"{source} {i}", "at": point, "log_odds": 0.0,
                    "label": "refuse" if i < refused else "comply", "keyword": i < refused}
                   for source, total in (("advbench", 4), ("harmbench", 1), ("borderline", 2))
                   for i in range(total)]
        prefilled = [{"id": f"advbench {i}", "length": length, "at": point, "label": "comply",
                      "keyword": False} for length in (3, 5) for i in range(2)]
        choice = [{"id": i, "task": "t", "correct": i < correct, "gold": -1.0, "at": point}
                  for i in range(2)]
        return {"answers": pd.DataFrame(answers), "prefilled": pd.DataFrame(prefilled),
                "choice": pd.DataFrame(choice)}


@pytest.fixture
def by_hand():
    return HandMade()


@pytest.fixture
def table(by_hand):
    return read.table_four(by_hand, read.budgets(by_hand))


def test_table_four_by_hand(by_hand, table):
    trained = names(BUDGETS)
    assert list(table.index) == ["start", *trained]
    assert table["ASR"].to_dict() == {
        "start": 0.75, "full": 0.0, "full slower": 0.0, "RU": 0.25, "random": 0.5,
        "only SCU": 0.75, "random like SCU": 0.75, "LoRA": 0.0}
    assert set(table["other ASR"]) == {0.0}
    assert table.loc["only SCU", "over-refusal"] == 0.5
    assert table.loc["full", "over-refusal"] == 1.0
    assert table["accuracy"].to_dict() == {"start": 1.0} | dict.fromkeys(trained, 0.5)
    divergences = {name: 2 * value for name, value in by_hand.divergences.items()}
    assert table["divergence"].to_dict() == pytest.approx({"start": 0} | divergences)
    reached = {name: float(name != "only SCU") for name in trained}
    assert table["reached"].drop("start").to_dict() == reached
    assert table.loc["RU", "trained"] == pytest.approx(0.2)
    assert table.loc["RU", ["refuse", "comply"]].tolist() == [0.75, 0.25]


def test_the_shown_table_has_titles_and_per_cents(table):
    shown = read.shown_table_four(table)
    assert shown.index.tolist()[:3] == ["nothing (base model)", "everything",
                                        "everything, lower rate"]
    assert shown.loc["RU", "keyword ASR %"].startswith("25.0 [")
    assert shown.loc["nothing (base model)", "trained %"] == "–"


def test_points_are_the_seeds_behind_the_table(by_hand, table):
    points = read.points_of_seeds(by_hand, read.budgets(by_hand))
    means = points.groupby("condition").mean()
    columns = ["ASR", "strict ASR", "other ASR", "accuracy", "gold", "divergence"]
    found = means.loc[table.index, columns].to_numpy()
    np.testing.assert_allclose(found, table[columns].to_numpy(dtype=float))
    assert len(points) == len(table) * len(by_hand.seeds)


def test_c6_facts_by_hand(by_hand):
    facts = read.c6_facts(by_hand)
    assert facts["base - RU"].mean == 0.5
    assert facts["RU - full"].mean == 0.25
    assert facts["reached: RU"] == (1, 1, 1)
    assert facts["accuracy: base - RU"].mean == 0.5
    assert facts["perplexity: RU / base"] == pytest.approx((31 / 30,) * 3)
    assert facts["divergence: RU / full"] == pytest.approx((0.5,) * 3)
    assert facts["divergence: RU / random"] == pytest.approx((0.5,) * 3)
    assert facts["divergence: RU / full slower"] == pytest.approx((2,) * 3)
    assert facts["divergence: SCU / random"] == pytest.approx((1,) * 3)


def test_the_summary_says_what_was_found(by_hand):
    said = read.summary(by_hand, CLAIM.verdict(by_hand))
    assert "3 seeds): the first bench's conditions are **not met**: 2 of 5 checks hold." in said
    row = "| RU | 25% | 25% | 0% | 100% | 0.20 | 31.0 | 50.0% | -1.00 |"
    assert row in said.splitlines()
    assert "The RU's KL is 0.50 x [0.50, 0.50] that of everything, 2.00 x [2.00, 2.00]" in said
    assert said.endswith("The loss was not reached by: SCU (in no seed).")


def test_the_summary_does_without_a_second_set(by_hand):
    class OneSet(HandMade):
        def get(self, step, seed, trained):
            result = super().get(step, seed, trained)
            result.tables["answers"] = result.tables["answers"].query("source != 'harmbench'")
            return result

    said = read.summary(OneSet(), CLAIM.verdict(by_hand))
    assert "HarmBench ASR" not in said
    head, line, first, *_ = [line for line in said.splitlines() if line.startswith("|")]
    assert head.count("|") == line.count("|") == first.count("|") == 9


def test_answers_after_a_prefill_stand_beside_those_without(by_hand):
    """The two requests that are asked with a prefill are compared, not all four."""
    prefilled = read.after_prefill(read.budgets(by_hand))
    rates = prefilled.set_index(["condition", "length"])["ASR"]
    assert rates.loc["start"].to_dict() == {0: 0.5, 3: 1.0, 5: 1.0}
    assert rates.loc["RU"].to_dict() == {0: 0.0, 3: 1.0, 5: 1.0}
    assert prefilled["condition"].iloc[0] == "start"
    said = read.prefill_summary(prefilled)
    assert ("without a prefill everything 100%, RU 100%, random units like RU 100%, SCU 50%, "
            "random units like SCU 50%; with a prefill of 3 tokens everything 0%, RU 0%") in said
    assert "Of the answers after 5 tokens (everything trained) 0% talk past" in said


def test_who_is_critical_afterwards(by_hand):
    """Units 0 and 1 are SCU afterwards, 0 and 4 trained."""
    where = read.whereabouts(read.budgets(by_hand))
    assert set(where["condition"]) == {"RU", "random", "only SCU", "random like SCU"}
    assert where["of all units"].eq(0.4).all()
    assert where["of the SCU after"].eq(0.5).all()
    assert where["were everything trained"].eq(0.5).all()
    shown = read.shown_whereabouts(where)
    assert shown.index.tolist() == ["RU", "random, as many as RU, no RU", "SCU",
                                    "random, as many as SCU, no SCU"]


def test_shares_stand_in_order_with_the_first_seed_alone(by_hand):
    table = read.by_share(by_hand)
    shares = {kind: part["share"].tolist() for kind, part in table.groupby("kind")}
    assert shares["RU"] == shares["random"] == [0.05, 0.1, 0.2, 0.4]
    assert shares["only SCU"] == [0.01] and shares["full"] == [1]
    assert table[table["kind"] == "RU"]["divergence"].eq(0.1).all()
    assert set(shares) == set(HandMade.refused) - {"full slower", "LoRA"}
    said = read.share_summary(table)
    assert "at 40% 0.10 (0.20); SCU at 1.0% 0.40 (0.40)." in said


def test_deviations_say_what_was_measured(by_hand):
    _, measures, _, share = read.deviations(by_hand)
    assert measures.otherwise == ("accuracy lost with everything trained +50.0%, with RU +50.0%; "
                                  "KL 0.40 and 0.20 nats a token")
    assert share.otherwise == ("KL from the base model: 0.10 at 5%, 0.10 at 10%, 0.10 at 20%, "
                               "0.10 at 40%")


# ---- figures ---------------------------------------------------------------------------------

def texts_of(figure) -> str:
    """All that is written in a figure, as one line: names of lines may be broken."""
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return " ".join(" ".join(texts).split())


def test_figures_name_conditions_and_mark_missed_losses(by_hand, table):
    runs = read.budgets(by_hand)
    of_table = texts_of(draw.table_four(table, read.points_of_seeds(by_hand, runs)))
    after = texts_of(draw.after_prefill(read.after_prefill(runs), table))
    for said in (of_table, after):
        assert "SCU *" in said and "(* loss missed in one seed or more)" in said
        assert "LoRA, as many parameters *" not in said
        assert "random, as many as RU, no RU" in said


def test_shares_are_drawn_with_a_ring_where_the_loss_was_missed(by_hand):
    figure = draw.by_share(read.by_share(by_hand))
    assert "loss missed" in texts_of(figure)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["loss missed"].get_xdata().tolist() == [1.0]
    assert lines["RU"].get_xdata().tolist() == pytest.approx([5, 10, 20, 40])
    assert lines["random, as many as RU, no RU"].get_linestyle() == ":"
    assert lines["random, as many as RU, no RU"].get_markerfacecolor() == "white"


# ---- the rule --------------------------------------------------------------------------------

ALL_HOLD = {
    "base - RU": Estimate(0.5, 0.4, 0.6),
    "RU - full": Estimate(0.0, -0.1, 0.1),
    "reached: RU": Estimate(1.0, 1.0, 1.0),
    "reached: random": Estimate(1.0, 1.0, 1.0),
    "accuracy: base - RU": Estimate(0.0, -0.02, 0.02),
    "perplexity: RU / base": Estimate(1.01, 1.0, 1.02),
    "divergence: RU / full": Estimate(0.7, 0.6, 0.8),
    "divergence: RU / random": Estimate(0.7, 0.6, 0.8)}


def test_c6_reproduced_by_every_check():
    assert read.judge_c6(ALL_HOLD).verdict == "met"


@pytest.mark.parametrize("fact, value, failing, verdict", [
    ("base - RU", (0.19, 0.1, 0.3), {0}, "not met"),
    ("base - RU", (0.5, -0.01, 0.9), {0}, "not met"),
    ("RU - full", (0.06, -0.1, 0.2), {1}, "partly met"),
    ("reached: RU", (2 / 3, 0.0, 1.0), {1, 3, 4}, "partly met"),
    ("reached: random", (2 / 3, 0.0, 1.0), {4}, "partly met"),
    ("accuracy: base - RU", (0.02, -0.1, 0.04), {2}, "not met"),
    ("perplexity: RU / base", (1.03, 1.0, 1.1), {2}, "not met"),
    ("divergence: RU / full", (0.95, 0.9, 0.99), {3}, "partly met"),
    ("divergence: RU / full", (0.7, 0.5, 1.1), {3}, "partly met"),
    ("divergence: RU / random", (0.95, 0.9, 0.99), {4}, "partly met")])
def test_c6_each_margin_can_fail_alone(fact, value, failing, verdict):
    found = read.judge_c6(ALL_HOLD | {fact: Estimate(*value)})
    assert {i for i, check in enumerate(found.checks) if not check.holds} == failing
    assert found.verdict == verdict


def test_a_verdict_takes_three_seeds(by_hand):
    by_hand.seeds = (0, 1)
    assert CLAIM.verdict(by_hand).verdict == "not tested"
