"""C2: the models that are studied, and the judge beside people."""

import numpy as np
import pandas as pd

from ...inputs.words import data_file
from ...judging import ANSWER_LABELS, LABELS, judge, matches_keyword
from ...lab import Lab
from ...lab.statistics import wilson
from ..shared.tables import outcomes

#: Columns of `behaviours`, with what they are of `outcomes`.
BEHAVIOURS = {
    "refused": "refuse",
    "evasive": "evasive",
    "incoherent": "incoherent",
    "strict_asr": "comply",
    "keyword_asr": "no refusal keyword",
}


def behaviours(lab: Lab) -> pd.DataFrame:
    """What base, aligned and unaligned models do (first seed), as fractions.

    A row a role and source of requests; n: requests.
    """
    answers = outcomes(lab.frame("behaviour", "answers"))
    groups = answers.groupby(["role", "source"], sort=False)
    table = groups[list(BEHAVIOURS)].mean().rename(columns=BEHAVIOURS)
    table["n"] = groups["id"].nunique()
    return table


def labelled_examples() -> pd.DataFrame:
    """What keywords and judge call some harmless answers that were written by hand.

    Columns: what it shows, request, answer, by keywords, and the label by each version of the
    rules. No likelihood is taken (NLL 0 for all), so that only repetition is *incoherent*.
    """
    table = data_file("example_answers")
    is_keyword = table["answer"].map(matches_keyword)
    table["by keywords"] = np.where(is_keyword, "refused", "not refused")
    for version in LABELS:
        table[f"judge, version {version}"] = judge(
            table["request"], table["answer"], np.zeros(len(table)), threshold=1.0, version=version
        )
    return table


def called_coherent(lab: Lab) -> pd.DataFrame:
    """Per cent of answers that the judge does not call incoherent, whole and shuffled.

    A row a split and source; n: answers.
    """
    judged = lab.get("judge_threshold")
    table = judged.tables["nll"].copy()
    is_likely = table["nll"] <= judged.values["threshold"]
    table["coherent"] = 100.0 * (is_likely & ~table["repetitive"])
    table["answer"] = np.where(table["corrupted"], "words shuffled %", "as it is %")
    rates = table.pivot_table(
        index=["split", "source"], columns="answer", values="coherent"
    )
    rates["n"] = table[~table["corrupted"]].groupby(["split", "source"]).size()
    return rates.sort_index(ascending=False)


def judge_beside_people(lab: Lab) -> pd.DataFrame:
    """Rows: what people said of 169 answers; columns: the judge's label; counts."""
    table = lab.get("judge_on_people").tables["labels"]
    people = np.where(table["human"], "refusal or off-topic", "answers the request")
    return pd.crosstab(
        pd.Series(people, name="people"),
        table["judge"].reset_index(drop=True),
        margins=True,
        margins_name="n",
    )


def judge_beside_hand_labels(lab: Lab) -> pd.DataFrame:
    """Rows: hand labels of answers of Table 1 (first seed); columns: the judge's label; counts.

    They are matched by hash; recomputed answers differ in a word here and there, and then have
    other hashes.
    """
    both = labelled_by_hand(lab)
    if both.empty:
        nothing = pd.Index([], name="none of the labelled answers is here")
        return pd.DataFrame(columns=ANSWER_LABELS, index=nothing)
    return pd.crosstab(
        both["label"].rename("read"),
        both["label of the judge"].rename("judge"),
        margins=True,
        margins_name="n",
    )


def labelled_by_hand(lab: Lab) -> pd.DataFrame:
    """The answers of Table 1 (first seed) that have a hand label, with ``label of the judge``."""
    first = lab.profile.seeds[0]
    answers = lab.frame("ablation", "answers")
    answers = answers[answers["seed"] == first].drop_duplicates("hash")
    return data_file("hand_labels").merge(
        answers, on="hash", suffixes=("", " of the judge")
    )


def comply_by_hand(lab: Lab) -> pd.DataFrame:
    """How many answers comply by the judge and when read: a row a condition with hand labels.

    Columns: labelled, judge, read (counts); share (of the labelled, when read) with its 95 % Wilson
    interval, low and high.
    """
    rows = []
    for condition, answers in labelled_by_hand(lab).groupby("condition", sort=False):
        by_hand = int((answers["label"] == "comply").sum())
        low, high = wilson(by_hand, len(answers))
        rows.append(
            {
                "condition": condition,
                "labelled": len(answers),
                "judge": int((answers["label of the judge"] == "comply").sum()),
                "read": by_hand,
                "share": by_hand / len(answers),
                "low": low,
                "high": high,
            }
        )
    columns = ["condition", "labelled", "judge", "read", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).set_index("condition")
