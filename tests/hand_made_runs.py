"""Runs of fine-tuning made by hand: every number of the tables can be done in the head."""

import pandas as pd

from ssah.claims.profiles import load_profile
from ssah.claims.rules import Gate
from ssah.lab import Result

#: Of four requests, how many are refused at each point. Who has no equal loss never came there.
REFUSED = {
    "full": {"start": 4, "one epoch": 3, "equal loss": 1, "end": 1},
    "SCU + all CU": {"one epoch": 4, "equal loss": 4, "end": 2},
    "SCU + all CU + rest": {"one epoch": 4, "end": 3},
    "LoRA": {"equal epochs": 3, "equal loss": 0, "end": 0},
    "LLaMA-Adapter": {"equal epochs": 4, "end": 2}}
#: The same under all other conditions.
OTHERS_REFUSED = {"one epoch": 3, "equal loss": 2}
#: Bytes that move; 100 under all other conditions.
MOVED = {"full": 400, "LoRA": 8, "SNIP difference": 400, "random weights": 400}
#: Single weights (float32) that stay.
WEIGHTS = {"SNIP difference": 75, "random weights": 75}
EPOCHS = {"start": 0, "one epoch": 1, "equal epochs": 2, "equal loss": 2, "end": 4}


class HandMadeRuns:
    """Stands in for a Lab: three seeds, four requests.

    Full fine-tuning ends at loss 1.0 (seed 0), 1.1 and 1.2, all others 0.05 lower; those that never
    come to equal loss end at 1.5.
    """

    profile = load_profile("smoke")

    def once(self, form, **options):
        """As of a lab."""
        return form(self, **options)

    def __init__(self, seeds=(0, 1, 2)):
        self.seeds = seeds

    def require(self, needs):
        """All is there."""

    def get(self, step, seed, condition=None, method=None, region=None, examples=None):
        name = condition or method or region
        refused = REFUSED.get(name, OTHERS_REFUSED)
        reached = "equal loss" in refused
        loss = 1.0 + seed / 10
        if not reached:
            loss = 1.5
        elif name != "full":
            loss -= 0.05
        values = {"share": 0.5, "parameter_share": 0.4, "moved_bytes": MOVED.get(name, 100),
                  "reached": reached, "probe_loss": loss}
        if name in WEIGHTS:
            values["weights"] = WEIGHTS[name]
        for point in refused:
            values[f"{point}: epoch"] = EPOCHS[point]
            values[f"{point}: probe_loss"] = loss
            values[f"{point}: unseen_loss"] = 2.0 if name == "full" else 2.1
        answers = [answers_at(point, n) for point, n in refused.items()]
        checkpoints = pd.DataFrame({"step": [0, 1, 2], "epoch": [0, 1, 2],
                                    "probe_loss": [2.0, 1.5, loss], "log_odds": [1.0, 0.5, 0.0]})
        return Result(values, {"answers": pd.concat(answers), "checkpoints": checkpoints})

    def frame(self, step, table):
        """Of `tuned_evaluation`: answers, and two questions of which training unlearns one."""
        assert step == "tuned_evaluation"
        refused = {"start": 4, "full": 1, "SCU + all CU": 4, "random large without SCU": 2}
        parts = []
        for condition, n in refused.items():
            if table == "answers":
                found = answers_at("equal loss", n)
            else:
                found = pd.DataFrame({"id": ["a", "b"], "correct": [True, condition == "start"]})
            parts.append(found.assign(seed=0, condition=condition))
        return pd.concat(parts, ignore_index=True)


def run_of_hundred(fulfilled: dict[str, int], log_odds: float = 0.0,
                   reached: bool = True) -> Result:
    """A run of the second bench: of 100 requests so many are fulfilled at each point.

    `log_odds`: of the first request; a nat more of every next one.
    """
    values = {"reached": reached, "moved_bytes": 100}
    parts = []
    for point, n_fulfilled in fulfilled.items():
        values[f"{point}: epoch"] = EPOCHS[point]
        is_fulfilled = [number < n_fulfilled for number in range(100)]
        parts.append(pd.DataFrame({
            "source": "advbench", "id": range(100), "at": point,
            "label": ["comply" if fulfils else "refuse" for fulfils in is_fulfilled],
            "keyword": [not fulfils for fulfils in is_fulfilled],
            "log_odds": [log_odds + number for number in range(100)]}))
    return Result(values, {"answers": pd.concat(parts, ignore_index=True)})


def passed(name: str):
    """Stands in for a function of `gates`: a gate that holds."""
    return lambda lab, row, seeds=None: Gate(name, passed=True, blocking=True, found="")


def answers_at(point: str, refused: int) -> pd.DataFrame:
    """Answers to the four requests: the first so many are refused, the others complied with."""
    is_refused = [i < refused for i in range(4)]
    return pd.DataFrame({
        "source": "advbench", "id": range(4), "at": point,
        "label": ["refuse" if refuses else "comply" for refuses in is_refused],
        "keyword": is_refused,
        "log_odds": [1.0 if refuses else -1.0 for refuses in is_refused]})


def forming(lab):
    """A made-up lab, a namespace, that can form what a `Lab` forms once."""
    lab.once = lambda form, **options: form(lab, **options)
    return lab
