"""C1: tables of the probe from hand-made results, the doubts, the rule, and a pair of one's own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from ssah import probing
from ssah.claims import lab_of, load_profile, plan
from ssah.claims.reasoning_direction import CLAIM, doubts, read
from ssah.errors import SsahError
from ssah.inputs.prompts import load_prompts
from ssah.lab import Result
from ssah.lab.statistics import crossed_bootstrap
from ssah.models import save_weights, tiny_chat

#: Shape of the hand-made distances to either kind: (query, wording, n, block).
SHAPES = {"refusal": (2, 2, 2, 2), "fulfilment": (2, 3, 2, 2)}
NAMES = [f"{role} {kind}" for role in ("aligned", "unaligned") for kind in SHAPES]


class HandMadeProbe:
    """One seed; two queries, two refusal and three fulfilment wordings, two counts, two blocks.

    Aligned: 0.4 to refusals and 0.5 to fulfilments, but at the second count and block both 0.4 and
    the third wording at 0.3. Unaligned: the other way round, without exceptions.
    """

    profile = load_profile("smoke")
    seeds = (0,)

    def get(self, step, seed, requests, reading="branch"):
        levels = {"aligned refusal": 0.4, "aligned fulfilment": 0.5,
                  "unaligned refusal": 0.5, "unaligned fulfilment": 0.4}
        arrays = {name: np.full(SHAPES[name.split()[1]], levels[name]) for name in NAMES}
        arrays["aligned fulfilment"][:, :, 1, 1] = 0.4
        arrays["aligned fulfilment"][:, 2] = 0.3
        if requests == "benign":
            arrays = {name: np.full_like(values, 0.5) for name, values in arrays.items()}
        queries = pd.DataFrame({"id": ["a", "b"], "role": "aligned", "refused": [True, False],
                                "log_odds": [-1.0, 1.0]})
        return Result({}, {"queries": queries}, arrays)

    def frame(self, step, table):
        parts = []
        for requests in ("harmful", "unseen", "benign"):
            part = self.get(step, 0, requests).tables[table]
            parts.append(part.assign(seed=0, requests=requests))
        return pd.concat(parts, ignore_index=True)


class RandomProbe(HandMadeProbe):
    """Two seeds of random distances, other ones for every seed and set of requests."""

    seeds = (0, 1)

    def get(self, step, seed, requests, reading="branch"):
        random = np.random.default_rng([seed, len(requests)])
        return Result({}, {}, {name: random.random(SHAPES[name.split()[1]]) for name in NAMES})


# ---- arrays by name --------------------------------------------------------------------------

def test_the_direction_of_every_pair_against_a_loop():
    lab = RandomProbe()
    directions = read.direction(read.distances(lab, "harmful"))
    assert directions.sizes == {"role": 2, "seed": 2, "query": 2, "refusal_wording": 2,
                                "fulfilment_wording": 3, "n": 2, "block": 2}
    for seed in lab.seeds:
        arrays = lab.get("probe", seed, "harmful").arrays
        for role in ("aligned", "unaligned"):
            for refusal in range(2):
                for fulfilment in range(3):
                    expected = (arrays[f"{role} fulfilment"][:, fulfilment]
                                - arrays[f"{role} refusal"][:, refusal])
                    pair = directions.sel(role=role, seed=seed).isel(
                        refusal_wording=refusal, fulfilment_wording=fulfilment)
                    np.testing.assert_array_equal(pair.transpose("query", "n", "block"), expected)


def test_intervals_are_those_of_the_arrays_whatever_the_order_of_axes():
    """The bootstrap redraws seed, query, refusal and fulfilment wording, in this order."""
    values = np.random.default_rng(0).random((2, 3, 4, 5, 6))
    axes = ("seed", "query", "refusal_wording", "fulfilment_wording", "n")
    expected = crossed_bootstrap(values, 4, draws=50)
    for order in (axes, axes[::-1], ("n", "query", "seed", *axes[2:4])):
        found = read.interval(xr.DataArray(values, dims=axes).transpose(*order), draws=50)
        for name, ends in zip(("mean", "low", "high"), expected):
            np.testing.assert_array_equal(found[name], ends)


def test_a_number_that_is_missing_is_not_averaged_away():
    class Missing(RandomProbe):
        def get(self, step, seed, requests, reading="branch"):
            result = super().get(step, seed, requests)
            result.arrays["aligned refusal"][0, 0, 1, 0] = np.nan
            return result

    curve = read.curve(Missing(), "harmful").set_index(["role", "line", "n"])["mean"]
    steps = Missing.profile.probing.steps
    assert np.isnan(curve["aligned", "refusal", steps[1]])
    assert np.isfinite(curve["aligned", "refusal", steps[0]])
    assert np.isnan(read.direction_by_wording(Missing(), "harmful").sel(role="aligned")[0]).all()


def test_every_seed_has_its_own_mean():
    lab = RandomProbe()
    curve = read.curve(lab, "harmful").set_index(["role", "line", "n"])["seeds"]
    for place, n in enumerate(lab.profile.probing.steps):
        expected = [lab.get("probe", seed, "harmful").arrays["aligned refusal"][:, :, place].mean()
                    for seed in lab.seeds]
        assert curve["aligned", "refusal", n] == pytest.approx(expected)


# ---- tables by hand --------------------------------------------------------------------------

def test_c1_facts_by_hand():
    facts = read.c1_facts(HandMadeProbe())
    assert facts["aligned: blocks"] == 0.75         # one of 2 x 2 cells has 0, 0, -0.1
    assert facts["aligned: pairs"] == 4 / 6         # the third wording is closer than any refusal
    assert facts["unaligned: blocks"] == 1.0
    assert facts["unaligned: pairs"] == 1.0
    assert facts["unaligned: steps"] == 1.0


def test_curve_by_hand():
    curve = read.curve(HandMadeProbe(), "harmful").set_index(["role", "line", "n"])["mean"]
    assert curve["aligned", "refusal", 2] == pytest.approx(0.4)
    assert curve["aligned", "fulfilment", 2] == pytest.approx((0.5 + 0.5 + 0.3) / 3)
    second_count = ((0.5 + 0.4) / 2 * 2 + 0.3) / 3
    assert curve["aligned", "direction", 4] == pytest.approx(second_count - 0.4)
    assert curve["unaligned", "direction", 2] == pytest.approx(-0.1)


def test_residual_by_hand():
    intent = doubts.residual(HandMadeProbe()).set_index(["role", "line", "n"])["mean"]
    assert intent["unaligned", "benign queries", 2] == pytest.approx(0.0)
    assert intent["unaligned", "residual", 2] == pytest.approx(-0.1)


def test_residual_pairs_no_more_queries_than_both_sides_have():
    class Fewer(RandomProbe):
        def get(self, step, seed, requests, reading="branch"):
            result = super().get(step, seed, requests)
            if requests == "benign":
                return Result({}, {}, {name: values[:1] for name, values in result.arrays.items()})
            return result

    intent = doubts.residual(Fewer()).set_index(["role", "line", "n"])["mean"]
    means = {}
    for requests in ("harmful", "benign"):
        arrays = Fewer().get("probe", 0, requests).arrays
        first_query = {kind: arrays[f"aligned {kind}"][0, :, 0].mean() for kind in SHAPES}
        means[requests] = first_query["fulfilment"] - first_query["refusal"]
    assert intent["aligned", "residual", 2] == pytest.approx(means["harmful"] - means["benign"])


def test_differences_of_the_models_are_paired():
    """Every query and wording moves by the same 0.2 from one model to the other.

    So the interval has no width.
    """
    class Shifted(HandMadeProbe):
        def get(self, step, seed, requests, reading="branch"):
            noise = np.random.default_rng(0).normal(size=SHAPES["fulfilment"])
            nothing = np.zeros(SHAPES["refusal"])
            return Result({}, {}, {
                "aligned refusal": nothing, "aligned fulfilment": noise + 0.1,
                "unaligned refusal": nothing, "unaligned fulfilment": noise - 0.1})

    rows = read.curve(Shifted(), "harmful").query("role == 'difference'")
    np.testing.assert_allclose(rows[["mean", "low", "high"]], 0.2)
    counts = read.clear_steps(Shifted(), "harmful")
    assert counts.loc["difference"].tolist() == [2, 2, 2]
    assert counts.loc["aligned", "clearly"] < 2


def test_block_shares_by_hand():
    """Three of the aligned model's four cells have the claimed sign, all of the unaligned one's."""
    shares = read.block_shares(HandMadeProbe(), "harmful")
    assert shares.loc["aligned"].to_dict() == {"share": 0.75, "seeds": [0.75]}
    assert shares.loc["unaligned"].to_dict() == {"share": 1.0, "seeds": [1.0]}


def test_direction_by_block_by_hand():
    blocks = read.direction_by_block(HandMadeProbe(), "harmful").set_index(["role", "block"])
    assert blocks.loc[("unaligned", 1), "mean"] == pytest.approx(-0.1)
    assert blocks.loc[("aligned", 1), "mean"] == pytest.approx(0.1 / 3)
    assert blocks.loc[("aligned", 2), "mean"] == pytest.approx(0)
    assert blocks.loc["unaligned", "right"].all()
    assert blocks.loc[("aligned", 1), "right"]


def test_wordings_keep_their_names(monkeypatch):
    openings = pd.DataFrame({"id": ["r1", "r2", "f1", "f2", "f3", "x"], "probe": [*"11111", "0"],
                             "kind": ["refusal"] * 2 + ["fulfilment"] * 4})
    monkeypatch.setattr(doubts, "data_file", lambda name: openings)
    tables = doubts.by_wording(HandMadeProbe())
    assert tables["aligned"].index.tolist() == ["r1", "r2"]
    assert tables["aligned"].loc["r2", "f3"] == pytest.approx(-0.1)
    assert tables["unaligned"].loc["r1", "f1"] == pytest.approx(-0.1)
    text = doubts.wording_summary(tables)
    assert text.endswith("with the claimed sign: aligned 4 of 6, unaligned 6 of 6.")


def test_predictions_by_hand():
    """Both queries have the same direction (chance); the log-odds point the wrong way."""
    rows = doubts.predicts(HandMadeProbe())
    assert rows["set"].tolist() == ["AdvBench", "HarmBench"]
    assert rows["direction"].tolist() == [0.5, 0.5]
    assert rows["log-odds"].tolist() == [0.0, 0.0]
    assert rows["difference"].tolist() == [0.5, 0.5]
    assert rows["n"].tolist() == [2, 2]
    assert not rows["enough"].any()
    assert set(doubts.shown_predictions(rows)["difference"]) == {"too few"}
    assert "Too few answers of one kind" in doubts.prediction_summary(rows)


def test_a_perfect_score_has_an_interval_without_width():
    place = np.arange(20.0)
    scores = pd.DataFrame({"direction": place, "first n": 0.0, "log-odds": -place})
    row = doubts.prediction(scores, place >= 10)
    assert [row["direction"], row["direction low"], row["direction high"]] == [1.0, 1.0, 1.0]
    assert [row["first n"], row["log-odds"], row["difference"]] == [0.5, 0.0, 1.0]
    assert row["rank correlation"] == pytest.approx(-1)
    assert row["enough"]
    assert row["refused"] == 10


# ---- along the answer ------------------------------------------------------------------------

class HandMadeAnswers:
    """Ten queries, two prefills, prefixes of 0, 1 and 3 tokens, four tokens after them.

    After 0 tokens the direction is 1, after 1 it is 1 or -1 by prefill, after 3 it is -1.
    """

    profile = load_profile("smoke")
    seeds = (0,)

    def get(self, step, seed):
        values = np.ones((10, 2, 3, 4))
        values[:, 1, 1] = -1
        values[:, :, 2] = -1
        refused = np.zeros((10, 2, 3), bool)
        refused[:, :, 0] = True
        refused[:5, 0, 1] = True
        return Result({"lengths": [0, 1, 3]}, {}, {
            "aligned": values, "aligned refused": refused,
            "unaligned": -values, "unaligned refused": ~refused})


def test_along_names_what_is_clear_and_what_is_not():
    directions = doubts.along(HandMadeAnswers())
    assert directions["t"].unique().tolist() == [0, 1, 2, 3, 4]     # 0: the mean of the four tokens
    means = directions.query("role == 'aligned' and t == 0").set_index("prefilled")["mean"]
    assert means.to_dict() == {0: 1.0, 1: 0.0, 3: -1.0}
    refused = doubts.refused_after(HandMadeAnswers())
    rows = refused[refused["role"] == "aligned"].set_index("prefilled")
    assert rows["mean"].to_dict() == {0: 1.0, 1: 0.25, 3: 0.0}
    assert rows.loc[1, "prefills"] == [0.5, 0.0]
    text = doubts.along_summary(directions, refused)
    assert "clearly above 0 after 0; clearly below 0 after 3; undecided after 1 prefilled" in text
    assert "1: 25% (50%, 0%)" in text
    assert "over the next 4 tokens" in text


# ---- words -----------------------------------------------------------------------------------

def test_the_summary_says_the_numbers():
    lab = HandMadeProbe()
    facts = read.c1_facts(lab)
    text = read.summary(lab, read.judge_c1(facts))
    assert "unaligned -0.100 (from -0.100 to -0.100 over n)" in text
    assert "and 2 (unaligned) of 2 token counts" in text
    assert "excludes 0 at 0 and 2; for these wordings alone" in text
    assert "themselves refuse 50% to 50% of these queries" in text
    ours = read.ours(lab, facts)
    assert ours.startswith("direction after 4 tokens: aligned ")
    assert ", unaligned -0.100 [-0.100, -0.100]; n = " in ours


def test_figures_two_and_three_in_words():
    lab = HandMadeProbe()
    assert "unaligned 2 of 2 (clearly: 2)" in read.curve_summary(lab, "harmful")
    assert read.block_summary(lab).endswith(
        "with the claimed sign: AdvBench, aligned 75% (seeds: 75%); AdvBench, unaligned 100% "
        "(seeds: 100%); HarmBench, aligned 75% (seeds: 75%); HarmBench, unaligned 100% "
        "(seeds: 100%).")


# ---- the rule --------------------------------------------------------------------------------

LEANS = {f"{role}: {what}": 1.0 for role in ("aligned", "unaligned")
         for what in ("steps", "steps, unseen", "blocks", "pairs")}


def test_c1_reproduced_by_every_check():
    assert read.judge_c1(LEANS).verdict == "met"
    at_the_margin = {name: 0.8 for name in LEANS}
    assert read.judge_c1(at_the_margin).verdict == "met"


@pytest.mark.parametrize("fact", LEANS)
def test_c1_each_share_can_tip_the_verdict(fact):
    verdict = read.judge_c1(LEANS | {fact: 0.79})
    assert sum(not check.holds for check in verdict.checks) == 1
    assert verdict.verdict == ("not met" if fact.endswith(": steps") else "partly met")


# ---- a pair of one's own ---------------------------------------------------------------------

@pytest.fixture
def pair_lab(tmp_path):
    """Makes a lab whose pair is two saved models (smoke sizes and prompts)."""
    def make(first, second):
        for name, chat in (("first", first), ("second", second)):
            save_weights(chat, tmp_path / name)
        smoke = load_profile("smoke")
        pair = (str(tmp_path / "first"), str(tmp_path / "second"))
        profile = replace(smoke, probing=replace(smoke.probing, pair=pair))
        return lab_of(profile, root=tmp_path / "results")
    return make


def test_a_ready_made_pair_is_probed_without_training(pair_lab):
    pair = {"aligned": tiny_chat(0), "unaligned": tiny_chat(1)}
    lab = pair_lab(*pair.values())
    result = lab.get("probe", seed=0, requests="harmful")
    assert not any(name.startswith("checkpoint") for name in lab.fresh)
    texts = load_prompts("tiny-harmful").set_index("id")["text"]
    asked = result.tables["queries"].query("role == 'aligned'")["id"]
    for role, chat in pair.items():
        openings = probing.probe_openings(chat)
        expected = probing.branch(chat, texts[asked].tolist(), openings, lab.profile.probing.steps)
        for kind, distances in expected.items():       # kept as float16
            np.testing.assert_allclose(result.arrays[f"{role} {kind}"], distances, atol=2e-3)


def test_the_static_reading_is_its_own_measurement(pair_lab):
    chat = tiny_chat(0)
    lab = pair_lab(chat, tiny_chat(1))
    result = lab.get("probe", seed=0, requests="harmful", reading="static")
    assert not result.tables
    texts = load_prompts("tiny-harmful").set_index("id")["text"]
    asked = lab.get("probe", seed=0, requests="harmful").tables["queries"]["id"].unique()
    expected = probing.static(chat, texts[asked].tolist(), probing.probe_openings(chat),
                              lab.profile.probing.steps)
    np.testing.assert_allclose(result.arrays["aligned refusal"], expected["refusal"], atol=2e-3)


def test_a_ready_made_pair_of_different_depths_is_refused(pair_lab):
    with pytest.raises(SsahError, match="2 and 3 blocks"):
        pair_lab(tiny_chat(), tiny_chat(layers=3)).get("probe", seed=0, requests="harmful")


def test_a_pair_is_named_by_its_profile():
    profile = load_profile("pair:owner/chat@v1,owner/raw")
    assert profile.probing.pair == ("owner/chat@v1", "owner/raw")
    assert profile.seeds == (0,)
    assert "/" not in profile.name                  # it is a folder's name
    assert profile.option == " --profile pair:owner/chat@v1,owner/raw"
    assert {need.step for need in plan(profile)} == {"splits", "probe", "along_answers"}


@pytest.mark.parametrize("name", ["pair:one", "pair:a,", "pair:a,b,c"])
def test_a_pair_is_two_models(name):
    with pytest.raises(SsahError, match="pair:ALIGNED,UNALIGNED"):
        load_profile(name)


@pytest.mark.parametrize("wrong, message", [
    ({"requests": "other"}, "unknown requests"),
    ({"requests": "harmful", "reading": "other"}, "unknown reading")])
def test_unknown_requests_and_readings(tmp_path, wrong, message):
    lab = lab_of(load_profile("smoke"), root=tmp_path)
    with pytest.raises(SsahError, match=message):
        lab.get("probe", seed=0, **wrong)


def test_the_claim_is_read_from_what_it_requires(pair_lab):
    """A whole pass on a pair of tiny models: runs, tables, verdict, words."""
    lab = pair_lab(tiny_chat(0), tiny_chat(1))
    lab.seeds = lab.profile.seeds[:1]
    CLAIM.require(lab)
    facts, verdict = CLAIM.judged(lab)
    assert set(facts) == set(LEANS)
    assert all(0 <= share <= 1 for share in facts.values())
    assert "**What we found**" in read.summary(lab, verdict)
    assert len(doubts.predicts(lab)) == 2
    assert doubts.along(lab)["prefilled"].unique().tolist() == list(lab.profile.probing.prefills)
    (deviation,) = CLAIM.deviations(lab)
    assert deviation.otherwise.endswith("(first seed)")
