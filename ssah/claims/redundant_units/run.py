"""C6: aligning the base model by its redundant units alone, compared at equal training loss (Table 4)."""

import json

import numpy as np
import pandas as pd

from ... import judging
from ...classification import LABELS, Units
from ...errors import SsahError
from ...inputs import words
from ...lab import Context, Need, Result, step
from ..shared.conditions import lora
from ..shared.foundation import alignment_examples, draw, load_base, split_prompts
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
)
from ..shared.observing import Observer

#: What trains. ``full slower``: everything, at the rate of the rule that sets those of units; ``random``: as many units
#: of every block x kind as the RU, none of them RU; ``only SCU``: those of the seed's aligned model; ``random like
#: SCU``: as many, none of them SCU; ``LoRA``: as many parameters as the RU have.
BUDGETS = ("full", "full slower", "RU", "random", "only SCU", "random like SCU", "LoRA")


def core(seed: int) -> list[Need]:
    """What the claim needs for one seed."""
    return [Need("budget", {"seed": seed, "trained": trained}) for trained in BUDGETS]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: other shares of units."""
    return [Need("budget", {"seed": seed, "trained": f"{kind} {share}"})
            for share in ("5 %", "10 %", "40 %") for kind in ("RU", "random")]


# ---- the base model's units ------------------------------------------------------------------

@step(version=1, reads=("model", "data", "alignment", "calibration"), minutes=2,
      needs=lambda profile, seed: [Need("splits")])
def base_attribution(context: Context, seed: int) -> Result:
    """I_S and I_U of the base model, before any alignment, on prompts of `identify`.

    Texts: refusal wordings that it would be taught, after harmful requests; its own answers to benign ones.
    """
    from ...evaluation import generate

    options, chat = context.profile.calibration, load_base(context)
    harmful, benign = (draw(split_prompts(context, kind, "identify"), options.prompts, seed)["text"].tolist()
                       for kind in ("harmful", "benign"))
    wordings = words.data_file("refusals").query("split == 'train'")["text"]
    drawn = wordings.sample(len(harmful), replace=True, random_state=seed)
    refusals = [chat.tokenizer(text, add_special_tokens=False)["input_ids"][:options.answer_tokens] for text in drawn]
    answers = generate(chat, benign, system=options.system, max_new_tokens=options.answer_tokens,
                       progress="base answers").tokens
    pairs = {"harmful": list(zip(harmful, refusals)),
             "benign": [(prompt, tokens) for prompt, tokens in zip(benign, answers) if tokens]}
    (context.folder / "texts.json").write_text(json.dumps(pairs))
    return score_units(chat, pairs, options.system)


def trained_units(base: Units, kind: str, scu: np.ndarray, seed: int) -> np.ndarray:
    """Boolean mask (len(index),) of the units that train; `scu`: those of the aligned model."""
    chosen = scu if kind.endswith("SCU") else base.mask("RU")
    return base.index.matched_random(chosen, seed) if kind.startswith("random") else chosen


# ---- the runs --------------------------------------------------------------------------------

def parse(profile, trained: str) -> tuple[str, float]:
    """``"RU 5 %"`` -> ("RU", 0.05); without a share it is the profile's. `SsahError` for what is neither."""
    kind, _, share = trained.partition(" ")
    if trained in BUDGETS:
        return trained, profile.budget.share
    try:
        if kind in ("RU", "random") and 0 < (value := float(share.rstrip(" %")) / 100) < 1:
            return kind, value
    except ValueError:
        pass
    raise SsahError(f"unknown condition {trained!r}; known: {', '.join(BUDGETS)}, RU SHARE %, random SHARE %")


def _needs(profile, seed: int, trained: str) -> list[Need]:
    kind, _ = parse(profile, trained)
    return [Need("splits"), Need("judge_threshold"), Need("base_answers", artifact=True),
            Need("base_attribution", {"seed": seed}, artifact=True), Need("attribution", {"seed": seed}),
            *([] if kind == "full" else [Need("budget", {"seed": seed, "trained": "full"})])]


@step(version=1, reads=("model", "data", "alignment", "calibration", "classification", "evaluation", "freezing",
                        "budget"), minutes=15, needs=_needs)
def budget(context: Context, seed: int, trained: str) -> Result:
    """One row of Table 4: the base model, aligned by training only a part of it (`BUDGETS`, or ``RU 5 %``).

    ``full`` sets the loss to be reached. The rate is the profile's for ``full`` and for its share of units; a share of
    1/n of that takes n times the rate, as Adam's steps lower the loss by about rate x |gradient|_1. Tables (with
    ``at``: start, of ``full`` only, equal loss, end): answers, prefilled (answers after so many tokens of a
    fulfilment), choice. Array ``labels``: codes of `LABELS` of the aligned model's units, on the texts of
    `base_attribution`.
    """
    from ...attribution import linear_weights
    from ...finetuning import finetune

    options, how = context.profile.alignment, context.profile.budget
    kind, share = parse(context.profile, trained)
    scored = context.get("base_attribution", seed=seed)
    scu, ucu, _ = context.profile.freezing.shares
    base = classify_scores(scored, context.profile.classification.scale, scu=scu, ucu=ucu, ru=share)
    mask = trained_units(base, kind, paper_kinds(context.profile, context.get("attribution", seed=seed)).mask("SCU"),
                         seed)
    chat, part, rate = load_base(context, "float32"), {}, how.lr
    if kind == "LoRA":
        a_rank = sum(sum(weight.shape) for weight in linear_weights(chat.model).values())
        part["adapter"], rate = lora(round(base.index.weights_in(mask) / a_rank)), how.lora_lr
    elif kind == "full slower":
        rate = how.lr * how.share
    elif kind != "full":
        part["trainable"], rate = mask, how.lr * how.share / float(mask.mean())
    target = None if kind == "full" else context.get("budget", seed=seed, trained="full").values["probe_loss"]
    examples = alignment_examples(context, "aligned", seed)
    epochs = how.epochs if kind == "full" else how.epochs * how.longer
    pairs = json.loads((context.artifact("base_attribution", seed=seed) / "texts.json").read_text())
    observer = AlignmentMeasures(context, load_base(context), pairs, adapter=part.get("adapter"), epochs=epochs,
                                 target=target)
    done = finetune(chat, examples, **part, epochs=epochs, lr=rate, batch_size=options.batch_size,
                    seed=seed, system=options.system,
                    probe=examples[::len(examples) // how.probe][:how.probe], probe_every=how.probe_every,
                    callbacks=[observer], autocast=context.profile.model.dtype == "bfloat16",
                    progress=f"aligning {trained}, seed {seed}")
    keep_answers(context, observer.texts)
    nothing = np.zeros(0, np.int32)
    return Result({"share": float(mask.mean()) if "trainable" in part else float("nan"), "index": base.index.to_dict(),
                   "lr": rate, "moved_bytes": done.bytes["parameters"], **observer.values,
                   "probe_loss": float(done.checkpoints["probe_loss"].iloc[-1])},
                  {"checkpoints": done.checkpoints, **observer.tables(),
                   "history": done.history[["step", "epoch", "loss", "tokens"]]},
                  {"labels": observer.labels, "trained": np.flatnonzero(mask).astype(np.int32)
                   if "trainable" in part else nothing})


class AlignmentMeasures(Observer):
    """What alignment bought (answers, also after a prefill) and what it cost (text, KL from the base, choice)."""

    def __init__(self, context: Context, copy, pairs: dict, **options):
        self.context, self.pairs, self.base = context, pairs, load_base(context)
        self.judge_model = self.base
        evaluation = context.profile.evaluation
        own = evaluation_requests(context, evaluation.harmful)
        other = split_prompts(context, "harmful", "evaluate").query(
            "source in @context.profile.data.evaluate_only").iloc[:evaluation.harmful]
        self.own = own
        self.requests = pd.concat([own, other, borderline_requests(context)],
                                  ignore_index=True)[["id", "source", "text"]]
        super().__init__(copy, own["text"].tolist()[:context.profile.budget.watched], points={}, stops=True, **options)

    def measure(self, row: dict, whole: bool, final: bool) -> tuple[dict, dict[str, pd.DataFrame]]:
        """Facts and tables (see `Observer`); where runs are compared, the labels of the units too."""
        from ...evaluation import divergence

        context, options = self.context, self.context.profile.evaluation
        tables = {"answers": self.answered(self.requests, options.systems[:1]), "prefilled": self.prefilled(),
                  "choice": measure_choice(context, self.copy)}
        wiki, losses = measure_text(context, self.copy)
        benign = benign_prompts(context)
        tails = reference_tails(self.copy, benign, options.benign_tokens)
        if final:
            scored = score_units(self.copy, self.pairs, context.profile.calibration.system)
            self.labels = pd.Categorical(paper_kinds(context.profile, scored).labels, LABELS).codes
        return {"wiki_perplexity": wiki,
                "benign_perplexity": answer_perplexity(losses),
                "divergence": float(divergence(self.copy, self.base, benign["text"].tolist(), tails).mean())}, tables

    def prefilled(self) -> pd.DataFrame:
        """Answers after the first tokens of a fulfilment (a wording a prompt, in turn): id, length, label, keyword."""
        from ...evaluation import generate, response_nll
        from ...probing import token_lists

        options, threshold = self.context.profile, self.context.get("judge_threshold").values["threshold"]
        asked, rows = self.own.iloc[:options.budget.prefilled], []
        questions, wordings = asked["text"].tolist(), token_lists(self.copy, words.data_file("prefills")["text"])
        for length in options.budget.prefills:
            openings = [wordings[i % len(wordings)][:length] for i in range(len(questions))]
            answers = generate(self.copy, questions, prefill=openings, max_new_tokens=options.evaluation.answer_tokens,
                               system=options.evaluation.systems[0], progress=f"answers, {length} tokens prefilled")
            nll = response_nll(self.judge_model, questions, answers.tokens, prefill=openings,
                               system=options.evaluation.systems[0])
            labels = judging.judge(asked["text"], answers.texts, np.nan_to_num(nll), threshold)
            rows.append(pd.DataFrame({"id": asked["id"], "length": length, "label": labels.astype(str),
                                      "keyword": [judging.matches_keyword(text) for text in answers.texts]}))
        return pd.concat(rows, ignore_index=True)
