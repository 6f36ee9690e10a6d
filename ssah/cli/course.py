"""``ssah course``: versions of the assignments for a class, and marks of what it hands in."""

from pathlib import Path

from ..errors import SsahError
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
    from ..course.marks import TOTALS_HEAD, carried, read_csv, totals, write_csv, write_totals

    path = args.csv or args.folder / "grades.csv"
    sums = path.with_name("totals.csv")
    if path == sums:
        raise SsahError("totals.csv is for the sums: name another table with --csv")
    if args.sum:
        marks = read_csv(path)
    else:
        # read first: a table that cannot be read must not cost a run
        earlier = read_csv(path) if path.exists() else []
        print("the submissions' code runs as you, on this machine, with a time limit and no other "
              "wall (notebooks/course/README.md)", flush=True)
        marks, lost = carried(marks_of(args.folder, assignments([]), args.seconds), earlier)
        _say_what_was_kept(marks, lost)
        write_csv(marks, path)
    write_totals(marks, sums)
    print("\n" + text_table(TOTALS_HEAD, totals(marks)))
    print(f"\n{path}\n{sums}")
    return 0


def _say_what_was_kept(marks, lost) -> None:
    """Of the points that persons gave before."""
    from ..course.marks import BY_HAND

    n_kept = sum(mark.state == BY_HAND and mark.points is not None for mark in marks)
    if n_kept:
        what = "1 mark that was" if n_kept == 1 else f"{n_kept} marks that were"
        print(f"kept {what} given by hand")
    for mark in lost:
        print(f"not kept: {mark.points:g} points of {mark.submission}, {mark.cell}: its answer "
              "has changed or is gone")


def assignments(numbers: list[str]) -> list[Path]:
    """The sources of the course's assignments with these numbers (default: all)."""
    from ..lab import notebooks

    return notebooks.choose(places.NOTEBOOKS / "course", numbers)
