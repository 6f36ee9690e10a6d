"""Marks for notebooks that students handed in.

Each is run in a kernel of its own, in an empty folder, with a time limit. Its tests come from the
source, hidden ones too: what a student did to a test, or to a cell that was given, does not count.

What this does **not** protect from. The student's code runs as you, on your machine: it can read
and delete your files (other submissions and the table of marks too), use the network, leave
processes, change the organism in the cache, and fill memory or disk. It runs in one process with
the tests, so it can look at the hidden ones or change what `ssah.teach` does. Against mistakes and
endless loops it is enough; strangers' code belongs into a container or a virtual machine without
network, one submission each, as a copy, and marks that matter want a look at the code.
"""

import asyncio
import copy
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from ..errors import SsahError
from ..lab.notebooks import own_kernel
from . import cells
from .marks import BLANK, BY_HAND, FAILED, NOT_RUN, PASSED, Mark, hash_of
from .uses import imported, library_names

#: Seconds that a cell may take, and a whole notebook in units of that.
CELL_SECONDS = 120
CELLS_WORTH = 5

#: Characters of a cell's output that are kept, and of a line that is shown.
KEPT_OUTPUT = 1_000_000
KEPT_LINE = 300
#: What is said of a test that was stopped.
TOO_LATE = "it did not end in time"


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
    note_of = notes(handed_in, source)
    marks = []
    for cell in notebook.cells:
        if cells.points(cell):
            mark = _mark(cell, submission, name, why)
            marks.append(replace(mark, note=note_of.get(mark.cell, "")))
    return marks


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

    JupyterLab copies a cell's metadata when it is split, so a solution may come in parts: those of
    code are all run, those of an answer in words are joined. A second cell of another name is left
    out, and so is a cell that only tries a function (tag ``yours``) and is as it was. Cells for
    graders that the student lost stand behind the one that they follow in the source.
    """
    ours = {cells.grade_id(cell): cell for cell in source.cells if cells.grade_id(cell)}
    merged = _merged(handed_in, ours, _tried(source))
    _insert_lost(merged, ours)
    notebook = copy.deepcopy(source)
    notebook.cells = [cell for _, cell in merged]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def _tried(source) -> set[str]:
    """The code of cells that only run what the student wrote."""
    return {cell.source.strip() for cell in source.cells if cells.has_tag(cell, "yours")}


def _merged(handed_in, ours: dict, tried: set[str]) -> list[tuple]:
    """The student's cells in their order, each under the name of ours that it stands for."""
    merged = []
    whole = {}
    for cell in handed_in.cells:
        name = cells.grade_id(cell)
        if name not in ours:
            if cell.source.strip() not in tried:
                merged.append(("", _plain(cell)))
        elif name not in whole:
            whole[name] = _restored(cell, ours[name])
            merged.append((name, whole[name]))
        elif cells.is_by_hand(ours[name]):
            whole[name].source = _joined(whole[name].source, cell.source)
        elif cells.is_solution(ours[name]):
            merged.append((name, _plain(cell)))
    return merged


def _insert_lost(merged: list[tuple], ours: dict) -> None:
    """Put cells that the student lost behind the last of the one before them in the source."""
    before = None
    for name, cell in ours.items():
        present = [called for called, _ in merged]
        is_code_to_write = cells.is_solution(cell) and not cells.is_by_hand(cell)
        if name not in present:
            if is_code_to_write:
                continue
            lost = copy.deepcopy(cell)
            if cells.is_by_hand(cell):
                lost.source = cells.TEXT_STUB
            behind = len(present) - present[::-1].index(before) if before is not None else 0
            merged.insert(behind, (name, lost))
        before = name


def _restored(theirs, ours):
    """Our cell, with their text where it was theirs to write."""
    cell = copy.deepcopy(ours)
    if cells.is_solution(ours):
        cell.source = theirs.source
    return cell


def _joined(first: str, second: str) -> str:
    """Two parts of an answer in words; a blank part adds nothing."""
    return "\n\n".join(part for part in (first, second) if not _is_blank(part))


def _is_blank(answer: str) -> bool:
    return answer.strip() in ("", cells.TEXT_STUB, "YOUR ANSWER HERE")


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
    client = _Client(
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


class _Client(NotebookClient):
    """Keeps `KEPT_OUTPUT` characters of what a cell prints, so that no cell fills our memory."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.n_printed = Counter()      # by the position of the cell

    def output(self, outs, msg, display_id, cell_index):
        """Take a message of the kernel; an error is always kept, for the mark."""
        self.n_printed[cell_index] += len(str(msg["content"]))
        too_much = self.n_printed[cell_index] > KEPT_OUTPUT
        if too_much and msg["msg_type"] != "error":
            return None
        return super().output(outs, msg, display_id, cell_index)


def _note_status(cell, cell_index: int, execute_reply: dict | None) -> None:
    """Keep how the kernel said that a cell ended; one that was interrupted may not say it."""
    if execute_reply is not None:
        cell.metadata["status"] = execute_reply["content"]["status"]


# ---- what it is worth ------------------------------------------------------------------------


def _mark(cell, submission: str, assignment: str, why: str) -> Mark:
    name = cells.grade_id(cell)
    of = cells.points(cell)
    if cells.is_by_hand(cell):
        if _is_blank(cell.source):
            return Mark(submission, assignment, name, 0, of, BLANK)
        text_hash = hash_of(cell.source)
        return Mark(submission, assignment, name, None, of, BY_HAND, text_hash=text_hash)
    for output in cell.outputs:
        if output.output_type == "error":
            is_blank = output.ename in ("NotWritten", "NotImplementedError")
            if output.ename == "KeyboardInterrupt":     # by us, for the time
                return Mark(submission, assignment, name, 0, of, NOT_RUN, why or TOO_LATE)
            said = _one_line(f"{output.ename}: {output.evalue or _failing_line(output.traceback)}")
            state = BLANK if is_blank else FAILED
            return Mark(submission, assignment, name, 0, of, state, said)
    # without an error a cell has passed only if the kernel said so: it may have hung, or died
    if cell.metadata.get("status") == "ok":
        return Mark(submission, assignment, name, of, of, PASSED)
    return Mark(submission, assignment, name, 0, of, NOT_RUN, why or TOO_LATE)


def _failing_line(traceback: list[str]) -> str:
    """The line of the cell that raised, of an assertion that says nothing."""
    found = re.search(r"^-+> *\d+ (.*)$", _without_colours("\n".join(traceback)), re.MULTILINE)
    return found[1].strip() if found else ""


def _without_colours(text: str) -> str:
    """The text without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _one_line(text: str) -> str:
    lines = _without_colours(text).strip().splitlines()
    return lines[0][:KEPT_LINE] if lines else ""


# ---- what a person should look at ------------------------------------------------------------


def notes(handed_in, source) -> dict[str, str]:
    """By the name of each test, what its solution uses of the library and ours does not."""
    theirs = {}
    for cell in handed_in.cells:
        theirs.setdefault(cells.grade_id(cell), []).append(cell.source)
    imports = imported(cell.source for cell in handed_in.cells if cell.cell_type == "code")
    of_ours = imported(cell.source for cell in source.cells if cell.cell_type == "code")
    found = {}
    note = ""
    for cell in source.cells:
        if cells.is_solution(cell) and cell.cell_type == "code":
            used = set()
            for part in theirs.get(cells.grade_id(cell), []):
                used |= library_names(part, imports)
            used -= library_names(cell.source, of_ours)
            note = f"uses {', '.join(sorted(used))}" if used else ""
        elif cells.is_test(cell):
            found[cells.grade_id(cell)] = note
    return found
