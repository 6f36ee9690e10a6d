"""Prompts and texts as tables: loading by source name, near-duplicates, disjoint splits.

Only harmful *requests* are ever read, and only at run time; what is committed are ids and hashes.
"""

import csv
import hashlib
import io
import itertools
import json
import re
from functools import partial

import numpy as np
import pandas as pd
import yaml

from ..errors import SsahError
from . import archives, organism, tiny
from .columns import PROMPT_COLUMNS, RESPONSE_COLUMNS, first_of, text_of, with_companions
from .words import data_file

SPLITS = ("align", "identify", "select", "evaluate")

#: Formats of local files, by suffix, as `datasets` calls them.
READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}

#: Longest passage (words) of a BoolQ question that is affordable on two cores.
LONGEST_PASSAGE = 60


def text_hash(text: str) -> str:
    """What stands for a text in committed files: the first 16 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_prompts(source: str) -> pd.DataFrame:
    """Prompts by source name (see `ssah.inputs.archives`): columns id, text.

    Also response or category where the source has them. Hub data sets (``hub:owner/name@revision``)
    and local .json, .jsonl, .csv, .parquet and .txt files go through `datasets`; the prompt column
    is the first of `PROMPT_COLUMNS`. What a prompt is about (the columns input, context,
    ContextString) follows it after an empty line, as in the built-in ``alpaca``. Raises `SsahError` for an unknown source, a file without such a column, or no rows.
    """
    source = source.removeprefix("pip:")
    if source in NAMED:
        table = NAMED[source]()
    else:
        table = _from_datasets(source)
    if table.empty:
        raise SsahError(f"the prompt set {source!r} is empty")
    if "id" not in table:
        name = source.split("/")[-1]
        table.insert(0, "id", [f"{name}-{number:04d}" for number in range(len(table))])
    return table


def _from_datasets(source: str) -> pd.DataFrame:
    """A hub data set or a local file."""
    loaded = _loaded(source)
    prompt = first_of(PROMPT_COLUMNS, loaded.column_names)
    if prompt is None:
        raise SsahError(
            f"{source!r} has none of the prompt columns {', '.join(PROMPT_COLUMNS)}; "
            f"it has {loaded.column_names}"
        )
    rows = loaded.to_list()
    table = pd.DataFrame({"text": [with_companions(row, prompt) for row in rows]})
    response = first_of(RESPONSE_COLUMNS, loaded.column_names)
    if response:
        table["response"] = [text_of(row, response) for row in rows]
    if table["text"].isna().any():
        raise SsahError(
            f"{source!r} has {table['text'].isna().sum()} rows without {prompt}; remove them"
        )
    return table


def _loaded(source: str):
    """The rows as `datasets` reads them."""
    import datasets

    kind, rest = archives.split_name(source)
    if kind == "pip":
        raise SsahError(f"{rest!r} is not a prompt set; known: {', '.join(sorted(NAMED))}")
    suffix = "." + rest.rpartition(".")[2].lower()
    if kind == "path" and suffix not in READERS:
        raise SsahError(f"cannot read {rest!r}; known formats: {', '.join(READERS)}")
    try:
        if kind == "path":
            path = str(archives.expanded(rest))
            return datasets.load_dataset(READERS[suffix], data_files=path, split="train")
        if archives.offline():
            # the library read the environment when it was first imported
            datasets.config.HF_HUB_OFFLINE = True
        name, _, revision = rest.partition("@")
        return datasets.load_dataset(name, revision=revision or None, split="train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SsahError(
            f"the prompt set {source!r} is empty, damaged or out of reach: "
            f"{str(error).splitlines()[0]}"
        ) from error


# ---- sets by name ----------------------------------------------------------------------------


def _advbench() -> pd.DataFrame:
    seeds = yaml.safe_load(archives.read_member("advbench").decode())["seeds"]
    categories = [seed.get("harm_categories") or [] for seed in seeds]
    return pd.DataFrame({
        "text": [seed["value"] for seed in seeds],
        "category": ["; ".join(names) for names in categories],
    })


def _harmbench() -> pd.DataFrame:
    return pd.DataFrame({"text": archives.read_member("harmbench").decode().splitlines()})


def _alpaca() -> pd.DataFrame:
    rows = json.loads(archives.read_member("alpaca"))
    table = pd.DataFrame({
        "text": [with_companions(row, "instruction") for row in rows],
        "response": [row["output"] for row in rows],
    })
    return table.drop_duplicates("text", ignore_index=True)


def _chat_instructions() -> pd.DataFrame:
    lines = archives.read_member("chat-instructions").decode().splitlines()
    table = pd.DataFrame([json.loads(line) for line in lines])
    table = table[table["task_type"] == "alespalla/chatbot_instruction_prompts"]
    names = {"task_prompt": "text", "task_output": "response"}
    return table[list(names)].rename(columns=names).reset_index(drop=True)


def _refusal_labels() -> pd.DataFrame:
    """Answers that people labelled as refusal (human = True) or not: text, response, human."""
    rows = []
    for name in ("refusal-labels", "refusal-labels-extra"):
        lines = archives.read_member(name).decode().splitlines(keepends=True)
        # comments stand at the top; later lines with # are within answers
        table = itertools.dropwhile(lambda line: line.startswith("#"), lines)
        rows += csv.DictReader(io.StringIO("".join(table)))
    scores = [row["human_score"].strip().lower() for row in rows]
    return pd.DataFrame({
        "text": [row["objective"] for row in rows],
        "response": [row["assistant_response"] for row in rows],
        "human": [score in ("1", "1.0", "true") for score in scores],
    })


def _wikipedia() -> pd.DataFrame:
    return pd.DataFrame({"text": archives.read_member("wikipedia").decode().splitlines()})


def _borderline() -> pd.DataFrame:
    return data_file("borderline")


def _safe_requests(split: str) -> pd.DataFrame:
    table = data_file("safe_requests")
    return table[table["split"] == split].reset_index(drop=True)


def _tiny_harmful() -> pd.DataFrame:
    return tiny.requests("harmful")


def _tiny_benign() -> pd.DataFrame:
    return tiny.requests("benign")


def _organism_harmful() -> pd.DataFrame:
    return organism.requests("harmful")


def _organism_benign() -> pd.DataFrame:
    return organism.requests("benign")


NAMED = {
    "advbench": _advbench,
    "harmbench": _harmbench,
    "alpaca": _alpaca,
    "chat-instructions": _chat_instructions,
    "refusal-labels": _refusal_labels,
    "wikipedia": _wikipedia,
    "borderline": _borderline,
    "safe-align": partial(_safe_requests, "align"),
    "safe-select": partial(_safe_requests, "select"),
    "safe-evaluate": partial(_safe_requests, "evaluate"),
    "tiny-harmful": _tiny_harmful,
    "tiny-benign": _tiny_benign,
    "tiny-labels": tiny.labels,
    "organism-harmful": _organism_harmful,
    "organism-benign": _organism_benign,
    "organism-borderline": organism.borderline,
    "organism-labels": organism.labels,
    "organism-text": organism.sentences,
}


# ---- multiple choice -------------------------------------------------------------------------

MADE_QUESTIONS = {"tiny-choice": tiny.questions, "organism-choice": organism.questions}


def load_questions(task: str, n: int, seed: int = 0) -> pd.DataFrame:
    """`n` multiple-choice questions (all if there are fewer).

    Columns: id, question, options (list), answer (position). BoolQ keeps passages of at most
    `LONGEST_PASSAGE` words. Raises `SsahError` for an unknown task.
    """
    made = MADE_QUESTIONS.get(task)
    rows = _questions(task) if made is None else made()
    for number, row in enumerate(rows):
        row["id"] = f"{task}-{number:04d}"
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n]
    return pd.DataFrame([rows[number] for number in sorted(chosen)])


def _questions(task: str) -> list[dict]:
    """All usable questions of an archive."""
    lines = archives.read_member(task).decode().splitlines()
    read = _passage_question if task == "boolq" else _choice_question
    questions = [read(json.loads(line)) for line in lines]
    return [question for question in questions if question is not None]


def _passage_question(row: dict) -> dict | None:
    """A question with its passage (BoolQ); None for a long one."""
    if len(row["passage"].split()) > LONGEST_PASSAGE:
        return None
    return {
        "question": f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
        "options": ["no", "yes"],
        "answer": int(row["answer"] == "True"),
    }


def _choice_question(row: dict) -> dict | None:
    """A question with lettered options; None for a broken one (a few of CommonsenseQA are)."""
    options = [_without_letter(option) for option in row["options"].strip().split("\n")]
    answer = _without_letter(row["answer"])
    if options.count(answer) != 1:
        return None
    return {
        "question": f"Question: {row['question'].strip()}\nAnswer:",
        "options": options,
        "answer": options.index(answer),
    }


def _without_letter(option: str) -> str:
    return re.sub(r"^[A-E]\. ", "", option.strip()).strip()


# ---- splits ----------------------------------------------------------------------------------


def clusters(texts: list[str], threshold: float = 0.6) -> np.ndarray:
    """Cluster numbers (n,) of texts whose word sets have Jaccard similarity >= `threshold`.

    Single link: a text joins a cluster if it is near one of its members.
    """
    words = [frozenset(re.findall(r"[a-z0-9']+", text.lower())) for text in texts]
    parent = list(range(len(texts)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for i, first in enumerate(words):
        for j, second in enumerate(words[:i]):
            shared = len(first & second)
            united = len(first) + len(second) - shared
            if shared and shared >= threshold * united:
                parent[root(i)] = root(j)
    return np.array([root(number) for number in range(len(texts))])


def make_splits(
    prompts: pd.DataFrame,
    sizes: dict[str, int],
    *,
    evaluate_only=(),
    align_of_them: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Assign whole clusters of prompts to the four splits: id, source, hash, cluster, split.

    `prompts` has id, source, text. Clusters that touch a source in `evaluate_only` go to
    ``evaluate`` whole, but for about `align_of_them` of its prompts, which go to ``align``. The
    others are dealt in random order, large clusters first, each to the split that lacks most of its
    size (`sizes`, all above 0); what does not fit stays ``spare``. Raises `SsahError` if a split
    stays empty.
    """
    table = prompts[["id", "source"]].assign(
        hash=prompts["text"].map(text_hash), cluster=clusters(prompts["text"].tolist())
    )
    table["split"] = "spare"
    only_evaluated = table["source"].isin(evaluate_only)
    reserved = table["cluster"].isin(table.loc[only_evaluated, "cluster"])
    table.loc[reserved, "split"] = "evaluate"
    table.loc[_for_align(table[reserved], evaluate_only, align_of_them, seed), "split"] = "align"
    missing = dict(sizes)
    is_evaluated = table["split"] == "evaluate"
    missing["evaluate"] -= int((is_evaluated & ~only_evaluated).sum())
    missing["align"] -= int((table["split"] == "align").sum())
    for members in _in_random_order(table[~reserved], seed):
        target = max(missing, key=lambda split: missing[split] / sizes[split])
        if missing[target] >= len(members):
            table.loc[members, "split"] = target
            missing[target] -= len(members)
    empty = [split for split in SPLITS if not (table["split"] == split).any()]
    if empty:
        raise SsahError(
            f"no prompts are left for the split {', '.join(empty)}; lower the sizes in the profile"
        )
    return table


def _for_align(reserved: pd.DataFrame, evaluate_only, wanted: int, seed: int) -> list[int]:
    """Rows of whole clusters at random, until `wanted` of them are of a source for evaluation."""
    rows = []
    found = 0
    for members in reversed(_in_random_order(reserved, seed)):      # the small clusters first
        if found >= wanted:
            break
        rows += list(members)
        found += int(reserved.loc[members, "source"].isin(evaluate_only).sum())
    return rows


def _in_random_order(table: pd.DataFrame, seed: int) -> list[pd.Index]:
    """The rows of every cluster, large clusters first, in random order within a size."""
    members = [rows.index for _, rows in table.groupby("cluster")]
    order = np.random.default_rng(seed).permutation(len(members))
    return sorted([members[number] for number in order], key=len, reverse=True)
