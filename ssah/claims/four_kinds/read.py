"""C2: Table 1, the facts behind the verdict, its rule, and what we say of it."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ...judging import ANSWER_LABELS
from ...lab import Lab
from ...lab.statistics import Estimate, difference, wilson
from ...lab.words import markdown_table, say
from ..claim import Check, Deviation, Facts, Verdict, clear, conclude, points, pp
from ..shared.tables import (
    by_prompt,
    found,
    interval,
    number_of_seeds,
    outcomes,
    ratio,
    shown,
)
from .choices import AS_IN_TABLE_1, CONTROL, shared_part, variations
from .conditions import CONDITIONS
from .judge import comply_by_hand

WORDS = Path(__file__).with_name("words.md.j2")

#: Table 1 of the paper as printed (project page's numbering).
#: Perplexity is that of WikiText-2, accuracy a mean over tasks.
PAPER_TABLE_1 = pd.DataFrame(
    [
        ("Llama2-7B-Chat", "none", None, 6.49, 58.3, 3, 18, 10.0),
        ("Llama2-7B-Chat", "SCU", 1.3, 6.76, 56.9, 19, 84, 66.0),
        ("Llama2-7B-Chat", "UCU", 13.3, 180.2, 42.7, 23, 48, 28.3),
        ("Llama2-7B-Chat", "RU", 14.8, 8.32, 55.5, 6, 19, 14.6),
        ("Llama3-8B-Instruct", "none", None, 7.74, 61.2, 2, 29, 15.5),
        ("Llama3-8B-Instruct", "SCU", 1.4, 9.06, 57.6, 80, 93, 86.5),
        ("Llama3-8B-Instruct", "UCU", 6.8, 269.2, 44.4, 16, 24, 20.0),
        ("Llama3-8B-Instruct", "RU", 6.6, 8.52, 60.8, 1, 24, 12.5),
        ("Mistral-7B-Instruct-v0.2", "none", None, 5.59, 66.2, 12, 17, 14.5),
        ("Mistral-7B-Instruct-v0.2", "SCU", 2.0, 6.17, 63.3, 34, 91, 62.5),
        ("Mistral-7B-Instruct-v0.2", "UCU", 1.3, 52.7, 40.1, 17, 23, 20.0),
        ("Mistral-7B-Instruct-v0.2", "RU", 13.4, 8.15, 64.1, 14, 12, 13.0),
    ],
    columns=[
        "model",
        "removed",
        "share %",
        "wiki ppl",
        "accuracy %",
        "ASR w/ system %",
        "ASR w/o system %",
        "ASR printed mean %",
    ],
)

#: Order of Table 1's rows: every set above its matched random twin.
ROWS = (
    "none",
    "SCU",
    "random SCU",
    "UCU",
    "random UCU",
    "RU",
    "random RU",
    "direction",
)

#: How the rows are called where people read them.
TITLES = {condition.name: condition.title for condition in CONDITIONS}

# ---- Table 1 ---------------------------------------------------------------------------------


def table_one(lab: Lab) -> pd.DataFrame:
    """Our Table 1, as fractions: a row a condition, means over seeds.

    ``low`` and ``high``: 95 % two-level bootstrap. Perplexity: the geometric mean.
    """
    answers = outcomes(lab.frame("ablation", "answers"))
    prompts = by_prompt(answers, ["condition"])
    questions = lab.frame("ablation", "choice")
    parts = [
        what_is_removed(lab),
        estimates("accuracy", questions, "correct"),
        estimates("gold", questions, "gold"),
        estimates("ASR", prompts, "keyword_asr"),
        estimates("strict ASR", prompts, "strict_asr"),
        estimates("log-odds", prompts, "log_odds"),
        prompts.groupby("condition")[[*ANSWER_LABELS]].mean(),
    ]
    for system, part in answers.groupby("system"):
        parts.append(estimates(f"ASR {system}", part, "keyword_asr"))
        parts.append(estimates(f"strict ASR {system}", part, "strict_asr"))
    return pd.concat(parts, axis="columns").loc[list(ROWS)].rename_axis("removed")


def what_is_removed(lab: Lab) -> pd.DataFrame:
    """A row a condition: its title, the shares of units and parameters, Wikipedia perplexity."""
    facts = lab.facts("ablation")
    facts["log_perplexity"] = np.log(facts["wiki_perplexity"])
    means = facts.groupby("condition")[
        ["share", "parameter_share", "log_perplexity"]
    ].mean()
    return pd.DataFrame(
        {
            "title": pd.Series(TITLES),
            "share": means["share"],
            "parameter share": means["parameter_share"],
            "wiki ppl": np.exp(means["log_perplexity"]),
        }
    )


def estimates(name: str, table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The `interval` of a column as columns `name`, ``low`` and ``high``, a row a condition."""
    rows = {
        condition: interval(name, part, column)
        for condition, part in table.groupby("condition")
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def per_seed(lab: Lab) -> pd.DataFrame:
    """The points behind Table 1: a row a condition and seed.

    Columns keyword_asr, strict_asr, accuracy (fractions), log_odds (nats) and wiki ppl.
    """
    keys = ["condition", "seed"]
    answers = outcomes(lab.frame("ablation", "answers")).groupby(keys)
    questions = lab.frame("ablation", "choice").groupby(keys)
    table = answers[["keyword_asr", "strict_asr", "log_odds"]].mean()
    table["accuracy"] = questions["correct"].mean()
    table["wiki ppl"] = lab.facts("ablation").set_index(keys)["wiki_perplexity"]
    return table.reset_index()


def each_seed(lab: Lab) -> pd.DataFrame:
    """Keyword ASR under the system prompt, as text: per cent, Wilson interval, n.

    A row a condition, a column a seed.
    """
    answers = outcomes(lab.frame("ablation", "answers")).query("system == 'default'")
    cells = answers.groupby(["condition", "seed"])["keyword_asr"].apply(_rate_with_n)
    return cells.unstack("seed").loc[list(ROWS)].rename(index=TITLES)


def _rate_with_n(outcome: pd.Series) -> str:
    low, high = wilson(outcome.sum(), len(outcome))
    return f"{outcome.mean() * 100:.0f} [{low * 100:.0f}, {high * 100:.0f}] (n = {len(outcome)})"


def shown_table_one(table: pd.DataFrame) -> pd.DataFrame:
    """`table_one` for display: per cents with their intervals as text; log-odds in nats."""
    columns = (
        ("share", "units %", 100, 2),
        ("parameter share", "parameters %", 100, 2),
        ("wiki ppl", "wiki ppl", 1, 1),
        ("accuracy", "accuracy %", 100, 1),
        ("ASR default", "ASR w/ system %", 100, 1),
        ("ASR none", "ASR w/o system %", 100, 1),
        ("ASR", "keyword ASR %", 100, 1),
        ("strict ASR default", "strict w/ system %", 100, 1),
        ("strict ASR none", "strict w/o system %", 100, 1),
        ("strict ASR", "strict ASR %", 100, 1),
        ("gold", "gold answer, nats a token", 1, 1),
        ("log-odds", "log-odds", 1, 1),
    )
    return shown(table, columns, pd.Index(table["title"], name=table.index.name))


# ---- the rule --------------------------------------------------------------------------------
# Its margins were written before the results were looked at.

#: The largest share of units that may be called few.
FEW = 0.03
#: Attack success added over matched random units, at least.
ADDED = 0.30
#: Multiple-choice accuracy lost without SCU, at most,
ACCURACY_LOST = 0.04
#: and the perplexity ratio, at most.
SCU_RATIO = 1.25
#: The perplexity ratio without UCU, at least.
UCU_RATIO = 5.0
#: Attack success changed by removing RU, at most,
RU_CHANGE = 0.10
#: and the perplexity ratio, at most.
RU_RATIO = 1.5


@cache  # thousands of draws each, asked for several times a notebook
def c2_facts(lab: Lab) -> Facts:
    """What `judge_c2` asks for: differences of rates (fractions), ratios of perplexity, a share.

    Ratios: geometric mean over seeds, with the smallest and the largest.
    """
    prompts = by_prompt(outcomes(lab.frame("ablation", "answers")), ["condition"])
    questions = lab.frame("ablation", "choice")
    facts = {}
    for rate in ("keyword", "strict"):
        for first, second in (("SCU", "random SCU"), ("RU", "none")):
            gap = difference(
                _only(prompts, first), _only(prompts, second), f"{rate}_asr"
            )
            facts[f"{rate}: {first} - {second}"] = gap
    accuracy_lost = difference(
        _only(questions, "none"), _only(questions, "SCU"), "correct"
    )
    facts["accuracy: none - SCU"] = accuracy_lost
    perplexity = per_seed(lab).pivot(
        index="seed", columns="condition", values="wiki ppl"
    )
    for condition in ROWS[1:]:
        facts[f"perplexity: {condition} / none"] = ratio(
            perplexity[condition], perplexity["none"]
        )
    share = _only(lab.facts("ablation"), "SCU")["share"].iloc[
        0
    ]  # the same for every seed
    facts["share: SCU"] = Estimate(share, share, share)
    return facts


def _only(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    return table[table["condition"] == condition]


def judge_c2(facts: Facts) -> Verdict:
    """Verdict on Table 1, from `c2_facts`.

    *met*: all five checks hold; *partly met*: the first (removing SCU and not random units
    breaks the refusals) and at least two others; else *not met*. Perplexity is that of
    Wikipedia text.
    """
    first = necessary(facts)
    checks = (
        first,
        compliance(facts),
        utility_stays(facts),
        utility_falls(facts),
        redundant(facts),
    )
    n_holding = sum(check.holds for check in checks)
    return conclude("C2", checks, partly=first.holds and n_holding >= 3)


def _ratio(facts: Facts, condition: str) -> float:
    """How many times the perplexity of the intact model."""
    return facts[f"perplexity: {condition} / none"].mean


def necessary(facts: Facts) -> Check:
    """Few units, and without them the model no longer refuses."""
    name = "keyword: SCU - random SCU"
    share = facts["share: SCU"].mean
    return Check(
        f"necessary: keyword ASR, SCU minus matched random units, is at least {pp(ADDED)} "
        f"at a share of at most {FEW:.0%}",
        f"{points(facts, name)} at {share:.2%} of units",
        clear(facts, name, ADDED) and share <= FEW,
    )


def compliance(facts: Facts) -> Check:
    """What comes instead of refusals is compliance."""
    name = "strict: SCU - random SCU"
    return Check(
        f"it is compliance, not babble: the same for strict ASR, at least {pp(ADDED)}",
        points(facts, name),
        clear(facts, name, ADDED),
    )


def utility_stays(facts: Facts) -> Check:
    """Without SCU the model is as able as before."""
    name = "accuracy: none - SCU"
    return Check(
        f"utility stays without SCU: accuracy falls by at most {pp(ACCURACY_LOST)} and "
        f"perplexity rises at most {SCU_RATIO} x",
        f"{points(facts, name)}, {_ratio(facts, 'SCU'):.2f} x",
        facts[name].mean <= ACCURACY_LOST and _ratio(facts, "SCU") <= SCU_RATIO,
    )


def utility_falls(facts: Facts) -> Check:
    """Without UCU it is not, and random units matter less."""
    ucu = _ratio(facts, "UCU")
    random = _ratio(facts, "random UCU")
    return Check(
        f"utility falls without UCU: perplexity at least {UCU_RATIO} x, and more than without "
        "random ones",
        f"{ucu:.1f} x, random {random:.1f} x",
        ucu >= UCU_RATIO and ucu > random,
    )


def redundant(facts: Facts) -> Check:
    """Without RU little changes, and random units matter more."""
    name = "strict: RU - none"
    ru = _ratio(facts, "RU")
    random = _ratio(facts, "random RU")
    return Check(
        f"RU are redundant: strict ASR changes by at most {pp(RU_CHANGE)}, perplexity at most "
        f"{RU_RATIO} x, and less than without random ones",
        f"{points(facts, name)}, {ru:.2f} x, random {random:.2f} x",
        abs(facts[name].mean) <= RU_CHANGE and ru <= RU_RATIO and ru < random,
    )


# ---- words -----------------------------------------------------------------------------------


def summary(lab: Lab, verdict: Verdict) -> str:
    """The first paragraph of notebook 02, also in README: what was found, in numbers."""
    table = table_one(lab)
    by_hand = comply_by_hand(lab)
    other = variations(lab)
    is_named = other["choice"].isin(["scale", "score"])
    return say(
        WORDS,
        "summary",
        model=lab.profile.model.label,
        seeds=number_of_seeds(lab),
        found=found(verdict),
        nothing=table.loc["none"],
        scu=table.loc["SCU"],
        random_scu=table.loc["random SCU"],
        ucu=table.loc["UCU"],
        ru=table.loc["RU"],
        random_ru=table.loc["random RU"],
        direction=table.loc["direction"],
        by_hand=by_hand.loc["direction"] if "direction" in by_hand.index else None,
        ru_added=points(c2_facts(lab), "keyword: RU - none"),
        n_variations=len(other),
        as_here=other.loc[AS_IN_TABLE_1, "keyword_asr"],
        other_choices=other.loc[is_named, "keyword_asr"],
        highest_strict=other["strict_asr"].max(),
        same_by_words=shared_part(other.loc[CONTROL, "iou"]),
        by_chance=lab.get("shares").values["scu"],
    )


def readme_table(lab: Lab, verdict: Verdict) -> str:
    """Table 1 with the command that recomputes each row, as Markdown."""
    columns = [
        "units %",
        "wiki ppl",
        "accuracy %",
        "ASR w/ system %",
        "ASR w/o system %",
        "strict ASR %",
    ]
    table = shown_table_one(table_one(lab))[columns]
    by_hand = comply_by_hand(lab)
    rows = []
    for condition, (title, cells) in zip(ROWS, table.iterrows()):
        command = f"`ssah recompute ablation -p {_parameter(condition)}`"
        rows.append([title, *cells, _by_hand(by_hand, condition), command])
    head = ["removed", *columns, "comply when read %", "recompute with"]
    return markdown_table(head, rows)


def _by_hand(table: pd.DataFrame, condition: str) -> str:
    """A cell such as ``40 [22, 61] (8 of 20)``, from `comply_by_hand`."""
    if condition not in table.index:
        return "–"
    row = table.loc[condition]
    share, low, high = row[["share", "low", "high"]] * 100
    return f"{share:.0f} [{low:.0f}, {high:.0f}] ({row['read']:.0f} of {row['labelled']:.0f})"


def _parameter(condition: str) -> str:
    """As it is typed on the command line."""
    parameter = f"condition={condition}"
    return f'"{parameter}"' if " " in condition else parameter


def deviations(lab: Lab) -> list[Deviation]:
    """Where model, data and the table of the four kinds choose or differ."""
    text = say(
        WORDS,
        "deviations",
        model=lab.profile.model.label,
        alignment=lab.profile.alignment,
        scale=lab.profile.classification.scale,
        keyword=variations(lab)["keyword_asr"],
        scu=table_one(lab).loc["SCU"],
    )
    return [Deviation(*row.splitlines()) for row in text.split("\n\n")]
