"""Tables from hand-made results: every number can be done in the head."""

import numpy as np
import pandas as pd
import pytest

from ssah import tables
from ssah.claims import readme
from ssah.errors import SsahError
from ssah.claims import CONDITIONS
from ssah.claims.redundant_units.run import parse
from ssah.claims.profiles import load_profile
from ssah.lab import Result


class HandMade:
    """Stands in for a Lab: two seeds, two prompts, two system modes, two questions a condition.

    Without SCU nothing is refused (seed 0: comply, seed 1: evasive); in all other conditions everything is refused.
    """

    profile, seeds = load_profile("smoke"), (0, 1)

    def get(self, step, seed, condition):
        label = {0: "comply", 1: "evasive"}[seed] if condition == "SCU" else "refuse"
        answers = pd.DataFrame([{"id": i, "system": s, "label": label, "keyword": label == "refuse", "log_odds": 1.0 if s == "default" else np.nan}
                                for s in ("default", "none") for i in ("a", "b")])
        choice = pd.DataFrame({"id": ["q1", "q2"], "correct": [True, condition == "none"], "gold": [-1.0, -2.0], "task": "tiny"})
        return Result({"share": 0.01, "parameter_share": 0.02, "wiki_perplexity": 40.0 if condition == "UCU" else 10.0},
                      {"answers": answers, "choice": choice})

    def across(self, step, table, key, choices):
        return pd.concat([self.get(step, s, c).tables[table].assign(seed=s, condition=c) for c in choices for s in self.seeds], ignore_index=True)


def test_table_one_by_hand():
    table = tables.four_kinds.table_one(HandMade())
    assert list(table.index) == list(tables.four_kinds.ROWS) and set(tables.four_kinds.ROWS) == set(CONDITIONS)
    scu, nothing = table.loc["SCU"], table.loc["none"]
    assert (scu["ASR"], scu["strict ASR"], nothing["ASR"]) == (1.0, 0.5, 0.0)        # keyword counts evasion as success
    assert (scu["evasive"], scu["comply"], nothing["refuse"]) == (0.5, 0.5, 1.0)
    assert (nothing["accuracy"], scu["accuracy"]) == (1.0, 0.5)
    assert table["wiki ppl"].to_dict() == {c: pytest.approx(40 if c == "UCU" else 10) for c in CONDITIONS}
    assert (scu["strict ASR low"], scu["strict ASR high"]) == (0.0, 1.0)             # the seeds disagree wholly


def test_c2_facts_by_hand():
    facts = tables.four_kinds.c2_facts(HandMade())
    assert facts["keyword: SCU - random SCU"] == (1.0, 1.0, 1.0)
    assert facts["strict: SCU - random SCU"][0] == 0.5
    assert facts["accuracy: none - SCU"][0] == 0.5
    assert facts["perplexity: UCU / none"] == pytest.approx((4, 4, 4))


def test_paper_table_is_as_published():
    table = tables.four_kinds.PAPER_TABLE_1.set_index(["model", "removed"])
    assert table.loc[("Llama3-8B-Instruct", "SCU"), "ASR printed mean %"] == (80 + 93) / 2
    assert len(table) == 12


def test_readme_sections_are_replaced_and_nothing_else():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n"
    assert readme.render(text, {"a": r"new \1"}) == "before\n<!-- a -->\nnew \\1\n<!-- /a -->\nafter\n"
    with pytest.raises(SsahError, match="<!-- b -->"):
        readme.render(text, {"b": "new"})


# ---- C1 --------------------------------------------------------------------------------------

class HandMadeProbe:
    """One seed; two queries, two refusal and three fulfilment wordings, two token counts, two blocks.

    Aligned: 0.4 to refusals and 0.5 to fulfilments, but at the second count and block both 0.4 and the third wording
    at 0.3. Unaligned: the other way round, without exceptions.
    """

    profile, seeds = load_profile("smoke"), (0,)

    def get(self, step, seed, requests, reading="branch"):
        arrays = {"aligned refusal": np.full((2, 2, 2, 2), 0.4), "aligned fulfilment": np.full((2, 3, 2, 2), 0.5),
                  "unaligned refusal": np.full((2, 2, 2, 2), 0.5), "unaligned fulfilment": np.full((2, 3, 2, 2), 0.4)}
        arrays["aligned fulfilment"][:, :, 1, 1] = 0.4
        arrays["aligned fulfilment"][:, 2] = 0.3
        if requests == "benign":
            arrays = {name: np.full_like(values, 0.5) for name, values in arrays.items()}
        queries = pd.DataFrame({"id": ["a", "b"], "role": "aligned", "refused": [True, False], "log_odds": [-1.0, 1.0]})
        return Result({}, {"queries": queries}, arrays)


def test_c1_facts_by_hand():
    facts = tables.reasoning_direction.c1_facts(HandMadeProbe())
    assert facts["aligned: blocks"] == 0.75         # 2 x 2 cells; one has (0, 0, -0.1) over its wordings
    assert facts["aligned: pairs"] == 4 / 6         # the third fulfilment wording is closer than either refusal
    assert facts["unaligned: blocks"] == facts["unaligned: pairs"] == facts["unaligned: steps"] == 1.0


def test_curve_and_residual_by_hand():
    curve = tables.reasoning_direction.curve(HandMadeProbe(), "harmful").set_index(["role", "line", "n"])["mean"]
    assert curve["aligned", "refusal", 2] == pytest.approx(0.4)
    assert curve["aligned", "fulfilment", 2] == pytest.approx((0.5 + 0.5 + 0.3) / 3)
    assert curve["aligned", "direction", 4] == pytest.approx(((0.5 + 0.4) / 2 * 2 + 0.3) / 3 - 0.4)
    assert curve["unaligned", "direction", 2] == pytest.approx(-0.1)
    intent = tables.reasoning_direction.residual(HandMadeProbe()).set_index(["role", "line", "n"])["mean"]
    assert intent["unaligned", "benign queries", 2] == pytest.approx(0.0)
    assert intent["unaligned", "residual", 2] == pytest.approx(-0.1)


def test_predictions_by_hand():
    """Both queries have the same direction (chance); the log-odds point the wrong way."""
    rows = tables.reasoning_direction.predicts(HandMadeProbe())
    assert rows["direction"].tolist() == [0.5, 0.5] and rows["log-odds"].tolist() == [0.0, 0.0]
    assert rows["difference"].tolist() == [0.5, 0.5] and rows["n"].tolist() == [2, 2]
    assert not rows["enough"].any()
    assert set(tables.reasoning_direction.shown_predictions(rows)["difference"]) == {"too few"}


def test_differences_of_the_models_are_paired():
    """Every query and wording moves by the same 0.2 from one model to the other: the interval has no width."""

    class Shifted(HandMadeProbe):
        def get(self, step, seed, requests, reading="branch"):
            noise = np.random.default_rng(0).normal(size=(2, 3, 2, 2))
            arrays = {f"{role} refusal": np.zeros((2, 2, 2, 2)) for role in ("aligned", "unaligned")}
            return Result({}, {}, arrays | {"aligned fulfilment": noise + 0.1, "unaligned fulfilment": noise - 0.1})

    rows = tables.reasoning_direction.curve(Shifted(), "harmful").query("role == 'difference'")
    np.testing.assert_allclose(rows[["mean", "low", "high"]], 0.2)
    counts = tables.reasoning_direction.clear_steps(Shifted(), "harmful")
    assert counts.loc["difference"].tolist() == [2, 2, 2] and counts.loc["aligned", "clear"] < 2


def test_block_shares_by_hand():
    """Three of four cells of the aligned model have the claimed sign, all of the unaligned one's."""
    assert tables.reasoning_direction.block_shares(HandMadeProbe(), "harmful", "aligned") == (0.75, [0.75])
    assert tables.reasoning_direction.block_shares(HandMadeProbe(), "harmful", "unaligned") == (1.0, [1.0])
    blocks = tables.reasoning_direction.direction_by_block(HandMadeProbe(), "harmful").set_index(["role", "block"])
    assert blocks.loc[("unaligned", 1), "mean"] == pytest.approx(-0.1)
    assert blocks.loc[("aligned", 1), "mean"] == pytest.approx(0.1 / 3) and blocks.loc[("aligned", 2), "mean"] == pytest.approx(0)
    assert blocks.loc["unaligned", "right"].all() and blocks.loc[("aligned", 1), "right"]


class HandMadeAnswers:
    """Ten queries, two prefills. After 0 tokens the direction is 1, after 1 it is 1 or -1 by prefill, after 3 it is -1."""

    profile, seeds = load_profile("smoke"), (0,)

    def get(self, step, seed):
        values = np.ones((10, 2, 3, 4))
        values[:, 1, 1] = values[:, :, 2] = -1
        refused = np.zeros((10, 2, 3), bool)
        refused[:, :, 0] = refused[:5, 0, 1] = True
        return Result({"lengths": [0, 1, 3]}, {}, {"aligned": values, "unaligned": -values, "aligned refused": refused,
                                                   "unaligned refused": ~refused})


def test_along_names_what_is_clear_and_what_is_not():
    directions = tables.reasoning_direction.along(HandMadeAnswers())
    assert directions["t"].unique().tolist() == [0, 1, 2, 3, 4]         # 0: the mean of the four tokens
    means = directions.query("role == 'aligned' and t == 0").set_index("prefilled")["mean"]
    assert means.to_dict() == {0: 1.0, 1: 0.0, 3: -1.0}
    refused = tables.reasoning_direction.refused_after(HandMadeAnswers())
    rows = refused[refused["role"] == "aligned"].set_index("prefilled")
    assert rows["mean"].to_dict() == {0: 1.0, 1: 0.25, 3: 0.0} and rows.loc[1, "prefills"].tolist() == [0.5, 0.0]
    said = tables.reasoning_direction.along_summary(directions, refused)
    assert "clearly above 0 after 0; clearly below 0 after 3; undecided after 1 prefilled" in said
    assert "1: 25% (50%, 0%)" in said and "over the next 4 tokens" in said

# ---- C4 --------------------------------------------------------------------------------------

class HandMadeRuns:
    """Three seeds, four requests. How many of the four are refused at each point, by condition; one condition is late.

    Full fine-tuning ends at loss 1.0 (seed 0) to 1.2; the condition with the rest frozen never gets there.
    """

    profile, seeds = load_profile("smoke"), (0, 1, 2)
    refused = {"full": {"start": 4, "one epoch": 3, "equal loss": 1, "end": 1},
               "SCU + all CU": {"one epoch": 4, "equal loss": 4, "end": 2},
               "SCU + all CU + rest": {"one epoch": 4, "end": 3},
               "LoRA": {"equal epochs": 3, "equal loss": 0, "end": 0},
               "LLaMA-Adapter": {"equal epochs": 4, "end": 2}}

    def get(self, step, seed, condition=None, method=None, region=None, examples=None):
        condition = condition or method or region
        at = self.refused.get(condition, {"one epoch": 3, "equal loss": 2})
        late, target = condition.endswith(("rest", "Adapter")), 1.0 + seed / 10
        loss = 1.5 if late else target - 0.05 * (condition != "full")
        answers = pd.DataFrame([{"source": "advbench", "id": i, "at": point, "label": "refuse" if i < n else "comply", "keyword": i < n,
                                 "log_odds": 1.0 if i < n else -1.0} for point, n in at.items() for i in range(4)])
        values = {"share": 0.5, "parameter_share": 0.4, "moved_bytes": {"full": 400, "LoRA": 8}.get(condition, 400 if region else 100),
                  **({"weights": 75} if region else {}), "reached": not late, "probe_loss": loss}
        for point, epoch in (("start", 0), ("one epoch", 1), ("equal epochs", 2), ("equal loss", 2), ("end", 4)):
            if point in at:
                values |= {f"{point}: epoch": epoch, f"{point}: probe_loss": loss, f"{point}: unseen_loss": 2.0 if condition == "full" else 2.1}
        checkpoints = pd.DataFrame({"step": [0, 1, 2], "epoch": [0, 1, 2], "probe_loss": [2.0, 1.5, loss], "log_odds": [1.0, 0.5, 0.0]})
        return Result(values, {"answers": answers, "checkpoints": checkpoints})


def test_table_two_by_hand():
    runs = tables.freezing.tuned(HandMadeRuns())
    table = tables.freezing.table_two(runs)
    assert table["ASR"].to_dict() == {"start": 0.0, "full": 0.75, "SCU + all CU": 0.0, "SCU + all CU + rest": 0.25} | {
        name: 0.5 for name in table.index if name not in ("start", "full", "SCU + all CU", "SCU + all CU + rest")}
    assert table["reached"].drop("start").to_dict() == {name: float(name != "SCU + all CU + rest") for name in table.index if name != "start"}
    assert table["trained"].drop("start").to_dict() == {name: 1.0 if name == "full" else 0.25 for name in table.index if name != "start"}
    assert table.loc["start", ["trained", "reached", "share"]].isna().all()      # of the model before fine-tuning none is known
    assert table.loc["SCU + all CU + rest", "epoch"] == 4          # not reached: compared at the end
    end = tables.freezing.table_two(runs, "end")
    assert list(end.index) == ["start", "full", "SCU + all CU", "SCU + all CU + rest"]      # who went on
    assert end.loc["SCU + all CU", "ASR"] == 0.5


def test_c4_facts_by_hand():
    facts = tables.freezing.c4_facts(HandMadeRuns())
    assert facts["full - start"][0] == facts["full - SCU + all CU"][0] == 0.75
    assert facts["random - SCU + all CU"][0] == facts["slower - SCU + all CU"][0] == 0.5
    assert facts["reached: SCU + all CU"] == (1.0, 1.0, 1.0)
    assert facts["unseen"] == pytest.approx((0.05, 0.05, 0.05))
    assert tables.verdict(HandMadeRuns(), "C4").verdict == "not reproduced"      # the unseen loss is 5 % higher
    first = HandMadeRuns()
    first.seeds = (0,)
    assert tables.verdict(first, "C4").verdict == "not tested"                   # a verdict takes three seeds


def test_runs_are_drawn_against_the_full_runs_own_loss():
    runs = tables.freezing.along(tables.freezing.tuned(HandMadeRuns()))
    ends = runs[runs["epoch"] == 2].set_index(["condition", "seed"])["to_go"]
    assert all(ends["full", seed] == pytest.approx(0) for seed in (0, 1, 2))
    assert all(ends["SCU", seed] == pytest.approx(-0.05) for seed in (0, 1, 2))
    rates = runs[(runs["condition"] == "SCU") & (runs["seed"] == 0)].set_index("epoch")["keyword_asr"]
    assert rates[1] == 0.25 and rates[2] == 0.5 and np.isnan(rates[0])


def test_log_odds_at_the_same_loss():
    """From loss 1.5 and log-odds 0.5 to loss 0.95 and log-odds 0; full fine-tuning ended at 1.0, which lies on the way."""
    exact = tables.freezing.log_odds_at_loss(tables.freezing.tuned(HandMadeRuns()))
    assert exact.loc[0, "SCU"] == pytest.approx(0.5 * 0.05 / 0.55) and exact.loc[0, "full"] == 0
    assert exact["SCU + all CU + rest"].isna().all()        # never came there
    shown = tables.freezing.contrasts(tables.freezing.tuned(HandMadeRuns()))["log-odds at just L*"]
    assert shown["nothing frozen", "SCU"] == "-0.06 [-0.07, -0.05]" and shown["nothing frozen", "before fine-tuning"] == "–"


# ---- C5, C7 ----------------------------------------------------------------------------------

def test_c5_facts_by_hand():
    """Of four requests the model refuses 1 after full fine-tuning, 0 after LoRA (3 at equal epochs), 2 with the other."""
    facts = tables.which_units.c5_facts(HandMadeRuns())
    means = {name: round(mean, 6) for name, (mean, _, _) in facts.items()}
    assert means == {"LoRA - full": 0.25, "LLaMA-Adapter - full": -0.25, "LoRA - full, equal epochs": -0.5, "LoRA - SCU + all CU": 1.0,
                     "random large without SCU - SCU + all CU": 0.5, "reached: SCU + all CU": 1.0, "reached: random large without SCU": 1.0, "reached: LoRA": 1.0, "reached: LLaMA-Adapter": 0.0, "trained: LoRA": 0.02,
                     "trained: LLaMA-Adapter": 0.25, "trained: SCU + all CU": 0.25}


def test_frozen_weights_count_as_frozen():
    runs = tables.which_units.weights(HandMadeRuns())
    table = tables.freezing.table_two(runs)
    assert table.loc["SNIP difference", "trained"] == 0.25         # 75 of 100 float32 weights stay
    assert list(table.index) == ["start", "full", "random large without SCU", "SCU + all CU", "random large", "SNIP difference", "random weights"]
    facts = tables.which_units.c7_facts(HandMadeRuns())
    assert facts["SNIP difference - SCU + all CU"][0] == 0.5 and facts["random weights - SNIP difference"][0] == 0.0


def test_contrasts_are_paired_differences():
    shown = tables.freezing.contrasts(tables.which_units.adapters(HandMadeRuns()), tables.which_units.C5_CONTRASTS)
    assert shown.loc[("all weights (LoRA trained)", "SCU + all CU"), "keyword ASR, points"].startswith("+100.0")
    assert shown.loc[("all weights (LoRA trained)", "nothing frozen"), "log-odds"].startswith("-0.5")


def test_further_rows_by_hand():
    """Of four requests full fine-tuning leaves 1 refused, SCU + all CU frozen 4, all other rows 2."""
    further = tables.freezing.further_runs(HandMadeRuns())
    assert list(further) == ["as above", "second set", "own answers"]
    shown = tables.freezing.further_contrasts(further)["keyword ASR, points"].str.split().str[0].astype(float)
    assert shown["as above"].tolist() == [75, 50, 50] and shown["second set"].tolist() == shown["own answers"].tolist() == [75, 50]
    table = tables.freezing.further_table(further)
    assert table.loc["own answers", "keyword ASR %"].str.split().str[0].tolist() == ["0.0", "75.0", "0.0", "50.0"]
    assert len(table.loc["as above"]) == 5


# ---- C6 --------------------------------------------------------------------------------------

class HandMadeBudgets:
    """Three seeds, four harmful requests, two borderline ones, two questions. How many of the four are refused, by what trained."""

    profile, seeds = load_profile("default"), (0, 1, 2)
    refused = {"full": 4, "full slower": 4, "RU": 3, "random": 2, "only SCU": 1, "random like SCU": 1, "LoRA": 4}
    divergences = {"full": 0.2, "full slower": 0.05, "RU": 0.1, "random": 0.2, "only SCU": 0.4, "random like SCU": 0.4, "LoRA": 0.3}

    def get(self, step, seed, trained):
        kind, share = parse(self.profile, trained)
        share = {"full": np.nan, "full slower": np.nan, "LoRA": np.nan, "only SCU": 0.01, "random like SCU": 0.01}.get(kind, share)
        parts = {"answers": [], "prefilled": [], "choice": []}
        values = {"share": share, "reached": kind != "only SCU", "moved_bytes": 400 if kind.startswith("full") else 80, "probe_loss": 1.0}
        for point, n in {**({"start": 1} if kind == "full" else {}), "equal loss" if values["reached"] else "end": self.refused[kind]}.items():
            for source, total in (("advbench", 4), ("harmbench", 1), ("borderline", 2)):
                parts["answers"] += [{"source": source, "id": f"{source} {i}", "at": point, "label": "refuse" if i < n else "comply",
                                      "keyword": i < n, "log_odds": 0.0} for i in range(total)]
            parts["prefilled"] += [{"id": f"advbench {i}", "length": 3, "at": point, "label": "comply", "keyword": False} for i in range(2)]
            parts["choice"] += [{"id": i, "task": "t", "correct": i == 0 or point == "start", "gold": -1.0, "at": point} for i in range(2)]
            values |= {f"{point}: epoch": 2, f"{point}: wiki_perplexity": 30.0 + (point != "start"), f"{point}: benign_perplexity": 5.0,
                       f"{point}: divergence": 0.0 if point == "start" else self.divergences[kind] * (1 + seed)}
        labels = np.array([0, 0, 2, 2, 3])
        moved = np.array([], int) if np.isnan(share) else np.array([0, 4])
        return Result(values, {k: pd.DataFrame(v) for k, v in parts.items()}, {"labels": labels, "trained": moved})


def test_table_four_by_hand():
    lab = HandMadeBudgets()
    runs = tables.redundant_units.budgets(lab)
    table = tables.redundant_units.table_four(lab, runs)
    assert table["ASR"].to_dict() == {"start": 0.75, "full": 0.0, "full slower": 0.0, "RU": 0.25, "random": 0.5, "only SCU": 0.75, "random like SCU": 0.75, "LoRA": 0.0}
    assert set(table["other ASR"]) == {0.0} and table.loc["only SCU", "over-refusal"] == 0.5 and table.loc["full", "over-refusal"] == 1.0
    assert table["accuracy"].to_dict() == {"start": 1.0} | dict.fromkeys(runs, 0.5)
    assert table["divergence"].to_dict() == pytest.approx({"start": 0} | {name: 2 * x for name, x in lab.divergences.items()})
    assert table["reached"].drop("start").to_dict() == {name: float(name != "only SCU") for name in runs}
    assert table.loc["RU", "trained"] == pytest.approx(0.2)


def test_c6_facts_by_hand():
    facts = tables.redundant_units.c6_facts(HandMadeBudgets())
    assert facts["base - RU"][0] == 0.5 and facts["RU - full"][0] == 0.25 and facts["reached: RU"] == (1, 1, 1)
    assert facts["accuracy: base - RU"][0] == 0.5
    assert facts["perplexity: RU / base"] == pytest.approx((31 / 30,) * 3)
    assert facts["divergence: RU / full"] == pytest.approx((0.5,) * 3) == facts["divergence: RU / random"]
    assert facts["divergence: RU / full slower"] == pytest.approx((2,) * 3)


def test_answers_after_a_prefill_stand_beside_those_without():
    table = tables.redundant_units.after_prefill(tables.redundant_units.budgets(HandMadeBudgets())).set_index(["condition", "length"])
    assert table["ASR"].loc["start"].to_dict() == {0: 0.5, 3: 1.0}      # the two requests that are asked with a prefill
    assert table["ASR"].loc["RU"].to_dict() == {0: 0.0, 3: 1.0} and table.index.get_level_values(0).unique()[0] == "start"


def test_who_is_critical_afterwards():
    where = tables.redundant_units.whereabouts(tables.redundant_units.budgets(HandMadeBudgets()))
    assert set(where["condition"]) == {"RU", "random", "only SCU", "random like SCU"} and where["of all units"].eq(0.4).all()
    assert where["of the SCU after"].eq(0.5).all()              # units 0 and 1 are SCU, 0 and 4 trained
    assert where["were everything trained"].eq(0.5).all()


def test_shares_stand_in_order_with_the_first_seed_alone():
    table = tables.redundant_units.by_share(HandMadeBudgets())
    assert table[table["kind"] == "RU"]["share"].tolist() == [0.05, 0.1, 0.2, 0.4] == table[table["kind"] == "random"]["share"].tolist()
    assert table.set_index("kind")["share"][["only SCU", "full"]].tolist() == [0.01, 1]
    assert table[table["kind"] == "RU"]["divergence"].eq(0.1).all() and set(table["kind"]) == set(HandMadeBudgets.refused) - {"full slower", "LoRA"}
    assert "at 40% 0.10 (0.20); SCU at 1.0% 0.40 (0.40)." in tables.redundant_units.share_summary(table)


# ---- the scoreboard --------------------------------------------------------------------------

def test_every_claim_with_a_notebook_has_an_entry_that_can_be_traced():
    from ssah.claims.claim import CLAIMS
    from ssah.lab import STEPS
    from ssah.inputs.archives import REPOSITORY
    from ssah.claims.scoreboard import ENTRIES, STEPS_OF

    notebooks = {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    for claim in CLAIMS:
        if claim.notebook:
            assert claim.notebook in notebooks
            assert ENTRIES[claim.id].figure in STEPS_OF and ENTRIES[claim.id].step in STEPS
            assert (REPOSITORY / "figures" / f"{ENTRIES[claim.id].figure}.png").exists()
    assert {step for steps in STEPS_OF.values() for step in steps} <= set(STEPS)
    assert {path.stem for path in (REPOSITORY / "figures").glob("*.png")} <= set(STEPS_OF)


def test_the_ledger_has_a_row_a_claim_with_links_and_origin(monkeypatch):
    """By a made-up claim: its number, verdict and links; without a notebook a claim is not tested."""
    from ssah.claims import claim
    from ssah.claims.claim import Check, Claim, Verdict

    entry = tables.ledger.__globals__["Entry"](lambda lab: {"x": (0.5, 0.4, 0.6)}, lambda facts: Verdict("C1", "partly", (Check("is it?", "half", True),)),
                                               3, lambda lab, facts: f"ours {facts['x'][0]}", "01_figure", "probe")
    monkeypatch.setitem(tables.ledger.__globals__["ENTRIES"], "C1", entry)
    monkeypatch.setattr(claims, "CLAIMS", (Claim("C1", "it is", "Fig. 1", "1 %", "01_notebook"), Claim("C9", "it is not", "Fig. 2", "2 %", "")))
    lab = HandMadeRuns()
    head, _, first, second = tables.ledger(lab, "notebooks/", "figures/").splitlines()
    assert head.count("|") == first.count("|") == second.count("|")
    assert "**partly** | ours 0.5, 3 seeds | 1 % | Fig. 1 | recomputed | [01](notebooks/01_notebook.ipynb), [figure](figures/01_figure.png)" in first
    assert "**not tested** | – | 2 % | Fig. 2 | paper-reported |" in second
    assert tables.checks(lab).splitlines()[2] == "| C1 | yes | is it? | half |"
    one_seed = HandMadeRuns()
    one_seed.seeds = (0,)
    assert "**not tested** | ours 0.5, 1 seed" in tables.ledger(one_seed)


def test_strict_asr_may_turn_checks(monkeypatch):
    """Of made-up claims: only the check that differs has a row, and all verdicts are named."""
    from ssah.claims.claim import Check, Verdict

    def judge(facts):
        return Verdict("C4", "partly" if facts["rate"] == "strict_asr" else "reproduced",
                       (Check("always?", "x", True), Check("turns?", facts["rate"], facts["rate"] == "keyword_asr")))

    entry = tables.ledger.__globals__["Entry"](lambda lab, rate="keyword_asr": {"rate": rate}, judge, 3, None, "", "")
    for claim in ("C4", "C5", "C6", "C7"):
        monkeypatch.setitem(tables.ledger.__globals__["ENTRIES"], claim, entry)
    lines = tables.by_strict(HandMadeRuns()).splitlines()
    assert lines[2] == "| C4 | turns? | yes: keyword_asr | no: strict_asr |" and len(lines) == 8
    assert lines[-1] == "Verdicts by strict ASR: C4 partly, C5 partly, C6 partly, C7 partly."


def test_the_shared_part_of_two_sets_of_one_size():
    one, other = set(range(10)), set(range(4, 14))      # six in common
    iou = len(one & other) / len(one | other)
    assert tables.four_kinds.shared(pd.Series({"iou": iou})) == pytest.approx(0.6)


def test_costs_are_in_proportion():
    from ssah.claims import CONDITIONS

    class Priced:
        profile, seeds = load_profile("smoke"), (0,)

        def get(self, step, **params):
            # the measured memory is that of training, whatever a later step's process held
            facts = {"step": step, "seconds": 60.0 if step == "ablation" else 0.0, "peak_memory_gib": 2.5 if step == "checkpoint" else 9.0}
            return Result({"moved_bytes": 4e8}, provenance=facts)       # a hundred million parameters

    table = tables.costs(Priced(), sizes=(1e9,))
    assert table["minutes"].tolist() == [str(len(CONDITIONS)), str(10 * len(CONDITIONS))]
    assert table["GiB"].tolist() == ["2", "17"] and table["parameters"].tolist() == ["100 M", "1,000 M"]
