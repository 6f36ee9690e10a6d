"""The explorer: one page without a server: rules, units and a toy to move, runs to look along.

All that it can show is computed here, by the package; its script only selects and draws.
"""

import json
from pathlib import Path

from ..claims import answers, open_lab
from ..lab.pages import boxed, contents_of
from ..lab.pages import page as page_of
from ..lab.words import say
from . import front, kinds, toy, training, what_if

TEMPLATE = Path(__file__).with_name("explorer.html.j2")
SCRIPT = Path(__file__).with_name("explorer.js")


def content() -> dict:
    """What the page can show, as plain JSON, from the stored results."""
    lab = open_lab()
    return {"chips": front.KINDS, "ledger": what_if.ledger(answers.labs()),
            "kinds": kinds.choices(lab), "toy": toy.toys(), "training": training.choices(lab)}


def page() -> str:
    """The page, as HTML."""
    body = boxed(say(TEMPLATE, "explorer", data=in_script(content()),
                     script=SCRIPT.read_text("utf-8")))
    return page_of("Explorer", body, home="index.html", contents=contents_of(body))


def in_script(data: dict) -> str:
    """JSON that may stand in a ``<script>``: nothing in it can close the element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
