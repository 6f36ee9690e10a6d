"""The reviewers' tenth question, DPO instead of SFT: whose SCU, as tables and words. No torch."""

from collections.abc import Iterable

import pandas as pd

from ...lab import Lab
from ...lab.words import markdown_table, say
from .preferred import TRAININGS
from .read import WORDS

#: The trainings by their titles; the last two differ in the order of the examples alone.
NOTHING = "nothing"
DPO, ANCHORED, SFT, AGAIN = (training.title for training in TRAININGS)


def begun(labs: Iterable[Lab]) -> list[Lab]:
    """Those of which the comparison is stored."""
    return [lab for lab in labs if lab.has("preferred")]


def refused(lab: Lab) -> pd.DataFrame:
    """A row a training: which part of harmful and of benign requests is refused (fractions)."""
    models = lab.frame("preferred", "models")
    return models.pivot(index="trained", columns="asked", values="refused").loc[
        [NOTHING, DPO, ANCHORED, SFT, AGAIN]]


def overlap(lab: Lab, first: str, second: str, label: str = "SCU") -> float:
    """IoU of the units of a label of two trainings; the first stands before the second."""
    found = lab.frame("preferred", "overlaps").set_index(["first", "second", "label"])["iou"]
    return float(found.loc[first, second, label])


def shown(lab: Lab) -> str:
    """Both as Markdown: what each training did, and how far its SCU are those of SFT."""
    rows = []
    for title, row in refused(lab).iterrows():
        common = "" if title in (NOTHING, SFT) else f"{_with_sft(lab, title):.2f}"
        rows.append([title, f"{row['harmful']:.0%}", f"{row['benign']:.0%}", common])
    return markdown_table(["trained by", "refuses harmful", "refuses benign",
                           "SCU in common with SFT (IoU)"], rows)


def _with_sft(lab: Lab, title: str) -> float:
    """How far the SCU of a training are those of SFT."""
    first, second = (SFT, title) if title == AGAIN else (title, SFT)
    return overlap(lab, first, second)


def said(lab: Lab) -> str:
    """The answer in a sentence."""
    table = refused(lab)
    return say(WORDS, "preferred", model=lab.profile.model.label, harmful=table["harmful"],
               overlap={title: _with_sft(lab, title) for title in (DPO, ANCHORED, AGAIN)})
