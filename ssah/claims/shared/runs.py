"""Reading runs of fine-tuning: what several claims ask of them at equal loss, as tables."""

import numpy as np
import pandas as pd

from ...judging import ANSWER_LABELS
from ...lab import Lab, Result
from ...lab.statistics import Estimate, difference
from .tables import interval, outcomes, shown
from .tuning import ADAPTERS, LEAST

#: How a condition is called where people read it.
NAMES = {"start": "before fine-tuning", "full": "nothing frozen", "full slower": "nothing frozen, lower rate",
         "SCU": "SCU", "random small": "random, as many as SCU + top CU, no SCU", "SCU + top CU": "SCU + top 6 % CU",
         "random large without SCU": "random, as many as SCU + all CU, no SCU",
         "random large": "random, as many as SCU + all CU", "SCU + all CU": "SCU + all CU",
         "SCU + all CU + rest": "SCU + all CU + rest", LEAST: "least safety, as many as SCU + all CU",
         "LoRA": "all weights (LoRA trained)", "LLaMA-Adapter": "all weights (LLaMA-Adapter trained)",
         "SNIP difference": "single weights (SNIP), as many as SCU + all CU",
         "random weights": "random single weights, as many"}
#: The rows of Table 2, in their order.
ROWS = ("full", "full slower", "SCU", "random small", "SCU + top CU", "random large without SCU", "random large",
        "SCU + all CU", "SCU + all CU + rest")


#: The comparisons that matter: rival explanations come last.
CONTRASTS = (("full", "start"), ("full", "full slower"), ("full", "SCU"), ("full", "SCU + top CU"),
             ("random small", "SCU + top CU"), ("full", "SCU + all CU"), ("full slower", "SCU + all CU"),
             ("random large", "SCU + all CU"), ("random large without SCU", "SCU + all CU"))

Runs = dict[str, dict[int, Result]]     # condition -> seed -> a result of `tuning`, or one alike


def runs_of(lab: Lab, step: str, key: str, choices, seeds=None, **params) -> Runs:
    """Results of a step for all `choices` of its parameter `key`, and all seeds of the lab or those given."""
    return {c: {s: lab.get(step, seed=s, **params, **{key: c}) for s in seeds or lab.seeds} for c in choices}


def tuned(lab: Lab, conditions=ROWS) -> Runs:
    """The runs of Table 2, in the order of its rows."""
    return runs_of(lab, "tuning", "condition", conditions)


def taken(runs: Runs, kind: str, point: str = "equal loss") -> pd.DataFrame:
    """One table of all runs, as it was taken at a point (equal loss: at the end where that was not reached).

    What was taken before fine-tuning stands as condition ``start``. At ``end`` only those who went on are there.
    """
    parts = []
    for condition, seeds in runs.items():
        for seed, result in seeds.items():
            at = _point(result, point)
            parts.append(result.tables[kind].query("at == @at").assign(condition=condition, seed=seed))
            if condition == "full":
                parts.append(result.tables[kind].query("at == 'start'").assign(condition="start", seed=seed))
    return pd.concat(parts, ignore_index=True)


def answers(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """Outcomes of the answers that were `taken` at a point, a row an answer."""
    return outcomes(taken(runs, "answers", point))


def facts(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """What is known of every condition and seed at a point: shares, whether the loss was ever reached, epoch, losses.

    ``share``: of all units, frozen (in C6: that train); ``trained``: the part of all parameters that moves.
    """
    rows = []
    for condition, seeds in {"start": runs["full"], **runs}.items():
        for seed, result in seeds.items():
            values, at = result.values, "start" if condition == "start" else _point(result, point)
            measured = {name.removeprefix(f"{at}: "): value for name, value in values.items()
                        if name.startswith(f"{at}: ")}
            if measured:
                moved = values["moved_bytes"] - 4 * values.get("weights", 0)      # frozen one by one: float32
                of_all = {"share": values.get("share", np.nan), "reached": values["reached"],
                          "trained": moved / runs["full"][seed].values["moved_bytes"]}
                if condition == "start":
                    of_all = dict.fromkeys(of_all, np.nan)
                rows.append({"condition": condition, "seed": seed, **of_all, **measured})
    return pd.DataFrame(rows)


def _point(result: Result, point: str) -> str:
    """Where a run is compared: at the end, if it never came to equal loss, or is the full run whose epochs count."""
    ended = point == "equal loss" and not result.values["reached"]
    return "end" if ended or (point == "equal epochs" and "start: epoch" in result.values) else point


def table_two(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """Table 2, as fractions: a row a condition, means over seeds; ``low``/``high``: 95 % two-level bootstrap.

    ``unnoticed``: of the answers that the judge calls refusals, the part without a refusal keyword.
    """
    said, known, rows = answers(runs, point), facts(runs, point), []
    for condition in ("start", *runs):
        own = said[said["condition"] == condition]
        if own.empty:       # ended where it reached the loss
            continue
        harmful, borderline = own[own["source"] != "borderline"], own[own["source"] == "borderline"]
        mean = known[known["condition"] == condition].drop(columns=["condition", "seed"]).astype(float).mean()
        row = {"condition": condition, **mean}
        for name, column in (("ASR", "keyword_asr"), ("strict ASR", "strict_asr"), ("log-odds", "log_odds")):
            row |= interval(name, harmful, column)
        if len(borderline):
            row |= interval("over-refusal", borderline, "refused")
        unnoticed = harmful.loc[harmful["refused"] == 1, "keyword_asr"].mean()
        rows.append(row | {label: harmful[label].mean() for label in ANSWER_LABELS} | {"unnoticed": unnoticed})
    return pd.DataFrame(rows).set_index("condition")


def shown_table_two(table: pd.DataFrame) -> pd.DataFrame:
    """`table_two` for display: per cents with their intervals, perplexities, losses in nats."""
    columns = (("share", "units %", 100, 1), ("kept", "parameters %", 100, 1), ("epoch", "epochs", 1, 2),
               ("reached", "loss reached %", 100, 0), ("ASR", "keyword ASR %", 100, 1),
               ("strict ASR", "strict ASR %", 100, 1), ("over-refusal", "over-refusal %", 100, 1),
               ("log-odds", "log-odds", 1, 1), ("probe_loss", "probe loss", 1, 2), ("unseen_loss", "unseen loss", 1, 2),
               ("benign_perplexity", "benign ppl", 1, 2), ("wiki_perplexity", "wiki ppl", 1, 2),
               ("unnoticed", "refusals without keyword %", 100, 0))
    kept = (1 - table["trained"]).mask(table.index.isin(ADAPTERS))      # what adapters train is none of the model's
    return shown(table.assign(kept=kept), columns, pd.Index(table.index.map(NAMES), name="frozen"))


def harmful_answers(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """`answers` to the harmful requests alone."""
    return answers(runs, point).query("source != 'borderline'")


def points(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """The seeds behind `table_two`: condition, seed, keyword_asr, strict_asr, log_odds."""
    said = harmful_answers(runs, point)
    return said.groupby(["condition", "seed"], as_index=False)[["keyword_asr", "strict_asr", "log_odds"]].mean()


def mean_asr(runs: Runs, point: str = "equal loss") -> pd.Series:
    """Keyword ASR of every condition, mean over seeds."""
    return points(runs, point).groupby("condition")["keyword_asr"].mean()


def along(runs: Runs) -> pd.DataFrame:
    """Every checkpoint of every run: condition, seed, epoch, log_odds, keyword_asr where answers were taken.

    ``to_go``: how far the probe loss still is from that of full fine-tuning, same seed (nats).
    """
    parts = []
    for condition, seeds in runs.items():
        for seed, result in seeds.items():
            said = outcomes(result.tables["answers"].query("source != 'borderline'"))
            epochs = {name.removesuffix(": epoch"): value for name, value in result.values.items()
                      if name.endswith(": epoch")}
            rates = said.groupby("at")["keyword_asr"].mean().rename(index=epochs)
            table = result.tables["checkpoints"][["epoch", "probe_loss", "log_odds"]].assign(
                condition=condition, seed=seed)
            parts.append(table.assign(keyword_asr=table["epoch"].map(rates.groupby(level=0).first()),
                                      to_go=table["probe_loss"] - runs["full"][seed].values["probe_loss"]))
    return pd.concat(parts, ignore_index=True)


def gap(said: pd.DataFrame, first: str, second: str, column: str = "keyword_asr") -> Estimate:
    """How much higher a rate is with the first condition than with the second, paired by prompt and seed."""
    return difference(said[said["condition"] == first], said[said["condition"] == second], column)


def log_odds_at_loss(runs: Runs) -> pd.DataFrame:
    """Refusal log-odds where the probe loss is just that of full fine-tuning: a row a seed, a column a condition.

    Between the two checkpoints around it (straight line, the watched prompts alone), so that none has gone further
    than another; nan where the loss was missed.
    """
    def at_loss(own: pd.DataFrame) -> float:
        last, before = own[own["to_go"] <= 0].head(1), own[(own["to_go"] <= 0).cummax() == 0].tail(1)
        both = pd.concat([last, before])        # with rising loss to go, as np.interp asks
        return np.interp(0.0, both["to_go"], both["log_odds"]) if len(last) else np.nan

    table = along(runs).sort_values("epoch")
    full = table[table["condition"] == "full"].groupby("seed")["log_odds"].last()       # its end sets the loss
    others = {condition: part.groupby("seed").apply(at_loss) for condition, part in table.groupby("condition")}
    return pd.DataFrame(others | {"full": full})


def reached(known: pd.DataFrame, conditions) -> dict[str, Estimate]:
    """``reached: CONDITION`` -> in which part of the seeds the loss was reached, lowest and highest seed."""
    of = known.astype({"reached": float}).groupby("condition")["reached"].agg(["mean", "min", "max"])
    return {f"reached: {name}": Estimate(*of.loc[name]) for name in conditions}


def contrasts(runs: Runs, pairs=CONTRASTS) -> pd.DataFrame:
    """First minus second at equal loss, paired by prompt and seed: both ASR and log-odds, means with intervals.

    The last column: of `log_odds_at_loss`, with the lowest and the highest seed.
    """
    said, exact, rows = harmful_answers(runs), log_odds_at_loss(runs), []
    for first, second in pairs:
        row = {"first": NAMES[first], "second": NAMES[second]}
        for name, column, factor in (("keyword ASR, points", "keyword_asr", 100),
                                     ("strict ASR, points", "strict_asr", 100), ("log-odds", "log_odds", 1)):
            mean, low, high = gap(said, first, second, column)
            row[name] = f"{mean * factor:+.1f} [{low * factor:.1f}, {high * factor:.1f}]"
        apart = exact[first] - exact[second] if second in exact else pd.Series(np.nan)
        row["log-odds at just L*"] = "–" if apart.isna().any() else \
            f"{apart.mean():+.2f} [{apart.min():.2f}, {apart.max():.2f}]"
        rows.append(row)
    return pd.DataFrame(rows).set_index(["first", "second"])
