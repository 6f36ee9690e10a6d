"""``ssah course``: versions of the assignments for a class, and marks of what it hands in."""

from pathlib import Path

from . import places
from .words import text_table


def course(args) -> int:
    """Build the assignments of the course, or grade what students handed in."""
    return args.part(args)


def build(args) -> int:
    """Write all versions of the assignments (default: of all)."""
    from ..course.build import build as write_versions

    into = args.into or places.BUILD / "course"
    for path in write_versions(assignments(args.assignments), into):
        print(path)
    print("student/ is for students; all else has the answers in it")
    return 0


def grade(args) -> int:
    """Run submitted notebooks with our tests, and write a table of marks."""
    from ..course.grade import grade as marks_of
    from ..course.grade import totals, write_csv

    print("the submissions' code runs as you, on this machine, with a time limit and no other wall "
          "(notebooks/course/README.md)", flush=True)
    marks = marks_of(args.folder, assignments([]), args.seconds)
    path = args.csv or args.folder / "grades.csv"
    write_csv(marks, path)
    head = ["submission", "assignment", "points", "of", "left to a person"]
    print("\n" + text_table(head, totals(marks)))
    print(f"\n{path}")
    return 0


def assignments(numbers: list[str]) -> list[Path]:
    """The sources of the course's assignments with these numbers (default: all)."""
    from ..lab import notebooks

    return notebooks.choose(places.NOTEBOOKS / "course", numbers)
