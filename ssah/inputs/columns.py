"""Which columns of a data file hold prompts, what belongs to a prompt, and answers."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..errors import SsahError

#: Names of a column with prompts, and of one with answers; the first that a file has counts.
PROMPT_COLUMNS = (
    "prompt", "Behavior", "goal", "Goal", "instruction", "question", "query", "text"
)
RESPONSE_COLUMNS = ("response", "output", "answer", "completion")
#: Of data with two answers to a prompt, the better one stands in for the answer.
ANSWER_COLUMNS = (*RESPONSE_COLUMNS, "chosen")

#: Columns with the text that a prompt is about (Alpaca, Dolly, HarmBench); they follow the prompt.
COMPANION_COLUMNS = ("input", "context", "ContextString")


def first_of(names: Iterable[str], columns: Iterable[str]) -> str | None:
    """The first of some names that is a column."""
    columns = list(columns)
    return next((name for name in names if name in columns), None)


def with_companions(record: Mapping, column: str) -> str | None:
    """The prompt in a `column` of a record, and after it the text that it is about, if any.

    None where there is no prompt. Raises `SsahError` for a value that is no text.
    """
    prompt = text_of(record, column)
    if prompt is None:
        return None
    companions = [text_of(record, name) for name in COMPANION_COLUMNS if name in record]
    return "\n\n".join([prompt, *(text for text in companions if text and text.strip())])


def text_of(record: Mapping, column: str) -> str | None:
    """A value as text (numbers too); None where it is missing. `SsahError` for anything else."""
    value = record[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (str, int, float)):
        return str(value)
    raise SsahError(
        f"the column {column} holds {type(value).__name__}, which is no text; "
        "turn it into text, or give it another name so that it is left out"
    )


def examples_of(rows: pd.DataFrame | Sequence[Mapping]) -> list[dict]:
    """Examples to train on, ``{"prompt", "response", "ended"}``, of a table or a list of records.

    Columns are found as in data files: a record of `load_prompts` fits, and so does one of Alpaca
    or Dolly. `ended` (default True): the response is whole. ``"system"`` is there too where a
    record has one that is not blank, and so is ``"rejected"`` (a worse answer, for DPO);
    ``"given"`` (token ids) where a record has that. Raises
    `SsahError`, with the number of the example, for what is no record, where prompt or response is
    missing or blank, and for a ``given`` that is no list of token ids.
    """
    if isinstance(rows, pd.DataFrame):
        rows = rows.to_dict("records")
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise SsahError("examples must be a list of records with prompt and response, or a table")
    return [_example(number, record) for number, record in enumerate(rows)]


def _example(number: int, record: Mapping) -> dict:
    if not isinstance(record, Mapping):
        raise SsahError(
            f"example {number} is no record; it must be a dict with prompt and response"
        )
    prompt_column = first_of(PROMPT_COLUMNS, record)
    response_column = first_of(ANSWER_COLUMNS, record)
    if prompt_column is None or response_column is None:
        missing = "prompt" if prompt_column is None else "response"
        raise SsahError(f"example {number} has no {missing}; it has {', '.join(map(str, record))}")
    prompt = with_companions(record, prompt_column)
    response = text_of(record, response_column)
    if prompt is None:
        raise SsahError(f"example {number} has no prompt")
    if response is None or not response.strip():
        raise SsahError(f"example {number} has no answer")
    example = {"prompt": prompt, "response": response, "ended": record.get("ended", True)}
    for column in ("system", "rejected"):
        text = text_of(record, column) if column in record else None
        if text and text.strip():
            example[column] = text
    given = record.get("given")
    if given is not None and given == given:        # NaN: a table in which other rows have some
        example["given"] = _token_ids(number, given)
    return example


def _token_ids(number: int, given) -> list[int]:
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    if not is_list or not all(isinstance(token, int) for token in given):
        raise SsahError(f"example {number}: what is given is a list of token ids; got {given!r}")
    return list(given)
