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


#: The model whose answers are known, since its safety units were planted: a control of the rules.
CONTROL = "organism"


def ledger(found: dict[str, Lab]) -> str:
    """The words on every row and every model that ran, as Markdown; then what did not run."""
    words = {name: verdicts(lab) for name, lab in found.items()}
    ran = {name: lab for name, lab in found.items() if words[name]}
    head = ["", "claim", *(lab.profile.model.label for lab in ran.values())]
    rows = [[row.id, row.statement, *(_cell(words[name].get(row.id)) for name in ran)]
            for row in ROWS.values()]
    return markdown_table(head, rows) + _to_come(found, ran)


def _to_come(found: dict[str, Lab], ran: dict[str, Lab]) -> str:
    """A sentence on the models of which nothing was run, after a blank line; or nothing."""
    missing = [lab.profile.model.label for name, lab in found.items() if name not in ran]
    if not missing:
        return ""
    return f"\n\nNot run yet: {'; '.join(missing)}."


def real(found: dict[str, Lab]) -> dict[str, Lab]:
    """The labs of real models on which a row or more was run."""
    return {name: lab for name, lab in found.items() if name != CONTROL and verdicts(lab)}


def findings(found: dict[str, Lab]) -> str:
    """What came out on every real model that ran: its name, and a plain sentence a row."""
    parts = [f"**{lab.profile.model.label}**\n\n{sentences(lab)}" for lab in real(found).values()]
    return "\n\n".join(parts) or "No real model has been run on this bench yet."


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
