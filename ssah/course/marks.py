"""Marks of graded cells: as a table that persons fill in, and summed.

``grades.csv`` has a row a graded cell, with the fields of `Mark` as columns. Points of answers in
words are empty there until a person writes them in; a further run carries them over (`carried`).
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ..errors import SsahError

#: What became of a graded cell.
PASSED = "passed"
FAILED = "failed"
BLANK = "blank"
NOT_RUN = "not run to its end"
BY_HAND = "to be graded by hand"

#: Columns of the table of totals.
TOTALS_HEAD = ["submission", "assignment", "points", "of", "left to a person"]


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
    #: functions of the library that the solution uses and ours does not (`uses`)
    note: str = ""
    #: of an answer in words, by which a changed one is known (`hash_of`); empty for tests
    text_hash: str = ""


def hash_of(text: str) -> str:
    """A letter and eight hex digits of a text; white space at its ends does not count."""
    # digits alone, or 12e34567, would be a number for a spreadsheet
    return "h" + hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def carried(marks: Sequence[Mark], earlier: Sequence[Mark]) -> tuple[list[Mark], list[Mark]]:
    """The marks with the points that persons gave before, and the earlier marks that are lost.

    Points are kept for a cell of the same submission that is still to be graded by hand and whose
    text is what it was.
    """
    by_hand = {}
    for mark in earlier:
        if mark.state == BY_HAND and mark.points is not None:
            by_hand[mark.submission, mark.cell] = mark
    result = []
    for mark in marks:
        given = by_hand.get((mark.submission, mark.cell))
        if given is not None and mark.state == BY_HAND and mark.text_hash == given.text_hash:
            mark = replace(mark, points=given.points)
            del by_hand[mark.submission, mark.cell]
        result.append(mark)
    return result, list(by_hand.values())


def totals(marks: Sequence[Mark]) -> list[list[str]]:
    """A row a submission, with the columns of `TOTALS_HEAD`; points are those so far."""
    rows = []
    for submission in dict.fromkeys(mark.submission for mark in marks):
        own = [mark for mark in marks if mark.submission == submission]
        so_far = sum(mark.points or 0 for mark in own)
        left = sum(mark.of for mark in own if mark.points is None)
        whole = sum(mark.of for mark in own)
        rows.append([submission, own[0].assignment or "none", f"{so_far:g}", f"{whole:g}",
                     f"{left:g}"])
    return rows


# ---- files -----------------------------------------------------------------------------------


def write_csv(marks: Sequence[Mark], path: Path) -> None:
    """One row a graded cell; the columns are the fields of `Mark`."""
    columns = [field.name for field in fields(Mark)]
    rows = [list(asdict(mark).values()) for mark in marks]
    _write_table(path, columns, rows)


def write_totals(marks: Sequence[Mark], path: Path) -> None:
    """One row a submission (`totals`)."""
    _write_table(path, TOTALS_HEAD, totals(marks))


def _write_table(path: Path, head: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def read_csv(path: Path) -> list[Mark]:
    """The marks of a table that `write_csv` wrote and persons may have filled in.

    Raises `SsahError` for a file that is not there, another table, and points that are no number.
    """
    if not path.is_file():
        raise SsahError(f"there is no {path}: `ssah course grade FOLDER` writes one")
    # a spreadsheet may have put a mark of the byte order first
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = {field.name for field in fields(Mark)} - set(reader.fieldnames or ())
        if lacking:
            raise SsahError(f"{path} has no column {', '.join(sorted(lacking))}, so it is no table "
                            "of `ssah course grade` of this version: move it away")
        return [_mark_of(row, f"{path}, line {reader.line_num}") for row in reader]


def _mark_of(row: dict[str, str], place: str) -> Mark:
    values = {field.name: row[field.name] for field in fields(Mark)}
    for name in ("points", "of"):
        text = (values[name] or "").strip()
        try:
            values[name] = float(text) if text else None
        except ValueError:
            raise SsahError(f"{place}: {name} {text!r} is no number") from None
    return Mark(**values)
