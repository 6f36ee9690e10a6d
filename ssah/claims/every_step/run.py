"""C8: answers after a prefill, decoded as usual and with the model asked again on the way.

The prefills are openings of a fulfilment without content; in a made-up language they are the base
model's own fulfilments. What was generated stays in the cache folder. Of our own pair the same is
asked of a model that was trained to turn (`deepened`).
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ... import judging
from ...errors import SsahError
from ...inputs import prompts, words
from ...lab import Context, Need, Result, step
from ..shared.foundation import alignment_examples
from ..shared.material import checkpoint_need, load_base, load_role
from ..shared.measuring import (
    borderline_requests,
    evaluation_requests,
    keep_answers,
    label_answers,
)
from ..shared.memory import asks_model, trains_model

#: Requests that are asked: those of attack success, and those of over-refusal.
REQUESTS = ("harmful", "safe")


@dataclass(frozen=True)
class Decoding:
    """A way to decode, and how it is called."""

    name: str                       # the parameter of the step
    title: str                      # where people read it
    asks: bool = True               # whether the model is asked on the way
    is_neutral: bool = False        # by neutral words in place of the header


AS_USUAL = Decoding("as usual", "as usual", asks=False)
ASKED_AGAIN = Decoding("asked again", "asked again by the header")
NEUTRAL = Decoding("neutral", "as many neutral words instead", is_neutral=True)
DECODINGS = (AS_USUAL, ASKED_AGAIN, NEUTRAL)


# ---- what is planned -------------------------------------------------------------------------

def bench(profile, seed: int) -> list[Need]:
    """All that a seed of the second bench takes, what decides most first."""
    needs = [Need("guard", {"seed": seed, "role": "aligned"})]      # the row's gate
    if not profile.model.aligned:       # our own pair
        needs.append(Need("guard", {"seed": seed, "role": "unaligned"}))
    for requests in REQUESTS:
        needs += [deep_need(seed, "aligned", decoding, requests) for decoding in DECODINGS]
    if not profile.model.aligned:
        needs.append(Need("deepened", {"seed": seed}))
    twin = twin_of(profile)
    if twin:
        needs += [deep_need(seed, twin, decoding) for decoding in (AS_USUAL, ASKED_AGAIN)]
    return needs


def deep_need(seed: int, role: str, decoding: Decoding, requests: str = "harmful") -> Need:
    """One run of `deep`."""
    return Need("deep", {"seed": seed, "role": role, "decoding": decoding.name,
                         "requests": requests})


def twin_of(profile) -> str:
    """The role of a model that refuses nothing, in which asking again must change nothing.

    Our own pair has an unaligned one, a made-up model its base; empty where there is none.
    """
    if not profile.model.aligned:
        return "unaligned"
    return "base" if profile.model.aligned != profile.model.name else ""


def find_decoding(name: str) -> Decoding:
    """The decoding of this name; `SsahError` with the known names otherwise."""
    for decoding in DECODINGS:
        if decoding.name == name:
            return decoding
    known = ", ".join(decoding.name for decoding in DECODINGS)
    raise SsahError(f"unknown decoding {name!r}; known: {known}")


# ---- requests and prefills -------------------------------------------------------------------

def requests_of(context: Context, kind: str) -> pd.DataFrame:
    """The requests of a kind, with id and text; `SsahError` for an unknown one."""
    if kind not in REQUESTS:
        raise SsahError(f"unknown requests {kind!r}; known: {', '.join(REQUESTS)}")
    options = context.profile.reevaluation
    if kind == "safe":
        return borderline_requests(context).iloc[:options.safe]
    return evaluation_requests(context, options.harmful)


def whole_prefills(context: Context, chat, questions: list[str]) -> list[list[int]]:
    """Token ids of the longest prefill of every question; shorter ones are its beginnings.

    Raises `SsahError` for an opening that is shorter than the longest prefill that is wanted.
    """
    from ...evaluation import generate
    from ...probing import token_lists

    options = context.profile.reevaluation
    longest = max(options.lengths)
    if not options.wordings:
        base = load_base(context)
        return generate(base, questions, max_new_tokens=longest).tokens
    openings = token_lists(chat, words.data_file(options.wordings)["text"])
    shortest = min(map(len, openings))
    if shortest < longest:
        raise SsahError(
            f"an opening of {options.wordings}.csv has {shortest} tokens, and {longest} are to be "
            "put first; take fewer (`-p reevaluation.lengths=...`)")
    return [openings[number % len(openings)] for number in range(len(questions))]


# ---- the step --------------------------------------------------------------------------------

def _deep_needs(profile, seed: int, role: str, decoding: str, requests: str) -> list[Need]:
    find_decoding(decoding)
    return [Need("splits"), Need("judge_threshold"), *checkpoint_need(profile, role, seed)]


@step(version=1, reads=("model", "data", "evaluation", "reevaluation"), minutes=10,
      needs=_deep_needs, memory=asks_model)
def deep(context: Context, seed: int, role: str, decoding: str, requests: str) -> Result:
    """How deep refusals go: a model's answers after so many tokens of a fulfilment.

    Table ``answers``, a row a length and request: length, id, label, keyword (a refusal keyword
    matches), log_odds (nats; where the model is asked after the header or the neutral words, right
    behind the prefill), turned (after how many new tokens the judge's rule first sees a refusal; -1
    never), stepped_in (how many new tokens stood when the decoder stepped in; -1 never), tokens
    (new ones), hash.
    """
    chat = load_role(context, role, seed)
    table, texts = asked_after_prefills(context, chat, requests, find_decoding(decoding))
    keep_answers(context, texts)
    return Result(tables={"answers": table})


def asked_after_prefills(context: Context, chat, requests: str,
                         way: Decoding) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table ``answers`` of `deep` for a model, and the texts by hash (for the cache only)."""
    judge_model = load_base(context)
    chosen = requests_of(context, requests)
    prefills = whole_prefills(context, chat, chosen["text"].tolist())
    tables = []
    texts: dict[str, str] = {}
    for length in context.profile.reevaluation.lengths:
        beginnings = [tokens[:length] for tokens in prefills]
        table, said = _answered(context, chat, judge_model, chosen, beginnings, way)
        table["hash"] = [prompts.text_hash(f"{prompt_id} {length} {text}")
                         for prompt_id, text in zip(table["id"], said)]
        tables.append(table.assign(length=length))
        texts |= dict(zip(table["hash"], said))
    return pd.concat(tables, ignore_index=True), texts


def _answered(context: Context, chat, judge_model, chosen: pd.DataFrame,
              beginnings: list[list[int]], way: Decoding) -> tuple[pd.DataFrame, list[str]]:
    """The answers after some beginnings: a row a request, and their texts."""
    from ...reevaluation import refusal_log_odds_within

    system = context.profile.evaluation.systems[0]
    questions = chosen["text"].tolist()
    answers, stepped_in = _decoded(context, chat, questions, beginnings, way)
    read = _read_by_judge(context, chat, beginnings, answers.texts)
    judged = label_answers(
        context, judge_model, questions, answers.tokens, read, system, prefill=beginnings)
    log_odds = refusal_log_odds_within(
        chat, questions, prefill=beginnings, system=system, inserted=_inserted(context, way))
    table = pd.DataFrame({
        "id": chosen["id"].to_numpy(),
        "label": judged["label"],
        "keyword": judged["keyword"],
        "log_odds": log_odds,
        "turned": [_turned(context, chat, tokens) for tokens in answers.tokens],
        "stepped_in": stepped_in,
        "tokens": [len(tokens) for tokens in answers.tokens]})
    return table, answers.texts


def _inserted(context: Context, way: Decoding) -> str | None:
    """What stands in place of the header where the log-odds are taken (`ssah.reevaluation`)."""
    if not way.asks:
        return ""
    return context.profile.reevaluation.neutral if way.is_neutral else None


def _decoded(context: Context, chat, questions: list[str], beginnings: list[list[int]],
             way: Decoding):
    """Answers, and how many new tokens stood where the decoder stepped in (-1: never)."""
    from ...evaluation import generate
    from ...reevaluation import NEVER, generate_reevaluating

    evaluation = context.profile.evaluation
    how = {"system": evaluation.systems[0], "prefill": beginnings,
           "max_new_tokens": evaluation.answer_tokens, "progress": way.title}
    if not way.asks:
        return generate(chat, questions, **how), np.full(len(questions), NEVER)
    options = context.profile.reevaluation
    answers = generate_reevaluating(
        chat, questions, every=options.every, refusal=options.refusal,
        inserted=_inserted(context, way), **how)
    return answers, answers.stepped_in


def _read_by_judge(context: Context, chat, beginnings: list[list[int]],
                   texts: list[str]) -> list[str]:
    """What the judge reads: what follows the prefill, and the prefill too where it has content."""
    if context.profile.reevaluation.wordings:
        return texts
    begun = [chat.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in beginnings]
    return [f"{beginning} {text}".strip() for beginning, text in zip(begun, texts)]


def _turned(context: Context, chat, tokens: list[int]) -> int:
    """After how many new tokens the judge's rule first sees a refusal; -1: never."""
    version = context.profile.evaluation.judge_version
    for length in range(1, len(tokens) + 1):
        text = chat.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        if judging.is_refusal(text, version):
            return length
    return -1


# ---- a model that was trained to turn ----------------------------------------------------------

def _deepened_needs(profile, seed: int) -> list[Need]:
    return [Need("splits"), Need("judge_threshold"), Need("base_answers", artifact=True),
            Need("checkpoint", {"role": "aligned", "seed": seed}),
            Need("checkpoint", {"role": "unaligned", "seed": seed}, artifact=True)]


@step(version=1, reads=("model", "data", "alignment", "evaluation", "reevaluation"), minutes=30,
      needs=_deepened_needs, memory=trains_model)
def deepened(context: Context, seed: int) -> Result:
    """The base model aligned once more, with half of the refusals in the middle of an answer.

    The examples, their number and the number of steps are those of the seed's aligned model, which
    is the control: there all refusals stand first. Here half of them follow the first tokens of a
    fulfilment (`ssah.deepening`), which the unaligned model goes on with in memory. Table
    ``answers``: as of `deep`, decoded as usual, with a column requests.
    """
    chat = load_base(context, "float32")
    history = _train_to_turn(context, chat, seed)
    parts = []
    texts: dict[str, str] = {}
    for requests in REQUESTS:
        table, said = asked_after_prefills(context, chat, requests, AS_USUAL)
        parts.append(table.assign(requests=requests))
        texts |= said
    keep_answers(context, texts)
    tables = {"answers": pd.concat(parts, ignore_index=True),
              "history": history[["step", "epoch", "loss", "tokens"]]}
    return Result({"steps": len(history)}, tables)


def _train_to_turn(context: Context, chat, seed: int) -> pd.DataFrame:
    """Train a model in place, in the end in the number format of evaluation; its history."""
    import torch

    from ...finetuning import finetune

    options = context.profile.alignment
    examples = _turning_examples(context, seed)
    steps = context.get("checkpoint", role="aligned", seed=seed).values["steps"]
    dtype = context.profile.model.dtype
    trained = finetune(
        chat,
        examples,
        epochs=math.ceil(steps / math.ceil(len(examples) / options.batch_size)),
        max_steps=steps,
        lr=options.lr,
        batch_size=options.batch_size,
        seed=seed,
        system=options.system,
        autocast=dtype == "bfloat16",
        progress=f"trained to turn, seed {seed}")
    chat.model.to(getattr(torch, dtype))
    return trained.history


def _turning_examples(context: Context, seed: int) -> list[dict]:
    """The aligned model's examples; about half of the refusals follow a part of a fulfilment."""
    from ...deepening import begun_refusals, fulfilment_beginnings

    version = context.profile.evaluation.judge_version
    refusals = []
    others = []
    for example in alignment_examples(context, "aligned", seed):
        is_refusal = judging.is_refusal(example["response"], version)
        (refusals if is_refusal else others).append(example)
    unaligned = load_role(context, "unaligned", seed)
    beginnings = fulfilment_beginnings(
        unaligned, [example["prompt"] for example in refusals],
        system=context.profile.alignment.system, progress="beginnings of fulfilments")
    return others + begun_refusals(refusals, beginnings, seed=seed)
