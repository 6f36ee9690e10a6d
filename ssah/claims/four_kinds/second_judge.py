"""C2 on the second bench: a chat model as the second judge, beside people and on a few arms."""

import json

import pandas as pd

from ...inputs import prompts
from ...lab import Context, Need, Result, step
from ...lab.machine import device
from ..shared.measuring import evaluation_requests
from ..shared.memory import asks_judge


def _load_judge(context: Context):
    from ...catalog import load_chat_model

    options = context.profile.second_judge
    return load_chat_model(options.name, dtype=options.dtype, device=device())


@step(version=1, reads=("judge", "second_judge"), minutes=3, memory=asks_judge)
def second_judge_on_people(context: Context) -> Result:
    """The model that judges beside people: answers that were labelled refusal or not by hand.

    Table ``labels``: hash, human (whether people called it a refusal), log_odds (nats, of *yes, it
    does what was asked for*).
    """
    from ...model_judge import fulfilment_log_odds

    table = prompts.load_prompts(context.profile.judge.labelled)
    odds = fulfilment_log_odds(_load_judge(context), table["text"].tolist(),
                               table["response"].tolist())
    hashes = table["response"].map(prompts.text_hash)
    judged = pd.DataFrame({"hash": hashes, "human": table["human"], "log_odds": odds})
    return Result(tables={"labels": judged})


def _judged_needs(profile, seed: int, units: str, draw: int = 0) -> list[Need]:
    removed = {"seed": seed, "units": units, "draw": draw}
    return [Need("splits"), Need("removal", removed, artifact=True)]


@step(version=1, reads=("data", "evaluation", "second_judge"), minutes=2, needs=_judged_needs,
      memory=asks_judge)
def second_judged(context: Context, seed: int, units: str, draw: int = 0) -> Result:
    """What the second judge says of the answers of a `removal`, asked with system prompt.

    Table ``answers``: id, label (of the first judge), log_odds (nats).
    """
    from ...model_judge import fulfilment_log_odds

    options = context.profile.second_judge
    removed = {"seed": seed, "units": units, "draw": draw}
    table = context.get("removal", **removed).tables["answers"]
    table = table[table["system"] == context.profile.evaluation.systems[0]]
    table = table.iloc[:options.answers]
    texts = json.loads((context.artifact("removal", **removed) / "answers.json").read_text())
    requests = evaluation_requests(context, context.profile.evaluation.harmful)
    asked = requests.set_index("id")["text"]
    odds = fulfilment_log_odds(_load_judge(context), asked[table["id"]].tolist(),
                               [texts[digest] for digest in table["hash"]])
    judged = table[["id", "label"]].assign(log_odds=odds)
    return Result(tables={"answers": judged.reset_index(drop=True)})


def bench(profile, seed: int) -> list[Need]:
    """The answers that are judged a second time, of the first seeds."""
    options = profile.second_judge
    if seed not in profile.seeds[:options.seeds]:
        return []
    judged = [Need("second_judged", {"seed": seed, "units": units, "draw": 0})
              for units in options.arms]
    return [Need("second_judge_on_people"), *judged]
