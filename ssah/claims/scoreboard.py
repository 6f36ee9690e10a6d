"""The scoreboard: every claim with the paper's number, ours, the verdict, and the way back.

All of it is a loop over `CLAIMS`.
"""

from ..errors import SsahError
from ..inputs.archives import REPOSITORY
from ..lab import Lab
from ..lab.words import markdown_table
from . import CLAIMS, Claim
from .shared.tables import number_of_seeds

#: The claims on which the first bench has a verdict.
TESTED = tuple(claim for claim in CLAIMS if claim.rule)


def ledger(lab: Lab, notebooks: str = "", figures: str = "../figures/") -> str:
    """The claim ledger as Markdown; links lead into the folders `notebooks` and `figures`."""
    head = ["", "claim", "our verdict", "ours", "the paper's number", "in the paper", "origin",
            "notebook, figure", "recompute with"]
    rows = [_row(lab, claim, notebooks, figures) for claim in CLAIMS]
    return markdown_table(head, rows).replace("|  |", "| |", 1)


def _row(lab: Lab, claim: Claim, notebooks: str, figures: str) -> list[str]:
    links = ""
    if claim.notebook:
        number = claim.notebook[:2]
        links = (f"[{number}]({notebooks}{claim.notebook}.ipynb), "
                 f"[figure]({figures}{claim.figure}.png)")
    if not claim.rule:
        return [claim.id, claim.text, "**not tested**", "–", claim.paper, claim.where,
                "paper-reported", links, ""]
    facts, verdict = claim.judged(lab)
    return [claim.id, claim.text, f"**{verdict.verdict}**",
            f"{claim.ours(lab, facts)}, {number_of_seeds(lab)}", claim.paper, claim.where,
            "recomputed", links, f"`ssah recompute {claim.step}`"]


def comparison(first: Lab, second: Lab) -> str:
    """The ledgers of two labs side by side, as Markdown, from what is stored."""
    labels = [lab.profile.model.label for lab in (first, second)]
    head = ["", "claim", *labels, "the paper's number"]
    rows = [[claim.id, claim.text, _found(first, claim), _found(second, claim), claim.paper]
            for claim in CLAIMS]
    return markdown_table(head, rows)


def _found(lab: Lab, claim: Claim) -> str:
    """Verdict and number of a claim, or that its results are not there."""
    if not claim.rule:
        return "**not tested**"
    try:
        facts, verdict = claim.judged(lab)
    except SsahError:
        number = claim.notebook[:2]
        return f"not computed (`ssah run {number} --recompute{lab.profile.option}`)"
    return f"**{verdict.verdict}**: {claim.ours(lab, facts)}, {number_of_seeds(lab)}"


def checks(lab: Lab) -> str:
    """Every check of every verdict as Markdown."""
    rows = [[claim.id, "yes" if check.holds else "no", check.question, check.found]
            for claim in TESTED for check in claim.verdict(lab).checks]
    return markdown_table(["", "holds", "check", "found"], rows)


def by_strict(lab: Lab) -> str:
    """The checks that come out otherwise by strict ASR, and the verdicts then, as Markdown."""
    rows = []
    verdicts = []
    for claim in TESTED:
        if not claim.by_rate:
            continue
        usual = claim.verdict(lab)
        _, strict = claim.judged(lab, rate="strict_asr")
        verdicts.append(f"{claim.id} {strict.verdict}")
        for one, other in zip(usual.checks, strict.checks):
            if one.holds != other.holds:
                rows.append([claim.id, one.question, _outcome(one), _outcome(other)])
    table = markdown_table(["", "check", "by keywords", "by strict ASR"], rows)
    return f"{table}\n\nVerdicts by strict ASR: {', '.join(verdicts)}."


def _outcome(check) -> str:
    return f"{'yes' if check.holds else 'no'}: {check.found}"


def deviations(lab: Lab) -> str:
    """A row a choice, as Markdown: what the paper does, what we do, why, what would change."""
    rows = [[f"**{row.name}**", row.paper, row.here, row.why, row.otherwise]
            for claim in CLAIMS for row in claim.deviations(lab)]
    return markdown_table(["", "in the paper", "here", "why", "what would change"], rows)


def traces() -> str:
    """Every figure of the repository as Markdown: its notebook, and what recomputes it."""
    notebooks = {path.name[:2]: path.name
                 for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))}
    rows = []
    for path in sorted((REPOSITORY / "figures").glob("*.png")):
        number = path.name[:2]
        notebook = f"[{number}]({notebooks[number]})" if number in notebooks else "–"
        rows.append([f"[{path.stem}](../figures/{path.name})", notebook, _commands(path.stem)])
    return markdown_table(["figure", "notebook", "recompute with"], rows)


def _commands(figure: str) -> str:
    if figure.startswith("00_"):
        return "a toy: nothing is stored"
    for claim in CLAIMS:
        if figure in claim.figures:
            commands = [f"`ssah recompute {step}`" for step in claim.figures[figure]]
            return ", ".join(commands) or "a toy: nothing is stored"
    return "not listed in the `figures` of a claim (ssah/claims/*/__init__.py)"
