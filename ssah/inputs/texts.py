"""Lists of texts as people give them: lists, tuples, columns of a table; never one by mistake."""

from collections.abc import Iterable, Mapping

import pandas as pd

from ..errors import SsahError


def as_texts(values: Iterable[str], name: str = "texts") -> list[str]:
    """The texts as a list.

    Raises `SsahError` for a single text (which would be read letter by letter), for a table, and
    for anything in the list that is no text. `name` says in the message which argument it was.
    """
    if isinstance(values, (str, bytes)):
        raise SsahError(f"{name} is a single text; put it into a list, [text]")
    if isinstance(values, (pd.DataFrame, Mapping)):
        raise SsahError(f"{name} is a table; take one of its columns, such as table['text']")
    if not isinstance(values, Iterable):
        raise SsahError(f"{name} is {_described(values)}; give a list of texts")
    texts = list(values)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise SsahError(f"{name}[{number}] is {_described(text)}; it must be a text")
    return texts


def _described(value) -> str:
    """What it is, in few words."""
    if isinstance(value, Mapping):
        return f"a record with {', '.join(map(str, value))}"
    shown = repr(value)
    return shown if len(shown) <= 40 else f"of the type {type(value).__name__}"
