"""The instructor's sheet of an assignment, as Markdown."""

import re
from dataclasses import dataclass

from . import cells

#: What stands below the title of an exercise.
_FACTS = re.compile(
    r"\*Difficulty (?P<difficulty>[★☆]+) · importance (?P<importance>[★☆]+) · "
    r"(?P<minutes>\d+) minutes · (?P<points>\d+) points?(, graded by hand)?\*"
)
_TITLE = re.compile(r"^## (Exercise \d+ · .+)$", re.M)


@dataclass(frozen=True)
class Exercise:
    """What an exercise says of itself, and its cells that matter to an instructor."""

    title: str
    difficulty: str
    importance: str
    minutes: int
    points: int
    #: the solution, tests and explanation that follow its card
    cells: list

    @property
    def points_in_cells(self) -> float:
        """The sum of its graded cells; it should be what the card says."""
        return sum(cells.points(cell) for cell in self.cells)


def exercises(source) -> list[Exercise]:
    """The exercises of an assignment, in order."""
    found = []
    for cell in source.cells:
        title = _TITLE.search(cell.source) if cell.cell_type == "markdown" else None
        facts = _FACTS.search(cell.source) if title else None
        if facts:
            found.append(Exercise(
                title=title[1],
                difficulty=facts["difficulty"],
                importance=facts["importance"],
                minutes=int(facts["minutes"]),
                points=int(facts["points"]),
                cells=[],
            ))
        elif found:
            found[-1].cells.append(cell)
    return found


def sheet(source, name: str) -> str:
    """Goals, times, points, answers and what usually goes wrong."""
    parts = exercises(source)
    minutes = sum(part.minutes for part in parts)
    total = sum(part.points for part in parts)
    head = source.cells[0].source
    lines = [
        head.replace("# ", "# Instructor's sheet: ", 1),
        "",
        f"Source: `notebooks/course/{name}`. Not for students: the answers are below.",
        "",
        "| exercise | difficulty | importance | minutes | points | hidden | by hand |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        hidden = sum(cells.points(cell) for cell in part.cells if cells.is_hidden(cell))
        by_hand = sum(cells.points(cell) for cell in part.cells if cells.is_by_hand(cell))
        lines.append(
            f"| {part.title} | {part.difficulty} | {part.importance} | {part.minutes} "
            f"| {part.points} | {hidden} | {by_hand} |"
        )
    lines += [f"| all | | | {minutes} | {total} | | |", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        for cell in part.cells:
            lines += _answer(cell)
    return "\n".join(lines)


def _answer(cell) -> list[str]:
    """What the sheet shows of a cell: a solution, hidden tests, an explanation."""
    if cells.has_tag(cell, "solution"):
        return [re.sub(r"</?details>|<summary>.*?</summary>", "", cell.source).strip(), ""]
    if cells.is_by_hand(cell) and cell.cell_type == "markdown":
        return ["*A good answer:*", "", cell.source, ""]
    if cells.is_solution(cell):
        code = cells.unmarked(cell.source, cells.SOLUTION)
        return ["```python", code, "```", ""]
    if cells.is_hidden(cell):
        tests = cells.inside_of(cell.source, cells.HIDDEN_TESTS)
        return ["*Hidden tests:*", "", "```python", tests, "```", ""]
    return []
