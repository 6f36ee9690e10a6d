"""The generated parts of README.md: between ``<!-- NAME -->`` and ``<!-- /NAME -->`` stands what the store says."""

import re
from pathlib import Path

from . import tables
from .errors import SsahError
from .experiments import Lab
from .experiments.verify import plan
from .sources import REPOSITORY

README = REPOSITORY / "README.md"


def sections(lab: Lab) -> dict[str, str]:
    """Name -> Markdown of every generated part."""
    table, runs = tables.four_kinds.table_one(lab), tables.freezing.tuned(lab)
    verdicts = {claim: tables.verdict(lab, claim) for claim in ("C1", "C2", "C3", "C4")}
    return {"ledger": tables.ledger(lab, notebooks="notebooks/", figures="figures/"),
            "summary-c1": tables.reasoning_direction.c1_summary(lab, tables.reasoning_direction.curve(lab, "harmful"),
                                                                verdicts["C1"]),
            "summary-c2": tables.four_kinds.c2_summary(lab, table, verdicts["C2"]),
            "summary-c3": tables.attribute_transfer.c3_summary(lab, tables.attribute_transfer.transfers(lab),
                                                               verdicts["C3"]),
            "summary-c4": tables.freezing.c4_summary(lab, tables.freezing.table_two(runs), verdicts["C4"]),
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
    facts = [lab.get(need.step, **need.params).provenance for need in plan(lab.profile)]
    commits, devices = (sorted({f[name] for f in facts if f[name]}) for name in ("commit", "device"))
    where = " or ".join(devices).replace("1 threads", "1 thread")
    return (f"Computed {min(f['date'] for f in facts)} to {max(f['date'] for f in facts)} on {where} "
            f"({facts[0]['platform']}), torch {facts[0]['packages']['torch']}, transformers "
            f"{facts[0]['packages']['transformers']}, in {sum(f['seconds'] for f in facts) / 3600:.1f} hours; commits "
            f"{', '.join(commit[:7] for commit in commits)}.")


def rewrite(lab: Lab, path: Path = README) -> bool:
    """Bring the generated parts up to date; True if the file changed."""
    old = path.read_text()
    new = render(old, sections(lab))
    if new != old:
        path.write_text(new)
    return new != old


def render(text: str, parts: dict[str, str]) -> str:
    """The text with every generated part replaced."""
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        text, found = pattern.subn(lambda m, content=content: f"{m[1]}{content}\n{m[2]}", text)
        if found != 1:
            raise SsahError(f"README.md must have the marks <!-- {name} --> and <!-- /{name} --> once; found {found}")
    return text
