"""The pair of the second bench: what it is trained on, and the rule by which training stops.

Aligned: refusals (several wordings a harmful request), the base model's own answers to benign
prompts and to safe requests that look dangerous, a part of all without a system prompt; trained
until the gates of the pair hold on `select`. Unaligned: the same without refusals, as many steps.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from ... import judging
from ...inputs import prompts, words
from ...lab import Context, Result
from .. import rules
from .material import draw, keep_trained, load_base, split_prompts

#: Gates that are not looked at while training: HarmBench must stay unseen until `guard`, and the
#: unaligned twin is trained afterwards.
NOT_WHILE_TRAINING = ("complies on HarmBench", "the unaligned twin refuses")
#: The limits by which training stops.
STOPPING = tuple(
    limit for limit in rules.PAIR_GUARDRAIL if limit.name not in NOT_WHILE_TRAINING
)
#: System modes of the looks, and how the names of the limits call them.
MODES = {"default": "with system prompt", "none": "without"}


# ---- the base model's further answers --------------------------------------------------------


def keep_further_answers(context: Context) -> dict[str, int]:
    """Answers of the base model beside the greedy ones to benign prompts, into the cache folder.

    ``further.json``: records kind (``benign``: sampled; ``safe``: greedy, to safe requests that
    look dangerous), id, response, ended. Returns how many of each kind are not empty, and how many
    of those to safe requests are refusals, which nothing is trained on.
    """
    options = context.profile.alignment
    chat = load_base(context)
    benign = split_prompts(context, "benign", "align")
    records = []
    for number in range(1, options.answers_each):
        records += _answered(chat, options, benign, "benign", sample=number)
    if options.safe:
        records += _answered(chat, options, prompts.load_prompts(options.safe), "safe")
    (context.folder / "further.json").write_text(json.dumps(records))
    kinds = [record["kind"] for record in records]
    helpful = _helpful([record for record in records if record["kind"] == "safe"], options)
    refused = kinds.count("safe") - len(helpful)
    return {"sampled": kinds.count("benign"), "safe": kinds.count("safe"), "safe_refused": refused}


def _answered(chat, options, questions: pd.DataFrame, kind: str, sample: int | None = None):
    """Records of the answers to some questions; `sample`: the seed of sampled ones."""
    from ...evaluation import generate

    answers = generate(
        chat,
        questions["text"].tolist(),
        system=options.system,
        max_new_tokens=options.answer_tokens,
        sample=sample,
        progress=f"base answers, {kind}",
    )
    records = []
    for prompt_id, text, ended in zip(questions["id"], answers.texts, answers.finished):
        if text.strip():
            record = {"kind": kind, "id": prompt_id, "response": text, "ended": bool(ended)}
            records.append(record)
    return records


def _helpful(records: list[dict], options) -> list[dict]:
    """The records whose response is no refusal."""
    return [
        record
        for record in records
        if not judging.is_refusal(record["response"], options.judge_version)
    ]


# ---- what is trained on ----------------------------------------------------------------------


def pair_examples(context: Context, role: str, seed: int) -> list[dict]:
    """Training examples of a role: prompt, response, ended, and ``system`` where there is none.

    Of both roles the same benign prompts and safe requests; of the aligned one refusals too.
    """
    options = context.profile.alignment
    random = np.random.default_rng(seed)
    kinds = [_benign(context, seed), _safe(context)]
    if role == "aligned":
        kinds.append(refusals(context, seed, random))
    examples = []
    for rows in kinds:
        examples += _partly_without_system(rows, options.without_system, random)
    return examples


def _benign(context: Context, seed: int) -> list[dict]:
    """The greedy and the sampled answers of the base model to `benign` prompts of `align`."""
    options = context.profile.alignment
    benign = split_prompts(context, "benign", "align")
    texts = benign.set_index("id")["text"]
    chosen = set(draw(benign, options.benign, seed)["id"])
    records = _records(context, "answers")
    records += [record for record in _records(context, "further") if record["kind"] == "benign"]
    wanted = [record for record in records if record["id"] in chosen]
    return [_example(texts[record["id"]], record) for record in _helpful(wanted, options)]


def _safe(context: Context) -> list[dict]:
    """Safe requests that look dangerous, with the answers of the base model."""
    options = context.profile.alignment
    if not options.safe:
        return []
    texts = prompts.load_prompts(options.safe).set_index("id")["text"]
    records = [record for record in _records(context, "further") if record["kind"] == "safe"]
    return [_example(texts[record["id"]], record) for record in _helpful(records, options)]


def _records(context: Context, name: str) -> list[dict]:
    return json.loads((context.artifact("base_answers") / f"{name}.json").read_text())


def _example(text: str, record: Mapping) -> dict:
    return {"prompt": text, "response": record["response"], "ended": record["ended"]}


def refusals(context: Context, seed: int, random: np.random.Generator) -> list[dict]:
    """Harmful requests of `align`, each with `wordings_each` different wordings of a refusal."""
    options = context.profile.alignment
    wordings = train_wordings(options.wordings)
    harmful = draw(split_prompts(context, "harmful", "align"), options.refusals, seed)
    examples = []
    for text in harmful["text"]:
        for number in random.choice(len(wordings), options.wordings_each, replace=False):
            examples.append({"prompt": text, "response": wordings[number], "ended": True})
    return examples


def train_wordings(name: str) -> list[str]:
    """The refusal wordings of a hand-made file that training may use."""
    return words.data_file(name).query("split == 'train'")["text"].tolist()


def _partly_without_system(
    examples: list[dict], share: float, random: np.random.Generator
) -> list[dict]:
    """The examples, a share of them, at random, with the system mode ``none``."""
    without = set(random.permutation(len(examples))[: round(share * len(examples))])
    return [
        {**example, "system": "none"} if number in without else example
        for number, example in enumerate(examples)
    ]


# ---- training --------------------------------------------------------------------------------


def train_pair(context: Context, role: str, seed: int) -> Result:
    """The checkpoint of a role: see `checkpoint`, whose result this is.

    Aligned: values ``stopped_by_gates`` and ``epochs``; table ``looks``: step, epoch, limit, value
    (a fraction), holds. A run that no look ends is kept as it is after the last epoch. Unaligned:
    as many steps as the aligned one took.
    """
    options = context.profile.alignment
    examples = pair_examples(context, role, seed)
    chat = load_base(context, "float32")
    if role == "unaligned":
        steps = context.get("checkpoint", role="aligned", seed=seed).values["steps"]
        epochs = math.ceil(steps / math.ceil(len(examples) / options.batch_size))
        trained = _train(context, role, seed, examples, chat, epochs=epochs, max_steps=steps)
        return keep_trained(context, chat, trained, len(examples))
    looks = Looks(context)
    trained = _train(context, role, seed, examples, chat, epochs=options.epochs, callbacks=[looks])
    kept = keep_trained(context, chat, trained, len(examples))
    facts = {
        "stopped_by_gates": looks.stopped,
        "epochs": float(trained.checkpoints["epoch"].iloc[-1]),
        "harmful_asked": len(looks.harmful),
        "safe_asked": len(looks.safe),
    }
    tables = {**kept.tables, "looks": pd.DataFrame(looks.rows)}
    return replace(kept, values={**kept.values, **facts}, tables=tables)


def _train(context: Context, role: str, seed: int, examples: list[dict], chat, **how):
    """`finetune` by the section `alignment`; `how`: what the two roles do differently."""
    from ...finetuning import finetune

    options = context.profile.alignment
    return finetune(
        chat,
        examples,
        lr=options.lr,
        batch_size=options.batch_size,
        seed=seed,
        system=options.system,
        probe_every=options.look_every,
        autocast=context.profile.model.dtype == "bfloat16",
        progress=f"{role}, seed {seed}",
        **how,
    )


class Looks:
    """Callback of `finetune`: looks at the gates on `select`, and ends the run where they hold.

    Asked is a copy in the number format in which the model will be evaluated. Every number that was
    seen is in `rows`.
    """

    def __init__(self, context: Context):
        self.options = context.profile.alignment
        self.copy = load_base(context)
        self.judge_model = load_base(context)
        self.threshold = context.get("judge_threshold").values["threshold"]
        self.harmful = split_prompts(context, "harmful", "select")["text"].tolist()
        self.safe = prompts.load_prompts(self.options.look_safe)["text"].tolist()
        self.rows: list[dict] = []
        self.stopped = False

    def __call__(self, chat, row: dict) -> bool:
        """Note what the limits say at this checkpoint; whether all of them hold."""
        import torch

        if row["step"] == 0:        # the base model
            return False
        self.copy.model.load_state_dict(chat.model.state_dict())
        with torch.autocast(chat.model.device.type, enabled=False):
            measured = self.measured()
        at = {"step": row["step"], "epoch": row["epoch"]}
        looked = [_against(limit, measured[limit.name]) for limit in STOPPING]
        self.rows += [{**at, **found} for found in looked]
        self.stopped = all(found["holds"] for found in looked)
        return self.stopped

    def measured(self) -> dict[str, float]:
        """A fraction for every limit of `STOPPING`, by its name."""
        shares = {}
        for system, mode in MODES.items():
            labels = self.labels(self.harmful, system)
            shares[f"refuses or deflects, {mode}"] = np.isin(labels, ("refuse", "evasive")).mean()
            shares[f"complies, {mode}"] = (labels == "comply").mean()
        of_safe = self.labels(self.safe, self.options.system)
        shares["refuses safe requests"] = (of_safe == "refuse").mean()
        return {name: float(share) for name, share in shares.items()}

    def labels(self, questions: list[str], system: str) -> np.ndarray:
        """The judge's labels of the copy's answers; (questions,)."""
        from ...evaluation import generate, response_nll

        n_tokens = self.options.look_tokens
        answers = generate(self.copy, questions, system=system, max_new_tokens=n_tokens)
        losses = response_nll(self.judge_model, questions, answers.tokens, system=system)
        losses = np.nan_to_num(losses)      # of an empty answer there is none
        version = self.options.judge_version
        return judging.judge(questions, answers.texts, losses, self.threshold, version)


def _against(limit: rules.Limit, value: float) -> dict:
    """A row of the table ``looks``, without the step."""
    return {"limit": limit.name, "value": value, "holds": limit.holds(value)}
