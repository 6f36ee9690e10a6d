"""The generated parts of README.md: between ``<!-- NAME -->`` and ``<!-- /NAME -->`` stands what the store says."""

import re
from pathlib import Path

import pandas as pd

from . import tables
from .claims import CLAIMS
from .errors import SsahError
from .experiments import Lab
from .experiments.verify import plan
from .sources import REPOSITORY

README = REPOSITORY / "README.md"


def sections(lab: Lab) -> dict[str, str]:
    """Name -> Markdown of every generated part."""
    table, runs = tables.four_kinds.table_one(lab), tables.freezing.tuned(lab)
    verdicts = {claim.id: tables.verdict(lab, claim.id) for claim in CLAIMS if claim.notebook}
    table_two = tables.freezing.table_two
    adapters, weights = tables.which_units.adapters(lab), tables.which_units.weights(lab)
    budget, aligned = tables.redundant_units, tables.redundant_units.budgets(lab)
    return {"ledger": tables.ledger(lab, notebooks="notebooks/", figures="figures/"),
            "summary-c1": tables.reasoning_direction.c1_summary(lab, tables.reasoning_direction.curve(lab, "harmful"),
                                                                verdicts["C1"]),
            "summary-c2": tables.four_kinds.c2_summary(lab, table, verdicts["C2"]),
            "summary-c3": tables.attribute_transfer.c3_summary(lab, tables.attribute_transfer.transfers(lab),
                                                               verdicts["C3"]),
            "summary-c4": tables.freezing.c4_summary(lab, table_two(runs), verdicts["C4"]),
            "summary-c5": tables.which_units.c5_summary(lab, adapters, table_two(adapters), verdicts["C5"]),
            "summary-c6": budget.c6_summary(lab, budget.table_four(lab, aligned), verdicts["C6"],
                                            budget.whereabouts(aligned)),
            "summary-c7": tables.which_units.c7_summary(lab, table_two(weights), verdicts["C7"]),
            "table-1": table_one(table), "provenance": provenance(lab)}


def table_one(table) -> str:
    """Table 1 with the command that recomputes each row."""
    columns = ["units %", "wiki ppl", "accuracy %", "ASR w/ system %", "ASR w/o system %", "strict ASR %"]
    shown = tables.four_kinds.shown_table_one(table)[columns]
    lines = ["| removed | " + " | ".join(columns) + " | recompute with |", "|---" * (len(columns) + 2) + "|"]
    for condition, (name, row) in zip(tables.four_kinds.ROWS, shown.iterrows()):
        quoted = f'"condition={condition}"' if " " in condition else f"condition={condition}"
        lines.append(f"| {name} | " + " | ".join(row) + f" | `ssah recompute ablation -p {quoted}` |")
    return "\n".join(lines)


def provenance(lab: Lab) -> str:
    """On what, when and from which commits the committed results were computed."""
    facts = pd.DataFrame([lab.get(need.step, **need.params).provenance for need in plan(lab.profile)])
    torch, transformers = (facts["packages"].str[name] for name in ("torch", "transformers"))

    def all_of(values: pd.Series, between: str = " or ") -> str:
        return between.join(sorted(values.dropna().unique()))

    where = all_of(facts["device"]).replace(" 1 threads", " 1 thread")
    return (f"Computed {facts['date'].min()} to {facts['date'].max()} on {where} ({all_of(facts['platform'])}), torch "
            f"{all_of(torch)}, transformers {all_of(transformers)}, in {facts['seconds'].sum() / 3600:.1f} hours; "
            f"commits {all_of(facts['commit'].str[:7], ', ')}.")


def rewrite(lab: Lab, path: Path = README) -> bool:
    """Bring the generated parts up to date; True if the file changed."""
    old = path.read_text("utf-8")
    new = render(old, sections(lab))
    if new != old:
        path.write_text(new, "utf-8")
    return new != old


def render(text: str, parts: dict[str, str]) -> str:
    """The text with every generated part replaced."""
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        text, found = pattern.subn(lambda m, content=content: f"{m[1]}{content}\n{m[2]}", text)
        if found != 1:
            raise SsahError(f"README.md must have the marks <!-- {name} --> and <!-- /{name} --> once; found {found}")
    return text
