"""What was measured, as Markdown and as a file; no torch, so that docs/speed.md can be made."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import SsahError
from ..inputs.archives import REPOSITORY
from ..lab.words import markdown_table

#: Where `ssah bench --save` writes, and docs/speed.md reads: what was measured, what was computed.
SAVED = REPOSITORY / "data" / "bench.json"
PLAN = REPOSITORY / "data" / "plan.json"


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
    table = markdown_table(
        ["what", "measured", "against", "ratio", "aim"],
        [[row.what, row.measured, row.against, row.ratio, row.aim] for row in measured.rows],
    )
    parts = [table]
    if measured.growth:
        parts.append(growth_sentence(measured.growth))
    parts.append(origin(measured))
    return "\n\n".join(parts)


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


# ---- bytes and hours of large models ---------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """A model of which a share of the units trains: GiB, GPUs and hours."""

    model: str
    share: float
    weights: float
    gradients: float
    optimizer: float
    #: the inputs of all blocks, which checkpointing keeps
    activations: float
    total: float
    #: what moves, and what moved in our stored run (None where there is none)
    moving: float
    moving_stored: float | None
    gpus: int
    #: of one GPU
    gpu_hours: float


@dataclass(frozen=True)
class Plan:
    """Rows, and what they assume."""

    #: FLOP/s, and the bytes of a GPU
    peak: float
    memory: float
    share_of_peak: float
    #: tokens of a run, and those that are computed at once
    run_tokens: int
    step_tokens: int
    rows: list[Planned]

    def save(self, path: Path = PLAN) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")


def load_plan(path: Path = PLAN) -> Plan:
    """What was saved; `SsahError` where nothing was, or nothing that can be read."""
    try:
        facts = json.loads(path.read_text("utf-8"))
        rows = [Planned(**row) for row in facts.pop("rows")]
        return Plan(**facts, rows=rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SsahError(f"no plan in {path}: {error}; run `ssah bench --plan --save`") from error


def plan_markdown(plan: Plan) -> str:
    """The rows, and a sentence on what they assume."""
    head = ["model", "units that move", "weights", "gradients", "optimizer", "kept activations",
            "all, GiB", "of it moves (stored run)", "GPUs", "GPU hours"]
    rows = []
    for row in plan.rows:
        moves = gibibytes(row.moving)
        if row.moving_stored is not None:
            moves += f" ({gibibytes(row.moving_stored)})"
        parts = [row.weights, row.gradients, row.optimizer, row.activations]
        gibs = [*map(gibibytes, parts), f"**{gibibytes(row.total)}**"]
        hours = f"{row.gpu_hours:.3g}"
        rows.append([row.model, f"{row.share:.0%}", *gibs, moves, str(row.gpus), hours])
    assumed = (
        f"Computed and not measured, except what stands in brackets: weights in bf16, those that "
        f"train in float32, AdamW, "
        f"{plan.step_tokens} tokens at once with checkpointing; logits and the inside of a block "
        f"are not counted. Hours: {plan.run_tokens / 1e6:g} million tokens, by the operations of "
        f"all products with weights at {plan.share_of_peak:.0%} (assumed) of the "
        f"{plan.peak / 1e12:.0f} TFLOP/s that an H100's data sheet names for dense bf16; GPUs: of "
        f"{plan.memory / 1e9:.0f} GB, by the bytes alone. `ssah bench --plan`"
    )
    return f"{markdown_table(head, rows)}\n\n{assumed}"


def gibibytes(number: float) -> str:
    """A number of GiB, with what matters of it."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
