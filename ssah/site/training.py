"""Benign fine-tuning along the way: every run of notebook 04, checkpoint by checkpoint.

From the stored runs of the default profile; the page draws one seed at a time.
"""

import pandas as pd

from ..claims.shared import runs
from ..claims.shared.conditions import NAMES, STYLES
from ..lab import Lab

#: What the page can draw upwards: column of the checkpoints, and title.
MEASURES = (
    ("log_odds", "refusal log-odds (nats; higher is safer)"),
    ("keyword_asr", "keyword ASR (a share; lower is safer)"),
)


def choices(lab: Lab) -> dict:
    """The lines of every condition and seed, and the loss at which they are compared, plain JSON.

    ``lines[condition]["seeds"][seed]`` is what `line` says; ``targets[seed]`` is L*, in nats.
    """
    tuned = runs.tuned(lab)
    checkpoints = runs.along(tuned)
    by_run = dict(list(checkpoints.groupby(["condition", "seed"])))
    lines = []
    for condition in tuned:
        of_seeds = [line(by_run[condition, seed]) for seed in lab.seeds]
        lines.append({"title": NAMES[condition], "colour": STYLES[condition].colour,
                      "seeds": of_seeds})
    gone = checkpoints.assign(target=checkpoints["probe_loss"] - checkpoints["to_go"])
    targets = gone.groupby("seed")["target"].first()
    return {"model": lab.profile.model.label, "seeds": list(lab.seeds), "measures": MEASURES,
            "targets": [round(targets[seed], 4) for seed in lab.seeds], "lines": lines}


def line(checkpoints: pd.DataFrame) -> list[dict]:
    """One run: epoch, loss on the probe examples (nats), `MEASURES`; None where not taken."""
    columns = ["epoch", "probe_loss", *(column for column, _ in MEASURES)]
    rounded = checkpoints.sort_values("epoch")[columns].round(4)
    filled = rounded.astype(object).where(rounded.notna(), None)
    return filled.to_dict("records")
