"""C2: what other choices would have given, and whether the units suffice where they are put."""

from pathlib import Path

import pandas as pd

from ...judging import ANSWER_LABELS
from ...lab import Lab
from ...lab.words import say
from ..shared.measuring import answer_perplexity
from ..shared.tables import interval, outcomes, with_interval
from .conditions import VARIATIONS, find_condition
from .ratio_scan import meets_rule

WORDS = Path(__file__).with_name("words.md.j2")

#: The variation that changes nothing, and the control of what the safety score detects.
AS_IN_TABLE_1 = "as in Table 1"
CONTROL = "refusals on benign prompts"


# ---- the ratio scan --------------------------------------------------------------------------


def ratio_scan(lab: Lab) -> pd.DataFrame:
    """The scan of the first seed: a row a kind (``label``) and share.

    ``refusing``: a fraction; ``chosen``: whether Table 1 takes the share; ``meets_rule``: whether
    it does what the rule asks (else it is the fallback).
    """
    table = lab.frame("scan", "scan")
    share_of_label = table["label"].str.lower().map(lab.get("shares").values)
    table["chosen"] = table["share"] == share_of_label
    table["meets_rule"] = meets_rule(table, table)
    return table


# ---- one choice changed at a time ------------------------------------------------------------


def variations(lab: Lab) -> pd.DataFrame:
    """Table 1's SCU row with one choice changed at a time (first seed): a row a variation.

    ``choice``: which one; rates and labels are fractions; ``iou``: with Table 1's SCU, ``chance``:
    of two random sets of that size.
    """
    answers = outcomes(lab.frame("variation", "answers")).groupby("variation")
    losses = lab.frame("variation", "benign").groupby("variation")
    facts = lab.facts("variation").set_index("variation")
    table = pd.DataFrame(
        index=pd.Index([row.name for row in VARIATIONS], name="variation")
    )
    table["choice"] = [row.choice for row in VARIATIONS]
    table = table.join(
        answers[["keyword_asr", "strict_asr", "log_odds", *ANSWER_LABELS]].mean()
    )
    table["perplexity"] = losses[["nll", "tokens"]].apply(answer_perplexity)
    table["iou"] = overlaps(lab)
    table["mlp_share"] = facts["mlp_share"]
    share = lab.get("shares").values["scu"]
    table["chance"] = share / (2 - share)
    return table


def overlaps(lab: Lab) -> pd.Series:
    """IoU of every variation's SCU with those of Table 1 (first seed)."""
    chosen = {}
    for row in VARIATIONS:
        result = lab.get("variation", seed=lab.profile.seeds[0], variation=row.name)
        chosen[row.name] = set(result.arrays["scu"])
    reference = chosen[AS_IN_TABLE_1]
    return pd.Series(
        {
            name: len(units & reference) / len(units | reference)
            for name, units in chosen.items()
        }
    )


def shared_part(iou: float) -> float:
    """Which part of a set is in another one of the same size, from their IoU."""
    return 2 * iou / (1 + iou)


def variation_summary(table: pd.DataFrame) -> str:
    """What the other choices changed, in numbers."""
    control = table.loc[CONTROL]
    return say(
        WORDS,
        "variations",
        scales=table[table["choice"].isin(["nothing", "scale"])],
        scores=table[table["choice"] == "score"],
        control=control,
        same_by_words=shared_part(control["iou"]),
        mlp_share=table.loc[AS_IN_TABLE_1, "mlp_share"],
    )


# ---- the transplant --------------------------------------------------------------------------


def transplants(lab: Lab) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the unaligned model does with units of the aligned one (first seed).

    A row a condition, means with intervals (``refused``: a fraction; ``log-odds``: nats), and the
    seed's own points.
    """
    answers = outcomes(lab.frame("transplant", "answers")).rename(
        columns={"units": "condition"}
    )
    rows = []
    for condition, part in answers.groupby("condition", sort=False):
        rows.append(
            {
                "condition": condition,
                "title": find_condition(condition).title,
                **interval("refused", part, "refused"),
                **interval("log-odds", part, "log_odds"),
                **part[[*ANSWER_LABELS]].mean(),
            }
        )
    points = answers.groupby(["condition", "seed"], as_index=False)[
        ["refused", "log_odds"]
    ].mean()
    return pd.DataFrame(rows).set_index("condition"), points


def transplant_summary(table: pd.DataFrame) -> str:
    """What the transplant showed, in numbers."""
    refused = table.apply(with_interval, axis="columns", column="refused")
    log_odds = table.apply(with_interval, axis="columns", column="log-odds", factor=1)
    return say(WORDS, "transplant", refused=refused, log_odds=log_odds)
