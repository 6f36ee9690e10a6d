"""All claims in one table."""

from dataclasses import replace

from .. import claims
from ..experiments import Lab
from . import attribute_transfer, four_kinds, freezing, reasoning_direction, redundant_units, which_units

#: Claim -> (its facts, its rule, how many seeds a verdict takes: three where models are fine-tuned for it).
RULES = {"C1": (reasoning_direction.c1_facts, claims.judge_c1, 1),
         "C2": (four_kinds.c2_facts, claims.judge_c2, 1),
         "C3": (attribute_transfer.c3_facts, claims.judge_c3, 3),
         "C4": (freezing.c4_facts, claims.judge_c4, 3),
         "C5": (which_units.c5_facts, claims.judge_c5, 3),
         "C6": (redundant_units.c6_facts, claims.judge_c6, 3),
         "C7": (which_units.c7_facts, claims.judge_c7, 3)}


def verdict(lab: Lab, claim: str) -> claims.Verdict:
    """The verdict on one claim that has a notebook, from that claim's results alone; *not tested* by too few seeds."""
    facts, rule, n_seeds = RULES[claim]
    judged = rule(facts(lab))
    return judged if len(lab.seeds) >= n_seeds else replace(judged, verdict="not tested")


def ledger(lab: Lab, folder: str = "") -> str:
    """The claim ledger as Markdown: claim, the paper's number, our verdict, link to the notebook in `folder`."""
    rows = ["| | claim | in the paper | the paper's number | our verdict | notebook |", "|---|---|---|---|---|---|"]
    for claim in claims.CLAIMS:
        found, link = "not tested", ""
        if claim.notebook:
            found = verdict(lab, claim.id).verdict
            link = f"[{claim.notebook[:2]}]({folder}{claim.notebook}.ipynb)"
        rows.append(f"| {claim.id} | {claim.text} | {claim.where} | {claim.paper} | **{found}** | {link} |")
    return "\n".join(rows)
