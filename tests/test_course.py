"""The course: sources that graders take, versions that leak nothing, and marks that are right."""

import copy
import csv
import os
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ssah import cli, organism
from ssah.course import build, cells, grade, marks, sheet, uses
from ssah.errors import SsahError
from ssah.inputs.archives import REPOSITORY
from ssah.lab.notebooks import own_kernel
from ssah.teach import editing

pytestmark = pytest.mark.slow

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


@pytest.fixture
def few_steps(monkeypatch):
    """An organism of a few steps, as if its planted units took refusals away and brought them."""
    monkeypatch.setattr(organism, "REQUESTS", dict.fromkeys(organism.ROLES, 32))
    monkeypatch.setattr(organism, "CLOSED_TO", 16)
    monkeypatch.setattr(editing, "refusals", lambda chat: float(chat.name.endswith("base")))


def test_a_wrong_without_costs_no_other_exercise(few_steps):
    """It leaves the student's `chat` without units; all else is right, and gets its points."""
    notebook = copy.deepcopy(SOURCES["02_remove_and_transplant"])
    by_name = {cells.grade_id(cell): cell for cell in notebook.cells}
    by_name["without"].source = """
@contextmanager
def without(model, index, mask):
    for linear, (_, _, where) in zip(unit_outputs(model), index.modules()):
        with torch.no_grad():
            linear.weight[:, np.flatnonzero(mask[where])] = 0
    yield model


with without(chat.model, index, np.ones(len(index), bool)):
    pass
"""
    raised = run_cells(notebook, without=("yours",))
    failed = [cells.grade_id(notebook.cells[number]) for number in raised]
    assert failed == ["without-check", "without-hidden"]


@pytest.mark.parametrize("name", ["02_remove_and_transplant", "03_freeze"])
def test_solutions_pass_on_an_organism_of_a_few_steps(name, few_steps):
    """All but what needs an organism that has learnt to refuse; that is in the whole runs below."""
    left_out = ("yours", "freezing-runs", "freezing-table")
    assert run_cells(SOURCES[name], without=left_out) == {}


@pytest.mark.parametrize("name", LIGHT)
def test_no_graded_cell_needs_one_that_only_tries_a_function(name):
    """Grading leaves those out; the other assignments are run without them above."""
    assert run_cells(SOURCES[name], without=("yours",)) == {}


def test_the_word_on_the_pair_made_anew_is_what_the_model_answer_says():
    """Course 4 sends students to README's table; its row C2-SCU may change with new runs."""
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    (head,) = re.findall(r"^\|  \| claim \|(.*)\|$", readme, re.M)
    (row,) = re.findall(r"^\| C2-SCU \|[^|]*\|(.*)\|$", readme, re.M)
    (column,) = [number for number, model in enumerate(head.split(" | "))
                 if "135M" in model and "made again" not in model]
    words, measured, *_ = row.split(" | ")[column].split("<br>")
    low, high = map(int, re.search(r"\[(-?\d+), (-?\d+)\]", measured).groups())
    source = SOURCES["04_would_you_believe_it"]
    (answer,) = [cell.source for cell in source.cells if cells.grade_id(cell) == "verdict"]
    assert "**cannot tell, not asked, depends on the judge**" in words
    assert "the word is *cannot tell*, and it depends on the judge" in answer
    (found,) = re.findall(r"(\d+) % of what could be lost", answer)
    assert "its interval holds 0, and the effect found here too" in answer
    assert low < 0 < int(found) < high


def test_functions_that_the_page_for_instructors_names_are_there():
    page = (FOLDER / "README.md").read_text("utf-8")
    names = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M)
    solved = {name for source in SOURCES.values() for cell in source.cells
              for name in re.findall(r"^def (\w+)", cell.source, re.M) if cells.is_solution(cell)}
    assert {exercise for exercise, _ in names} < solved
    for _, functions in names:
        for name in re.findall(r"`([\w.]+)`", functions):
            assert callable(pkgutil.resolve_name(name)), name


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
            new_code_cell("double(2)", metadata={"tags": ["yours"]}),
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


def split(notebook, name: str, first: str, second: str) -> None:
    """Split a cell as JupyterLab does, which gives both parts its metadata."""
    names = [cells.grade_id(cell) for cell in notebook.cells]
    number = names.index(name)
    part = copy.deepcopy(notebook.cells[number])
    notebook.cells[number].source = first
    part.source = second
    part["id"] = f"{name}-part"
    notebook.cells.insert(number + 1, part)


def test_parts_of_a_split_cell_are_kept(small):
    """Code in its place, an answer in words as one; what only tries a function is left out."""
    theirs = handed_in(small, {})
    split(theirs, "double", "two = 2", "def double(x):\n    return two * x")
    split(theirs, "why", "Since so.", "And so.")
    split(theirs, "double-check", "assert double(3) == 6", "pass")
    merged = grade.with_tests(theirs, cells.read(small))
    sources = [cell.source for cell in merged.cells if cell.cell_type == "code"]
    assert sources[:4] == ["base = 2", "two = 2", "def double(x):\n    return two * x",
                           "assert double(3) == 6"]
    assert "pass" not in sources and "double(2)" not in sources
    (why,) = [cell.source for cell in merged.cells if cells.grade_id(cell) == "why"]
    assert why == "Since so.\n\nAnd so."
    theirs.cells[-1].source = "helper = 3"
    merged = grade.with_tests(theirs, cells.read(small))
    assert merged.cells[-1].source == "helper = 3"


def test_a_blank_part_of_an_answer_adds_nothing(small):
    theirs = handed_in(small, {})
    split(theirs, "why", cells.TEXT_STUB, "And so.")
    merged = grade.with_tests(theirs, cells.read(small))
    (why,) = [cell.source for cell in merged.cells if cells.grade_id(cell) == "why"]
    assert why == "And so."


def test_lost_cells_stand_where_they_stood(small):
    lost = {"given", "double-check", "last"}
    theirs = handed_in(small, {})
    theirs.cells = [cell for cell in theirs.cells if cells.grade_id(cell) not in lost]
    split(theirs, "double", "x = 1", "double = abs")
    merged = grade.with_tests(theirs, cells.read(small))
    sources = [cell.source for cell in merged.cells if cell.cell_type == "code"]
    assert sources[:4] == ["base = 2", "x = 1", "double = abs", "assert double(3) == 6"]
    names = [cells.grade_id(cell) for cell in merged.cells if cells.grade_id(cell)]
    assert names == ["given", "double", "double-check", "double-hidden", "last-check", "why"]


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
    parts = handed_in(small, {"last": "def last(x):\n    return x[-1]"})
    split(parts, "double", "two = 2", "def double(x):\n    return two * x")
    nbformat.write(parts, folder / "parts.ipynb")
    found_marks = grade.grade(folder, [small], cell_seconds=10)
    found = {(mark.submission, mark.cell): (mark.points, mark.state) for mark in found_marks}
    assert found["ann/mine", "double-check"] == (2, grade.PASSED)
    assert found["ann/mine", "double-hidden"] == (0, grade.FAILED)
    assert found["ann/mine", "last-check"] == (0, grade.NOT_RUN)
    said = {(mark.submission, mark.cell): mark.said for mark in found_marks}
    assert said["ann/mine", "double-hidden"] == "AssertionError: assert double(-1) == -2"
    assert said["ann/mine", "last-check"]
    assert found["ann/mine", "why"] == (None, grade.BY_HAND)
    assert found["bob/mine", "double-hidden"] == (1, grade.PASSED)
    assert found["bob/mine", "last-check"][0] == 0
    assert found["bob/mine", "why"] == (0, grade.BLANK)
    assert found["none", ""] == (0, grade.NOT_RUN)
    assert marks.totals(found_marks) == [
        ["ann/mine", "01_small", "2", "10", "3"],
        ["bob/mine", "01_small", "3", "10", "0"],
        ["none", "none", "0", "0", "0"],
        ["parts", "01_small", "7", "10", "0"],
    ]
    marks.write_csv(found_marks, tmp_path / "grades.csv")
    with (tmp_path / "grades.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found_marks)
    assert rows[0]["points"] == "2" and rows[0]["said"] == ""
    assert marks.read_csv(tmp_path / "grades.csv") == found_marks


def test_output_without_end_is_cut(tmp_path, monkeypatch):
    """The error that comes after it is kept."""
    monkeypatch.setattr(grade, "KEPT_OUTPUT", 10_000)
    code = "for number in range(200):\n    print('x' * 1000, flush=True)\n1 / 0"
    notebook = new_notebook(cells=[new_code_cell(code)])
    with own_kernel(tmp_path / "kernel", {}):
        assert grade.run(notebook, tmp_path, 60) == ""
    *printed, error = notebook.cells[0].outputs
    assert len(str(printed)) < 12_000 and error.ename == "ZeroDivisionError"


# ---- marks that persons give -----------------------------------------------------------------


def by_hand(points, text: str = "Because.", submission: str = "ann") -> marks.Mark:
    """A mark of an answer in words."""
    return marks.Mark(submission, "01_small", "why", points, 3, grade.BY_HAND,
                      text_hash=marks.hash_of(text))


def test_points_given_by_hand_are_carried_over():
    test = marks.Mark("ann", "01_small", "double-check", 0, 2, grade.FAILED)
    again = [test, by_hand(None), by_hand(None, submission="bob")]
    kept, lost = marks.carried(again, [by_hand(2.5), by_hand(None, submission="bob")])
    assert kept == [test, by_hand(2.5), again[2]] and lost == []
    kept, lost = marks.carried(again, [by_hand(2.5, "Another text.")])
    assert kept == again and lost == [by_hand(2.5, "Another text.")]
    # white space at the ends is no change, and points of a test are never taken from a table
    assert marks.hash_of("Because.\n") == marks.hash_of("Because.")
    raised = marks.Mark("ann", "01_small", "double-check", 2, 2, grade.FAILED)
    assert marks.carried(again, [raised]) == (again, [])


@pytest.mark.parametrize("table, said", [
    ("submission,points\nann,3\n", "has no column assignment, cell, "),
    ("submission;assignment\n", "has no column assignment, "),
    ("submission,assignment,cell,points,of,state,said,note,text_hash\nann,a,b,two,3,x,,,\n",
     "line 2: points 'two' is no number"),
])
def test_a_table_that_is_none_is_refused(tmp_path, table, said):
    path = tmp_path / "grades.csv"
    path.write_text(table)
    with pytest.raises(SsahError, match=re.escape(said)):
        marks.read_csv(path)


def test_grading_again_keeps_what_a_person_gave(tmp_path, monkeypatch, capsys):
    """By the command line; the runs themselves are replaced by what they would give."""
    found = [by_hand(None), by_hand(None, submission="bob")]
    monkeypatch.setattr(grade, "grade", lambda folder, sources, seconds: found)
    command = ["course", "grade", str(tmp_path)]
    assert cli.main(command) == 0
    path = tmp_path / "grades.csv"
    assert "kept" not in capsys.readouterr().out
    marks.write_csv([by_hand(2), by_hand(1, "Old.", "bob")], path)
    assert cli.main([*command, "--sum"]) == 0
    rows = (tmp_path / "totals.csv").read_text().splitlines()
    assert rows == ["submission,assignment,points,of,left to a person", "ann,01_small,2,3,0",
                    "bob,01_small,1,3,0"]
    capsys.readouterr()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "kept 1 mark that was given by hand" in said
    assert "not kept: 1 points of bob, why" in said
    assert marks.read_csv(path) == [by_hand(2), found[1]]
    assert (tmp_path / "totals.csv").read_text().splitlines()[2] == "bob,01_small,0,3,3"


# ---- what a person should look at ------------------------------------------------------------


@pytest.mark.parametrize("code, used", [
    ("x = ssah.ablated(model, index, mask)", {"ssah.ablated"}),
    ("from ssah.ablation import ablated as cut\ncut(1)", {"ssah.ablation.ablated"}),
    ("import ssah.ablation as a\na.ablated(1)", {"ssah.ablation.ablated"}),
    ("def f(index: ssah.UnitIndex):\n    return index.matched_random(1)",
     {"ssah.UnitIndex", "ssah.UnitIndex.matched_random"}),
    ("def f(index: ssah.UnitIndex):\n    return index.n_blocks", {"ssah.UnitIndex"}),
    ("def f(ssah):\n    return ssah.ablated()", set()),
    ("known = rules.first_word", {"ssah.claims.rules.first_word"}),
    ("other.ablated(1); ablated = 2", set()),
    ("def f(:", set()),
])
def test_names_of_the_library_in_a_cell(code, used):
    imports = uses.imported(["import ssah", "import numpy as np", "from ssah.claims import rules"])
    assert uses.library_names(code, imports) == used


@pytest.mark.parametrize("name", SOURCES)
def test_right_solutions_get_no_note(name):
    source = SOURCES[name]
    assert set(grade.notes(build.solution(source), source).values()) == {""}


@pytest.mark.parametrize("name, answers, noted", [
    ("01_find_the_units",
     {"matched-random": "def f(mask, index: ssah.UnitIndex, seed):\n"
                        "    return index.matched_random(mask, seed)"},
     {"matched-random-check": "uses ssah.UnitIndex.matched_random",
      "matched-random-hidden": "uses ssah.UnitIndex.matched_random"}),
    ("02_remove_and_transplant", {"without": "without = ssah.ablated"},
     {"without-check": "uses ssah.ablated", "without-hidden": "uses ssah.ablated"}),
    ("04_would_you_believe_it", {"power": "def power(e, s, n, k, d, r):\n"
                                          "    return rules.simulated(e, s, n, k, r)"},
     {"power-check": "uses ssah.claims.rules.simulated",
      "power-hidden": "uses ssah.claims.rules.simulated"}),
])
def test_solutions_by_the_library_are_noted(name, answers, noted):
    theirs = handed_in(FOLDER / f"{name}.ipynb", answers)
    found = grade.notes(theirs, SOURCES[name])
    assert {test: note for test, note in found.items() if note} == noted


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


def test_pages_that_a_version_links_to_come_with_it(tmp_path):
    (path,) = [path for path in PATHS if path.stem == "04_would_you_believe_it"]
    written = build.build([path], tmp_path)
    pages = {page.relative_to(tmp_path).as_posix() for page in written if page.name == "project.md"}
    assert pages == {"student/project.md", "solution/project.md"}
    text = (tmp_path / "student" / "project.md").read_text("utf-8")
    assert "section 6 of notebook 09)" in text and "](../" not in text
    for page in written:
        if page.relative_to(tmp_path).parts[0] in ("nbgrader", "otter", "instructor"):
            assert "](project.md)" not in page.read_text("utf-8"), page     # it stands alone there


@pytest.mark.parametrize("command, said", [
    ("course build 07", "no notebook 07 in"),
    ("course grade {folder}", "no notebook (*.ipynb) in"),
    ("course grade {folder} --sum", "there is no "),
    ("course grade {folder} --csv {folder}/totals.csv", "name another table with --csv"),
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
