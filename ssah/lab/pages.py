"""HTML pages that need no network: executed notebooks, and the frame that all pages share.

A page is one file: its style sheet (``pages.css``) and its few lines of script are in it. Code is
folded until it is asked for, and what is wider than the screen scrolls inside its own box.
"""

import html
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from .words import say

TEMPLATE = Path(__file__).with_name("pages.html.j2")
STYLE_SHEET = Path(__file__).with_name("pages.css")

#: A heading of a notebook as nbconvert writes it: its name, and its text before the sign ¶.
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)(?:<a class="anchor-link".*?</a>)?</h2>', re.DOTALL)
#: A box that scrolls, for a table; it can be reached with the keyboard.
BOX = '<div class="scroll" tabindex="0" role="region" aria-label="table">'


@dataclass(frozen=True)
class Link:
    """Where a link leads, and what it says."""

    href: str
    text: str


class Pages(HTMLExporter):
    """The cells of a notebook as HTML: equations are MathML, code is folded.

    A cell with the tag ``solution`` is folded whole, so that nobody sees what it gives by chance.
    """

    raw_template = """{% extends 'basic/index.html.j2' %}
{% block codecell %}
{% if "solution" in cell.metadata.get("tags", []) %}
<details class="solution"><summary>Solution, and what it gives here</summary>
{{ super() }}
</details>
{% else %}{{ super() }}{% endif %}
{% endblock %}
{% block input_group %}
{% if cell.source.strip() %}<details class="code"><summary>code</summary>
{{ super() }}
</details>{% endif %}
{% endblock %}"""
    _code_or_math = re.compile(r"<(pre|code)\b.*?</\1>|\$\$(?P<block>.+?)\$\$"
                               r"|\$(?P<inline>[^$\n]+)\$", re.DOTALL)

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        """Markdown as HTML; code, which may have dollar signs too, stays as it is."""
        def mathml(found: re.Match) -> str:
            text = found["block"] or found["inline"]
            display = "block" if found["block"] else "inline"
            return convert(html.unescape(text), display=display) if text else found[0]

        return self._code_or_math.sub(mathml, super().markdown2html(context, source))


def notebook_page(notebook, title: str, figures: str, before: Link | None = None,
                  after: Link | None = None) -> str:
    """The page of an executed notebook, with its contents and links to the pages beside it.

    `figures`: how the page links the folder of figures.
    """
    exporter = Pages(exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r'href="(\d\d)_\w+\.ipynb', r'href="\1.html', body)
    body = body.replace('href="../figures/', f'href="{figures}/')
    body = boxed(body)
    return page(title, body, home="../index.html", contents=contents_of(body), before=before,
                after=after)


def boxed(body: str) -> str:
    """Every table in a box that scrolls, so that no page is wider than its screen."""
    return re.sub(r"<table\b.*?</table>", lambda table: f"{BOX}{table[0]}</div>", body,
                  flags=re.DOTALL)


def contents_of(body: str) -> list[Link]:
    """A link to each section (``h2``) of a page."""
    return [Link(f"#{name}", _text_of(heading)) for name, heading in HEADING.findall(body)]


def _text_of(heading: str) -> str:
    return html.unescape(re.sub(r"<.*?>", "", heading)).strip()


def page(title: str, body: str, *, home: str = "", contents: Sequence[Link] = (),
         before: Link | None = None, after: Link | None = None) -> str:
    """A whole page around some HTML; `home`: the front page, empty on the front page itself."""
    return say(TEMPLATE, "page", title=title, body=body, home=home, contents=contents,
               before=before, after=after, css=STYLE_SHEET.read_text("utf-8"),
               has_code='<details class="code">' in body)


def index_page(outcomes: Sequence, into: Path, figures: Path, *,
               title: str = "Notebooks of this run", opening: str = "",
               alternatives: Mapping[str, str] | None = None) -> str:
    """The page that links everything of a run; figures only of notebooks that went well.

    `outcomes`: of `ssah.lab.notebooks`. `opening`: HTML that stands above the list.
    `alternatives`: figure -> what it shows, for those who do not see it (default: its name).
    """
    alternatives = alternatives or {}
    pictures = {}
    for outcome in outcomes:
        drawn = [] if outcome.error else sorted(figures.glob(f"{outcome.number}_*.png"))
        pictures[outcome.number] = [(link(path, into), alternatives.get(path.stem, path.stem))
                                    for path in drawn]
    listing = say(TEMPLATE, "index", outcomes=outcomes, pictures=pictures,
                  seconds=sum(outcome.seconds for outcome in outcomes))
    if not opening:
        return page(title, f"<h1>{html.escape(title)}</h1>\n{listing}")
    body = f"{opening}\n{listing}"
    return page(title, body, contents=contents_of(body))


def link(path: Path, start: Path) -> str:
    """A link from a page in the folder `start` to `path`."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:      # another drive
        return path.resolve().as_uri()
