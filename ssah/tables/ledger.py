"""All claims in one table."""

from .. import claims
from ..experiments import Lab
from . import four_kinds, reasoning_direction


#: Claim -> (its facts, its rule).
RULES = {"C1": (reasoning_direction.c1_facts, claims.judge_c1),
         "C2": (four_kinds.c2_facts, claims.judge_c2)}


def verdict(lab: Lab, claim: str) -> claims.Verdict:
    """The verdict on one claim that has a notebook, from that claim's results alone."""
    facts, rule = RULES[claim]
    return rule(facts(lab))


def ledger(lab: Lab, folder: str = "") -> str:
    """The claim ledger as Markdown: claim, the paper's number, our verdict, link to the notebook in `folder`."""
    known = {claim: verdict(lab, claim).verdict for claim in RULES}
    rows = ["| | claim | in the paper | the paper's number | our verdict | notebook |", "|---|---|---|---|---|---|"]
    for claim in claims.CLAIMS:
        link = f"[{claim.notebook[:2]}]({folder}{claim.notebook}.ipynb)" if claim.notebook else ""
        found = known.get(claim.id, "not tested")
        rows.append(f"| {claim.id} | {claim.text} | {claim.where} | {claim.paper} | **{found}** | {link} |")
    return "\n".join(rows)
