"""The second bench as people read it: two words a row and model, and the sentences behind them.

All of it is read from the store; a row that was not run says so.
"""

from ..lab import Lab
from ..lab.words import markdown_table
from . import lab_of, verdicts
from .profiles import BENCH
from .rules import ROWS, Verdict, sentence

NOT_RUN = "not run yet"
#: The mimetype under which notebook 09 leaves words and sentences for the front page.
ANSWERS = "application/vnd.ssah.answers+json"


def labs(compute: bool = False) -> dict[str, Lab]:
    """A lab on the stored results of every profile of the second bench, by its name."""
    return {name: lab_of(profile, compute=compute) for name, profile in BENCH.items()}


def words(found: dict[str, Lab]) -> dict[str, dict[str, Verdict]]:
    """The verdicts of every lab on the rows that were run, by its name and the row's id."""
    return {name: verdicts(lab) for name, lab in found.items()}


def ledger(found: dict[str, Lab]) -> str:
    """The words on every row and model, as Markdown; bold where the paper's claim came out."""
    return _ledger(found, words(found))


def _ledger(found: dict[str, Lab], by_model: dict[str, dict[str, Verdict]]) -> str:
    head = ["", "claim", *(lab.profile.model.label for lab in found.values())]
    rows = [[row.id, row.statement, *(_cell(by_model[name].get(row.id)) for name in found)]
            for row in ROWS.values()]
    return markdown_table(head, rows)


def _cell(verdict: Verdict | None) -> str:
    """The two words, with the numbers that decided below them."""
    if verdict is None:
        return NOT_RUN
    return "<br>".join([f"**{verdict}**", *numbers(verdict)])


def report(found: dict[str, Lab]) -> None:
    """Show the ledger in a notebook, and leave words and sentences for the front page."""
    from IPython.display import display

    by_model = words(found)
    models = []
    for name, lab in found.items():
        cells = [_noted(verdict) for verdict in by_model[name].values()]
        models.append({"label": lab.profile.model.label, "cells": cells})
    display({"text/markdown": _ledger(found, by_model),
             "text/plain": "two words a row and model", ANSWERS: {"models": models}}, raw=True)


def _noted(verdict: Verdict) -> dict:
    """A verdict as plain JSON."""
    return {"row": verdict.row, "first": verdict.first.word, "second": verdict.second.word,
            "depends": verdict.depends_on_the_judge, "numbers": numbers(verdict),
            "sentence": sentence(verdict)}


def numbers(verdict: Verdict) -> list[str]:
    """The numbers that decided, as text: of the first question, then of the second."""
    row = ROWS[verdict.row]
    found = []
    if verdict.first.estimate is not None:
        found.append(row.first.unit.shown(verdict.first.estimate))
    if verdict.second.estimate is not None:
        contrast = row.second.unit.shown(verdict.second.estimate)
        found.append(f"{row.clauses.contrast} {contrast}")
    return found


def sentences(lab: Lab) -> str:
    """One plain sentence a row that was run, as a Markdown list."""
    lines = [f"- {sentence(verdict)}" for verdict in verdicts(lab).values()]
    if not lines:
        return f"Nothing of this bench has been run on {lab.profile.model.label} yet."
    return "\n".join(lines)
