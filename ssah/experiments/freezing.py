"""C4: benign fine-tuning of the aligned model with some units frozen, compared at equal training loss (Table 2)."""

import numpy as np
import pandas as pd

from .. import prompts
from ..classification import Units
from ..errors import SsahError
from ..store import Result
from .engine import Context, Need, device, step
from .foundation import checkpoint_need, load_base, load_pool, load_role, split_prompts
from .measuring import classify_scores, evaluation_requests, keep_answers, measure_answers, reference_nll

#: What is frozen. ``large`` draws have the block x kind counts of SCU + all CU, ``small`` ones those of SCU + top CU.
TUNED = ("full", "full slower", "SCU", "SCU + top CU", "SCU + all CU", "random small", "random large without SCU",
         "random large", "SCU + all CU + rest")
#: Who goes on to twice the epochs of full fine-tuning (paper); the others end where they reach its loss.
DOUBLED = ("SCU", "SCU + top CU", "SCU + all CU", "random large without SCU")
#: Whose weights stay in the cache folder (at equal loss), for what other claims ask of them.
KEPT = ("full", "SCU + all CU", "random large without SCU")
MEASURE = ("models", "evaluation", "judging", "prompts", "units", "classification", "slices", "resuming",
           "finetuning", "experiments/measuring")


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
             "random large": lambda: index.matched_random(all_cu, seed, exclude=nothing)}
    if condition not in masks:
        raise SsahError(f"unknown condition {condition!r}; known: {', '.join(TUNED)}")
    return masks[condition]()


def instructions(context: Context, chat, seed: int) -> tuple[list[dict], list[dict]]:
    """Benign examples with the data set's own answers, short ones: those to train on, and as unseen ones others.

    From the prompts of `align` (there with the base model's answers) and those of no split.
    """
    options, data = context.profile.freezing, context.profile.data
    elsewhere = context.get("splits").tables["splits"].query("kind == 'benign' and split in ('identify', 'select', "
                                                             "'evaluate')")["id"]
    pool = load_pool("benign", data.benign, data.longest_prompt)
    pool = pool[(pool["source"] == options.instructions) & ~pool["id"].isin(elsewhere)]
    short = [len(chat.tokenizer(text, add_special_tokens=False)["input_ids"]) <= options.answer_tokens
             for text in pool["response"]]
    pool, wanted = pool[short], options.examples + options.unseen
    if len(pool) < wanted:
        raise SsahError(f"{options.instructions} has {len(pool)} short benign examples, {wanted} are wanted; "
                        "lower examples or raise answer_tokens in the profile")
    chosen = pool.iloc[np.random.default_rng(seed).permutation(len(pool))[:wanted]]
    examples = [{"prompt": p, "response": r} for p, r in zip(chosen["text"], chosen["response"])]
    return examples[:options.examples], examples[options.examples:]


def _tuning_needs(profile, seed: int, condition: str) -> list[Need]:
    target = [] if condition == "full" else [Need("tuning", {"seed": seed, "condition": "full"})]
    return [Need("splits"), Need("judge_threshold"), Need("attribution", {"seed": seed}),
            *checkpoint_need("aligned", seed), *target]


@step(version=1, reads=("model", "data", "classification", "evaluation", "freezing"), uses=MEASURE, minutes=8,
      needs=_tuning_needs)
def tuning(context: Context, seed: int, condition: str) -> Result:
    """One row of Table 2: the aligned model after benign fine-tuning with some units frozen (`TUNED`).

    ``full`` sets the loss to be reached (its probe loss at the end); the others are measured at their first checkpoint
    at or below it, within twice the epochs, and some (`DOUBLED`) at the end of those too. Answers have a column
    ``at``: start (``full`` only), one epoch, equal loss, end.
    """
    from ..finetuning import finetune
    from ..models import load_chat_model

    options, full = context.profile.freezing, condition == "full"
    folder = context.artifact("checkpoint", role="aligned", seed=seed)
    chat = load_chat_model(str(folder / "model"), dtype="float32", device=device())
    train, unseen = instructions(context, chat, seed)
    scu, ucu, ru = options.shares
    units = classify_scores(context.get("attribution", seed=seed), context.profile.classification.scale,
                            scu=scu, ucu=ucu, ru=ru)
    mask = frozen_units(units, condition, options.top_cu, seed)
    epochs = options.epochs * (1 if full else 2)
    observer = Observer(context, load_role(context, "aligned", seed), unseen, epochs,
                        None if full else context.get("tuning", seed=seed, condition="full").values["probe_loss"],
                        stops=condition not in DOUBLED, keep=condition in KEPT)
    trained = finetune(chat, train, **({"frozen": mask} if mask.any() else {}),
                       rest="freeze" if condition.endswith("rest") else None, epochs=epochs,
                       lr=options.slower_lr if condition.endswith("slower") else options.lr,
                       batch_size=options.batch_size, seed=seed, system=options.system, probe=train[:options.probe],
                       callbacks=[observer], autocast=context.profile.model.dtype == "bfloat16",
                       progress=f"{condition}, seed {seed}")
    keep_answers(context, observer.texts)
    return Result({"share": float(mask.mean()), "parameter_share": units.index.parameter_share(mask),
                   "moved_bytes": trained.bytes["parameters"], "cut": trained.cut, **observer.values,
                   "probe_loss": float(trained.checkpoints["probe_loss"].iloc[-1])},
                  {"checkpoints": trained.checkpoints, "answers": pd.concat(observer.answers, ignore_index=True),
                   "history": trained.history[["step", "epoch", "loss", "tokens"]]})


class Observer:
    """Callback of `finetune`: log-odds at every checkpoint, answers at some, all measures at equal loss.

    What is measured is a copy in the number format in which models are kept and evaluated.
    """

    def __init__(self, context: Context, copy, unseen: list[dict], epochs: int, target: float | None, *, stops: bool,
                 keep: bool):
        self.context, self.copy, self.unseen, self.epochs = context, copy, unseen, epochs
        self.stops, self.keep = stops, keep     # end the run at equal loss; save the weights there
        self.target = target        # None: this run sets it, at its end
        self.judge_model = load_base(context)
        self.requests = evaluation_requests(context, context.profile.evaluation.harmful)
        self.answers, self.texts, self.values = [], {}, {"reached": False}

    def __call__(self, chat, row: dict) -> bool:
        """Measure what is due at this checkpoint, add to its `row`; whether the run ends here."""
        import torch

        from ..evaluation import refusal_log_odds

        options, ended = self.context.profile.freezing, row["epoch"] >= self.epochs
        self.copy.model.load_state_dict(chat.model.state_dict())
        equal = not self.values["reached"] and (ended if self.target is None else row["probe_loss"] <= self.target)
        due = {"start": self.target is None and row["step"] == 0, "one epoch": row["epoch"] == 1,
               "equal loss": equal, "end": ended}
        points = [name for name in due if due[name]]
        with torch.autocast(chat.model.device.type, enabled=False):
            watched = self.requests["text"].tolist()[:options.watched]
            row["log_odds"] = float(refusal_log_odds(self.copy, watched).mean())
            if points:
                self.measure(points, row)
        return self.stops and equal

    def measure(self, points: list[str], row: dict) -> None:
        """Answers, named by the points that fall together here; all measures at the start and at equal loss."""
        from ..finetuning import encode_examples, mean_loss

        context, systems = self.context, self.context.profile.evaluation.systems[:1]
        tables = [measure_answers(context, self.copy, self.judge_model, self.requests, systems)]
        encoded = encode_examples(self.copy, self.unseen, context.profile.freezing.system)[0]
        facts = {"epoch": row["epoch"], "probe_loss": row["probe_loss"],
                 "unseen_loss": mean_loss(self.copy, encoded, context.profile.freezing.batch_size)}
        row["unseen_loss"] = facts["unseen_loss"]
        late = "end" in points and not self.values["reached"]       # the loss was never reached: compared at the end
        if late or "equal loss" in points or "start" in points:
            borderline = prompts.load_prompts(context.profile.evaluation.borderline).assign(source="borderline")
            borderline = borderline.iloc[::2]       # every other one, so that all categories stay
            tables.append(measure_answers(context, self.copy, self.judge_model, borderline, systems))
            facts |= self.utility()
        self.values["reached"] |= "equal loss" in points
        if self.keep and (late or "equal loss" in points):
            from ..models import save_weights

            save_weights(self.copy, context.folder / "model")
        for name in points:
            self.values |= {f"{name}: {fact}": value for fact, value in facts.items()}
            self.answers += [table.assign(at=name) for table, _ in tables]
        for _, texts in tables:
            self.texts |= texts

    def utility(self) -> dict[str, float]:
        """Perplexity on Wikipedia text and on benign reference answers."""
        from ..evaluation import perplexity

        options = self.context.profile.evaluation
        benign = split_prompts(self.context, "benign", "evaluate").iloc[:options.benign]
        losses = reference_nll(self.copy, benign, options.benign_tokens)
        wiki = perplexity(self.copy, prompts.load_prompts(options.wiki)["text"].tolist(), n_tokens=options.wiki_tokens)
        return {"wiki_perplexity": wiki,
                "benign_perplexity": float(np.exp(np.average(losses["nll"], weights=losses["tokens"])))}
