"""C6: aligning the base model by its redundant units alone, at equal training loss (Table 4)."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ... import judging
from ...classification import LABELS, Units
from ...errors import SsahError
from ...inputs import words
from ...lab import Context, Need, Result, step
from ..shared.conditions import lora
from ..shared.foundation import alignment_examples
from ..shared.material import draw, load_base, split_prompts
from ..shared.measuring import (
    answer_perplexity,
    benign_prompts,
    borderline_requests,
    classify_scores,
    evaluation_requests,
    keep_answers,
    measure_choice,
    measure_text,
    paper_kinds,
    reference_tails,
    score_units,
    scores_need,
    seed_scores,
)
from ..shared.memory import asks_model, trains_model
from ..shared.observing import Observer

# ---- what trains: which units, at which rate -------------------------------------------------

def redundant(base: Units, aligned: Units) -> np.ndarray:
    """The RU of the base model: known before any alignment."""
    return base.mask("RU")


def critical(base: Units, aligned: Units) -> np.ndarray:
    """The SCU of the seed's aligned model: known with hindsight alone."""
    return aligned.mask("SCU")


def full_rate(options, share: float) -> float:
    """The learning rate of full alignment."""
    return options.lr


def rate_by_share(options, share: float) -> float:
    """n times the rate for 1/n of the share of units that takes the rate of full alignment.

    A step of Adam lowers the loss by about rate x |gradient|_1, so that fewer weights need more.
    """
    return options.lr * options.share / share


def adapter_rate(options, share: float) -> float:
    """The learning rate of LoRA."""
    return options.lora_lr


@dataclass(frozen=True)
class Budget:
    """What of the base model trains in one row of Table 4, and how that is called and drawn.

    `units` takes the four kinds of the base model and of the seed's aligned one, and returns a
    Boolean mask (len(index),). `rate` takes the profile's section `budget` and the part of all
    units that trains.
    """

    name: str                                           # the parameter of the step
    title: str                                          # where people read it
    look: str                                           # in figures: of `style.LOOKS`
    brief: str = ""                                     # within a sentence, if it is named in one
    units: Callable[..., np.ndarray] | None = None      # which train; none: everything
    random: bool = False        # as many others of every block x kind in their place
    adapter: bool = False       # LoRA with as many parameters in their place
    rate: Callable[..., float] = rate_by_share


#: The base model itself: no run, but the first row of the table.
START = Budget("start", "nothing (base model)", "none")

#: Sets the loss to be reached by all others.
FULL = Budget("full", "everything", "everything", brief="everything", rate=full_rate)
SLOWER = Budget("full slower", "everything, lower rate", "everything, control")
RU = Budget("RU", "RU", "RU", brief="RU", units=redundant)
RANDOM = Budget("random", "random, as many as RU, no RU", "random RU",
                brief="random units like RU", units=redundant, random=True)
SCU = Budget("only SCU", "SCU", "SCU", brief="SCU", units=critical)
RANDOM_LIKE_SCU = Budget("random like SCU", "random, as many as SCU, no SCU", "random SCU",
                         brief="random units like SCU", units=critical, random=True)
LORA = Budget("LoRA", "LoRA, as many parameters", "LoRA", units=redundant, adapter=True,
              rate=adapter_rate)

#: The trained rows of Table 4, in their order. To add a budget is to add its row.
BUDGETS = (FULL, SLOWER, RU, RANDOM, SCU, RANDOM_LIKE_SCU, LORA)
#: Those of which other shares can train: ``"RU 5 %"``.
WITH_SHARE = (RU, RANDOM)
#: The other shares that are committed, per cent of all units.
OTHER_SHARES = (5, 10, 40)


def names(rows: Iterable[Budget]) -> list[str]:
    """The names of some rows, in their order."""
    return [row.name for row in rows]


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("budget", {"seed": seed, "trained": name}) for name in names(BUDGETS)]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: other shares of units."""
    needs = []
    for share in OTHER_SHARES:
        for name in names(WITH_SHARE):
            needs.append(Need("budget", {"seed": seed, "trained": f"{name} {share} %"}))
    return needs


def bench(profile, seed: int) -> list[Need]:
    """What a seed of the second bench takes: of our own pair alone."""
    if profile.model.aligned:
        return []
    return [Need("budget", {"seed": seed, "trained": name}) for name in names((FULL, RU, RANDOM))]


def parse(profile, trained: str) -> tuple[Budget, float]:
    """``"RU 5 %"`` -> (`RU`, 0.05); without a share it is the profile's.

    The one place that reads the parameter of the step. `SsahError` for what is neither.
    """
    for row in BUDGETS:
        if trained == row.name:
            return row, profile.budget.share
    for row in WITH_SHARE:
        written = re.fullmatch(row.name + r" (\d+(?:\.\d+)?) %", trained)
        if written and 0 < float(written[1]) < 100:
            return row, float(written[1]) / 100
    known = [*names(BUDGETS), *(f"{name} SHARE %" for name in names(WITH_SHARE))]
    raise SsahError(f"unknown condition {trained!r}; known: {', '.join(known)}")


# ---- the base model's units ------------------------------------------------------------------

@step(version=1,
      reads=("model", "data", "alignment", "calibration"),
      needs=lambda profile, seed: [Need("splits")],
      minutes=2,
      memory=asks_model)
def base_attribution(context: Context, seed: int) -> Result:
    """I_S and I_U of the base model, before any alignment, on prompts of `identify`.

    Texts: refusal wordings that it would be taught, after harmful requests; its own answers to
    benign ones. They stay as ``texts.json``, for the same question after alignment.
    """
    chat = load_base(context)
    pairs = {"harmful": refused_requests(context, chat, seed),
             "benign": answered_requests(context, chat, seed)}
    (context.folder / "texts.json").write_text(json.dumps(pairs))
    return score_units(chat, pairs, context.profile.calibration.system)


def calibration_prompts(context: Context, kind: str, seed: int) -> list[str]:
    """A seed's prompts of `identify`: ``harmful`` or ``benign`` ones."""
    prompts = split_prompts(context, kind, "identify")
    return draw(prompts, context.profile.calibration.prompts, seed)["text"].tolist()


def refused_requests(context: Context, chat, seed: int) -> list[tuple[str, list[int]]]:
    """Harmful requests, each with the first tokens of a refusal wording of the training split."""
    from ...evaluation import response_tokens

    options = context.profile.calibration
    requests = calibration_prompts(context, "harmful", seed)
    wordings = words.data_file("refusals").query("split == 'train'")["text"]
    drawn = wordings.sample(len(requests), replace=True, random_state=seed)
    refusals = response_tokens(chat, requests, drawn, system=options.system)
    return [(request, tokens[:options.answer_tokens])
            for request, tokens in zip(requests, refusals)]


def answered_requests(context: Context, chat, seed: int) -> list[tuple[str, list[int]]]:
    """Benign requests, each with the tokens of the base model's own answer, if it gave any."""
    from ...evaluation import generate

    options = context.profile.calibration
    requests = calibration_prompts(context, "benign", seed)
    answers = generate(chat, requests, system=options.system,
                       max_new_tokens=options.answer_tokens, progress="base answers")
    return [(request, tokens) for request, tokens in zip(requests, answers.tokens) if tokens]


# ---- the runs --------------------------------------------------------------------------------

def trained_units(row: Budget, base: Units, aligned: Units, seed: int) -> np.ndarray:
    """Boolean mask (len(index),) of the units that train; of LoRA: that have as many parameters."""
    if row.units is None:
        return np.ones(len(base.index), bool)
    mask = row.units(base, aligned)
    return base.index.matched_random(mask, seed) if row.random else mask


def lora_like(chat, n_parameters: int):
    """LoRA of the rank that has about so many parameters."""
    from ...attribution import linear_weights

    weights = linear_weights(chat.model).values()
    # a rank adds a row and a column to every linear map
    a_rank = sum(weight.shape[0] + weight.shape[1] for weight in weights)
    return lora(round(n_parameters / a_rank))


def needs_of_budget(profile, seed: int, trained: str) -> list[Need]:
    """What a run stands on; `SsahError` for a condition that there is not."""
    row, _ = parse(profile, trained)
    needs = [Need("splits"),
             Need("judge_threshold"),
             Need("base_answers", artifact=True),
             Need("base_attribution", {"seed": seed}, artifact=True),
             scores_need(profile, seed)]
    if row != FULL:
        needs.append(Need("budget", {"seed": seed, "trained": FULL.name}))
    return needs


@step(version=1,
      reads=("model", "data", "alignment", "calibration", "classification", "evaluation",
             "freezing.shares", "budget"),
      needs=needs_of_budget,
      minutes=15,
      memory=trains_model)
def budget(context: Context, seed: int, trained: str) -> Result:
    """One row of Table 4: the base model, aligned by training only a part of it.

    `trained`: the name of a row of `BUDGETS`, or one with a share such as ``RU 5 %``. ``full`` sets
    the loss to be reached. Tables (with ``at``: start, of ``full`` only, equal loss, end): answers,
    prefilled (answers after so many tokens of a fulfilment), choice. Arrays: ``labels``, codes of
    `LABELS` of the aligned model's units, on the texts of `base_attribution`; ``trained``, the
    indices of the units that trained, where it was some.
    """
    from ...finetuning import finetune

    options = context.profile.budget
    row, share = parse(context.profile, trained)
    base = base_kinds(context, seed, share)
    aligned = paper_kinds(context.profile, seed_scores(context, seed))
    mask = trained_units(row, base, aligned, seed)
    some_units = row.units is not None and not row.adapter
    chat = load_base(context, "float32")
    adapter = lora_like(chat, base.index.weights_in(mask)) if row.adapter else None
    rate = row.rate(options, float(mask.mean()))
    target = loss_to_reach(context, row, seed)
    epochs = options.epochs if target is None else options.epochs * options.longer
    examples = alignment_examples(context, "aligned", seed)
    observer = AlignmentMeasures(context, load_base(context), scored_texts(context, seed),
                                 adapter=adapter, epochs=epochs, target=target)
    done = finetune(chat, examples,
                    trainable=mask if some_units else None,
                    adapter=adapter,
                    epochs=epochs,
                    lr=rate,
                    batch_size=context.profile.alignment.batch_size,
                    seed=seed,
                    system=context.profile.alignment.system,
                    probe=spread_evenly(examples, options.probe),
                    probe_every=options.probe_every,
                    callbacks=[observer],
                    autocast=context.profile.model.dtype == "bfloat16",
                    progress=f"aligning {trained}, seed {seed}")
    keep_answers(context, observer.texts)
    values = {"share": float(mask.mean()) if some_units else float("nan"),
              "index": base.index.to_dict(),
              "lr": rate,
              "moved_bytes": done.bytes["parameters"],
              **observer.values,
              "probe_loss": float(done.checkpoints["probe_loss"].iloc[-1])}
    tables = {"checkpoints": done.checkpoints,
              **observer.tables(),
              "history": done.history[["step", "epoch", "loss", "tokens"]]}
    moved = np.flatnonzero(mask) if some_units else np.zeros(0)
    arrays = {"labels": observer.labels,
              "trained": moved.astype(np.int32)}
    return Result(values, tables, arrays)


def base_kinds(context: Context, seed: int, ru: float) -> Units:
    """The four kinds of the base model, with RU of a share of all units."""
    scu, ucu, _ = context.profile.freezing.shares
    scored = context.get("base_attribution", seed=seed)
    scale = context.profile.classification.scale
    return classify_scores(scored, scale, scu=scu, ucu=ucu, ru=ru)


def scored_texts(context: Context, seed: int) -> dict[str, list]:
    """The texts on which the base model was scored: kind -> (prompt, answer tokens)."""
    folder = context.artifact("base_attribution", seed=seed)
    return json.loads((folder / "texts.json").read_text())


def loss_to_reach(context: Context, row: Budget, seed: int) -> float | None:
    """The probe loss at the end of full alignment; none for that run itself, which sets it."""
    if row == FULL:
        return None
    return context.get("budget", seed=seed, trained=FULL.name).values["probe_loss"]


def spread_evenly(examples: list[dict], n: int) -> list[dict]:
    """`n` of the examples, of refusals and of benign answers."""
    return examples[::len(examples) // n][:n]


class AlignmentMeasures(Observer):
    """What alignment bought (answers, also after a prefill) and what it cost.

    The cost: perplexity of text, KL from the base model, multiple choice. `labels`, once it was
    measured where runs are compared: codes of `LABELS` (len(index),) of the copy's units.
    """

    def __init__(self, context: Context, copy, pairs: dict, **options):
        self.context = context
        self.pairs = pairs              # the texts on which units are scored
        self.base = load_base(context)
        self.judge_model = self.base
        profile = context.profile
        self.own_set = evaluation_requests(context, profile.evaluation.harmful)
        self.requests = self.all_requests()
        watched = self.own_set["text"].tolist()[:profile.budget.watched]
        super().__init__(copy, watched, points={}, stops=True, **options)

    def all_requests(self) -> pd.DataFrame:
        """Harmful requests of both sets and borderline ones: id, source, text."""
        profile = self.context.profile
        harmful = split_prompts(self.context, "harmful", "evaluate")
        of_other_set = harmful[harmful["source"].isin(profile.data.evaluate_only)]
        parts = [self.own_set, of_other_set.iloc[:profile.evaluation.harmful],
                 borderline_requests(self.context)]
        return pd.concat(parts, ignore_index=True)[["id", "source", "text"]]

    def measure(self, row: dict, whole: bool, final: bool) -> tuple[dict, dict[str, pd.DataFrame]]:
        """Facts and tables (see `Observer`); where runs are compared, the labels of units too."""
        profile = self.context.profile
        tables = {"answers": self.answered(self.requests, profile.evaluation.systems[:1]),
                  "prefilled": self.prefilled(),
                  "choice": measure_choice(self.context, self.copy)}
        wiki, losses = measure_text(self.context, self.copy)
        divergence = self.divergence_from_base()
        if final:
            scored = score_units(self.copy, self.pairs, profile.calibration.system)
            labels = paper_kinds(profile, scored).labels
            self.labels = pd.Categorical(labels, LABELS).codes
        facts = {"wiki_perplexity": wiki,
                 "benign_perplexity": answer_perplexity(losses),
                 "divergence": divergence}
        return facts, tables

    def divergence_from_base(self) -> float:
        """KL of the next token on reference answers to benign prompts, nats a token."""
        from ...evaluation import divergence

        benign = benign_prompts(self.context)
        n_tokens = self.context.profile.evaluation.benign_tokens
        tails = reference_tails(self.copy, benign, n_tokens)
        of_prompts = divergence(self.copy, self.base, benign["text"].tolist(), tails)
        return float(of_prompts.mean())

    def prefilled(self) -> pd.DataFrame:
        """Answers after the first tokens of a fulfilment: id, length, label, keyword."""
        from ...probing import token_lists

        wordings = token_lists(self.copy, words.data_file("prefills")["text"])
        parts = [self.answered_after(wordings, length)
                 for length in self.context.profile.budget.prefills]
        return pd.concat(parts, ignore_index=True)

    def answered_after(self, wordings: list[list[int]], length: int) -> pd.DataFrame:
        """Answers after `length` tokens of the `wordings`, which the prompts take in turn."""
        from ...evaluation import generate, response_nll

        options = self.context.profile.evaluation
        system = options.systems[0]
        requests = self.own_set.iloc[:self.context.profile.budget.prefilled]
        questions = requests["text"].tolist()
        openings = [wordings[i % len(wordings)][:length] for i in range(len(questions))]
        answers = generate(self.copy, questions, prefill=openings,
                           max_new_tokens=options.answer_tokens, system=system,
                           progress=f"answers, {length} tokens prefilled")
        nll = response_nll(self.judge_model, questions, answers.tokens, prefill=openings,
                           system=system)
        threshold = self.context.get("judge_threshold").values["threshold"]
        labels = judging.judge(questions, answers.texts, np.nan_to_num(nll), threshold,
                               options.judge_version)
        normalized = options.judge_version > 1
        keywords = [judging.matches_keyword(text, normalized) for text in answers.texts]
        return pd.DataFrame({"id": requests["id"], "length": length,
                             "label": labels.astype(str), "keyword": keywords})
