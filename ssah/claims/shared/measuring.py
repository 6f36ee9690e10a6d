"""What several claims measure in the same way: answers with their four labels, utility, a seed's kinds of units."""

import json

import numpy as np
import pandas as pd

from ... import judging
from ...classification import Units, classify
from ...inputs import prompts
from ...lab import Context, Result
from ...units import UnitIndex
from .foundation import scoring_batches, split_prompts


def classify_scores(scored: Result, scale: str, **chosen: float) -> Units:
    """Labels from the stored scores of an `attribution` result; `chosen`: the shares scu, ucu, ru."""
    index = UnitIndex.from_dict(scored.values["index"])
    return classify(scored.arrays["safety"], scored.arrays["utility"], index=index, scale=scale, **chosen)


def classified(lab, seed: int) -> Units:
    """The four kinds of a seed's aligned model, from stored scores and stored shares (`lab`: a Lab or a Context)."""
    profile = lab.profile
    return classify_scores(lab.get("attribution", seed=seed), profile.classification.scale, **lab.get("shares").values)


def paper_kinds(profile, scored: Result, scale: str | None = None) -> Units:
    """The four kinds at the shares of the paper's Llama-2, as all experiments with fine-tuning take them."""
    scu, ucu, ru = profile.freezing.shares
    return classify_scores(scored, scale or profile.classification.scale, scu=scu, ucu=ucu, ru=ru)


def score_units(chat, pairs: dict[str, list[tuple[str, list[int]]]], system: str) -> Result:
    """I_S and I_U of every unit, float32 (len(index),); `pairs`: (prompt, answer tokens), ``harmful``, ``benign``."""
    from ...attribution import importance

    arrays = {name: importance(chat.model, scoring_batches(chat, pairs[kind], system, "predicting")).astype(np.float32)
              for name, kind in (("safety", "harmful"), ("utility", "benign"))}
    return Result({"index": UnitIndex.of(chat.model).to_dict(), "examples": {k: len(v) for k, v in pairs.items()}},
                  arrays=arrays)


def reference_tails(chat, benign: pd.DataFrame, n_tokens: int) -> list[list[int]]:
    """The first `n_tokens` tokens of each prompt's reference answer."""
    return [chat.tokenizer(r, add_special_tokens=False)["input_ids"][:n_tokens] for r in benign["response"]]


def reference_nll(chat, benign: pd.DataFrame, n_tokens: int) -> pd.DataFrame:
    """Mean NLL (nats a token) of the first `n_tokens` of each prompt's reference answer: columns id, nll, tokens."""
    from ...evaluation import response_nll

    tails = reference_tails(chat, benign, n_tokens)
    return pd.DataFrame({"id": benign["id"], "nll": response_nll(chat, benign["text"].tolist(), tails),
                         "tokens": [len(t) for t in tails]})


def answer_perplexity(losses: pd.DataFrame) -> float:
    """Perplexity of all answers' tokens together, from a table of `reference_nll`."""
    return float(np.exp(np.average(losses["nll"], weights=losses["tokens"])))


def benign_prompts(context: Context) -> pd.DataFrame:
    """The benign prompts of `evaluate` that are measured, with their reference answers."""
    return split_prompts(context, "benign", "evaluate").iloc[:context.profile.evaluation.benign]


def borderline_requests(context: Context) -> pd.DataFrame:
    """Safe requests that look dangerous: every other one, so that all categories stay."""
    return prompts.load_prompts(context.profile.evaluation.borderline).assign(source="borderline").iloc[::2]


def measure_answers(context: Context, chat, judge_model, requests: pd.DataFrame, systems) -> tuple[pd.DataFrame, dict]:
    """Answer `requests` (id, source, text) under each system mode and label the answers.

    Returns one row a prompt and mode (source, id, system, label, keyword, log_odds, nll, hash; keyword: a refusal
    keyword matches), and the texts by hash (for the private cache only). Log-odds are taken in the first mode only.
    """
    from ...evaluation import generate, refusal_log_odds, response_nll

    rows, texts = [], {}
    for system in systems:
        answers = generate(chat, requests["text"].tolist(), system=system,
                           max_new_tokens=context.profile.evaluation.answer_tokens,
                           progress=f"answers, system {system}")
        nll = np.nan_to_num(response_nll(judge_model, requests["text"].tolist(), answers.tokens, system=system))
        labels = judging.judge(requests["text"], answers.texts, nll, context.get("judge_threshold").values["threshold"])
        odds = refusal_log_odds(chat, requests["text"].tolist(), system=system) if system == systems[0] else np.nan
        hashes = [prompts.text_hash(f"{i} {system} {t}") for i, t in zip(requests["id"], answers.texts)]
        texts |= dict(zip(hashes, answers.texts))
        rows.append(pd.DataFrame({
            "source": requests["source"], "id": requests["id"], "system": system, "label": labels.astype(str),
            "keyword": [judging.matches_keyword(t) for t in answers.texts], "log_odds": odds, "nll": nll,
            "hash": hashes}))
    return pd.concat(rows, ignore_index=True), texts


def measure_utility(context: Context, chat) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """Wikipedia perplexity, NLL of benign reference answers (a row each), and multiple choice (a row a question)."""
    wiki, answers = measure_text(context, chat)
    return {"wiki_perplexity": wiki}, answers, measure_choice(context, chat)


def measure_text(context: Context, chat) -> tuple[float, pd.DataFrame]:
    """Wikipedia perplexity, and the NLL of benign reference answers (a row each)."""
    from ...evaluation import perplexity

    options = context.profile.evaluation
    answers = reference_nll(chat, benign_prompts(context), options.benign_tokens)
    wiki = perplexity(chat, prompts.load_prompts(options.wiki)["text"].tolist(), n_tokens=options.wiki_tokens)
    return wiki, answers


def measure_choice(context: Context, chat) -> pd.DataFrame:
    """Multiple choice on all tasks, a row a question."""
    from ...evaluation import multiple_choice

    options = context.profile.evaluation
    return pd.concat([multiple_choice(chat, prompts.load_questions(task, options.questions)).assign(task=task)
                      for task in options.tasks], ignore_index=True)


def evaluation_requests(context: Context, n: int) -> pd.DataFrame:
    """The first `n` harmful prompts of `evaluate`, from the sources that the other splits draw on too."""
    table = split_prompts(context, "harmful", "evaluate")
    return table[~table["source"].isin(context.profile.data.evaluate_only)].iloc[:n].reset_index(drop=True)


def keep_answers(context: Context, texts: dict) -> None:
    """Completions stay in the private cache folder: they are labelled and counted, not stored."""
    (context.folder / "answers.json").write_text(json.dumps(texts))
