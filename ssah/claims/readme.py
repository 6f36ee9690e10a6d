"""The generated parts of README.md: between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

import re
from pathlib import Path

import pandas as pd

from ..bench import table
from ..errors import SsahError
from ..inputs.archives import REPOSITORY
from ..lab import Lab
from . import CLAIMS, answers, plan
from .scoreboard import ledger

README = REPOSITORY / "README.md"


def sections(lab: Lab) -> dict[str, str]:
    """Name -> Markdown of every generated part: what the store says."""
    found = {"ledger": ledger(lab, notebooks="notebooks/", figures="figures/")}
    for claim in CLAIMS:
        for name, part in claim.parts.items():
            found[name] = part(lab, claim.verdict(lab))
    bench = answers.labs()
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


def rewrite(lab: Lab, path: Path = README) -> bool:
    """Bring the generated parts up to date; True if the file changed."""
    old = path.read_text("utf-8")
    new = render(old, sections(lab))
    if new != old:
        path.write_text(new, "utf-8")
    return new != old


def render(text: str, parts: dict[str, str]) -> str:
    """The text with every generated part replaced; `SsahError` unless each has its marks once."""
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        text, found = pattern.subn(lambda marks, new=content: f"{marks[1]}{new}\n{marks[2]}", text)
        if found != 1:
            raise SsahError(f"README.md must have the marks <!-- {name} --> and <!-- /{name} --> "
                            f"once; found {found}")
    return text
