"""The front page: what this is, what came out in plain sentences, the words, a figure a claim.

Words and sentences are those that notebook 09 left in its output (`answers.report`,
`scoreboard.report`), so that the page costs nothing and says what the notebooks say.
"""

from html import escape
from pathlib import Path

import nbformat

from ..claims import CLAIMS
from ..claims.answers import ANSWERS
from ..claims.rules import (
    ANY_UNITS,
    CONTROL_BETTER,
    NOT_FOUND,
    OPPOSITE,
    REPRODUCED,
    ROWS,
    SMALLER,
    SPECIFIC,
)
from ..claims.scoreboard import LEDGER
from ..inputs.words import data_file
from ..lab.notebooks import notes
from ..lab.pages import boxed, index_page, link
from ..lab.words import say

TEMPLATE = Path(__file__).with_name("front.html.j2")
TITLE = "SSAH companion"
#: The notebook to begin with, the one that tells all words, and the page beside this one that
#: lets one try others.
START = "00"
BOARD = "09"
EXPLORER = "explorer.html"
#: The figure of what real models do without some of their units.
FIRST_FIGURE = "02_grows"

#: Word of a verdict -> class of its chip in the style sheet; all other words leave it open.
KINDS = {
    REPRODUCED: "for",
    SPECIFIC: "for",
    SMALLER: "partly",
    ANY_UNITS: "partly",
    OPPOSITE: "against",
    NOT_FOUND: "against",
    CONTROL_BETTER: "against",
}


def chip(word: str) -> str:
    """A word of a verdict on the colour of its kind, as HTML; what follows a colon is kept."""
    kind = KINDS.get(word.partition(":")[0], "open")
    return f'<span class="chip {kind}">{escape(word)}</span>'


def page(outcomes: list, into: Path, figures: Path, *, profile: str = "default",
         notebooks: Path | None = None) -> str:
    """The front page of the notebooks of a folder, as `ssah.lab.notebooks` writes it.

    `outcomes`, `into`, `figures`: see `ssah.lab.pages.index_page`; `notebooks`: the folder of the
    executed copies (default: that in `into`).
    """
    alternatives = data_file("figures").set_index("figure")["alt"].to_dict()
    board = (notebooks or into / "notebooks") / f"{BOARD}.ipynb"
    answers = note_of(board, ANSWERS)
    # a notebook that was executed by an earlier version left less
    found = [{"measured": [], "caveats": [], "without": {}, "short": model["label"], **model}
             for model in answers.get("models", [])]
    models = sorted(found, key=lambda model: model["control"])
    opening = say(
        TEMPLATE, "front", title=TITLE, profile=profile, chip=chip, rows=ROWS.values(),
        begin=START if START in [outcome.number for outcome in outcomes] else "",
        explorer=EXPLORER if (into / EXPLORER).exists() else "",
        answers=answers, not_planned=answers.get("not_planned", ""),
        ran=[model for model in models if model["cells"]],
        by_claim=answers.get("claims", []), marks=answers.get("marks", ""),
        to_come=[model["label"] for model in models if not model["cells"]],
        first_bench=note_of(board, LEDGER), board=BOARD, claims=CLAIMS,
        first_figure=FIRST_FIGURE if (figures / f"{FIRST_FIGURE}.png").exists() else "",
        drawn=drawn_claims(outcomes, figures), figures=link(figures, into),
        alternatives=alternatives)
    return index_page(outcomes, into, figures, title=TITLE, opening=boxed(opening),
                      alternatives=alternatives)


def note_of(path: Path, mimetype: str) -> dict:
    """What an executed notebook left under a mimetype; empty if it did not, or is not there."""
    if not path.exists():
        return {}
    found = notes(nbformat.read(path, as_version=4), mimetype)
    return found[-1] if found else {}


def drawn_claims(outcomes: list, figures: Path) -> list:
    """The claims in the order of the notebooks, of those whose main figure was drawn."""
    numbers = {outcome.number for outcome in outcomes if not outcome.error}
    found = [claim for claim in CLAIMS
             if claim.notebook[:2] in numbers and (figures / f"{claim.figure}.png").exists()]
    return sorted(found, key=lambda claim: claim.notebook)
