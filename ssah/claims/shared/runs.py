"""Reading runs of fine-tuning: what several claims ask of them at equal loss, as tables."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from ...judging import ANSWER_LABELS
from ...lab import Lab, Need, Result
from ...lab.statistics import Estimate, difference
from .conditions import FULL, NAMES, START
from .tables import interval, outcomes, shown
from .tuning import ADAPTERS, TUNED

Runs = dict[str, dict[int, Result]]     # condition -> seed -> a result of `tuning`, or one alike

#: The comparison that asks whether it matters which units are frozen.
WHICH_UNITS = ("random large without SCU", "SCU + all CU")
#: The comparisons that matter: rival explanations come last.
CONTRASTS = (
    ("full", "start"),
    ("full", "full slower"),
    ("full", "SCU"),
    ("full", "SCU + top CU"),
    ("random small", "SCU + top CU"),
    ("full", "SCU + all CU"),
    ("full slower", "SCU + all CU"),
    ("random large", "SCU + all CU"),
    WHICH_UNITS)

#: Columns of a table for display: column of `table_two`, title, factor, digits.
SHOWN = (
    ("share", "units %", 100, 1),
    ("stay", "parameters %", 100, 1),
    ("epoch", "epochs", 1, 2),
    ("reached", "loss reached %", 100, 0),
    ("ASR", "keyword ASR %", 100, 1),
    ("strict ASR", "strict ASR %", 100, 1),
    ("over-refusal", "over-refusal %", 100, 1),
    ("log-odds", "log-odds", 1, 1),
    ("probe_loss", "probe loss", 1, 2),
    ("unseen_loss", "unseen loss", 1, 2),
    ("benign_perplexity", "benign ppl", 1, 2),
    ("wiki_perplexity", "wiki ppl", 1, 2),
    ("unnoticed", "refusals without keyword %", 100, 0))
#: Columns of `contrasts`: title, column of the answers, factor.
CONTRASTED = (
    ("keyword ASR, points", "keyword_asr", 100),
    ("strict ASR, points", "strict_asr", 100),
    ("log-odds", "log_odds", 1))


# ---- the runs --------------------------------------------------------------------------------

def runs_of(lab: Lab, step: str, key: str, choices, seeds=None, **params) -> Runs:
    """Results of a step for `choices` of its parameter `key`, and the lab's or the given seeds."""
    runs = {}
    for choice in choices:
        chosen = {**params, key: choice}
        runs[choice] = {seed: lab.get(step, seed=seed, **chosen) for seed in seeds or lab.seeds}
    return runs


def tuned(lab: Lab, conditions=TUNED, seeds=None) -> Runs:
    """The runs of Table 2, in the order of its rows; of the lab's or the given seeds."""
    return runs_of(lab, "tuning", "condition", conditions, seeds)


def seeds_of_tunings(lab: Lab) -> tuple[int, ...]:
    """The seeds with which a model of the second bench was fine-tuned."""
    return (*lab.seeds, *lab.profile.further_tunings)


def finished_seeds(lab: Lab, needs: Callable[[int], Iterable[Need]]) -> tuple[int, ...]:
    """Of these seeds, those with which everything that one `needs` is stored and valid."""
    return tuple(seed for seed in seeds_of_tunings(lab) if lab.has_all(needs(seed)))


def each(runs: Runs) -> Iterator[tuple[str, int, Result]]:
    """Every run: (condition, seed, result)."""
    for condition, seeds in runs.items():
        for seed, result in seeds.items():
            yield condition, seed, result


def stacked(runs: Runs, kind: str) -> pd.DataFrame:
    """One table of all runs below each other, with columns condition and seed."""
    parts = [result.tables[kind].assign(condition=condition, seed=seed)
             for condition, seed, result in each(runs)]
    return pd.concat(parts, ignore_index=True)


def measured(runs: Runs) -> pd.DataFrame:
    """All facts that were measured on the way: a row a run and point (condition, seed, point, ...).

    The one place that reads the values which `Observer` keeps as ``POINT: FACT``.
    """
    rows = []
    for condition, seed, result in each(runs):
        by_point: dict[str, dict] = {}
        for name, value in result.values.items():
            point, colon, fact = name.partition(": ")
            if colon:
                by_point.setdefault(point, {})[fact] = value
        for point, values in by_point.items():
            rows.append({"condition": condition, "seed": seed, "point": point, **values})
    return pd.DataFrame(rows)


def compared_at(condition: str, result: Result, point: str) -> str:
    """Where a run is compared, if all are at a point.

    At its end, if it never came to equal loss, or is the full run, whose epochs are the equal ones.
    """
    if point == "equal loss" and not result.values["reached"]:
        return "end"
    if point == "equal epochs" and condition == FULL.name:
        return "end"
    return point


# ---- at a point ------------------------------------------------------------------------------

def taken(runs: Runs, kind: str, point: str = "equal loss") -> pd.DataFrame:
    """One table of all runs, as it was taken at a point (`compared_at`).

    What was taken before fine-tuning stands as condition ``start``. At ``end`` only those who went
    on are there.
    """
    parts = []
    for condition, seed, result in each(runs):
        table = result.tables[kind].assign(condition=condition, seed=seed)
        if condition == FULL.name:
            parts.append(table[table["at"] == "start"].assign(condition=START.name))
        parts.append(table[table["at"] == compared_at(condition, result, point)])
    return pd.concat(parts, ignore_index=True)


def answers(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """Outcomes of the answers that were `taken` at a point, a row an answer."""
    return outcomes(taken(runs, "answers", point))


def facts(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """Facts of every run at a point (`compared_at`) and before fine-tuning (``start``): a row each.

    ``share``: of all units, frozen (in C6: that train); ``trained``: the part of all parameters
    that moves; ``reached``: whether the run came to equal loss.
    """
    on_the_way = measured(runs)
    is_before = (on_the_way["condition"] == FULL.name) & (on_the_way["point"] == "start")
    before = on_the_way[is_before].assign(condition=START.name)
    rows = []
    for condition, seed, result in each(runs):
        rows.append({
            "condition": condition,
            "seed": seed,
            "point": compared_at(condition, result, point),
            "share": result.values.get("share", np.nan),
            "reached": result.values["reached"],
            "trained": moved(result) / moved(runs[FULL.name][seed])})
    after = pd.DataFrame(rows).merge(on_the_way, on=["condition", "seed", "point"])
    return pd.concat([before, after], ignore_index=True).drop(columns="point")


def moved(result: Result) -> int:
    """Bytes of what training moved; single weights that stay are float32 in a tensor that moves."""
    return result.values["moved_bytes"] - 4 * result.values.get("weights", 0)


def harmful_answers(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """`answers` to the harmful requests alone."""
    return answers(runs, point).query("source != 'borderline'")


def points(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """The seeds behind `table_two`: condition, seed, keyword_asr, strict_asr, log_odds."""
    table = harmful_answers(runs, point)
    columns = ["keyword_asr", "strict_asr", "log_odds"]
    return table.groupby(["condition", "seed"], as_index=False)[columns].mean()


def mean_asr(runs: Runs, point: str = "equal loss") -> pd.Series:
    """Keyword ASR of every condition, mean over seeds."""
    return points(runs, point).groupby("condition")["keyword_asr"].mean()


# ---- Table 2 ---------------------------------------------------------------------------------

def table_two(runs: Runs, point: str = "equal loss") -> pd.DataFrame:
    """Table 2, as fractions: a row a condition, means over seeds.

    ``low``/``high``: 95 % two-level bootstrap. ``unnoticed``: of the answers that the judge calls
    refusals, the part without a refusal keyword. Who ended at equal loss has no row at ``end``.
    """
    known = facts(runs, point).set_index("condition").drop(columns="seed").astype(float)
    means = known.groupby("condition").mean()
    by_condition = answers(runs, point).groupby("condition")
    rates = {condition: _rates(answered) for condition, answered in by_condition}
    table = means.join(pd.DataFrame.from_dict(rates, orient="index"))
    return table.loc[[condition for condition in (START.name, *runs) if condition in rates]]


def _rates(answered: pd.DataFrame) -> dict[str, float]:
    """What the answers of one condition say: rates with their intervals, and the four labels."""
    is_borderline = answered["source"] == "borderline"
    harmful = answered[~is_borderline]
    refused = harmful[harmful["refused"] == 1]
    rates = {**interval("ASR", harmful, "keyword_asr"),
             **interval("strict ASR", harmful, "strict_asr"),
             **interval("log-odds", harmful, "log_odds"),
             "unnoticed": refused["keyword_asr"].mean()}
    if is_borderline.any():
        rates |= interval("over-refusal", answered[is_borderline], "refused")
    for label in ANSWER_LABELS:
        rates[label] = harmful[label].mean()
    return rates


def shown_table_two(table: pd.DataFrame) -> pd.DataFrame:
    """`table_two` for display: per cents with their intervals, perplexities, losses in nats."""
    is_adapter = table.index.isin(ADAPTERS)     # what adapters train is none of the model's
    stay = (1 - table["trained"]).mask(is_adapter)
    return shown(table.assign(stay=stay), SHOWN, pd.Index(table.index.map(NAMES), name="frozen"))


# ---- comparisons -----------------------------------------------------------------------------

def gap(answered: pd.DataFrame, first: str, second: str, column: str = "keyword_asr") -> Estimate:
    """How much higher a rate is with the first condition than with the second.

    Paired by prompt and seed; `answered`: as `answers` returns them.
    """
    condition = answered["condition"]
    return difference(answered[condition == first], answered[condition == second], column)


def reached(known: pd.DataFrame, conditions) -> dict[str, Estimate]:
    """``reached: CONDITION`` -> in which part of the seeds the loss was reached, of `facts`.

    With the lowest and the highest seed.
    """
    by_condition = known.astype({"reached": float}).groupby("condition")["reached"]
    return {f"reached: {name}": over_seeds(by_condition.get_group(name)) for name in conditions}


def over_seeds(values: pd.Series) -> Estimate:
    """The mean of a value a seed, with the lowest and the highest."""
    return Estimate(float(values.mean()), float(values.min()), float(values.max()))


def along(runs: Runs) -> pd.DataFrame:
    """Every checkpoint of every run: condition, seed, epoch, probe_loss, log_odds, keyword_asr.

    ``keyword_asr`` is nan where no answers were taken. ``to_go``: how far the probe loss still is
    from that of full fine-tuning, same seed (nats).
    """
    columns = ["condition", "seed", "epoch", "probe_loss", "log_odds"]
    table = stacked(runs, "checkpoints")[columns]
    targets = {seed: result.values["probe_loss"] for seed, result in runs[FULL.name].items()}
    table["to_go"] = table["probe_loss"] - table["seed"].map(targets)
    return table.merge(_rates_on_the_way(runs), how="left", on=["condition", "seed", "epoch"])


def _rates_on_the_way(runs: Runs) -> pd.DataFrame:
    """Keyword ASR wherever answers were taken: condition, seed, epoch, keyword_asr."""
    of_point = ["condition", "seed", "point"]
    harmful = outcomes(stacked(runs, "answers").query("source != 'borderline'"))
    answered = harmful.rename(columns={"at": "point"})
    rates = answered.groupby(of_point, as_index=False)["keyword_asr"].mean()
    table = rates.merge(measured(runs)[[*of_point, "epoch"]], on=of_point).drop(columns="point")
    # a checkpoint may be two points, such as equal loss and end: the same answers
    return table.drop_duplicates(["condition", "seed", "epoch"])


def log_odds_at_loss(runs: Runs) -> pd.DataFrame:
    """Refusal log-odds where the probe loss is just that of full fine-tuning.

    A row a seed, a column a condition. Between the two checkpoints around it (straight line, the
    watched prompts alone), so that none has gone further than another; nan where it was missed.
    """
    runs_by_seed = along(runs).sort_values("epoch").groupby(["seed", "condition"])
    table = runs_by_seed[["to_go", "log_odds"]].apply(_log_odds_at_loss).unstack("condition")
    table[FULL.name] = runs_by_seed["log_odds"].last().xs(FULL.name, level="condition")
    return table        # full fine-tuning ends just there


def _log_odds_at_loss(checkpoints: pd.DataFrame) -> float:
    """Of one run: on the line from the last checkpoint above the loss to the first below it."""
    is_there = checkpoints["to_go"] <= 0
    if not is_there.any():
        return np.nan
    below = checkpoints[is_there].head(1)
    above = checkpoints[~is_there.cummax()].tail(1)
    both = pd.concat([below, above])        # with rising loss to go, as np.interp asks
    return np.interp(0.0, both["to_go"], both["log_odds"])


def contrasts(runs: Runs, pairs=CONTRASTS) -> pd.DataFrame:
    """First minus second at equal loss, paired by prompt and seed: means with intervals, as text.

    Both ASR and log-odds. The last column: of `log_odds_at_loss`, with the lowest and the highest
    seed.
    """
    answered = harmful_answers(runs)
    exact = log_odds_at_loss(runs)
    exact[START.name] = np.nan      # the model before fine-tuning is at no loss
    rows = []
    for first, second in pairs:
        row = {"first": NAMES[first], "second": NAMES[second]}
        for title, column, factor in CONTRASTED:
            row[title] = _signed(gap(answered, first, second, column), factor, digits=1)
        apart = exact[first] - exact[second]
        missed = apart.isna().any()
        row["log-odds at just L*"] = "–" if missed else _signed(over_seeds(apart), digits=2)
        rows.append(row)
    return pd.DataFrame(rows).set_index(["first", "second"])


def _signed(estimate: Estimate, factor: float = 1, *, digits: int) -> str:
    mean, low, high = (value * factor for value in estimate)
    return f"{mean:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
