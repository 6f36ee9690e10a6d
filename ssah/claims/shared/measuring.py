"""What several claims measure alike: answers with four labels, utility, a seed's kinds of units."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ... import judging
from ...classification import Units, classify
from ...inputs import prompts
from ...lab import Context, Need, Result
from ...units import UnitIndex
from .foundation import SCORED_SETS, Pair, sorted_batches
from .material import split_prompts

#: Answers that the second bench generates at a time: half as long again takes a batch of 50.
LARGE_BATCH = 100

# ---- kinds of units --------------------------------------------------------------------------


def classify_scores(scored: Result, scale: str, **chosen: float) -> Units:
    """Labels from the stored scores of an `attribution` result.

    `chosen`: the shares scu, ucu, ru of all units.
    """
    index = UnitIndex.from_dict(scored.values["index"])
    return classify(
        scored.arrays["safety"],
        scored.arrays["utility"],
        index=index,
        scale=scale,
        **chosen,
    )


def classified(lab, seed: int) -> Units:
    """The four kinds of a seed's aligned model, at the shares of the ratio scan.

    From stored scores; `lab`: a Lab or a Context.
    """
    scored = lab.get("attribution", seed=seed)
    shares = lab.get("shares").values
    return classify_scores(scored, lab.profile.classification.scale, **shares)


def stored_scores(context: Context, seed: int, part: str = "all") -> Result:
    """The result of `unit_scores` with its arrays, from the cache folder."""
    counts = context.get("unit_scores", seed=seed, part=part).values
    folder: Path = context.artifact("unit_scores", seed=seed, part=part)
    with np.load(folder / "scores.npz", allow_pickle=False) as loaded:
        return Result(counts, arrays=dict(loaded))


def scores_need(profile, seed: int) -> Need:
    """Where a seed's scores come from: `attribution`, or the bank of texts (second bench)."""
    if profile.classification.bank:
        return Need("unit_scores", {"seed": seed, "part": "all"}, artifact=True)
    return Need("attribution", {"seed": seed})


def seed_scores(context: Context, seed: int) -> Result:
    """The scores that `scores_need` names, with their arrays."""
    if context.profile.classification.bank:
        return stored_scores(context, seed)
    return context.get("attribution", seed=seed)


def paper_kinds(profile, scored: Result, scale: str | None = None) -> Units:
    """The four kinds at the shares of the paper's Llama-2.

    All experiments with fine-tuning take them.
    """
    scu, ucu, ru = profile.freezing.shares
    scale = scale or profile.classification.scale
    return classify_scores(scored, scale, scu=scu, ucu=ucu, ru=ru)


def score_units(chat, pairs: dict[str, list[Pair]], system: str) -> Result:
    """I_S and I_U of every unit, float32 (len(index),).

    `pairs`: (prompt, answer) of the kinds ``harmful`` and ``benign``.
    """
    from ...attribution import importance

    arrays = {}
    for name, kind in SCORED_SETS.items():
        batches = sorted_batches(chat, pairs[kind], system)
        scores = importance(chat.model, batches, progress=f"scoring for {name}")
        arrays[name] = scores.astype(np.float32)
    examples = {kind: len(pairs[kind]) for kind in pairs}
    return Result(
        {"index": UnitIndex.of(chat.model).to_dict(), "examples": examples},
        arrays=arrays,
    )


# ---- which prompts ---------------------------------------------------------------------------


def benign_prompts(context: Context) -> pd.DataFrame:
    """The benign prompts of `evaluate` that are measured, with their reference answers."""
    return split_prompts(context, "benign", "evaluate").iloc[
        : context.profile.evaluation.benign
    ]


def borderline_requests(context: Context) -> pd.DataFrame:
    """Safe requests that look dangerous: every other one, so that all categories stay."""
    requests = prompts.load_prompts(context.profile.evaluation.borderline)
    return requests.assign(source="borderline").iloc[::2]


def evaluation_requests(context: Context, n: int) -> pd.DataFrame:
    """The first `n` harmful prompts of `evaluate`, of sources that other splits have too."""
    table = split_prompts(context, "harmful", "evaluate")
    is_unseen = table["source"].isin(context.profile.data.evaluate_only)
    return table[~is_unseen].iloc[:n].reset_index(drop=True)


# ---- benign answers --------------------------------------------------------------------------


def reference_tails(chat, benign: pd.DataFrame, n_tokens: int) -> list[list[int]]:
    """The first `n_tokens` tokens of each prompt's reference answer."""
    from ...evaluation import response_tokens

    whole = response_tokens(chat, benign["text"], benign["response"])
    return [tokens[:n_tokens] for tokens in whole]


def reference_nll(chat, benign: pd.DataFrame, n_tokens: int) -> pd.DataFrame:
    """Mean NLL (nats a token) of the first `n_tokens` of each prompt's reference answer.

    Columns id, nll, tokens.
    """
    from ...evaluation import response_nll

    tails = reference_tails(chat, benign, n_tokens)
    losses = response_nll(chat, benign["text"].tolist(), tails)
    lengths = [len(tail) for tail in tails]
    return pd.DataFrame({"id": benign["id"], "nll": losses, "tokens": lengths})


def answer_perplexity(losses: pd.DataFrame) -> float:
    """Perplexity of all answers' tokens together, from a table of `reference_nll`."""
    return float(np.exp(np.average(losses["nll"], weights=losses["tokens"])))


# ---- utility ---------------------------------------------------------------------------------


def measure_utility(context: Context, chat) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """Wikipedia perplexity (a fact), benign reference answers and multiple choice (tables).

    The tables are those of `reference_nll` and `measure_choice`.
    """
    wiki_perplexity, answers = measure_text(context, chat)
    return {"wiki_perplexity": wiki_perplexity}, answers, measure_choice(context, chat)


def measure_text(context: Context, chat) -> tuple[float, pd.DataFrame]:
    """Wikipedia perplexity, and the NLL of benign reference answers (a row each)."""
    from ...evaluation import perplexity

    options = context.profile.evaluation
    answers = reference_nll(chat, benign_prompts(context), options.benign_tokens)
    articles = prompts.load_prompts(options.wiki)["text"].tolist()
    return perplexity(chat, articles, n_tokens=options.wiki_tokens), answers


def measure_choice(context: Context, chat) -> pd.DataFrame:
    """Multiple choice on all tasks, a row a question."""
    from ...evaluation import multiple_choice

    options = context.profile.evaluation
    parts = []
    for task in options.tasks:
        questions = prompts.load_questions(task, options.questions)
        parts.append(multiple_choice(chat, questions).assign(task=task))
    return pd.concat(parts, ignore_index=True)


# ---- answers with their labels ---------------------------------------------------------------


def measure_answers(
    context: Context,
    chat,
    judge_model,
    requests: pd.DataFrame,
    systems: Sequence[str],
    *,
    with_log_odds: bool = True,
    batch_size: int = 50,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Answer `requests` (id, source, text) under each system mode and label the answers.

    Returns one row a prompt and mode (source, id, system, label, keyword, log_odds, nll, hash;
    keyword: a refusal keyword matches), and the texts by hash (for the private cache only).
    Log-odds are taken in the first mode, if at all. `batch_size`: answers generated at a time.
    """
    parts = []
    texts: dict[str, str] = {}
    for system in systems:
        table, answers = _labelled_answers(
            context, chat, judge_model, requests, system, batch_size
        )
        log_odds = np.nan
        if with_log_odds and system == systems[0]:
            log_odds = _log_odds(chat, requests, system)
        table.insert(table.columns.get_loc("nll"), "log_odds", log_odds)
        texts |= dict(zip(table["hash"], answers))
        parts.append(table)
    return pd.concat(parts, ignore_index=True), texts


def _labelled_answers(
    context: Context, chat, judge_model, requests: pd.DataFrame, system: str, batch_size: int
) -> tuple[pd.DataFrame, list[str]]:
    """The answers under one system mode: their labels (a row a prompt), and their texts."""
    from ...evaluation import generate

    options = context.profile.evaluation
    questions = requests["text"].tolist()
    answers = generate(
        chat,
        questions,
        system=system,
        max_new_tokens=options.answer_tokens,
        batch_size=batch_size,
        progress=f"answers, system {system}",
    )
    labels = label_answers(context, judge_model, questions, answers.tokens, answers.texts, system)
    hashes = [
        prompts.text_hash(f"{prompt_id} {system} {text}")
        for prompt_id, text in zip(requests["id"], answers.texts)
    ]
    table = pd.DataFrame(
        {
            "source": requests["source"],
            "id": requests["id"],
            "system": system,
            **labels,
            "hash": hashes,
        }
    )
    return table, answers.texts


def label_answers(
    context: Context,
    judge_model,
    questions: list[str],
    tokens: list[list[int]],
    texts: list[str],
    system: str,
    prefill: list[list[int]] | None = None,
) -> dict[str, Sequence]:
    """What the judge says of answers: columns label, keyword and nll (nats a token).

    `tokens`: of each answer; `texts`: what is read of it. keyword: a refusal keyword matches.
    """
    from ...evaluation import response_nll

    options = context.profile.evaluation
    losses = response_nll(judge_model, questions, tokens, system=system, prefill=prefill)
    losses = np.nan_to_num(losses)  # of an empty answer there is none
    # told by repetition alone, no answer is too unlikely
    unlikely = losses if options.babble_by_nll else np.full(len(losses), -np.inf)
    threshold = context.get("judge_threshold").values["threshold"]
    labels = judging.judge(questions, texts, unlikely, threshold, options.judge_version)
    normalized = options.judge_version > 1
    keywords = [judging.matches_keyword(text, normalized) for text in texts]
    return {"label": labels.astype(str), "keyword": keywords, "nll": losses}


def _log_odds(chat, requests: pd.DataFrame, system: str) -> np.ndarray:
    """Of a refusal opening against a fulfilment opening, a prompt; nats."""
    from ...evaluation import refusal_log_odds

    return refusal_log_odds(chat, requests["text"].tolist(), system=system)


def keep_answers(context: Context, texts: dict) -> None:
    """Completions stay in the private cache folder: they are labelled and counted, not stored."""
    (context.folder / "answers.json").write_text(json.dumps(texts))
