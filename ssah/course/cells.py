"""What the cells of an assignment are, by nbgrader's metadata and marks.

A cell's ``metadata.nbgrader`` says whether it is a solution, is graded, and for how many points.
Inside a cell ``### BEGIN SOLUTION`` to ``### END SOLUTION`` is what students do not get, and so is
``### BEGIN HIDDEN TESTS`` to ``### END HIDDEN TESTS``. Two tags are ours: a cell ``solution``
explains one (a version for students has none of them), and a cell ``yours`` runs what the student
wrote, so it fails while that is a blank.
"""

import re
from pathlib import Path

import nbformat

from ..errors import SsahError

SCHEMA = 3
SOLUTION = "SOLUTION"
HIDDEN_TESTS = "HIDDEN TESTS"

#: What stands in place of a solution.
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
TEXT_STUB = "*Your answer here.*"

_FLAGS = ("grade", "locked", "solution", "task")


# ---- one cell --------------------------------------------------------------------------------


def about(cell) -> dict:
    """The cell's grader metadata; empty for one that means nothing to graders."""
    return cell.metadata.get("nbgrader", {})


def grade_id(cell) -> str:
    """The name by which graders know the cell; empty where it has none."""
    return about(cell).get("grade_id", "")


def points(cell) -> float:
    """What the cell is worth; 0 where it is not graded."""
    return about(cell).get("points", 0) if about(cell).get("grade") else 0


def is_solution(cell) -> bool:
    """Whether students write this cell: code, or text that is graded by hand."""
    return bool(about(cell).get("solution"))


def is_test(cell) -> bool:
    """Whether the cell is a test, graded by running it."""
    return bool(about(cell).get("grade")) and not is_solution(cell)


def is_by_hand(cell) -> bool:
    """Whether a person grades the cell."""
    return bool(about(cell).get("grade")) and is_solution(cell)


def is_hidden(cell) -> bool:
    """Whether the cell has tests that students do not see."""
    return is_test(cell) and f"### BEGIN {HIDDEN_TESTS}" in cell.source


def has_tag(cell, tag: str) -> bool:
    """Whether the cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def replaced(source: str, region: str, stub: tuple[str, ...] = ()) -> str:
    """The source with the lines of `stub` in place of each region, as far to the right as it.

    Raises `SsahError` for a region that does not end, or has no beginning.
    """
    kept = []
    inside = False
    for line in source.splitlines():
        is_begin = line.strip() == f"### BEGIN {region}"
        is_end = line.strip() == f"### END {region}"
        if is_begin and not inside:
            indent = line[:len(line) - len(line.lstrip())]
            kept += [indent + stub_line for stub_line in stub]
        elif is_begin or (is_end and not inside):
            raise SsahError(f"a region {region} begins twice or ends without beginning")
        elif not inside and not is_end:
            kept.append(line)
        inside = is_begin or (inside and not is_end)
    if inside:
        raise SsahError(f"a region {region} does not end: write ### END {region}")
    return "\n".join(kept)


def unmarked(source: str, region: str) -> str:
    """The source with what is in the regions, without their marks."""
    marks = (f"### BEGIN {region}", f"### END {region}")
    return "\n".join(line for line in source.splitlines() if line.strip() not in marks)


def inside_of(source: str, region: str) -> str:
    """The lines within the regions, without their marks."""
    marks = re.compile(rf"### BEGIN {region}\n(.*?)^\s*### END {region}", re.S | re.M)
    return "\n".join(found.rstrip() for found in marks.findall(source))


# ---- a notebook ------------------------------------------------------------------------------


def read(path: Path):
    """An assignment's source; `SsahError` where graders could not take it (`check`)."""
    notebook = nbformat.read(path, as_version=4)
    try:
        check(notebook)
    except SsahError as error:
        raise SsahError(f"{path.name}: {error}") from error
    return notebook


def check(notebook) -> None:
    """Raise `SsahError` for a notebook that nbgrader would refuse, or that leaks a solution."""
    if notebook.metadata.get("kernelspec", {}).get("language") != "python":
        raise SsahError("set kernelspec.language to python in the notebook's metadata")
    seen = set()
    for cell in notebook.cells:
        if not about(cell):
            if any(f"### BEGIN {region}" in cell.source for region in (SOLUTION, HIDDEN_TESTS)):
                raise SsahError(f"cell {cell.get('id')} has a region and no grader metadata")
            continue
        _check_cell(cell)
        if grade_id(cell) in seen:
            raise SsahError(f"two cells are called {grade_id(cell)}")
        seen.add(grade_id(cell))
    if not seen:
        raise SsahError("no cell has grader metadata: this is no assignment")


def _check_cell(cell) -> None:
    name = grade_id(cell)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise SsahError(f"{name!r} is no name of a cell: letters, digits, _ and - only")
    lacking = {"schema_version", *_FLAGS} - set(about(cell))
    if lacking or about(cell)["schema_version"] != SCHEMA:
        raise SsahError(f"{name}: its metadata is not of schema version {SCHEMA}")
    if about(cell)["grade"] and not points(cell) > 0:
        raise SsahError(f"{name} is graded and has no points")
    replaced(cell.source, HIDDEN_TESTS)
    if is_solution(cell) and cell.cell_type == "code" and not inside_of(cell.source, SOLUTION):
        raise SsahError(f"{name} is a solution without a region: ### BEGIN {SOLUTION}")
