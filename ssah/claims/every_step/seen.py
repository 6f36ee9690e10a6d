"""What one sees in the figures of notebook 07, in numbers."""

import pandas as pd

from ...lab.words import say
from .read import TITLES, WORDS


def prefill_seen(table: pd.DataFrame) -> str:
    """Refusals against the length of a prefill. `table`: of `read.after_prefill`."""
    harmful = table[table["requests"] == "harmful"].set_index(["arm", "length"])["refused"]
    safe = table[table["requests"] == "safe"].set_index(["arm", "length"])["refused"]
    refusing = safe.index.get_level_values("arm").unique()      # no other is asked safe requests
    twins = harmful.index.get_level_values("arm").unique().difference(refusing, sort=False)
    lengths = table["length"].unique()
    log_odds = table[table["requests"] == "harmful"].set_index(["arm", "length"])["log-odds"]
    return say(WORDS, "prefill_seen",
               titles={arm: TITLES[arm] for arm in refusing},
               harmful=harmful,
               most_safe={arm: safe[arm].max() for arm in refusing},
               first=lengths[0],
               last=lengths[-1],
               twins={TITLES[arm]: harmful[arm].max() for arm in twins},
               log_odds=log_odds)


def recovery_seen(table: pd.DataFrame) -> str:
    """How soon answers turn. `table`: of `read.recovery`."""
    last = table["within"].max()
    wide = table.pivot(index="within", columns="arm", values="turned")
    few = min(5, last)
    return say(WORDS, "recovery_seen",
               titles={arm: TITLES[arm] for arm in table["arm"].unique()},
               turned=wide,
               few=few,
               last=last)


def by_model_seen(table: pd.DataFrame) -> str:
    """Harmful and safe requests of every real model. `table`: of `read.by_model`, a row a cell."""
    models = {}
    for model, rows in table.groupby("model", sort=False):
        models[model] = rows.set_index(["requests", "arm"])["refused"].to_dict()
    return say(WORDS, "by_model_seen", models=models)
