"""Words: Markdown with numbers in it, from templates that stand beside the code that fills them.

A template file has one ``{% block name %}`` a text. Numbers are formatted there, by filters named
after what they show; a name that a template asks for and does not get is an error.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import jinja2

#: The mimetype under which a notebook leaves a note (claim, verdict, why) for the runner's summary.
NOTE = "application/vnd.ssah.verdict+json"


def number(value: float, digits: int = 0) -> str:
    """``1.234`` -> ``1.23`` (2 digits)."""
    return f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """``0.0123`` -> ``+0.012`` (3 digits)."""
    return f"{value:+.{digits}f}"


def percent(value: float, digits: int = 0) -> str:
    """A fraction: ``0.123`` -> ``12%``."""
    return f"{value:.{digits}%}"


@cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": number, "signed": signed, "percent": percent}
    return environment


def say(template: Path, name: str, **values) -> str:
    """The block `name` of a template file, filled; without the line ends around it."""
    found = _environment(template.parent).get_template(template.name)
    return "".join(found.blocks[name](found.new_context(values))).strip("\n")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown: a line a row, no alignment."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
