"""Marks for notebooks that students handed in.

Each is run in a kernel of its own, in an empty folder, with a time limit. Its tests come from the
source, hidden ones too: what a student did to a test, or to a cell that was given, does not count.

What this does **not** protect from. The student's code runs as you, on your machine: it can read
and delete your files, use the network, start processes, and fill memory or disk. It runs in one
process with the tests, so it can look at the hidden ones or change what `ssah.teach` does. Against
mistakes and endless loops it is enough; strangers' code belongs into a container or a virtual
machine without network, and marks that matter want a look at the code.
"""

import asyncio
import copy
import csv
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from ..errors import SsahError
from ..lab.notebooks import own_kernel
from . import cells

#: Seconds that a cell may take, and a whole notebook in units of that.
CELL_SECONDS = 120
CELLS_WORTH = 5

#: What became of a graded cell.
PASSED = "passed"
FAILED = "failed"
BLANK = "blank"
NOT_RUN = "not run to its end"
BY_HAND = "to be graded by hand"


@dataclass(frozen=True)
class Mark:
    """What a submission got for one graded cell; `points` is None until a person has graded it."""

    submission: str
    assignment: str
    cell: str
    points: float | None
    of: float
    state: str
    #: one line, of the test that failed
    said: str = ""


def grade(
    folder: Path, sources: Iterable[Path], cell_seconds: int = CELL_SECONDS
) -> list[Mark]:
    """Marks for all notebooks in the folder and below, a row for each graded cell.

    `sources`: the assignments. Which one a notebook answers is told by its cells, so it may have
    any name. Raises `SsahError` for a folder without notebooks.
    """
    known = {path.stem: cells.read(path) for path in sources}
    paths = []
    for path in sorted(folder.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            paths.append(path)
    if not paths:
        raise SsahError(f"no notebook (*.ipynb) in {folder}")
    marks = []
    with tempfile.TemporaryDirectory(prefix="ssah-grading-") as scratch:
        with own_kernel(Path(scratch) / "kernel", {}):
            for number, path in enumerate(paths):
                submission = path.relative_to(folder).with_suffix("").as_posix()
                workplace = Path(scratch) / str(number)
                workplace.mkdir()
                marks += _marks_of(path, submission, known, workplace, cell_seconds)
    return marks


def _marks_of(
    path: Path, submission: str, known: dict, workplace: Path, cell_seconds: int
) -> list[Mark]:
    try:
        handed_in = nbformat.read(path, as_version=4)
    except Exception as error:      # nbformat raises what its parser raises
        return [Mark(submission, "", "", 0, 0, NOT_RUN, f"no notebook: {_one_line(str(error))}")]
    name = assignment_of(handed_in, known)
    if name is None:
        return [Mark(submission, "", "", 0, 0, NOT_RUN, "its cells are of no assignment")]
    source = known[name]
    notebook = with_tests(handed_in, source)
    why = run(notebook, workplace, cell_seconds)
    graded = [cell for cell in notebook.cells if cells.points(cell)]
    return [_mark(cell, submission, name, why) for cell in graded]


def assignment_of(handed_in, known: dict) -> str | None:
    """The name of the assignment that shares most cells with a notebook; None if none does."""
    ids = {cells.grade_id(cell) for cell in handed_in.cells} - {""}
    shared = {}
    for name, source in known.items():
        shared[name] = len(ids & {cells.grade_id(cell) for cell in source.cells})
    best = max(shared, key=shared.get, default=None)
    return best if best is not None and shared[best] else None


# ---- what is run -----------------------------------------------------------------------------


def with_tests(handed_in, source):
    """The student's notebook with the source's tests and given cells in place of its own.

    Cells for graders that the student lost are added at the end; a second cell of one name is left
    out.
    """
    ours = {cells.grade_id(cell): cell for cell in source.cells if cells.grade_id(cell)}
    notebook = copy.deepcopy(source)
    notebook.cells = []
    left = dict(ours)
    for cell in handed_in.cells:
        name = cells.grade_id(cell)
        if name in left:
            notebook.cells.append(_restored(cell, left.pop(name)))
        elif name not in ours:
            notebook.cells.append(_plain(cell))
    for cell in left.values():
        if not cells.is_solution(cell):
            notebook.cells.append(copy.deepcopy(cell))
        elif cells.is_by_hand(cell):
            blank = copy.deepcopy(cell)
            blank.source = cells.TEXT_STUB
            notebook.cells.append(blank)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def _restored(theirs, ours):
    """Our cell, with their text where it was theirs to write."""
    cell = copy.deepcopy(ours)
    if cells.is_solution(ours):
        cell.source = theirs.source
    return cell


def _plain(theirs):
    """A cell that the student added: run, never graded."""
    cell = copy.deepcopy(theirs)
    cell.metadata = {}
    if cell.cell_type == "code":
        cell.outputs = []
        cell.execution_count = None
    return cell


def run(notebook, workplace: Path, cell_seconds: int) -> str:
    """Execute a notebook in place; one line of what stopped it, empty if all cells were run.

    A cell that takes too long is interrupted, and the next one is run. What takes too long
    altogether, or does not heed the interrupt, is ended.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        allow_errors=True,
        interrupt_on_timeout=True,
        timeout=cell_seconds,
        shutdown_kernel="immediate",
        on_cell_executed=_note_status,
        resources={"metadata": {"path": str(workplace)}},
    )
    try:
        asyncio.run(asyncio.wait_for(client.async_execute(), cell_seconds * CELLS_WORTH))
    except TimeoutError:
        return f"took longer than {cell_seconds * CELLS_WORTH} s altogether"
    except CellTimeoutError:
        return f"a cell took longer than {cell_seconds} s"
    except DeadKernelError:
        return "the kernel died (out of memory?)"
    except RuntimeError as error:
        return f"the kernel did not start: {_one_line(str(error))}"
    return ""


def _note_status(cell, cell_index: int, execute_reply: dict | None) -> None:
    """Keep how the kernel said that a cell ended; one that was interrupted may not say it."""
    if execute_reply is not None:
        cell.metadata["status"] = execute_reply["content"]["status"]


# ---- what it is worth ------------------------------------------------------------------------


def _mark(cell, submission: str, assignment: str, why: str) -> Mark:
    name = cells.grade_id(cell)
    of = cells.points(cell)
    if cells.is_by_hand(cell):
        is_blank = cell.source.strip() in ("", cells.TEXT_STUB, "YOUR ANSWER HERE")
        state = BLANK if is_blank else BY_HAND
        return Mark(submission, assignment, name, 0 if is_blank else None, of, state)
    for output in cell.outputs:
        if output.output_type == "error":
            is_blank = output.ename in ("NotWritten", "NotImplementedError")
            said = _one_line(f"{output.ename}: {output.evalue}")
            state = BLANK if is_blank else FAILED
            return Mark(submission, assignment, name, 0, of, state, said)
    # without an error a cell has passed only if the kernel said so: it may have hung, or died
    if cell.metadata.get("status") == "ok":
        return Mark(submission, assignment, name, of, of, PASSED)
    return Mark(submission, assignment, name, 0, of, NOT_RUN, why or "it did not end in time")


def _one_line(text: str) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    return lines[0] if lines else ""


def totals(marks: list[Mark]) -> list[list[str]]:
    """A row a submission: its name, assignment, points so far, of how many, left to a person."""
    rows = []
    for submission in dict.fromkeys(mark.submission for mark in marks):
        own = [mark for mark in marks if mark.submission == submission]
        so_far = sum(mark.points or 0 for mark in own)
        left = sum(mark.of for mark in own if mark.points is None)
        whole = sum(mark.of for mark in own)
        rows.append([submission, own[0].assignment or "none", f"{so_far:g}", f"{whole:g}",
                     f"{left:g}"])
    return rows


def write_csv(marks: list[Mark], path: Path) -> None:
    """One row a graded cell; the columns are the fields of `Mark`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Mark)])
        writer.writeheader()
        writer.writerows(asdict(mark) for mark in marks)
