"""Versions of an assignment: for students, with solutions, for two graders, for the instructor.

Under the folder that is asked for:

- ``student/NN_name.ipynb``: blanks in place of solutions, hidden tests gone; and pages (``.md``)
  that the notebook links to;
- ``solution/NN_name.ipynb``: solutions in place, hidden tests gone; pages too;
- ``nbgrader/source/NN_name/NN_name.ipynb``: what ``nbgrader generate_assignment`` takes;
- ``otter/NN_name.ipynb``: what ``otter assign`` takes;
- ``instructor/NN_name.md``: goals, times, points, answers, what usually goes wrong (`sheet`).

The last three have solutions in them; keep them from students.
"""

import ast
import builtins
import copy
import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_raw_cell

from . import cells
from .sheet import sheet

#: Targets of links: other folders, which no version has; and notebooks and pages of the course,
#: beside which some versions do not lie.
ELSEWHERE = r"\.\./[^)]*"
NEIGHBOURS = r"[\w-]+\.(?:ipynb|md)"

#: Jupyter goes on after a cell with this tag, also where it fails.
GOES_ON = "raises-exception"

#: How to grade by nbgrader, beside its sources.
NBGRADER_CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "ssah"
c.ExecutePreprocessor.timeout = 300
c.ClearSolutions.text_stub = "{stub}"
"""

#: How `otter assign` shall read the notebook. Its tests are functions, since printed lines differ.
OTTER_CONFIG = """\
# ASSIGNMENT CONFIG
name: {name}
init_cell: true
export_cell: false
check_all_cell: false
solutions_pdf: false
template_pdf: false
tests:
  ok_format: false
  files: true
"""


def build(paths: list[Path], into: Path) -> list[Path]:
    """Write all versions of some assignments; the files, in the order in which they were made.

    Raises `SsahError` for a notebook that is no assignment (`cells.check`).
    """
    written = []
    for path in paths:
        source = cells.read(path)
        versions = {
            f"student/{path.name}": student(source),
            f"solution/{path.name}": solution(source),
            f"nbgrader/source/{path.stem}/{path.name}": _without_links(
                without_notes(source), NEIGHBOURS),
            f"otter/{path.name}": _without_links(otter(source, path.stem), NEIGHBOURS),
        }
        for name, notebook in versions.items():
            nbformat.validate(notebook)
            written.append(_write(into / name, nbformat.writes(notebook, indent=1) + "\n"))
        for page in _pages(source, path.parent):
            text = _only_words_of_links(page.read_text("utf-8"), ELSEWHERE)
            written += [_write(into / kind / page.name, text) for kind in ("student", "solution")]
        text = _only_words_of_links(sheet(source, path.name), NEIGHBOURS)
        written.append(_write(into / "instructor" / f"{path.stem}.md", text))
    config = NBGRADER_CONFIG.format(stub=cells.TEXT_STUB)
    written.append(_write(into / "nbgrader" / "nbgrader_config.py", config))
    return written


def _pages(source, folder: Path) -> list[Path]:
    """Pages (``.md``) of the folder that cells link to, in order."""
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    names = dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)\)", text))
    return [folder / name for name in names]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


# ---- versions that differ in what they leave out ---------------------------------------------


def without_notes(source):
    """A copy without the cells that explain solutions; blanks do not stop a run of it."""
    notebook = copy.deepcopy(source)
    notebook.cells = [cell for cell in notebook.cells if not cells.has_tag(cell, "solution")]
    _without_links(notebook, ELSEWHERE)
    for cell in notebook.cells:
        runs_a_blank = cells.is_test(cell) or cells.has_tag(cell, "yours")
        if runs_a_blank:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), GOES_ON]
    return notebook


def _without_links(notebook, target: str):
    """The notebook, with the words alone of its links to such a target."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _only_words_of_links(cell.source, target)
    return notebook


def _only_words_of_links(text: str, target: str) -> str:
    """The text with the words alone of its links to such a target (`ELSEWHERE`, `NEIGHBOURS`)."""
    return re.sub(rf"\[([^\]]+)\]\({target}\)", r"\1", text)


def student(source):
    """The version for students: blanks, no hidden tests, no explanations."""
    notebook = without_notes(source)
    for cell in notebook.cells:
        if cells.is_by_hand(cell) and cell.cell_type == "markdown":
            cell.source = cells.TEXT_STUB
        elif cells.is_solution(cell):
            cell.source = cells.replaced(cell.source, cells.SOLUTION, cells.STUB)
        cell.source = cells.replaced(cell.source, cells.HIDDEN_TESTS)
    return notebook


def solution(source):
    """The version with solutions and their explanations; without hidden tests."""
    notebook = _without_links(copy.deepcopy(source), ELSEWHERE)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            visible = cells.replaced(cell.source, cells.HIDDEN_TESTS)
            cell.source = cells.unmarked(visible, cells.SOLUTION)
    return notebook


# ---- otter -----------------------------------------------------------------------------------


def otter(source, name: str):
    """The version for otter-grader: a question is a solution cell and the tests after it."""
    notebook = without_notes(source)
    questions = _questions(notebook.cells)
    notebook.cells = [new_raw_cell(OTTER_CONFIG.format(name=name))]
    for question in questions:
        first = question[0]
        if not cells.is_solution(first):
            notebook.cells.append(_plain(first))
        elif cells.is_by_hand(first):
            notebook.cells += _otter_question(first, [], manual=True)
        else:
            notebook.cells += _otter_question(first, question[1:], manual=False)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def _questions(all_cells: list) -> list[list]:
    """The cells in order: each solution with the tests that follow it, any other cell alone."""
    questions = []
    for cell in all_cells:
        if cells.is_test(cell):
            questions[-1].append(cell)
        else:
            questions.append([cell])
    return questions


def _plain(cell):
    """The cell without metadata of another grader."""
    cell.metadata.pop("nbgrader", None)
    return cell


def _otter_question(answer, tests: list, manual: bool) -> list:
    settings = [f"name: {cells.grade_id(answer)}"]
    if manual:
        settings += ["manual: true", f"points: {cells.points(answer)}"]
    made = [new_raw_cell("\n".join(["# BEGIN QUESTION", *settings]))]
    made.append(new_raw_cell("# BEGIN SOLUTION"))
    if answer.cell_type == "code":
        answer.source = _otter_solution(answer.source)
    made += [_plain(answer), new_raw_cell("# END SOLUTION")]
    if tests:
        made.append(new_raw_cell("# BEGIN TESTS"))
        made += [_otter_test(test) for test in tests]
        made.append(new_raw_cell("# END TESTS"))
    made.append(new_raw_cell("# END QUESTION"))
    return made


def _otter_solution(code: str) -> str:
    """The code with otter's marks around what students do not get, and the blank as its prompt."""
    lines = []
    for line in code.splitlines():
        indent = line[:len(line) - len(line.lstrip())]
        if line.strip() == f"### BEGIN {cells.SOLUTION}":
            lines.append(f"{indent}# BEGIN SOLUTION NO PROMPT")
        elif line.strip() == f"### END {cells.SOLUTION}":
            prompt = [indent + stub for stub in cells.STUB]
            lines += [f"{indent}# END SOLUTION", f'{indent}""" # BEGIN PROMPT', *prompt,
                      f'{indent}"""; # END PROMPT']
        else:
            lines.append(line)
    return "\n".join(lines)


def _otter_test(test):
    """A test as a function of the notebook's names that it uses."""
    hidden = cells.is_hidden(test)
    code = test.source
    if hidden:
        code = cells.inside_of(test.source, cells.HIDDEN_TESTS)
    body = "\n".join("    " + line if line else "" for line in code.splitlines())
    name = cells.grade_id(test).replace("-", "_")
    lines = [
        '""" # BEGIN TEST CONFIG',
        f"hidden: {str(hidden).lower()}",
        f"points: {cells.points(test)}",
        '""" # END TEST CONFIG',
        f"def test_{name}({', '.join(names_needed(code))}):",
        body,
    ]
    return new_code_cell("\n".join(lines))


def names_needed(code: str) -> list[str]:
    """Names that the code reads and does not make itself, sorted."""
    read = set()
    made = set(dir(builtins))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            read.add(node.id)
        elif isinstance(node, ast.Name):
            made.add(node.id)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.FunctionDef):
            made.add(node.name)
        elif isinstance(node, ast.alias):
            made.add(node.asname or node.name.partition(".")[0])
    return sorted(read - made)
