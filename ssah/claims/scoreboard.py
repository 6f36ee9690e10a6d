"""The scoreboard: every claim with the paper's number, ours, the conditions, and the way back.

All of it is a loop over `CLAIMS`.
"""

from ..errors import SsahError
from ..inputs.archives import REPOSITORY
from ..lab import Lab
from ..lab.words import markdown_table
from . import CLAIMS, Claim, questions
from .shared.tables import number_of_seeds

#: The claims that the first bench tested.
TESTED = tuple(claim for claim in CLAIMS if claim.rule)
#: The mimetype under which notebook 09 leaves conditions and our numbers for the front page.
LEDGER = "application/vnd.ssah.ledger+json"


def ledger(lab: Lab, notebooks: str = "", figures: str = "../figures/") -> str:
    """The claim ledger as Markdown; links lead into the folders `notebooks` and `figures`."""
    return _ledger(found_of(lab), notebooks, figures)


def report(lab: Lab) -> None:
    """Show the ledger in a notebook, and leave conditions and our numbers for the front page."""
    from IPython.display import display

    found = found_of(lab)
    noted = {name: {"conditions": conditions, "ours": ours}
             for name, (conditions, ours) in found.items()}
    display({"text/markdown": _ledger(found, notebooks="", figures="../figures/"),
             "text/plain": "the claim ledger", LEDGER: {"claims": noted}}, raw=True)


def found_of(lab: Lab) -> dict[str, tuple[str, str]]:
    """Of every claim, by its id: whether its conditions are met, and our number."""
    found = {}
    for claim in CLAIMS:
        if not claim.rule:
            found[claim.id] = ("not tested", "–")
            continue
        facts, verdict = claim.judged(lab)
        holding = sum(check.holds for check in verdict.checks)
        conditions = f"{verdict.verdict}: {holding} of {len(verdict.checks)} checks hold"
        found[claim.id] = (conditions, f"{claim.ours(lab, facts)}, {number_of_seeds(lab)}")
    return found


def _ledger(found: dict[str, tuple[str, str]], notebooks: str, figures: str) -> str:
    head = ["", "claim", "conditions", "ours", "the paper's number", "in the paper", "origin",
            "notebook, figure", "recompute with"]
    rows = [_row(claim, *found[claim.id], notebooks, figures) for claim in CLAIMS]
    return markdown_table(head, rows).replace("|  |", "| |", 1)


def _row(claim: Claim, conditions: str, ours: str, notebooks: str, figures: str) -> list[str]:
    row = [claim.id, claim.text, conditions, ours, claim.paper, claim.where]
    links = ""
    if claim.notebook:
        links = (f"[{claim.notebook[:2]}]({notebooks}{claim.notebook}.ipynb), "
                 f"[figure]({figures}{claim.figure}.png)")
    if not claim.rule:
        return [*row, "paper-reported", links, ""]
    return [*row, "recomputed", links, f"`ssah recompute {claim.step}`"]


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
        return "not tested"
    try:
        facts, verdict = claim.judged(lab)
    except SsahError:
        number = claim.notebook[:2]
        return f"not computed (`ssah run {number} --recompute{lab.profile.option}`)"
    return f"{verdict.verdict}: {claim.ours(lab, facts)}, {number_of_seeds(lab)}"


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
    return f"{table}\n\nConditions by strict ASR: {', '.join(verdicts)}."


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
    for figures in (*(claim.figures for claim in CLAIMS), questions.FIGURES):
        if figure in figures:
            commands = [f"`ssah recompute {step}`" for step in figures[figure]]
            return ", ".join(commands) or "a toy: nothing is stored"
    return "not listed in the `figures` of a claim (ssah/claims/*/__init__.py)"
