"""Benign fine-tuning of the aligned model under the conditions of Tables 2 and 3, at equal loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ...classification import Units
from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ...lab.machine import device
from .conditions import FREEZING, FULL, TABLE_2, TABLE_3, Condition, find, names, nothing
from .material import checkpoint_need, load_base, load_pool, load_role
from .measuring import (
    answer_perplexity,
    borderline_requests,
    evaluation_requests,
    keep_answers,
    measure_text,
    paper_kinds,
    scores_need,
    seed_scores,
)
from .memory import trains_model
from .observing import Observer

#: Under which conditions units are frozen, with every seed.
TUNED = names(TABLE_2)
#: Whose weights stay in the cache folder (at equal loss), for what other claims ask of them.
KEPT = names(row for row in TABLE_2 if row.kept)
#: The step that fine-tunes at the milder dose of the second bench.
MILDER = "milder_tuning"
#: Which adapters train in place of the model's own weights.
ADAPTERS = names(TABLE_3)


def frozen_units(units: Units, condition: Condition, options, seed: int) -> np.ndarray:
    """Boolean mask (len(index),) of what a condition freezes; `options`: the section `freezing`."""
    chosen = condition.frozen or nothing
    return chosen(units, options, seed)


def load_tuned(context: Context, seed: int, condition: str):
    """The aligned model fine-tuned to equal loss (of `KEPT`), in the profile's number format."""
    return load_kept(context, context.artifact("tuning", seed=seed, condition=condition))


def load_kept(context: Context, folder: Path):
    """The model that a run of fine-tuning left in its folder, in the profile's number format."""
    from ...catalog import load_chat_model

    return load_chat_model(str(folder / "model"), dtype=context.profile.model.dtype,
                           device=device())


# ---- what is trained on ----------------------------------------------------------------------

def instructions(context: Context, chat, seed: int,
                 source: str | None = None) -> tuple[list[dict], list[dict]]:
    """Benign examples with the data set's own short answers: those to train on, and unseen ones.

    From the prompts of `align` (there with the base model's answers) and those of no split.
    `source`: another set than the profile's first, of which all are taken if there are fewer, in
    the same proportion. Raises `SsahError` where there are too few.
    """
    options = context.profile.freezing
    pool = _short_examples(context, chat, source or options.instructions)
    wanted = options.examples + options.unseen
    if source is not None:
        wanted = max(min(wanted, len(pool)), 3)
    if len(pool) < wanted:
        raise SsahError(
            f"{source or options.instructions} has {len(pool)} short benign examples, {wanted} are "
            "wanted; lower examples or raise answer_tokens in the profile")
    chosen = pool.iloc[np.random.default_rng(seed).permutation(len(pool))[:wanted]]
    examples = [{"prompt": prompt, "response": response}
                for prompt, response in zip(chosen["text"], chosen["response"])]
    n = wanted * options.examples // (options.examples + options.unseen)
    return examples[:n], examples[n:]


def _short_examples(context: Context, chat, source: str) -> pd.DataFrame:
    """Benign prompts (id, text, response) of a set that no other split has, with short answers."""
    data = context.profile.data
    splits = context.get("splits").tables["splits"].query("kind == 'benign'")
    elsewhere = splits.query("split in ('identify', 'select', 'evaluate')")["id"]
    pool = load_pool("benign", data.benign, data.longest_prompt)
    pool = pool[(pool["source"] == source) & ~pool["id"].isin(elsewhere)]
    lengths = [len(chat.tokenizer(text, add_special_tokens=False)["input_ids"])
               for text in pool["response"]]
    return pool[np.array(lengths, dtype=int) <= context.profile.freezing.answer_tokens]


# ---- the runs --------------------------------------------------------------------------------

def milder_rate(profile) -> float:
    """The learning rate of the milder dose."""
    return profile.milder.lr


def loss_to_reach(context: Context, name: str, condition: str, **params) -> float | None:
    """The probe loss at which a run is compared: that of the full run of a step, at its end.

    None for the full run, which sets it.
    """
    if condition == FULL.name:
        return None
    return context.get(name, **params, condition=FULL.name).values["probe_loss"]


def tune(context: Context, chat, examples: tuple[list[dict], list[dict]], condition: Condition, *,
         seed: int, target: float | None, longer: int = 2, stops: bool = True, keep: bool = False,
         points: dict[str, float] | None = None, adapter=None, **frozen) -> Result:
    """One row of Table 2 or 3: the aligned `chat` after benign fine-tuning, measured by `Measures`.

    `examples`: those to train on and unseen ones. Without a `target` the run sets it (its probe
    loss at the end); else it has `longer` times the epochs to reach it. `points`: name -> epoch at
    which it is measured anyway. `adapter` and `frozen` go to `finetune`.
    """
    from ...finetuning import finetune
    from ...objectives import Likelihood

    options = context.profile.freezing
    train, unseen = examples
    epochs = options.epochs if target is None else options.epochs * longer
    observer = Measures(
        context,
        load_role(context, "aligned", seed),
        unseen,
        adapter=adapter,
        keep=keep,
        epochs=epochs,
        target=target,
        stops=stops,
        points={"one epoch": 1} if points is None else points)
    trained = finetune(
        chat,
        train,
        adapter=adapter,
        **frozen,
        epochs=epochs,
        lr=condition.rate(context.profile),
        batch_size=options.batch_size,
        objective=condition.objective() if condition.objective else Likelihood(),
        seed=seed,
        system=options.system,
        probe=train[:options.probe],
        callbacks=[observer],
        autocast=context.profile.model.dtype == "bfloat16",
        progress=f"{condition.name}, seed {seed}")
    keep_answers(context, observer.texts)
    values = {
        "moved_bytes": trained.bytes["parameters"],
        "cut": trained.cut,
        **observer.values,
        "probe_loss": float(trained.checkpoints["probe_loss"].iloc[-1])}
    tables = {
        "checkpoints": trained.checkpoints,
        **observer.tables(),
        "history": trained.history[["step", "epoch", "loss", "tokens"]]}
    return Result(values, tables)


def freeze_units(context: Context, chat, examples, seed: int, condition: Condition,
                 **options) -> Result:
    """`tune` with the units of a condition frozen, and how many these are."""
    units = paper_kinds(context.profile, seed_scores(context, seed))
    mask = frozen_units(units, condition, context.profile.freezing, seed)
    frozen = mask if mask.any() else None
    rest = "freeze" if condition.rest else None
    result = tune(context, chat, examples, condition, seed=seed, frozen=frozen, rest=rest,
                  **options)
    share = float(mask.mean())
    parameter_share = units.index.parameter_share(mask)
    return replace(result, values={"share": share, "parameter_share": parameter_share,
                                   **result.values})


def tuning_needs(profile, seed: int, condition: str) -> list[Need]:
    """What a run of `tuning` stands on; `SsahError` for a condition that has no row."""
    find(FREEZING, condition)
    needs = [
        Need("splits"),
        Need("judge_threshold"),
        scores_need(profile, seed),
        *checkpoint_need(profile, "aligned", seed)]
    if condition != FULL.name:
        needs.append(Need("tuning", {"seed": seed, "condition": FULL.name}))
    return needs


def compared_needs(profile, seed: int, dose: str = "tuning") -> list[Need]:
    """What a run stands on that is compared with full fine-tuning and takes no scores.

    `dose`: the step that ran that.
    """
    return [
        Need("splits"),
        Need("judge_threshold"),
        *checkpoint_need(profile, "aligned", seed),
        Need(dose, {"seed": seed, "condition": FULL.name})]


@step(version=1, reads=("model", "data", "classification", "evaluation", "freezing"), minutes=8,
      needs=tuning_needs, memory=trains_model)
def tuning(context: Context, seed: int, condition: str) -> Result:
    """One row of Table 2: the aligned model after benign fine-tuning with some units frozen.

    ``full`` sets the loss to be reached (its probe loss at the end); the others are measured at
    their first checkpoint at or below it, within twice the epochs, and some at the end of those
    too. Answers have a column ``at``: start (``full`` only), one epoch, equal loss, end.
    """
    row = find(FREEZING, condition)
    chat = load_role(context, "aligned", seed, "float32")
    examples = instructions(context, chat, seed)
    target = loss_to_reach(context, "tuning", condition, seed=seed)
    return freeze_units(context, chat, examples, seed, row, target=target, stops=not row.doubled,
                        keep=row.kept)


class Measures(Observer):
    """What is measured of a tuned model: answers and the loss on unseen examples; also text."""

    def __init__(self, context: Context, copy, unseen: list[dict], *, keep: bool, **options):
        self.context = context
        self.unseen = unseen
        self.keep = keep            # save the weights at equal loss
        self.judge_model = load_base(context)
        self.requests = evaluation_requests(context, context.profile.evaluation.harmful)
        watched = self.requests["text"].tolist()[:context.profile.freezing.watched]
        super().__init__(copy, watched, **options)

    def measure(self, row: dict, whole: bool, final: bool) -> tuple[dict, dict[str, pd.DataFrame]]:
        """Facts and answers (see `Observer`); the loss on unseen examples goes into `row` too."""
        systems = self.context.profile.evaluation.systems[:1]
        answers = [self.answered(self.requests, systems)]
        row["unseen_loss"] = self.unseen_loss()
        facts = {"unseen_loss": row["unseen_loss"]}
        if whole:
            answers.append(self.answered(borderline_requests(self.context), systems))
            wiki, losses = measure_text(self.context, self.copy)
            facts["wiki_perplexity"] = wiki
            facts["benign_perplexity"] = answer_perplexity(losses)
        if final and self.keep:
            from ...models import save_weights

            save_weights(self.copy, self.context.folder / "model")
        return facts, {"answers": pd.concat(answers, ignore_index=True)}

    def unseen_loss(self) -> float:
        """Mean loss on examples that are not trained on, nats a token."""
        from ...finetuning import encode_examples, mean_loss

        options = self.context.profile.freezing
        encoded, _ = encode_examples(self.copy, self.unseen, options.system)
        return mean_loss(self.copy, encoded, options.batch_size)
