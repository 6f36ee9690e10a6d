"""The static site: all pages in one folder that any web server, or none, can show."""

import shutil
from pathlib import Path

import nbformat

from ..errors import SsahError
from ..lab.notebooks import Outcome, choose, neighbours, outcomes_of
from ..lab.pages import notebook_page
from . import explorer, front


def write(folder: Path, build: Path, notebooks: Path, figures: Path) -> None:
    """Write the site into `folder` (which may be there), from what ``ssah run`` left in `build`.

    ``index.html``, ``html/NN.html``, ``explorer.html``, ``figures/`` and ``.nojekyll``, with
    relative links alone. `notebooks`, `figures`: the committed folders. Raises `SsahError` where a
    notebook was not run, or failed.
    """
    paths = choose(notebooks, [])
    outcomes = finished(paths, build)
    (folder / "html").mkdir(parents=True, exist_ok=True)
    (folder / ".nojekyll").touch()      # GitHub Pages then takes the files as they are
    shutil.copytree(figures, folder / "figures", dirs_exist_ok=True)
    beside = neighbours(paths)
    for outcome in outcomes:
        notebook = nbformat.read(executed(build, outcome.number), as_version=4)
        page = notebook_page(notebook, outcome.title, "../figures", **beside[outcome.number])
        (folder / "html" / f"{outcome.number}.html").write_text(page, "utf-8")
    (folder / front.EXPLORER).write_text(explorer.page(), "utf-8")
    index = front.page(outcomes, folder, folder / "figures", notebooks=build / "notebooks")
    (folder / "index.html").write_text(index, "utf-8")


def executed(build: Path, number: str) -> Path:
    """The executed copy of a notebook."""
    return build / "notebooks" / f"{number}.ipynb"


def finished(paths: list[Path], build: Path) -> list[Outcome]:
    """The outcomes of these notebooks; `SsahError` unless all were run and went well."""
    by_number = {outcome.number: outcome for outcome in outcomes_of(build)}
    left = []
    for path in paths:
        number = path.name[:2]
        outcome = by_number.get(number)
        if outcome is None or outcome.error or not executed(build, number).exists():
            left.append(number)
    if left:
        raise SsahError(f"the site shows executed notebooks, and {build} lacks {', '.join(left)}: "
                        f"run `ssah run {' '.join(left)}` first")
    return [by_number[path.name[:2]] for path in paths]
