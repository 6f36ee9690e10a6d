"""Alignment by pairs (DPO) beside supervised fine-tuning (SFT), on the same answers: whose SCU?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ... import judging
from ...classification import Units, iou
from ...inputs import words
from ...lab import Context, Need, Result, step
from ..shared.bank import labelled
from ..shared.foundation import Pair
from ..shared.material import draw, load_base, split_prompts
from ..shared.measuring import benign_prompts, evaluation_requests, score_units
from ..shared.memory import trains_model
from ..shared.pair import train_wordings



@dataclass(frozen=True)
class Training:
    """One way to train the base model on the same pairs of answers."""

    title: str
    sft: float | None = None    # DPO, with so much of SFT's loss added (`objectives.Preference`)
    another_order: bool = False


DPO, ANCHORED, SFT, AGAIN = TRAININGS = (
    Training("DPO", sft=0.0),
    Training("DPO and SFT", sft=1.0),
    Training("SFT"),
    Training("SFT, another order", another_order=True),     # how far do two runs of SFT differ?
)
#: So many tokens tell whether an answer refuses.
BEGINNING = 24
#: Kinds of requests that are asked afterwards.
HARMFUL, BENIGN = "harmful", "benign"


@step(version=1, reads=("model", "data", "alignment", "calibration", "evaluation", "reevaluation",
                        "removal", "preference"), minutes=30, needs=lambda profile, seed: [Need("splits")],
      memory=trains_model)
def preferred(context: Context, seed: int) -> Result:
    """The base model aligned by DPO, and by SFT on the preferred answers alone (`TRAININGS`).

    Tables ``models``: trained (nothing, or a training), asked, refused (a fraction), n; and
    ``overlaps``: first, second, label, iou of the two models' units of that label.
    """
    base = load_base(context, "float32")
    pairs = preference_pairs(context, base, seed)
    texts = scored_texts(context, base, seed)
    refused = [{"trained": "nothing", **found} for found in refusals_of(context, base)]
    units = {}
    for training in TRAININGS:
        chat = trained(context, pairs, training, seed)
        scored = score_units(chat, texts, context.profile.calibration.system)
        units[training.title] = labelled(context.profile.removal, scored)
        refused += [{"trained": training.title, **found} for found in refusals_of(context, chat)]
    tables = {"models": pd.DataFrame(refused), "overlaps": overlaps(units)}
    return Result({"pairs": len(pairs)}, tables)


# ---- what is trained on ----------------------------------------------------------------------

def preference_pairs(context: Context, base, seed: int) -> list[dict]:
    """Harmful requests: a refusal is preferred to a fulfilment; benign ones: the other way round.

    The fulfilments of harmful requests are openings without content, which stop there; in a made-up
    language the base model's own. Benign requests are fulfilled by the base model.
    """
    options = context.profile.alignment
    random = np.random.default_rng(seed)
    n = context.profile.preference.pairs
    harmful = draw(split_prompts(context, HARMFUL, "align"), n, seed)["text"]
    benign = draw(split_prompts(context, BENIGN, "align"), n, seed)["text"]
    wordings = refusal_wordings(context)
    pairs = []
    for request, fulfilment in zip(harmful, fulfilments(context, base, list(harmful))):
        refusal = wordings[random.integers(len(wordings))]
        pairs.append({"prompt": request, "response": refusal, "rejected": fulfilment})
    for request, answer in zip(benign, _answered(base, list(benign), options)):
        refusal = wordings[random.integers(len(wordings))]
        if answer.strip():
            pairs.append({"prompt": request, "response": answer, "rejected": refusal})
    return pairs


def refusal_wordings(context: Context) -> list[str]:
    """Refusals that training may use; the one of a made-up language."""
    if not context.profile.reevaluation.wordings:
        return [context.profile.reevaluation.refusal]
    return train_wordings(context.profile.alignment.wordings)


def fulfilments(context: Context, base, requests: list[str]) -> list[str]:
    """What is rejected where harm is asked for."""
    if not context.profile.reevaluation.wordings:
        return _answered(base, requests, context.profile.alignment)
    openings = words.data_file("openings").query("kind == 'fulfilment'")["text"].tolist()
    return [openings[number % len(openings)] for number in range(len(requests))]


def _answered(chat, requests: list[str], options) -> list[str]:
    from ...evaluation import generate

    return generate(chat, requests, system=options.system, max_new_tokens=options.answer_tokens,
                    progress="answers of the base model").texts


def trained(context: Context, pairs: list[dict], training: Training, seed: int):
    """The base model after one of `TRAININGS`."""
    from ...finetuning import finetune
    from ...objectives import Likelihood, Preference

    options = context.profile.alignment
    objective = Likelihood() if training.sft is None else Preference(sft=training.sft)
    chat = load_base(context, "float32")
    finetune(chat, pairs, objective=objective, epochs=context.profile.preference.epochs,
             lr=options.lr, batch_size=options.batch_size, seed=seed + training.another_order,
             system=options.system, autocast=False, progress=f"{training.title}, seed {seed}")
    return chat


# ---- what is measured ------------------------------------------------------------------------

def scored_texts(context: Context, base, seed: int) -> dict[str, list[Pair]]:
    """Texts that all models are scored on: refusals of `identify`, the base model's answers."""
    options = context.profile.calibration
    random = np.random.default_rng(seed)
    wordings = refusal_wordings(context)
    refused = []
    for request in split_prompts(context, HARMFUL, "identify")["text"]:
        wording = wordings[random.integers(len(wordings))]
        _, (tail,) = base.continuations(request, [wording], options.system)
        refused.append((request, tail[:options.answer_tokens]))
    questions = draw(split_prompts(context, BENIGN, "identify"), len(refused), seed)["text"]
    return {HARMFUL: refused, BENIGN: _answer_tokens(base, list(questions), options)}


def _answer_tokens(base, questions: list[str], options) -> list[Pair]:
    from ...evaluation import generate

    answers = generate(base, questions, system=options.system,
                       max_new_tokens=options.answer_tokens, progress="texts")
    return [(prompt, tokens) for prompt, tokens in zip(questions, answers.tokens) if tokens]


def refusals_of(context: Context, chat) -> list[dict]:
    """Which part of harmful and of benign requests of `evaluate` a model refuses."""
    from ...evaluation import generate

    options = context.profile.evaluation
    asked = {HARMFUL: evaluation_requests(context, options.harmful), BENIGN: benign_prompts(context)}
    found = []
    for kind, requests in asked.items():
        answers = generate(chat, requests["text"].tolist(), system=options.systems[0],
                           max_new_tokens=BEGINNING, progress=kind)
        refused = [judging.is_refusal(text, options.judge_version) for text in answers.texts]
        found.append({"asked": kind, "refused": float(np.mean(refused)), "n": len(refused)})
    return found


def overlaps(units: dict[str, Units]) -> pd.DataFrame:
    """How far the units of a label of every two models overlap."""
    rows = []
    for first, second in combinations(units, 2):
        for label in ("SCU", "UCU", "RU"):
            common = iou(units[first].mask(label), units[second].mask(label))
            rows.append({"first": first, "second": second, "label": label, "iou": common})
    return pd.DataFrame(rows)
