"""C3 on the second bench: the SCU on texts that they were not found on, as tables and words. No torch."""

from collections.abc import Iterable

import pandas as pd

from ...classification import LABELS
from ...lab import Lab
from ...lab.words import say
from ..shared.runs import harmful_answers
from ..shared.tables import number_of
from .decide import finished_seeds, tuned
from .read import WORDS
from .run import ALIGNED, PLACEBO, TUNED

#: Whose units are looked up on the other half of the texts.
TITLES = {
    ALIGNED: "not fine-tuned",
    TUNED: "fine-tuned on benign examples",
    PLACEBO: "on these and some refusals"}
#: The condition of the answers that go with them.
CONDITIONS = {ALIGNED: "start", TUNED: TUNED, PLACEBO: PLACEBO}


def begun(labs: Iterable[Lab]) -> list[Lab]:
    """The labs that have a seed of it."""
    return [lab for lab in labs if finished_seeds(lab)]


def turned(lab: Lab) -> pd.DataFrame:
    """What became of the SCU, a row a seed and model: seed, model, left, SCU, UCU, CU, RU, keyword_asr.

    Labels: the share of the SCU of one half that has it on the other (mean of both halves); left:
    of them that are no SCU there. Fractions.
    """
    seeds = finished_seeds(lab)
    rates = harmful_answers(tuned(lab, seeds)).groupby(["condition", "seed"])["keyword_asr"].mean()
    rows = []
    for seed in seeds:
        shares = lab.get("turnover", seed=seed).tables["turnover"]
        by_label = shares.groupby(["model", "label"])["share"].mean().unstack("label")
        for model, condition in CONDITIONS.items():
            found = by_label.loc[model].reindex(LABELS, fill_value=0.0)
            rows.append({"seed": seed, "model": model, "left": 1 - found["SCU"], **found,
                         "keyword_asr": rates[condition, seed]})
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds for display, in per cent: what the SCU of one half are on the other."""
    means = table.groupby("model", sort=False)[[*LABELS, "keyword_asr"]].mean() * 100
    means.index = pd.Index(means.index.map(TITLES), name="the model")
    return means.rename(columns={"keyword_asr": "keyword ASR"})


def seen(lab: Lab, table: pd.DataFrame) -> str:
    """What one sees of a model in the figure. `table`: of `turned`."""
    means = table.groupby("model")[["left", "CU", "keyword_asr"]].mean()
    above = table.pivot(index="seed", columns="model", values="left")
    return say(WORDS, "turned_seen", model=lab.profile.title, left=means["left"],
               cu=means["CU"], attacks=means["keyword_asr"], seeds=number_of(above.index),
               above_aligned=(above[TUNED] > above[ALIGNED]).sum(),
               above_placebo=(above[TUNED] > above[PLACEBO]).sum(), of=len(above))
