"""The second bench as people read it: two words a row and model, and the sentences behind them.

All of it is read from the store; a row that was not run says so.
"""

from ..lab import Lab
from ..lab.words import markdown_table
from . import lab_of, verdicts
from .profiles import BENCH
from .rules import ROWS, Verdict, sentence

NOT_RUN = "not run yet"


def labs(compute: bool = False) -> dict[str, Lab]:
    """A lab on the stored results of every profile of the second bench, by its name."""
    return {name: lab_of(profile, compute=compute) for name, profile in BENCH.items()}


def ledger(found: dict[str, Lab]) -> str:
    """The words on every row and model, as Markdown; bold where the paper's claim came out."""
    words = {name: verdicts(lab) for name, lab in found.items()}
    head = ["", "claim", *(lab.profile.model.label for lab in found.values())]
    rows = [[row.id, row.statement, *(_cell(words[name].get(row.id)) for name in found)]
            for row in ROWS.values()]
    return markdown_table(head, rows)


def _cell(verdict: Verdict | None) -> str:
    """The two words, with the numbers that decided below them."""
    if verdict is None:
        return NOT_RUN
    row = ROWS[verdict.row]
    text = f"**{verdict}**"
    if verdict.first.estimate is not None:
        text += f"<br>{row.first.unit.shown(verdict.first.estimate)}"
    if verdict.second.estimate is not None:
        text += f"<br>{row.clauses.contrast} {row.second.unit.shown(verdict.second.estimate)}"
    return text


def sentences(lab: Lab) -> str:
    """One plain sentence a row that was run, as a Markdown list."""
    lines = [f"- {sentence(verdict)}" for verdict in verdicts(lab).values()]
    if not lines:
        return f"Nothing of this bench has been run on {lab.profile.model.label} yet."
    return "\n".join(lines)
