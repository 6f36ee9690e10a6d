"""The generated parts of README.md and the pages of ``docs/``: between ``<!-- NAME -->`` and
``<!-- /NAME -->``."""

import re
from pathlib import Path

import pandas as pd

from ..bench import table
from ..errors import SsahError
from ..inputs.archives import REPOSITORY
from ..lab import Lab
from . import CLAIMS, answers, plan
from .four_kinds import growth
from .scoreboard import ledger

README = REPOSITORY / "README.md"
#: Each generated part stands in one of these.
PAGES = (README, *sorted((REPOSITORY / "docs").glob("*.md")))


def sections(lab: Lab) -> dict[str, str]:
    """Name -> Markdown of every generated part: what the store says."""
    found = {"ledger": ledger(lab, notebooks="../notebooks/", figures="../figures/")}
    for claim in CLAIMS:
        for name, part in claim.parts.items():
            found[name] = part(lab, claim.verdict(lab))
    bench = answers.labs()
    found["grows"] = growth.seen(growth.by_size(answers.begun(bench)))
    found |= {"findings": answers.findings(bench), "words": answers.ledger(bench)}
    found |= {"bench": table.markdown(table.load()), "plan": table.plan_markdown(table.load_plan())}
    return found | {"provenance": provenance(lab)}


def provenance(lab: Lab) -> str:
    """On what, when and from which commits the committed results were computed."""
    facts = pd.DataFrame([lab.get(need.step, **need.params).provenance
                          for need in plan(lab.profile)])
    torch = _all_of(facts["packages"].str["torch"])
    transformers = _all_of(facts["packages"].str["transformers"])
    device = _all_of(facts["device"]).replace(" 1 threads", " 1 thread")
    commits = facts["commit"].nunique()
    return (f"Computed {facts['date'].min()} to {facts['date'].max()} on {device} "
            f"({_all_of(facts['platform'])}), torch {torch}, transformers {transformers}, in "
            f"{facts['seconds'].sum() / 3600:.1f} hours, by the code of {commits} commits; each result "
            "names its own.")


def _all_of(values: pd.Series) -> str:
    return " or ".join(sorted(values.dropna().unique()))


def rewrite(lab: Lab) -> list[Path]:
    """Bring the generated parts of all pages up to date; returns the pages that changed."""
    old = {page: page.read_text("utf-8") for page in PAGES}
    new = render(old, sections(lab))
    changed = [page for page in PAGES if new[page] != old[page]]
    for page in changed:
        page.write_text(new[page], "utf-8")
    return changed


def render(pages: dict[Path, str], parts: dict[str, str]) -> dict[Path, str]:
    """The pages with every generated part replaced.

    Raises `SsahError` unless each part has its marks once, in one of them.
    """
    pages = dict(pages)
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        found = 0
        for page, text in pages.items():
            pages[page], here = pattern.subn(
                lambda marks, new=content: f"{marks[1]}{new}\n{marks[2]}", text)
            found += here
        if found != 1:
            raise SsahError(f"README.md or a page of docs/ must have the marks <!-- {name} --> and "
                            f"<!-- /{name} --> once; found {found}")
    return pages
