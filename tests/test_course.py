"""The course: sources that graders take, versions that leak nothing, and marks that are right."""

import copy
import csv
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ssah import cli, organism
from ssah.course import build, cells, grade, sheet
from ssah.errors import SsahError
from ssah.inputs.archives import REPOSITORY
from ssah.teach import editing

FOLDER = REPOSITORY / "notebooks" / "course"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
SOURCES = {path.stem: cells.read(path) for path in PATHS}

#: Assignments that need no torch, and run in seconds.
LIGHT = ("01_find_the_units", "04_would_you_believe_it")


def run_cells(notebook, without: tuple[str, ...] = ()) -> dict[int, Exception]:
    """Run the code in this process; what was raised, by the position of the cell.

    `without`: names of cells, or a tag, that are left out.
    """
    names = {"__name__": "__main__"}
    raised = {}
    for number, cell in enumerate(notebook.cells):
        called = {cells.grade_id(cell), *cell.metadata.get("tags", [])}
        left_out = not called.isdisjoint(without)
        if cell.cell_type == "code" and not left_out:
            try:
                exec(compile(cell.source, f"cell {number}", "exec"), names)
            except Exception as error:
                raised[number] = error
    return raised


# ---- the sources -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_a_well_kept_notebook(name):
    notebook = SOURCES[name]
    nbformat.validate(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            assert all(len(line) <= 110 for line in cell.source.splitlines())


def test_cells_have_one_name_in_all_of_the_course():
    """So that a notebook of any name is known by its cells."""
    names = [cells.grade_id(cell) for source in SOURCES.values() for cell in source.cells]
    names = [name for name in names if name]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", SOURCES)
def test_cards_say_what_the_cells_are_worth(name):
    source = SOURCES[name]
    exercises = sheet.exercises(source)
    for exercise in exercises:
        assert exercise.points == exercise.points_in_cells, exercise.title
        assert any(cells.has_tag(cell, "solution") for cell in exercise.cells), exercise.title
    total = sum(exercise.points for exercise in exercises)
    assert total == sum(cells.points(cell) for cell in source.cells)
    minutes = sum(exercise.minutes for exercise in exercises)
    head = source.cells[0].source
    assert f"**Points** {total}." in head
    assert f"**Time** {minutes + 10} minutes, 10 of them for reading" in head
    assert 60 <= minutes + 10 <= 90


@pytest.mark.parametrize("name", SOURCES)
def test_each_function_has_one_check_and_hidden_tests(name):
    """A typed function with a docstring, then a check in one line, then hidden tests."""
    source = SOURCES[name]
    for cell in source.cells:
        if not cells.is_solution(cell) or cell.cell_type != "code":
            continue
        position = source.cells.index(cell)
        check, hidden = source.cells[position + 1:position + 3]
        (function,) = re.findall(r"^def (\w+)", cell.source, re.M)
        assert check.source == f"teach.check_{function}({function})"
        assert cells.grade_id(check) == f"{cells.grade_id(cell)}-check"
        assert cells.is_hidden(hidden) and not cells.is_hidden(check)
        assert '    """' in cell.source and "->" in cell.source or "@contextmanager" in cell.source


@pytest.mark.parametrize("name", LIGHT)
def test_solutions_pass_all_tests_in_this_process(name):
    assert run_cells(SOURCES[name]) == {}


@pytest.mark.parametrize("name", ["02_remove_and_transplant", "03_freeze"])
def test_solutions_pass_on_an_organism_of_a_few_steps(name, monkeypatch):
    """All but what needs an organism that has learnt to refuse; that is in the whole runs below."""
    monkeypatch.setattr(organism, "REQUESTS", dict.fromkeys(organism.ROLES, 32))
    monkeypatch.setattr(organism, "CLOSED_TO", 16)
    # as if removed units took all refusals away, and transplanted ones brought them
    monkeypatch.setattr(editing, "refusals", lambda chat: float(chat.name.endswith("base")))
    left_out = ("yours", "freezing-runs", "freezing-table")
    assert run_cells(SOURCES[name], without=left_out) == {}


# ---- versions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_students_version_leaks_nothing(name):
    """No line of a solution or hidden test that does not stand elsewhere in the open, too."""
    source = SOURCES[name]
    theirs = build.student(source)
    text = "\n".join(cell.source for cell in theirs.cells)
    shown = set()
    for cell in source.cells:
        open_part = cells.replaced(cells.replaced(cell.source, cells.SOLUTION), cells.HIDDEN_TESTS)
        shown |= {line.strip() for line in open_part.splitlines()}
    for cell in source.cells:
        for region in (cells.SOLUTION, cells.HIDDEN_TESTS):
            for line in cells.inside_of(cell.source, region).splitlines():
                if len(line.strip()) > 12 and line.strip() not in shown:
                    assert line.strip() not in text, line
        if cells.has_tag(cell, "solution") or cells.is_by_hand(cell):
            assert cell.source not in text
    assert "BEGIN" not in text and "what usually goes wrong" not in text
    n_blanks = sum(cells.is_solution(c) and c.cell_type == "code" for c in source.cells)
    assert text.count("raise NotImplementedError()") == n_blanks


@pytest.mark.parametrize("name", LIGHT)
def test_a_students_version_fails_only_where_a_blank_is_run(name):
    theirs = build.student(SOURCES[name])
    raised = run_cells(theirs)
    assert raised and all(isinstance(error, NotImplementedError) for error in raised.values())
    for number, cell in enumerate(theirs.cells):
        goes_on = cells.has_tag(cell, build.GOES_ON)
        # what is left of hidden tests is a comment, which cannot fail
        assert (number in raised) <= goes_on
        runs = [line for line in cell.source.splitlines() if not line.startswith("#")]
        assert (number in raised) == (goes_on and bool(runs)), cell.source


@pytest.mark.parametrize("name", SOURCES)
def test_the_version_with_solutions_has_them_and_no_hidden_test(name):
    text = "\n".join(cell.source for cell in build.solution(SOURCES[name]).cells)
    assert "NotImplementedError" not in text and "BEGIN" not in text
    assert "what usually goes wrong" in text


@pytest.mark.parametrize("name", SOURCES)
def test_otters_version_has_a_function_for_each_test(name):
    """Whatever a test uses comes in by name, so each compiles and runs without the notebook."""
    notebook = build.otter(SOURCES[name], name)
    nbformat.validate(notebook)
    marks = [cell.source.splitlines()[0] for cell in notebook.cells if cell.cell_type == "raw"]
    assert marks.count("# BEGIN QUESTION") == marks.count("# END QUESTION") > 0
    tests = [cell for cell in notebook.cells if cell.source.startswith('""" # BEGIN TEST CONFIG')]
    assert len(tests) == sum(cells.is_test(cell) for cell in SOURCES[name].cells)
    for test in tests:
        compile(test.source, name, "exec")
    points = re.findall(r"^points: (\d+)", "\n".join(c.source for c in notebook.cells), re.M)
    assert sum(map(int, points)) == sum(cells.points(cell) for cell in SOURCES[name].cells)


def test_names_that_a_test_needs():
    code = "import math\nfor x in values:\n    assert f(x) == math.pi + offset, len(values)"
    assert build.names_needed(code) == ["f", "offset", "values"]


def test_regions_are_replaced_at_their_indentation():
    code = "def f():\n    a = 1\n    ### BEGIN SOLUTION\n    return a\n    ### END SOLUTION\nf()"
    assert cells.replaced(code, "SOLUTION", ("pass",)) == "def f():\n    a = 1\n    pass\nf()"
    assert cells.inside_of(code, "SOLUTION") == "    return a"
    assert cells.unmarked(code, "SOLUTION") == "def f():\n    a = 1\n    return a\nf()"


@pytest.mark.parametrize("code, said", [
    ("### BEGIN SOLUTION\n1", "does not end"),
    ("### END SOLUTION", "ends without beginning"),
    ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "begins twice"),
])
def test_broken_regions_are_refused(code, said):
    with pytest.raises(SsahError, match=said):
        cells.replaced(code, "SOLUTION")


# ---- a small assignment of its own -----------------------------------------------------------


def marked(cell, name: str, points: int | None = None, solution: bool = False):
    """The cell with a grader's metadata."""
    about = {"schema_version": 3, "grade": points is not None, "grade_id": name,
             "locked": not solution, "solution": solution, "task": False}
    if points is not None:
        about["points"] = points
    cell.metadata["nbgrader"] = about
    return cell


@pytest.fixture
def small(tmp_path):
    """Two functions and a question; the path of the source."""
    hidden = "### BEGIN HIDDEN TESTS\nassert double(-1) == -2\n### END HIDDEN TESTS"
    notebook = new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}},
        cells=[
            new_markdown_cell("# Small"),
            marked(new_code_cell("base = 2"), "given"),
            marked(new_code_cell("def double(x):\n    ### BEGIN SOLUTION\n    return base * x\n"
                                 "    ### END SOLUTION"), "double", solution=True),
            marked(new_code_cell("assert double(3) == 6"), "double-check", 2),
            marked(new_code_cell(hidden), "double-hidden", 1),
            marked(new_code_cell("def last(x):\n    ### BEGIN SOLUTION\n    return x[-1]\n"
                                 "    ### END SOLUTION"), "last", solution=True),
            marked(new_code_cell("assert last('abc') == 'c'"), "last-check", 4),
            marked(new_markdown_cell("Because."), "why", 3, solution=True),
        ])
    path = tmp_path / "source" / "01_small.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)
    return path


def handed_in(source: Path, answers: dict[str, str]):
    """A student's version with these answers, by the cells' names."""
    notebook = build.student(cells.read(source))
    for cell in notebook.cells:
        cell.source = answers.get(cells.grade_id(cell), cell.source)
    return notebook


@pytest.mark.parametrize("spoil, said", [
    (lambda about: about.update(grade_id="a b"), "is no name of a cell"),
    (lambda about: about.update(grade_id="given"), "two cells are called given"),
    (lambda about: about.update(schema_version=2), "not of schema version 3"),
    (lambda about: about.pop("locked"), "not of schema version 3"),
    (lambda about: about.update(points=0), "has no points"),
])
def test_metadata_that_graders_refuse_is_refused_here(small, spoil, said):
    notebook = nbformat.read(small, as_version=4)
    spoil(notebook.cells[3].metadata["nbgrader"])
    with pytest.raises(SsahError, match=said):
        cells.check(notebook)


def test_a_tampered_test_and_a_changed_given_cell_are_put_back(small):
    source = cells.read(small)
    theirs = handed_in(small, {"double-check": "pass", "given": "base = 0", "double": "x = 1"})
    theirs.cells.append(copy.deepcopy(theirs.cells[3]))                 # a test twice
    theirs.cells.insert(2, new_code_cell("helper = 1"))
    del theirs.cells[5]                                                 # hidden tests lost
    merged = grade.with_tests(theirs, source)
    found = {cells.grade_id(cell): cell.source for cell in merged.cells if cells.grade_id(cell)}
    assert found["double-check"] == "assert double(3) == 6" and found["given"] == "base = 2"
    assert found["double"] == "x = 1"
    assert "double(-1)" in found["double-hidden"]
    assert "helper = 1" in [cell.source for cell in merged.cells]
    graded = [cells.grade_id(cell) for cell in merged.cells if cells.points(cell)]
    assert sorted(graded) == ["double-check", "double-hidden", "last-check", "why"]


def test_which_assignment_a_notebook_answers():
    for name, source in SOURCES.items():
        assert grade.assignment_of(build.student(source), SOURCES) == name
    assert grade.assignment_of(new_notebook(cells=[new_code_cell("1")]), SOURCES) is None


def test_marks_of_right_wrong_slow_and_deadly_notebooks(small, tmp_path):
    """Each in a kernel: points by cell, what was said, and what comes after a cell that hangs."""
    folder = tmp_path / "in"
    partly = {
        "double": "def double(x):\n    return abs(x) * base",           # hidden tests see it
        "last": "import threading\n\n\ndef last(x):\n    threading.Event().wait()",
        "why": "I think so.",
    }
    deadly = {
        "double": "def double(x):\n    return x + x",
        "last": "import os\n\n\ndef last(x):\n    os._exit(1)",
    }
    for student, answers in {"ann": partly, "bob": deadly}.items():
        (folder / student).mkdir(parents=True)
        nbformat.write(handed_in(small, answers), folder / student / "mine.ipynb")
    (folder / "none.ipynb").write_text("{}")
    marks = grade.grade(folder, [small], cell_seconds=10)
    found = {(mark.submission, mark.cell): (mark.points, mark.state) for mark in marks}
    assert found["ann/mine", "double-check"] == (2, grade.PASSED)
    assert found["ann/mine", "double-hidden"] == (0, grade.FAILED)
    assert found["ann/mine", "last-check"][0] == 0
    assert found["ann/mine", "why"] == (None, grade.BY_HAND)
    assert found["bob/mine", "double-hidden"] == (1, grade.PASSED)
    assert found["bob/mine", "last-check"][0] == 0
    assert found["bob/mine", "why"] == (0, grade.BLANK)
    assert found["none", ""] == (0, grade.NOT_RUN)
    assert grade.totals(marks) == [
        ["ann/mine", "01_small", "2", "10", "3"],
        ["bob/mine", "01_small", "3", "10", "0"],
        ["none", "none", "0", "0", "0"],
    ]
    grade.write_csv(marks, tmp_path / "grades.csv")
    with (tmp_path / "grades.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(marks)
    assert rows[0]["points"] == "2" and rows[0]["said"] == ""


# ---- the command line ------------------------------------------------------------------------


def test_build_by_the_command_line(tmp_path, capsys):
    assert cli.main(["course", "build", "1", "--into", str(tmp_path)]) == 0
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    name = "01_find_the_units"
    assert made == {
        f"student/{name}.ipynb", f"solution/{name}.ipynb", f"otter/{name}.ipynb",
        f"nbgrader/source/{name}/{name}.ipynb", "nbgrader/nbgrader_config.py",
        f"instructor/{name}.md",
    }
    text = (tmp_path / "instructor" / f"{name}.md").read_text("utf-8")
    parts = ("X.var(axis=0, ddof=1)", "Hidden tests", "`ddof` forgotten", "| all | | | 65 | 24")
    for part in parts:
        assert part in text
    assert "student/ is for students" in capsys.readouterr().out


@pytest.mark.parametrize("command, said", [
    ("course build 07", "no notebook 07 in"),
    ("course grade {folder}", "no notebook (*.ipynb) in"),
])
def test_bad_input_gets_one_line(tmp_path, capsys, command, said):
    assert cli.main(command.format(folder=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


# ---- whole runs, and graders of others -------------------------------------------------------


@pytest.mark.extended
@pytest.mark.parametrize("name", SOURCES)
def test_the_version_with_solutions_gets_all_points(name, tmp_path, monkeypatch):
    """In a kernel of its own; what is graded by hand is left to a person."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nbformat.write(build.solution(SOURCES[name]), tmp_path / "solved.ipynb")
    marks = grade.grade(tmp_path, PATHS)
    assert {mark.assignment for mark in marks} == {name}
    for mark in marks:
        if mark.state != grade.BY_HAND:
            assert mark.points == mark.of, (mark.cell, mark.said)


#: A virtual environment with nbgrader and otter-grader; the course needs neither.
GRADERS = os.environ.get("SSAH_GRADERS", "")


def run_grader(command: list[str], folder: Path) -> None:
    """A command of the other environment, which calls others of it by name."""
    programs = Path(GRADERS) / "bin"
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run([str(programs / command[0]), *command[1:]], cwd=folder, env=environment,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.extended
@pytest.mark.skipif(not GRADERS, reason="SSAH_GRADERS names no environment with the graders")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_other_graders_take_their_versions(path, tmp_path):
    """nbgrader's own release is, cell by cell, our version for students; otter makes one too."""
    build.build([path], tmp_path)
    run_grader(["nbgrader", "generate_assignment", path.stem], tmp_path / "nbgrader")
    theirs = nbformat.read(tmp_path / "nbgrader" / "release" / path.stem / path.name, as_version=4)
    ours = nbformat.read(tmp_path / "student" / path.name, as_version=4)
    assert [c.source.strip() for c in theirs.cells] == [c.source.strip() for c in ours.cells]
    run_grader(["otter", "assign", "--no-run-tests", path.name, "dist"], tmp_path / "otter")
    made = nbformat.read(tmp_path / "otter" / "dist" / "student" / path.name, as_version=4)
    text = "\n".join(cell.source for cell in made.cells)
    n_blanks = sum(cells.is_solution(c) and c.cell_type == "code" for c in ours.cells)
    assert text.count("raise NotImplementedError()") == n_blanks
    shutil.rmtree(tmp_path / "otter")
