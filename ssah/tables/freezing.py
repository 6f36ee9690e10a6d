"""C4: Table 2 at equal training loss and at doubled epochs, with the controls that no published table has."""

from dataclasses import replace

import numpy as np
import pandas as pd

from .. import claims
from ..experiments import TUNED, Lab
from ..judging import ANSWER_LABELS
from ..statistics import difference
from .shared import interval, outcomes, with_interval

#: Table 2 of the paper, AdvBench, keyword ASR % (project page): start, full, SCU + 6 % CU, SCU + all CU.
PAPER_TABLE_2 = pd.DataFrame(
    [("Llama2-7B-Chat", "Alpaca", 0.19, 5.3, 2.96, 2.1),
     ("Llama2-7B-Chat", "Dolly", 0.19, 11.92, 3.65, 2.88),
     ("Llama3-8B-Instruct, blocks 1-12", "Alpaca", 1.54, 14.24, 11.2, 10.95),
     ("Llama3-8B-Instruct, blocks 1-12", "Dolly", 1.54, 61.15, 51.38, 40.58)],
    columns=["model", "instructions", "start", "full", "SCU + 6 % CU", "SCU + all CU"])

#: How a condition is called where people read it, in the order of the rows.
NAMES = {"start": "before fine-tuning", "full": "nothing frozen", "full slower": "nothing frozen, lower rate",
         "SCU": "SCU", "random small": "random, as many as SCU + top CU", "SCU + top CU": "SCU + top 6 % CU",
         "random large without SCU": "random, as many as SCU + all CU, no SCU",
         "random large": "random, as many as SCU + all CU", "SCU + all CU": "SCU + all CU",
         "SCU + all CU + rest": "SCU + all CU + rest"}


def answers(lab: Lab, point: str, conditions=TUNED) -> pd.DataFrame:
    """Outcomes of some conditions at a point (equal loss: at the end where that was not reached), a row an answer.

    Before fine-tuning they stand as condition ``start``. At ``end`` only those conditions that went on are there.
    """
    parts = []
    for condition in conditions:
        for seed in lab.seeds:
            result = lab.get("tuning", seed=seed, condition=condition)
            at = "end" if point == "equal loss" and not result.values["reached"] else point
            parts.append(result.tables["answers"].query("at == @at").assign(condition=condition, seed=seed))
            if condition == "full":
                parts.append(result.tables["answers"].query("at == 'start'").assign(condition="start", seed=seed))
    return outcomes(pd.concat(parts, ignore_index=True))


def facts(lab: Lab, point: str = "equal loss") -> pd.DataFrame:
    """What is known of every condition and seed at a point: shares, whether the loss was reached, epoch, losses."""
    rows = []
    for condition in NAMES:
        for seed in lab.seeds:
            values = lab.get("tuning", seed=seed, condition="full" if condition == "start" else condition).values
            at = "start" if condition == "start" else "end" if not values["reached"] else point
            if f"{at}: epoch" not in values:
                continue
            measured = {name.removeprefix(f"{at}: "): value for name, value in values.items()
                        if name.startswith(f"{at}: ")}
            rows.append({"condition": condition, "seed": seed, "share": values["share"],
                         "parameter share": values["parameter_share"], "reached": values["reached"], **measured})
    return pd.DataFrame(rows)


def table_two(lab: Lab, point: str = "equal loss") -> pd.DataFrame:
    """Our Table 2, as fractions: a row a condition, means over seeds; ``low``/``high``: 95 % two-level bootstrap."""
    said, known, rows = answers(lab, point), facts(lab, point), []
    for condition in NAMES:
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
        rows.append(row | {label: harmful[label].mean() for label in ANSWER_LABELS})
    return pd.DataFrame(rows).set_index("condition")


def shown_table_two(table: pd.DataFrame) -> pd.DataFrame:
    """`table_two` for display: per cents with their intervals, perplexities, losses in nats."""
    shown = pd.DataFrame(index=table.index.map(NAMES))
    shown.index.name = "frozen"
    shown["units %"] = (table["share"] * 100).map("{:.1f}".format).to_numpy()
    shown["parameters %"] = (table["parameter share"] * 100).map("{:.1f}".format).to_numpy()
    shown["epochs"] = table["epoch"].map("{:.2f}".format).to_numpy()
    shown["loss reached"] = [f"{x:.0%}" for x in table["reached"]]
    for column, name in (("ASR", "keyword ASR %"), ("strict ASR", "strict ASR %"), ("over-refusal", "over-refusal %")):
        if column in table:
            shown[name] = [with_interval(row, column) if np.isfinite(row[column]) else "–"
                           for _, row in table.iterrows()]
    shown["log-odds"] = [with_interval(row, "log-odds", 1) for _, row in table.iterrows()]
    for column, name in (("probe_loss", "probe loss"), ("unseen_loss", "unseen loss"),
                         ("benign_perplexity", "benign ppl"), ("wiki_perplexity", "wiki ppl")):
        if column in table:
            shown[name] = table[column].map("{:.2f}".format).replace("nan", "–").to_numpy()
    for label in ANSWER_LABELS:
        shown[f"{label} %"] = (table[label] * 100).map("{:.0f}".format).to_numpy()
    return shown


def points(lab: Lab, point: str = "equal loss") -> pd.DataFrame:
    """The seeds behind `table_two`: condition, seed, keyword_asr, strict_asr, log_odds."""
    said = answers(lab, point).query("source != 'borderline'")
    return said.groupby(["condition", "seed"], as_index=False)[["keyword_asr", "strict_asr", "log_odds"]].mean()


def runs(lab: Lab) -> pd.DataFrame:
    """Every checkpoint of every run: condition, seed, epoch, log_odds, keyword_asr where answers were taken.

    ``to_go``: how far the probe loss still is from that of full fine-tuning, same seed (nats).
    """
    parts = []
    for condition in TUNED:
        for seed in lab.seeds:
            result = lab.get("tuning", seed=seed, condition=condition)
            said = outcomes(result.tables["answers"].query("source != 'borderline'"))
            epochs = {name.removesuffix(": epoch"): value for name, value in result.values.items()
                      if name.endswith(": epoch")}
            rates = said.groupby("at")["keyword_asr"].mean().rename(index=epochs)
            table = result.tables["checkpoints"][["epoch", "probe_loss", "log_odds"]].assign(
                condition=condition, seed=seed)
            target = lab.get("tuning", seed=seed, condition="full").values["probe_loss"]
            parts.append(table.assign(keyword_asr=table["epoch"].map(rates.groupby(level=0).first()),
                                      to_go=table["probe_loss"] - target))
    return pd.concat(parts, ignore_index=True)


def c4_facts(lab: Lab) -> dict[str, tuple[float, float, float]]:
    """What `claims.judge_c4` asks for: differences of keyword ASR at equal loss, paired by prompt and seed."""
    said = answers(lab, "equal loss").query("source != 'borderline'")

    def gap(first: str, second: str) -> tuple[float, float, float]:
        return difference(said[said["condition"] == first], said[said["condition"] == second], "keyword_asr")

    known = facts(lab).pivot(index="seed", columns="condition", values="unseen_loss")
    ratio = known["SCU + all CU"] / known["full"] - 1
    reached = facts(lab).astype({"reached": float}).groupby("condition")["reached"].agg(["mean", "min", "max"])
    return {"full - start": gap("full", "start"), "full - SCU + all CU": gap("full", "SCU + all CU"),
            "full - SCU + top CU": gap("full", "SCU + top CU"),
            "random - SCU + all CU": gap("random large without SCU", "SCU + all CU"),
            "slower - SCU + all CU": gap("full slower", "SCU + all CU"),
            **{f"reached: {name}": tuple(reached.loc[name]) for name in ("SCU + all CU", "SCU + top CU")},
            "unseen": (ratio.mean(), ratio.min(), ratio.max())}


def verdict(lab: Lab) -> claims.Verdict:
    """`claims.judge_c4`, but *not tested* with fewer than three seeds: there is training in it."""
    found = claims.judge_c4(c4_facts(lab))
    return found if len(lab.seeds) >= 3 else replace(found, verdict="not tested")


def contrasts(lab: Lab, point: str = "equal loss") -> pd.DataFrame:
    """Differences of keyword ASR and of log-odds between conditions, paired by prompt: means with intervals."""
    said, rows = answers(lab, point).query("source != 'borderline'"), []
    for first, second in (("full", "start"), ("full", "full slower"), ("full", "SCU"), ("full", "SCU + top CU"),
                          ("random small", "SCU + top CU"), ("full", "SCU + all CU"), ("full slower", "SCU + all CU"),
                          ("random large", "SCU + all CU"), ("random large without SCU", "SCU + all CU")):
        row = {"more attacks succeed with": NAMES[first], "than with": NAMES[second]}
        for name, column, factor in (("keyword ASR, points", "keyword_asr", 100), ("log-odds", "log_odds", 1)):
            mean, low, high = difference(said[said["condition"] == first], said[said["condition"] == second], column)
            row[name] = f"{mean * factor:+.1f} [{low * factor:.1f}, {high * factor:.1f}]"
        rows.append(row)
    return pd.DataFrame(rows).set_index(["more attacks succeed with", "than with"])


def c4_summary(lab: Lab, table: pd.DataFrame, verdict: claims.Verdict) -> str:
    """The first paragraph of notebook 04: what was found, in numbers."""
    rate = {name: f"{row['ASR']:.0%}" for name, row in table.iterrows()}
    strict = {name: f"{row['strict ASR']:.0%}" for name, row in table.iterrows()}
    seeds = f"{len(lab.seeds)} seed{'s' if len(lab.seeds) > 1 else ''}"
    missed = [NAMES[name] for name, row in table.iterrows() if row["reached"] < 1]
    return (f"**What we found** ({lab.profile.model.label}, {seeds}): **{verdict.verdict}**"
            f"{'' if len(lab.seeds) >= 3 else ' (a verdict takes three seeds)'}; "
            f"{sum(c.holds for c in verdict.checks)} of {len(verdict.checks)} checks hold. Keyword ASR at equal "
            f"training loss (strict ASR in brackets):\n\n"
            f"- *The attack.* Before fine-tuning {rate['start']} ({strict['start']}); after full fine-tuning on "
            f"{lab.profile.freezing.examples} benign instructions {rate['full']} ({strict['full']}).\n"
            f"- *Freezing.* SCU {rate['SCU']} ({strict['SCU']}), SCU + top CU {rate['SCU + top CU']} "
            f"({strict['SCU + top CU']}), SCU + all CU {rate['SCU + all CU']} ({strict['SCU + all CU']}).\n"
            f"- *The controls.* As many random units as SCU + top CU {rate['random small']} "
            f"({strict['random small']}); as many as SCU + all CU {rate['random large']} ({strict['random large']}), "
            f"without any SCU {rate['random large without SCU']} ({strict['random large without SCU']}); nothing "
            f"frozen at a lower learning rate {rate['full slower']} ({strict['full slower']}).\n"
            f"- *Did it learn?* " + (f"The loss was not reached in every seed with: {', '.join(missed)}."
                                     if missed else "Every condition reached the loss of full fine-tuning."))
