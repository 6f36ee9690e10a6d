"""What was measured, as a Markdown table and as a file; no torch, so that README can be made."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import SsahError
from ..inputs.archives import REPOSITORY

#: Where `ssah bench --save` writes, and README's part reads.
SAVED = REPOSITORY / "data" / "bench.json"


@dataclass(frozen=True)
class Row:
    """One comparison."""

    what: str
    #: of ours, with its unit
    measured: str
    #: of what it is compared with
    against: str
    #: the ratio and of what it is
    ratio: str
    #: "" where there is none
    aim: str = ""


@dataclass(frozen=True)
class Growth:
    """Time against a size; the slope in log-log is the power by which it grows."""

    size: str
    values: list[int]
    seconds: list[float]
    slope: float


@dataclass(frozen=True)
class Measured:
    """A whole run: its rows, and what they belong to."""

    command: str
    date: str
    commit: str
    machine: dict[str, str]
    model: str
    rows: list[Row] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)

    def save(self, path: Path = SAVED) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")


def load(path: Path = SAVED) -> Measured:
    """What was saved; `SsahError` where nothing was, or nothing that can be read."""
    try:
        facts = json.loads(path.read_text("utf-8"))
        rows = [Row(**row) for row in facts.pop("rows")]
        growth = [Growth(**line) for line in facts.pop("growth")]
        return Measured(**facts, rows=rows, growth=growth)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SsahError(f"no measurements in {path}: {error}; run `ssah bench --save`") from error


def markdown(measured: Measured) -> str:
    """Table, growth, and what they belong to."""
    table = rows_table(
        ["what", "measured", "against", "ratio", "aim"],
        [[row.what, row.measured, row.against, row.ratio, row.aim] for row in measured.rows],
    )
    parts = [table]
    if measured.growth:
        parts.append(growth_sentence(measured.growth))
    parts.append(origin(measured))
    return "\n\n".join(parts)


def rows_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def growth_sentence(growth: list[Growth]) -> str:
    """By which power attribution's time grows with each size."""
    powers = []
    for line in growth:
        span = f"{line.values[0]} to {line.values[-1]}"
        powers.append(f"{line.size} ({span}): {line.slope:.2f}")
    return f"Time of attribution grows by these powers, in {'; in '.join(powers)}."


def origin(measured: Measured) -> str:
    """The command, the machine, the day and the commit."""
    machine = measured.machine
    return (
        f"`{measured.command}`, {measured.date}, commit {measured.commit}: {measured.model}; "
        f"{machine['processor']} ({machine['platform']}), threads: {machine['threads']}, "
        f"torch {machine['torch']}; {machine['clock']}, each pair in turn."
    )
