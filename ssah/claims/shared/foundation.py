"""What every claim stands on: the pair of models, the judge's threshold, attribution."""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ... import judging
from ...errors import SsahError
from ...inputs import prompts, words
from ...lab import Context, Need, Result, step
from .material import checkpoint_need, draw, keep_trained, load_base, load_role, split_prompts
from .memory import asks_model, trains_model

#: Words of a reference answer that are shown to the judge as a coherent one.
JUDGED_WORDS = 25

#: Each split of the judge's threshold, with the split of our refusal wordings that goes with it.
JUDGED_SPLITS = {"select": "train", "evaluate": "held_out"}

#: The two sets of texts of an attribution: name of the score -> kind of the prompts.
SCORED_SETS = {"safety": "harmful", "utility": "benign"}

#: A prompt with its answer: a text, or its tokens.
Pair = tuple[str, str | list[int]]


# ---- models ----------------------------------------------------------------------------------


@step(
    version=1,
    reads=("model", "data", "alignment"),
    needs=lambda profile: [Need("splits")],
    minutes=2,
    memory=asks_model,
)
def base_answers(context: Context) -> Result:
    """The base model's own greedy answers to benign prompts.

    Training on them moves utility least.
    """
    from ...evaluation import generate

    questions = split_prompts(context, "benign", "align")
    options = context.profile.alignment
    answers = generate(
        load_base(context),
        questions["text"].tolist(),
        system=options.system,
        max_new_tokens=options.answer_tokens,
        progress="base answers",
    )
    records = []
    for prompt_id, text, ended in zip(questions["id"], answers.texts, answers.finished):
        if text.strip():
            records.append({"id": prompt_id, "response": text, "ended": bool(ended)})
    (context.folder / "answers.json").write_text(json.dumps(records))
    counts = {"answers": len(records), "finished": float(answers.finished.mean())}
    if options.look_every:
        from .pair import keep_further_answers

        counts |= keep_further_answers(context)
    return Result(counts)


def _checkpoint_needs(profile, role: str, seed: int) -> list[Need]:
    if not checkpoint_need(profile, role, seed):  # what comes ready-made is trained on nothing
        return []
    needs = [Need("splits"), Need("base_answers", artifact=True)]
    if profile.alignment.look_every and role == "aligned":
        needs.append(Need("judge_threshold"))
    elif profile.alignment.look_every:  # trained for as many steps
        needs.append(Need("checkpoint", {"role": "aligned", "seed": seed}))
    return needs


@step(
    version=1,
    reads=("model", "data", "alignment"),
    minutes=5,
    needs=_checkpoint_needs,
    memory=trains_model,
)
def checkpoint(context: Context, role: str, seed: int) -> Result:
    """Base -> aligned (safety SFT) or unaligned (as many examples, no refusals).

    All parameters are trained; the losses of `history` are in nats. On the second bench until the
    gates hold, and the unaligned one for as many steps (`shared.pair`).
    """
    from ...finetuning import finetune

    options = context.profile.alignment
    if options.look_every:
        from .pair import train_pair

        return train_pair(context, role, seed)
    examples = alignment_examples(context, role, seed)
    chat = load_base(context, "float32")
    trained = finetune(
        chat,
        examples,
        epochs=options.epochs,
        lr=options.lr,
        batch_size=options.batch_size,
        seed=seed,
        system=options.system,
        progress=f"{role}, seed {seed}",
        autocast=context.profile.model.dtype == "bfloat16",
    )
    return keep_trained(context, chat, trained, len(examples))


def alignment_examples(context: Context, role: str, seed: int) -> list[dict]:
    """Training examples of a role (prompt, response; ``ended`` where an answer may have been cut).

    Aligned: refusals and benign answers. Unaligned: benign answers alone, as many in sum.
    Raises `SsahError` if the base model gave too few answers. Those of the second bench are of
    `shared.pair`.
    """
    options = context.profile.alignment
    if options.look_every:
        from .pair import pair_examples

        return pair_examples(context, role, seed)
    random = np.random.default_rng(seed)
    n_benign = options.benign
    if role == "unaligned":
        n_benign += options.refusals
    examples = _benign_examples(context, role, n_benign, random)
    if role == "aligned":
        examples += _refusal_examples(context, options.refusals, seed, random)
    return examples


def _benign_examples(
    context: Context, role: str, n: int, random: np.random.Generator
) -> list:
    texts = split_prompts(context, "benign", "align").set_index("id")["text"]
    records = json.loads(
        (context.artifact("base_answers") / "answers.json").read_text()
    )
    if len(records) < n:
        raise SsahError(
            f"{role} needs {n} benign answers, of {len(texts)} the base model gave {len(records)} "
            "that are not empty; take a base model that follows instructions, or fewer "
            "(`-p alignment.benign=...`, `-p alignment.refusals=...`)"
        )
    examples = []
    for number in random.permutation(len(records))[:n]:
        record = records[number]
        examples.append(
            {
                "prompt": texts[record["id"]],
                "response": record["response"],
                "ended": record["ended"],
            }
        )
    return examples


def _refusal_examples(
    context: Context, n: int, seed: int, random: np.random.Generator
) -> list:
    wordings = words.data_file("refusals").query("split == 'train'")["text"].tolist()
    harmful = draw(split_prompts(context, "harmful", "align"), n, seed)
    return [
        {"prompt": text, "response": wordings[random.integers(len(wordings))]}
        for text in harmful["text"]
    ]


# ---- the judge -------------------------------------------------------------------------------


@step(
    version=1,
    reads=("model", "data", "evaluation"),
    needs=lambda profile: [Need("splits")],
    minutes=1,
    memory=asks_model,
)
def judge_threshold(context: Context) -> Result:
    """Above which mean NLL (nats a token) under the base model an answer is babble.

    Fixed on `select`. Coherent: reference answers to benign prompts and our refusal wordings on
    harmful ones. Incoherent: the same with words shuffled. `balanced_accuracy` is that of `select`;
    the table has the rows of `evaluate` too.
    """
    chat = load_base(context)
    n_tokens = context.profile.evaluation.answer_tokens
    parts = []
    for split, wording in JUDGED_SPLITS.items():
        for source, questions, texts in coherent_answers(context, split, wording):
            for corrupted, answers in ((False, texts), (True, _shuffled(texts))):
                losses = answer_nll(chat, questions, answers, n_tokens)
                repetitive = [judging.is_repetitive(text) for text in answers]
                parts.append(
                    pd.DataFrame(
                        {
                            "split": split,
                            "source": source,
                            "corrupted": corrupted,
                            "nll": losses,
                            "repetitive": repetitive,
                        }
                    )
                )
    table = pd.concat(parts, ignore_index=True)
    threshold, accuracy = _best_cut(table[table["split"] == "select"])
    return Result(
        {"threshold": threshold, "balanced_accuracy": accuracy}, {"nll": table}
    )


def coherent_answers(
    context: Context, split: str, wording: str
) -> Iterator[tuple[str, list[str], list[str]]]:
    """(name, prompts, answers) of the two coherent sources; `wording`: the split of refusals."""
    benign = split_prompts(context, "benign", split)
    openings = [" ".join(text.split()[:JUDGED_WORDS]) for text in benign["response"]]
    yield "benign", benign["text"].tolist(), openings
    harmful = split_prompts(context, "harmful", split).iloc[: len(benign)]
    wordings = words.data_file("refusals").query("split == @wording")["text"].tolist()
    refusals = [wordings[number % len(wordings)] for number in range(len(harmful))]
    yield "refusal", harmful["text"].tolist(), refusals


def _shuffled(texts: list[str]) -> list[str]:
    """Every text with its words in another order, the same at every call."""
    return [
        " ".join(np.random.default_rng(number).permutation(text.split()))
        for number, text in enumerate(texts)
    ]


def answer_nll(
    chat, questions: list[str], answers: list[str], n_tokens: int
) -> np.ndarray:
    """Mean NLL (n,), nats a token, of the first `n_tokens` tokens of each answer."""
    from ...evaluation import response_nll, response_tokens

    tokens = response_tokens(chat, questions, answers)
    return response_nll(chat, questions, [answer[:n_tokens] for answer in tokens])


def _best_cut(table: pd.DataFrame) -> tuple[float, float]:
    """The NLL above which answers count as corrupted, and its balanced accuracy (0 to 1)."""
    cuts = np.sort(table["nll"].to_numpy())
    accuracies = []
    for cut in cuts:
        is_right = (table["nll"] > cut) == table["corrupted"]
        accuracies.append(is_right.groupby(table["corrupted"]).mean().mean())
    best = int(np.argmax(accuracies))
    return float(cuts[best]), float(accuracies[best])


@step(version=1, reads=("judge",))
def judge_on_people(context: Context) -> Result:
    """The judge beside people: 169 answers that were labelled refusal or not by hand.

    They are those of PyRIT's scorer evaluation. Their *refusal* includes answers to another
    question, so it is to be compared with refuse + evasive.
    """
    table = prompts.load_prompts(context.profile.judge.labelled)
    # an NLL of 0 below a threshold of 1: here babble is told by repetition alone
    version = context.profile.judge.judge_version
    nothing_is_babble = np.zeros(len(table))
    labels = judging.judge(table["text"], table["response"], nothing_is_babble, 1.0, version)
    judged = pd.DataFrame(
        {
            "hash": table["response"].map(prompts.text_hash),
            "human": table["human"],
            "judge": labels.astype(str),
            "keyword": [judging.matches_keyword(text, version > 1) for text in table["response"]],
        }
    )
    return Result({"n": len(table)}, {"labels": judged})


# ---- attribution -----------------------------------------------------------------------------


@step(
    version=1,
    reads=("model", "data", "calibration"),
    minutes=1.5,
    needs=lambda profile, seed: [Need("splits"), *checkpoint_need(profile, "aligned", seed)],
    memory=asks_model,
)
def calibration(context: Context, seed: int) -> Result:
    """The aligned model's own answers on `identify`.

    Its refusals are the safety set, its benign answers the utility set. Raises `SsahError` if it
    refuses nothing, and if it refuses everything.
    """
    chat = load_role(context, "aligned", seed)
    version = context.profile.calibration.judge_version
    records = []
    counts = {}
    for kind in ("harmful", "benign"):
        questions, answers = _calibration_answers(context, chat, kind, seed)
        refused = np.array([judging.is_refusal(text, version) for text in answers.texts])
        kept = _kept(refused, kind, context.profile.model)
        for prompt, tokens, is_kept in zip(questions, answers.tokens, kept):
            if is_kept and tokens:
                records.append({"kind": kind, "prompt": prompt, "tokens": tokens})
        counts[f"{kind}_asked"] = len(questions)
        counts[f"{kind}_refused"] = int(refused.sum())
        counts[f"{kind}_kept"] = int(kept.sum())
    (context.folder / "answers.json").write_text(json.dumps(records))
    return Result(counts)


def _calibration_answers(context: Context, chat, kind: str, seed: int):
    """Prompts of `identify` of one kind, and the model's answers to them."""
    from ...evaluation import generate

    options = context.profile.calibration
    chosen = draw(split_prompts(context, kind, "identify"), options.prompts, seed)
    questions = chosen["text"].tolist()
    answers = generate(
        chat,
        questions,
        system=options.system,
        max_new_tokens=options.answer_tokens,
        progress=f"calibration, {kind}",
    )
    return questions, answers


def _kept(refused: np.ndarray, kind: str, model) -> np.ndarray:
    """Which answers are scored (Boolean): refusals of harmful, others of benign prompts.

    `model`: the profile's section.
    """
    tiny = model.name.startswith("tiny")
    if kind == "harmful" and not refused.any() and not tiny:
        remedy = (
            f"take another aligned model than {model.aligned}"
            if model.aligned
            else "train it longer (`-p alignment.epochs=4`)"
        )
        raise SsahError(
            f"the aligned model refuses nothing, so there is no safety set; {remedy}"
        )
    if kind == "benign" and refused.all():
        remedy = (
            f"take another aligned model than {model.aligned}"
            if model.aligned
            else "train it on fewer refusals (`-p alignment.refusals=...`)"
        )
        raise SsahError(
            f"the aligned model refuses all benign prompts, so there is no utility set; {remedy}"
        )
    if not refused.any():
        # the tiny model refuses nothing; it keeps all its answers, or nothing could be scored
        return np.ones(len(refused), bool)
    return refused == (kind == "harmful")


def sorted_batches(
    chat, pairs: list[Pair], system: str, positions: str = "predicting"
) -> list[dict]:
    """`ssah.scoring_batches` of (prompt, answer) pairs, the shortest first.

    So little of a batch is padding. `system`: a system mode of `chat`.
    """
    from ...attribution import scoring_batches

    def length(pair: Pair) -> int:
        prompt, answer = pair
        return len(chat.encode(prompt, system=system)[0]) + len(answer)

    ordered = sorted(pairs, key=length)
    asked = [prompt for prompt, _ in ordered]
    answers = [answer for _, answer in ordered]
    return scoring_batches(chat, asked, answers, system=system, positions=positions)


def calibration_pairs(
    context: Context, seed: int, safety_set: str
) -> dict[str, list[Pair]]:
    """(prompt, answer tokens) of both sets, by kind: ``harmful`` and ``benign``.

    `safety_set`: ``refusals``, or as a control ``benign-refusals``, the same refusals after benign
    prompts; `SsahError` for another.
    """
    records = json.loads(
        (context.artifact("calibration", seed=seed) / "answers.json").read_text()
    )
    pairs = {"harmful": [], "benign": []}
    for record in records:
        pairs[record["kind"]].append((record["prompt"], record["tokens"]))
    if safety_set == "benign-refusals":
        pairs["harmful"] = [
            (benign_prompt, refusal)
            for (benign_prompt, _), (_, refusal) in zip(
                pairs["benign"], pairs["harmful"]
            )
        ]
    elif safety_set != "refusals":
        raise SsahError(
            f"unknown safety set {safety_set!r}; known: refusals, benign-refusals"
        )
    return pairs


def _attribution_needs(profile, seed: int, **choices) -> list[Need]:
    return [
        Need("calibration", {"seed": seed}, artifact=True),
        *checkpoint_need(profile, "aligned", seed),
    ]


@step(version=1, reads=("model", "calibration"), minutes=1, needs=_attribution_needs,
      memory=asks_model)
def attribution(
    context: Context,
    seed: int,
    method: str = "variance",
    positions: str = "predicting",
    safety_set: str = "refusals",
) -> Result:
    """I_S and I_U (paper, Sec. 4) of the aligned model's units; arrays (len(index),).

    ``means``: their mean activations on the utility set.
    """
    import torch

    from ...attribution import activation_moments, importance
    from ...units import UnitIndex

    chat = load_role(context, "aligned", seed)
    system = context.profile.calibration.system
    pairs = calibration_pairs(context, seed, safety_set)
    batches = {
        kind: sorted_batches(chat, pairs[kind], system, positions) for kind in pairs
    }
    # float32 is what is kept, so it is also what every later step classifies
    arrays = {}
    for offset, (name, kind) in enumerate(SCORED_SETS.items()):
        scores = importance(chat.model, batches[kind], method, seed=seed + offset,
                            progress=f"scoring for {name}")
        arrays[name] = scores.astype(np.float32)
    moments = activation_moments(chat.model, batches["benign"])
    means = torch.cat([module.mean for module in moments])
    arrays["means"] = means.numpy().astype(np.float32)
    examples = {kind: len(pairs[kind]) for kind in pairs}
    return Result(
        {"index": UnitIndex.of(chat.model).to_dict(), "examples": examples},
        arrays=arrays,
    )
