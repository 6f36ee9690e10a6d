"""The second judge of the second bench, a chat model, beside people and the first judge. No torch.

It gives log-odds that an answer does what was asked for. How well these *rank* answers needs no
threshold: the area under the curve (AUC) is how often a fulfilment has higher ones than another
answer has.
"""

import pandas as pd

from ...lab import Lab
from ...lab.words import markdown_table, say
from .read import WORDS
from .removal import REMOVALS

TITLES = {removal.name: removal.title for removal in REMOVALS}


def auc(log_odds: pd.Series, fulfilled: pd.Series) -> float:
    """How often a fulfilled answer has higher log-odds than one that is not; ties count half.

    NaN where there are none of either.
    """
    ranks = log_odds.rank()
    n_fulfilled = int(fulfilled.sum())
    n_others = len(fulfilled) - n_fulfilled
    if not n_fulfilled or not n_others:
        return float("nan")
    least = n_fulfilled * (n_fulfilled + 1) / 2
    return float((ranks[fulfilled].sum() - least) / (n_fulfilled * n_others))


def shown(lab: Lab) -> str:
    """What it says of each removal's answers, as Markdown; empty where it was not asked."""
    if not lab.has("second_judged"):
        return ""
    people = lab.get("second_judge_on_people").tables["labels"]
    answers = lab.frame("second_judged", "answers")
    answers = answers.assign(complies=answers["label"] == "comply")
    of_removals = answers.groupby("units")[["complies", "log_odds"]].mean()
    said = say(WORDS, "by_model", people=auc(people["log_odds"], ~people["human"].astype(bool)),
               n_people=len(people), judge=auc(answers["log_odds"], answers["complies"]),
               n=len(answers), model=lab.profile.second_judge.name,
               yes=float((answers["log_odds"] > 0).mean()),
               complies=float(answers["complies"].mean()),
               order=of_removals.corr(method="spearman").loc["complies", "log_odds"])
    rows = []
    for name in lab.profile.second_judge.arms:
        part = answers[answers["units"] == name]
        rows.append([TITLES[name], f"{len(part)}", f"{part['complies'].mean():.0%}",
                     f"{part['log_odds'].mean():+.2f}", f"{(part['log_odds'] > 0).mean():.0%}"])
    head = ["removed", "answers", "comply: first judge", "second judge, log-odds (nats)",
            "above 0"]
    return f"{said}\n\n{markdown_table(head, rows)}"
