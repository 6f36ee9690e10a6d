"""Benign fine-tuning of the aligned model with some units frozen, compared at equal training loss (Table 2)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ...classification import Units
from ...errors import SsahError
from ...lab import Context, Need, Result, step
from ...lab.machine import device
from .foundation import checkpoint_need, load_base, load_pool, load_role
from .measuring import (
    Observer,
    answer_perplexity,
    borderline_requests,
    evaluation_requests,
    keep_answers,
    measure_text,
    paper_kinds,
)

#: What is frozen. ``large`` draws have the block x kind counts of SCU + all CU, ``small`` ones those of SCU + top CU.
TUNED = ("full", "full slower", "SCU", "SCU + top CU", "SCU + all CU", "random small", "random large without SCU",
         "random large", "SCU + all CU + rest")
#: Who goes on to twice the epochs of full fine-tuning (paper); the others end where they reach its loss.
DOUBLED = ("SCU", "SCU + top CU", "SCU + all CU", "random large without SCU")
#: Frozen for comparison with the first seed only: as many units as SCU + all CU of lowest I_S, block x kind alike.
LEAST = "least safety"
#: Whose weights stay in the cache folder (at equal loss), for what other claims ask of them.
KEPT = ("full", "SCU + all CU", "random large without SCU")
#: Adapters in place of the model's own weights (C5): two of the paper's three.
ADAPTERS = ("LoRA", "LLaMA-Adapter")


def frozen_units(units: Units, condition: str, top_cu: float, seed: int) -> np.ndarray:
    """Boolean mask (len(index),) of what a condition freezes; `top_cu`: share of *all* units (paper: 6 %)."""
    index, scu, all_cu = units.index, units.mask("SCU"), units.mask("SCU", "CU")
    top = np.argsort(np.where(units.mask("CU"), -units.safety, np.inf), kind="stable")[:round(top_cu * len(index))]
    some_cu = scu.copy()
    some_cu[top] = True
    nothing = np.zeros(len(index), bool)
    masks = {"full": lambda: nothing, "full slower": lambda: nothing, "SCU": lambda: scu,
             "SCU + top CU": lambda: some_cu, "SCU + all CU": lambda: all_cu, "SCU + all CU + rest": lambda: all_cu,
             "random small": lambda: index.matched_random(some_cu, seed, exclude=scu),
             "random large without SCU": lambda: index.matched_random(all_cu, seed, exclude=scu),
             "random large": lambda: index.matched_random(all_cu, seed, exclude=nothing),
             LEAST: lambda: least(units, all_cu)}
    if condition not in masks:
        raise SsahError(f"unknown condition {condition!r}; known: {', '.join(masks)}")
    return masks[condition]()


def least(units: Units, like: np.ndarray) -> np.ndarray:
    """As many units of every block x kind as `like` has, those of lowest I_S."""
    mask = np.zeros(len(units.index), bool)
    for _, _, where in units.index.modules():
        order = np.argsort(units.safety[where], kind="stable")
        mask[where.start + order[:int(like[where].sum())]] = True
    return mask


def lora(rank: int):
    """LoRA on all linear maps of the blocks, scaled by 2."""
    import peft

    return peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


# ---- what is trained on ----------------------------------------------------------------------

def instructions(context: Context, chat, seed: int, source: str | None = None) -> tuple[list[dict], list[dict]]:
    """Benign examples with the data set's own answers, short ones: those to train on, and as unseen ones others.

    From the prompts of `align` (there with the base model's answers) and those of no split. `source`: another set
    than the profile's first, of which all are taken if there are fewer, in the same proportion.
    """
    options, data = context.profile.freezing, context.profile.data
    elsewhere = context.get("splits").tables["splits"].query("kind == 'benign' and split in ('identify', 'select', "
                                                             "'evaluate')")["id"]
    pool = load_pool("benign", data.benign, data.longest_prompt)
    pool = pool[(pool["source"] == (source or options.instructions)) & ~pool["id"].isin(elsewhere)]
    short = [len(chat.tokenizer(text, add_special_tokens=False)["input_ids"]) <= options.answer_tokens
             for text in pool["response"]]
    pool, wanted = pool[short], options.examples + options.unseen
    if source is not None:
        wanted = max(min(wanted, len(pool)), 3)
    n = wanted * options.examples // (options.examples + options.unseen)
    if len(pool) < wanted:
        raise SsahError(f"{source or options.instructions} has {len(pool)} short benign examples, {wanted} are wanted; "
                        "lower examples or raise answer_tokens in the profile")
    chosen = pool.iloc[np.random.default_rng(seed).permutation(len(pool))[:wanted]]
    examples = [{"prompt": p, "response": r} for p, r in zip(chosen["text"], chosen["response"])]
    return examples[:n], examples[n:]


# ---- the runs --------------------------------------------------------------------------------

def load_tuned(context: Context, seed: int, condition: str):
    """What fine-tuning made of the aligned model at equal loss (`KEPT`), in the profile's number format."""
    from ...models import load_chat_model

    folder = context.artifact("tuning", seed=seed, condition=condition)
    return load_chat_model(str(folder / "model"), dtype=context.profile.model.dtype, device=device())


def tune(context: Context, chat, examples: tuple[list[dict], list[dict]], name: str, *, seed: int,
         target: float | None = None, lr: float | None = None, adapter=None, longer: int = 2, stops: bool = True,
         keep: bool = False, points: dict[str, float] | None = None, **frozen) -> Result:
    """One row of Table 2 or 3: the aligned `chat` after benign fine-tuning, measured by `Measures`.

    `examples`: those to train on and unseen ones. Without a `target` the run sets it (its probe loss at the end);
    else it has `longer` times the epochs to reach it. `adapter` and `frozen` go to `finetune`.
    """
    from ...finetuning import finetune

    options, (train, unseen) = context.profile.freezing, examples
    epochs = options.epochs * (1 if target is None else longer)
    observer = Measures(context, load_role(context, "aligned", seed), unseen, adapter=adapter, keep=keep, epochs=epochs,
                        target=target, stops=stops, points=points or {"one epoch": 1})
    trained = finetune(chat, train, adapter=adapter, **frozen, epochs=epochs, lr=lr or options.lr,
                       batch_size=options.batch_size, seed=seed, system=options.system, probe=train[:options.probe],
                       callbacks=[observer], autocast=context.profile.model.dtype == "bfloat16",
                       progress=f"{name}, seed {seed}")
    keep_answers(context, observer.texts)
    return Result({"moved_bytes": trained.bytes["parameters"], "cut": trained.cut, **observer.values,
                   "probe_loss": float(trained.checkpoints["probe_loss"].iloc[-1])},
                  {"checkpoints": trained.checkpoints, **observer.tables(),
                   "history": trained.history[["step", "epoch", "loss", "tokens"]]})


def freeze_units(context: Context, chat, examples, seed: int, condition: str, **options) -> Result:
    """`tune` with the units of a condition frozen, and how many these are."""
    units = paper_kinds(context.profile, context.get("attribution", seed=seed))
    mask = frozen_units(units, condition, context.profile.freezing.top_cu, seed)
    result = tune(context, chat, examples, condition, seed=seed, **options, **({"frozen": mask} if mask.any() else {}),
                  rest="freeze" if condition.endswith("rest") else None)
    return replace(result, values={"share": float(mask.mean()),
                                   "parameter_share": units.index.parameter_share(mask), **result.values})


def tuning_needs(profile, seed: int, condition: str) -> list[Need]:
    target = [] if condition == "full" else [Need("tuning", {"seed": seed, "condition": "full"})]
    return [Need("splits"), Need("judge_threshold"), Need("attribution", {"seed": seed}),
            *checkpoint_need("aligned", seed), *target]


@step(version=1, reads=("model", "data", "classification", "evaluation", "freezing"), minutes=8,
      needs=tuning_needs)
def tuning(context: Context, seed: int, condition: str) -> Result:
    """One row of Table 2: the aligned model after benign fine-tuning with some units frozen (`TUNED`, `LEAST`).

    ``full`` sets the loss to be reached (its probe loss at the end); the others are measured at their first checkpoint
    at or below it, within twice the epochs, and some (`DOUBLED`) at the end of those too. Answers have a column
    ``at``: start (``full`` only), one epoch, equal loss, end.
    """
    chat = load_role(context, "aligned", seed, "float32")
    target = None if condition == "full" else \
        context.get("tuning", seed=seed, condition="full").values["probe_loss"]
    return freeze_units(context, chat, instructions(context, chat, seed), seed, condition, target=target,
                         lr=context.profile.freezing.slower_lr if condition.endswith("slower") else None,
                         stops=condition not in DOUBLED, keep=condition in KEPT)


class Measures(Observer):
    """What is measured of the tuned model: answers, the loss on unseen examples; on the whole also text."""

    def __init__(self, context: Context, copy, unseen: list[dict], *, keep: bool, **options):
        self.context, self.unseen, self.keep = context, unseen, keep    # keep: save the weights at equal loss
        self.judge_model = load_base(context)
        self.requests = evaluation_requests(context, context.profile.evaluation.harmful)
        super().__init__(copy, self.requests["text"].tolist()[:context.profile.freezing.watched], **options)

    def measure(self, row: dict, whole: bool, final: bool) -> tuple[dict, dict[str, pd.DataFrame]]:
        """Facts and answers (see `Observer`); the loss on unseen examples goes into the `row` too."""
        from ...finetuning import encode_examples, mean_loss

        context, systems = self.context, self.context.profile.evaluation.systems[:1]
        answers = [self.answered(self.requests, systems)]
        encoded = encode_examples(self.copy, self.unseen, context.profile.freezing.system)[0]
        row["unseen_loss"] = mean_loss(self.copy, encoded, context.profile.freezing.batch_size)
        facts = {"unseen_loss": row["unseen_loss"]}
        if whole:
            answers.append(self.answered(borderline_requests(context), systems))
            wiki, losses = measure_text(context, self.copy)
            facts |= {"wiki_perplexity": wiki, "benign_perplexity": answer_perplexity(losses)}
        if final and self.keep:
            from ...models import save_weights

            save_weights(self.copy, context.folder / "model")
        return facts, {"answers": pd.concat(answers, ignore_index=True)}
