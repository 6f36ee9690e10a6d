"""Prompts and texts as tables: loading by source name, clustering of near-duplicates, disjoint splits.

Only harmful *requests* are ever read, and only at run time; what is committed are ids and hashes.
"""

import csv
import hashlib
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ..errors import SsahError
from . import archives, tiny
from .words import data_file

SPLITS = ("align", "identify", "select", "evaluate")
_TEXT_COLUMNS = ("prompt", "Behavior", "goal", "instruction", "question", "text")
_RESPONSE_COLUMNS = ("response", "output", "answer")
_READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def text_hash(text: str) -> str:
    """What stands for a text in committed files: the first 16 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_prompts(source: str) -> pd.DataFrame:
    """Prompts by source name (see `ssah.inputs.archives`): columns id, text; response or category where the source has them.

    Hub data sets (``hub:owner/name@revision``) and local .jsonl, .csv, .parquet and .txt files go through
    `datasets`; the prompt column is the first of prompt, Behavior, goal, instruction, question, text.
    Raises `SsahError` for an unknown source, a file without such a column, or no rows.
    """
    source = source.removeprefix("pip:")
    if source in _NAMED:
        table = _NAMED[source]()
    else:
        table = _from_datasets(source)
    if table.empty:
        raise SsahError(f"the prompt set {source!r} is empty")
    if "id" not in table:
        table.insert(0, "id", [f"{source.split('/')[-1]}-{i:04d}" for i in range(len(table))])
    return table


def _from_datasets(source: str) -> pd.DataFrame:
    import datasets

    kind, rest = archives.split_name(source)
    if kind == "hub" and archives.offline():
        datasets.config.HF_HUB_OFFLINE = True       # the library read the environment when it was first imported
    if kind == "pip":
        raise SsahError(f"{rest!r} is not a prompt set; known: {', '.join(sorted(_NAMED))}")
    suffix = "." + rest.rpartition(".")[2].lower()
    if kind == "path" and suffix not in _READERS:
        raise SsahError(f"cannot read {rest!r}; known formats: {', '.join(_READERS)}")
    try:
        if kind == "hub":
            name, _, revision = rest.partition("@")
            loaded = datasets.load_dataset(name, revision=revision or None, split="train")
        else:
            loaded = datasets.load_dataset(_READERS[suffix], data_files=str(Path(rest).expanduser()), split="train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise SsahError(f"the prompt set {source!r} is empty, damaged or out of reach: "
                        f"{str(error).splitlines()[0]}") from error
    text = next((c for c in _TEXT_COLUMNS if c in loaded.column_names), None)
    if text is None:
        raise SsahError(f"{source!r} has none of the prompt columns {', '.join(_TEXT_COLUMNS)}; "
                        f"it has {loaded.column_names}")
    response = next((c for c in _RESPONSE_COLUMNS if c in loaded.column_names), None)
    table = pd.DataFrame({"text": loaded[text], **({"response": loaded[response]} if response else {})})
    if table["text"].isna().any():
        raise SsahError(f"{source!r} has {table['text'].isna().sum()} rows without {text}; remove them")
    return table


def _advbench() -> pd.DataFrame:
    seeds = yaml.safe_load(archives.read_member("advbench").decode())["seeds"]
    return pd.DataFrame({"text": [s["value"] for s in seeds],
                         "category": ["; ".join(s.get("harm_categories") or []) for s in seeds]})


def _harmbench() -> pd.DataFrame:
    return pd.DataFrame({"text": archives.read_member("harmbench").decode().splitlines()})


def _alpaca() -> pd.DataFrame:
    rows = json.loads(archives.read_member("alpaca"))
    return pd.DataFrame({"text": [r["instruction"] + (f"\n\n{r['input']}" if r["input"] else "") for r in rows],
                         "response": [r["output"] for r in rows]}).drop_duplicates("text", ignore_index=True)


def _chat_instructions() -> pd.DataFrame:
    rows = [json.loads(line) for line in archives.read_member("chat-instructions").decode().splitlines()]
    rows = [r for r in rows if r["task_type"] == "alespalla/chatbot_instruction_prompts"]
    return pd.DataFrame({"text": [r["task_prompt"] for r in rows], "response": [r["task_output"] for r in rows]})


def _refusal_labels() -> pd.DataFrame:
    """Answers that people labelled as refusal (human = True) or not: columns text, response, human."""
    rows = []
    for name in ("refusal-labels", "refusal-labels-extra"):
        lines = itertools.dropwhile(lambda line: line.startswith("#"),     # later ones are within answers
                                    archives.read_member(name).decode().splitlines(keepends=True))
        rows += csv.DictReader(io.StringIO("".join(lines)))
    return pd.DataFrame({"text": [r["objective"] for r in rows], "response": [r["assistant_response"] for r in rows],
                         "human": [r["human_score"].strip().lower() in ("1", "1.0", "true") for r in rows]})


def _wikipedia() -> pd.DataFrame:
    return pd.DataFrame({"text": archives.read_member("wikipedia").decode().splitlines()})


def _borderline() -> pd.DataFrame:
    return data_file("borderline")


_NAMED = {"advbench": _advbench, "harmbench": _harmbench, "alpaca": _alpaca, "chat-instructions": _chat_instructions,
          "refusal-labels": _refusal_labels, "wikipedia": _wikipedia, "borderline": _borderline,
          "tiny-harmful": lambda: tiny.requests("harmful"), "tiny-benign": lambda: tiny.requests("benign"),
          "tiny-labels": tiny.labels}


# ---- multiple choice -------------------------------------------------------------------------

def load_questions(task: str, n: int, seed: int = 0) -> pd.DataFrame:
    """`n` multiple-choice questions (all if there are fewer): columns id, question, options (list), answer (position).

    BoolQ keeps passages of at most 60 words (affordable on two cores). Raises `SsahError` for an unknown task.
    """
    if task == "tiny-choice":
        rows = tiny.questions()
    else:
        rows = [parsed for line in archives.read_member(task).decode().splitlines()
                if (parsed := _question(task, json.loads(line))) is not None]
    for i, row in enumerate(rows):
        row["id"] = f"{task}-{i:04d}"
    chosen = np.random.default_rng(seed).permutation(len(rows))[:n]
    return pd.DataFrame([rows[i] for i in sorted(chosen)])


def _question(task: str, row: dict) -> dict | None:
    if task == "boolq":
        if len(row["passage"].split()) > 60:
            return None
        return {"question": f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", "options": ["no", "yes"],
                "answer": int(row["answer"] == "True")}
    options = [re.sub(r"^[A-E]\. ", "", o.strip()).strip() for o in row["options"].strip().split("\n")]
    answer = re.sub(r"^[A-E]\. ", "", row["answer"].strip()).strip()
    if options.count(answer) != 1:      # a few rows of CommonsenseQA are broken
        return None
    return {"question": f"Question: {row['question'].strip()}\nAnswer:", "options": options,
            "answer": options.index(answer)}


# ---- splits ----------------------------------------------------------------------------------

def clusters(texts: list[str], threshold: float = 0.6) -> np.ndarray:
    """Single-link clusters of texts whose word sets have Jaccard similarity >= `threshold`; (n,) cluster numbers."""
    words = [frozenset(re.findall(r"[a-z0-9']+", text.lower())) for text in texts]
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, a in enumerate(words):
        for j in range(i):
            shared = len(a & words[j])
            if shared and shared >= threshold * (len(a) + len(words[j]) - shared):
                parent[root(i)] = root(j)
    return np.array([root(i) for i in range(len(texts))])


def make_splits(prompts: pd.DataFrame, sizes: dict[str, int], *, evaluate_only=(), seed: int = 0) -> pd.DataFrame:
    """Assign whole clusters of prompts to the four splits; columns id, source, hash, cluster, split.

    `prompts` has id, source, text. Clusters that touch a source in `evaluate_only` go to ``evaluate``
    whole. The others are dealt in random order, large clusters first, each to the split that lacks most of its
    size (`sizes`, all above 0); what does not fit stays ``spare``. Raises `SsahError` if a split stays empty.
    """
    table = prompts[["id", "source"]].assign(hash=prompts["text"].map(text_hash),
                                             cluster=clusters(prompts["text"].tolist()))
    table["split"] = "spare"
    reserved = set(table.loc[table["source"].isin(evaluate_only), "cluster"])
    table.loc[table["cluster"].isin(reserved), "split"] = "evaluate"
    counted = ~table["source"].isin(evaluate_only)
    missing = {s: sizes[s] - int(((table["split"] == s) & counted).sum()) for s in SPLITS}
    free = table.loc[~table["cluster"].isin(reserved)].groupby("cluster").indices
    members = [table.index[table["cluster"] == c] for c in free]
    order = np.random.default_rng(seed).permutation(len(members))
    for i in sorted(order, key=lambda i: -len(members[i])):     # stable: random within a size
        target = max(missing, key=lambda s: missing[s] / sizes[s])
        if missing[target] >= len(members[i]):
            table.loc[members[i], "split"] = target
            missing[target] -= len(members[i])
    empty = [s for s in SPLITS if not (table["split"] == s).any()]
    if empty:
        raise SsahError(f"no prompts are left for the split {', '.join(empty)}; lower the sizes in the profile")
    return table
