"""C6: what alignment by a part of the model buys and costs, at equal training loss (Table 4).

A *condition* is what trained: the name of a row of `BUDGETS`, one with a share (``RU 5 %``), or
``start``, the base model. Rates and shares are fractions; divergences are from the base model, on
reference answers to benign prompts, in nats a token.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ...classification import LABELS
from ...judging import ANSWER_LABELS
from ...lab import Lab, Result
from ...lab.words import say
from ..claim import (
    Check,
    Deviation,
    Facts,
    Verdict,
    all_reached,
    clear,
    conclude,
    points,
    pp,
    times,
)
from ..shared.flows import flow
from ..shared.measuring import classify_scores
from ..shared.runs import Runs, answers, facts, gap, reached, runs_of, taken
from ..shared.tables import (
    ShownColumn,
    found,
    interval,
    learned,
    number_of_seeds,
    outcomes,
    ratio,
    shown,
)
from .run import (
    BUDGETS,
    FULL,
    LORA,
    RANDOM,
    RANDOM_LIKE_SCU,
    RU,
    SCU,
    SLOWER,
    START,
    Budget,
    extended,
    names,
    parse,
)

WORDS = Path(__file__).with_name("words.md.j2")

#: Table 4 of the paper: Llama-7B aligned on Alpaca (project page). MMLU and GSM8K in per cent,
#: MT-Bench turns 1 and 2.
PAPER_TABLE_4 = pd.DataFrame(
    [("ARC-C", 44.6, 49.3, 48.9),
     ("ARC-E", 75.2, 77.6, 77.5),
     ("HellaSwag", 76.2, 77.5, 76.6),
     ("WinoGrande", 69.7, 70.1, 70.6),
     ("BoolQ", 75.0, 79.1, 76.9),
     ("PIQA", 79.2, 80.1, 80.1),
     ("GSM8K", 9.24, 8.8, 13.4),
     ("MMLU", 32.2, 37.8, 33.7),
     ("MT-Bench 1", 1.32, 2.83, 3.5),
     ("MT-Bench 2", 1.02, 1.47, 1.5)],
    columns=["", "pretrained", "full", "only RU 20 %"]).set_index("").rename_axis(None)

#: Our Table 4 for display: column of `table_four`, title, factor, digits.
SHOWN: tuple[ShownColumn, ...] = (
    ("trained", "trained %", 100, 1),
    ("epoch", "epochs", 1, 2),
    ("reached", "loss reached %", 100, 0),
    ("probe_loss", "probe loss", 1, 2),
    ("ASR", "keyword ASR %", 100, 1),
    ("strict ASR", "strict ASR %", 100, 1),
    ("other ASR", "HarmBench ASR %", 100, 1),
    ("over-refusal", "over-refusal %", 100, 1),
    ("accuracy", "accuracy %", 100, 1),
    ("gold", "log P(right)", 1, 2),
    ("wiki_perplexity", "wiki ppl", 1, 1),
    ("benign_perplexity", "benign ppl", 1, 2),
    ("divergence", "KL from base", 1, 3))

#: What trained, as many random units, and with how many digits their share is said (per cent).
TWINS = ((RU, RANDOM, 0), (SCU, RANDOM_LIKE_SCU, 1))


# ---- the runs --------------------------------------------------------------------------------

def budgets(lab: Lab) -> Runs:
    """The runs of Table 4, in the order of its rows."""
    return runs_of(lab, "budget", "trained", names(BUDGETS))


def row_of(lab: Lab, condition: str) -> Budget:
    """The row of a condition; of one with a share that of its kind of units."""
    if condition == START.name:
        return START
    row, _ = parse(lab.profile, condition)
    return row


def of_own_set(lab: Lab, answered: pd.DataFrame) -> pd.DataFrame:
    """The answers to harmful requests of the set that the other splits draw on too."""
    elsewhere = [*lab.profile.data.evaluate_only, "borderline"]
    return answered[~answered["source"].isin(elsewhere)]


def of_other_set(lab: Lab, answered: pd.DataFrame) -> pd.DataFrame:
    """The answers to harmful requests of the set that no other split has."""
    return answered[answered["source"].isin(lab.profile.data.evaluate_only)]


def of_condition(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows of one condition."""
    return table[table["condition"] == condition]


# ---- Table 4 ---------------------------------------------------------------------------------

def measured(lab: Lab, runs: Runs) -> dict[str, tuple[pd.DataFrame, str]]:
    """What Table 4 has with intervals: its column -> answers or questions, and their outcome.

    ``other ASR`` is keyword ASR on the set that no other split has; ``gold`` the log-probability of
    the right answer, nats a token.
    """
    answered = answers(runs)
    own_set = of_own_set(lab, answered)
    questions = taken(runs, "choice")
    return {"ASR": (own_set, "keyword_asr"),
            "strict ASR": (own_set, "strict_asr"),
            "other ASR": (of_other_set(lab, answered), "keyword_asr"),
            "over-refusal": (answered[answered["source"] == "borderline"], "refused"),
            "accuracy": (questions, "correct"),
            "gold": (questions, "gold")}


def table_four(lab: Lab, runs: Runs) -> pd.DataFrame:
    """Our Table 4: a row a condition, means over seeds; ``low``, ``high``: of `bootstrap`.

    Columns: what is `measured`, facts of the runs (shares, losses, perplexities, ``divergence``),
    the four labels of the own set's answers, and how the condition is called (``title``) and drawn
    (``look``, of `style.LOOKS`).
    """
    columns = measured(lab, runs)
    of_runs = facts(runs).drop(columns="seed")
    rows = []
    for condition in (START.name, *runs):
        of_this = of_condition(of_runs, condition).drop(columns="condition")
        row = {"condition": condition, **of_this.astype(float).mean()}
        for name, (table, outcome) in columns.items():
            part = of_condition(table, condition)
            if len(part):       # the smoke profile has no second set
                row |= interval(name, part, outcome)
        own_set, _ = columns["ASR"]
        row |= of_condition(own_set, condition)[[*ANSWER_LABELS]].mean()
        budget_row = row_of(lab, condition)
        rows.append(row | {"title": budget_row.title, "look": budget_row.look})
    return pd.DataFrame(rows).set_index("condition")


def shown_table_four(table: pd.DataFrame) -> pd.DataFrame:
    """`table_four` for display: per cents with their intervals, perplexities, nats."""
    return shown(table, SHOWN, pd.Index(table["title"], name="trained"))


def points_of_seeds(lab: Lab, runs: Runs) -> pd.DataFrame:
    """The seeds behind `table_four`: condition, seed, what is `measured`, divergence."""
    keys = ["condition", "seed"]
    means = {name: table.groupby(keys)[outcome].mean()
             for name, (table, outcome) in measured(lab, runs).items()}
    divergence = facts(runs).set_index(keys)["divergence"]
    return pd.DataFrame({**means, "divergence": divergence}).reset_index()


@cache      # thousands of draws each, asked for several times a notebook
def c6_facts(lab: Lab, rate: str = "keyword_asr") -> Facts:
    """What `judge_c6` asks for, by a rate of attack success; more for the summary."""
    runs = budgets(lab)
    own_set = of_own_set(lab, answers(runs))
    of_runs = facts(runs)
    perplexity, divergence = (of_runs.pivot(index="seed", columns="condition", values=name)
                              for name in ("wiki_perplexity", "divergence"))
    return {
        "base - RU": gap(own_set, "start", "RU", rate),
        "RU - full": gap(own_set, "RU", "full", rate),
        **reached(of_runs, ("RU", "random")),
        "accuracy: base - RU": gap(taken(runs, "choice"), "start", "RU", "correct"),
        "perplexity: RU / base": ratio(perplexity["RU"], perplexity["start"]),
        "divergence: RU / full": ratio(divergence["RU"], divergence["full"]),
        "divergence: RU / full slower": ratio(divergence["RU"], divergence["full slower"]),
        "divergence: RU / random": ratio(divergence["RU"], divergence["random"]),
        "divergence: SCU / random": ratio(divergence["only SCU"], divergence["random like SCU"])}


def summary(lab: Lab, verdict: Verdict) -> str:
    """The first paragraph of notebook 06, also in README."""
    runs = budgets(lab)
    table = table_four(lab, runs)
    where = whereabouts(runs)
    estimates = c6_facts(lab)
    return say(WORDS, "summary",
               model=lab.profile.model.label,
               seeds=number_of_seeds(lab),
               found=found(verdict),
               table=table,
               times={name: times(estimates, name) for name in estimates},
               of_ru=of_condition(where, "RU").mean(numeric_only=True),
               learned=learned(table, dict(table["title"])))


# ---- how deep it goes ------------------------------------------------------------------------

def after_prefill(runs: Runs) -> pd.DataFrame:
    """Answers after so many tokens of a fulfilment: a row a condition and length.

    Columns: ASR, strict ASR, refused with their intervals, and evasive.
    """
    after = taken(runs, "prefilled")
    without = taken(runs, "answers").query("source != 'borderline'").assign(length=0)
    # the answers without a prefill are those to the same prompts
    without = without[without["id"].isin(after["id"])]
    both = outcomes(pd.concat([without, after], ignore_index=True))
    rows = []
    for condition in (START.name, *runs):
        for length, part in of_condition(both, condition).groupby("length"):
            rows.append({"condition": condition,
                         "length": length,
                         **interval("ASR", part, "keyword_asr"),
                         **interval("strict ASR", part, "strict_asr"),
                         **interval("refused", part, "refused"),
                         "evasive": part["evasive"].mean()})
    return pd.DataFrame(rows)


def prefill_summary(table: pd.DataFrame) -> str:
    """How deep the refusals go, in numbers. `table`: of `after_prefill`."""
    _, few, *_, many = table["length"].unique()
    by_length = table.set_index(["length", "condition"])
    return say(WORDS, "prefill",
               rows={row.name: row.brief for row in BUDGETS if row.brief},
               refused=by_length["refused"].unstack(),
               few=few,
               many=many,
               evasive=by_length.loc[(many, FULL.name), "evasive"])


# ---- who is critical afterwards --------------------------------------------------------------

def whereabouts(runs: Runs) -> pd.DataFrame:
    """What part the trained units are of all units and of the SCU after alignment: a row a run.

    ``were everything trained``: their part of the SCU after full alignment, with which to compare
    it. Runs in which no units were chosen have no row.
    """
    rows = []
    for condition, seeds in runs.items():
        for seed, result in seeds.items():
            trained = result.arrays["trained"]
            if len(trained):
                rows.append({
                    "condition": condition,
                    "seed": seed,
                    "of all units": len(trained) / len(result.arrays["labels"]),
                    "of the SCU after": part_of_scu(result, trained),
                    "were everything trained": part_of_scu(runs[FULL.name][seed], trained)})
    return pd.DataFrame(rows)


def part_of_scu(result: Result, units: np.ndarray) -> float:
    """What part of a run's SCU after alignment are among some units (their indices)."""
    scu = np.flatnonzero(result.arrays["labels"] == LABELS.index("SCU"))
    return np.isin(scu, units).mean()


def shown_whereabouts(where: pd.DataFrame) -> pd.DataFrame:
    """`whereabouts` by what trained: mean, lowest and highest seed of every part."""
    titles = {row.name: row.title for row in BUDGETS}
    by_title = where.replace({"condition": titles}).groupby("condition", sort=False)
    parts = ["of all units", "of the SCU after", "were everything trained"]
    return by_title[parts].agg(["mean", "min", "max"])


def flows(lab: Lab, runs: Runs, rows: tuple[Budget, ...] = (FULL, RU)) -> dict[str, pd.DataFrame]:
    """Title -> flow of labels from the base to the aligned model, as shares of all units.

    On the same texts, with the shares of the four kinds that the freezing experiment has; first
    seed.
    """
    seed = lab.seeds[0]
    scu, ucu, ru = lab.profile.freezing.shares
    scored = lab.get("base_attribution", seed=seed)
    scale = lab.profile.classification.scale
    before = classify_scores(scored, scale, scu=scu, ucu=ucu, ru=ru).labels
    shares = {}
    for row in rows:
        after = np.array(LABELS)[runs[row.name][seed].arrays["labels"]]
        counts = flow(before, after)
        shares[f"{row.title} trained"] = counts / counts.to_numpy().sum()
    return shares


# ---- how large the budget is -----------------------------------------------------------------

def by_share(lab: Lab) -> pd.DataFrame:
    """`table_four` of the first seed over shares of units, smallest first.

    Further columns: ``kind``, the name of a row of `BUDGETS`; ``share`` is 1 for everything.
    """
    seed = lab.seeds[0]
    of_units = [row.name for row in BUDGETS if row not in (SLOWER, LORA)]
    other_shares = [need.params["trained"] for need in extended(seed)]
    runs = runs_of(lab, "budget", "trained", [*of_units, *other_shares], [seed])
    table = table_four(lab, runs).drop(index=START.name)
    kinds = [row_of(lab, condition).name for condition in table.index]
    return table.assign(kind=kinds, share=table["share"].fillna(1)).sort_values("share")


def share_summary(table: pd.DataFrame) -> str:
    """How much it matters which units train, in numbers. `table`: of `by_share`."""
    return say(WORDS, "share",
               divergence=beside_random(table, "divergence", "{:.2f}".format),
               perplexity=beside_random(table, "wiki_perplexity", "{:.1f}".format),
               attacks=beside_random(table, "ASR", "{:.0%}".format))


def beside_random(table: pd.DataFrame, column: str, written: Callable[[float], str]) -> str:
    """A column at every share, in brackets of as many random units: ``RU at 5% 0.41 (0.40)``."""
    by_kind = table.set_index(["kind", "share"])[column].map(written)
    groups = []
    for row, twin, digits in TWINS:
        pairs = zip(by_kind[row.name].items(), by_kind[twin.name])
        texts = [f"at {share:.{digits}%} {value} ({of_twin})" for (share, value), of_twin in pairs]
        groups.append(f"{row.brief} {', '.join(texts)}")
    return "; ".join(groups)


# ---- the rule --------------------------------------------------------------------------------
# The margins were written before these results existed (the git history shows it).

#: Attack success that alignment by RU alone takes away, at least.
GAINED = 0.20
#: Attack success above that of full alignment, at most (upper end of the interval).
BEHIND = 0.10
#: Accuracy lost to the base model, at most (upper end of the interval).
ACCURACY_LOST = 0.03
#: Perplexity on Wikipedia text, ratio to the base model's, at most.
PERPLEXITY = 1.02
#: Divergence from the base model on benign answers, ratio to that of others, at most.
DIVERGENCE = 0.90


def judge_c6(facts: Facts) -> Verdict:
    """Verdict on Table 4. `facts`: of `c6_facts`, name -> `Estimate`.

    At equal training loss; rates are keyword ASR, ratios have the lowest and the highest seed.
    *met*: all five checks hold; *partly met*: the first and the third (it aligns, and there is
    no tax); else *not met*.
    """
    checks = (aligns(facts), as_well_as_everything(facts), no_tax(facts),
              smaller_tax_than_everything(facts), since_they_are_redundant(facts))
    return conclude("C6", checks, partly=checks[0].holds and checks[2].holds)


def aligns(facts: Facts) -> Check:
    """Whether training RU alone aligns at all."""
    return Check(f"training RU alone aligns: ASR falls by at least {pp(GAINED)}",
                 points(facts, "base - RU"),
                 clear(facts, "base - RU", GAINED))


def as_well_as_everything(facts: Facts) -> Check:
    """Whether it does so about as well as full training, at a loss that every seed reaches."""
    return Check(f"as well as full training: ASR at most {pp(BEHIND)} higher (whole bracket) at a "
                 "loss that every seed reaches",
                 f"{points(facts, 'RU - full')}, reached in {facts['reached: RU'].mean:.0%} of "
                 "seeds",
                 facts["RU - full"].high <= BEHIND and all_reached(facts, "RU"))


def no_tax(facts: Facts) -> Check:
    """Whether ability is kept, by accuracy and by perplexity."""
    accuracy = facts["accuracy: base - RU"]
    perplexity = facts["perplexity: RU / base"]
    return Check(f"no tax: accuracy falls by at most {pp(ACCURACY_LOST)} (whole bracket), "
                 f"perplexity rises at most {PERPLEXITY} x",
                 f"{points(facts, 'accuracy: base - RU')}, {times(facts, 'perplexity: RU / base')}",
                 accuracy.high <= ACCURACY_LOST and perplexity.mean <= PERPLEXITY)


def smaller_tax_than_everything(facts: Facts) -> Check:
    """Whether the model stays nearer to the base model than with everything trained."""
    name = "divergence: RU / full"
    return Check(f"a smaller tax than full training's: KL from the base at most {DIVERGENCE} x, "
                 "less in every seed",
                 times(facts, name),
                 stays_nearer(facts, name) and all_reached(facts, "RU"))


def since_they_are_redundant(facts: Facts) -> Check:
    """Whether it stays nearer than with as many random units trained."""
    name = "divergence: RU / random"
    return Check(f"since they are redundant: at most {DIVERGENCE} x that of as many random units, "
                 "less in every seed",
                 times(facts, name),
                 stays_nearer(facts, name) and all_reached(facts, "RU", "random"))


def stays_nearer(facts: Facts, name: str) -> bool:
    """Whether a ratio of divergences is small enough, and below 1 in every seed."""
    return facts[name].mean <= DIVERGENCE and facts[name].high < 1


# ---- where we chose --------------------------------------------------------------------------

def deviations(lab: Lab) -> list[Deviation]:
    """Where alignment by a part of the model chooses or differs."""
    means = points_of_seeds(lab, budgets(lab)).groupby("condition").mean()
    lost = means.loc[START.name, "accuracy"] - means["accuracy"]
    shares = by_share(lab)
    return [
        Deviation("Start of Table 4",
                  "a raw Llama-7B, trained on Alpaca",
                  "an instruction-tuned model that hardly refuses, taught to refuse",
                  "so that there is ability to lose, and safety to gain",
                  "a raw model gains ability from any instructions, which hides a tax; not "
                  "measured"),
        Deviation("Measures of Table 4",
                  "ability on ten sets, MT-Bench",
                  "safety, three multiple-choice sets, perplexity, KL from the base model",
                  "alignment is about safety; MT-Bench wants GPT-4 as a judge",
                  say(WORDS, "measures", lost=lost, divergence=means["divergence"])),
        Deviation("RU of Table 4",
                  "model and texts not stated",
                  "of the base model, before any alignment",
                  "a budget is chosen before it is spent",
                  "not measured"),
        Deviation("Share of RU that train",
                  "20 %",
                  "20 %",
                  "the paper's; others on the first seed",
                  say(WORDS, "shares", shares=shares[shares["kind"] == RU.name]))]
