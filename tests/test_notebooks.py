"""Every notebook: well-kept as a file, runs from cache without torch, and recomputes on the smoke model."""

import os
import subprocess
import sys

import nbformat
import pytest

from ssah.inputs.archives import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_form(path):
    """Stripped of outputs, kernel python3, stable ids, one annotated literal a line in the parameters cell."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata["kernelspec"]["name"] == "python3" and "papermill" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert [line.split(":")[0] for line in parameters.source.splitlines()] == ["profile", "recompute", "n_seeds"]
    assert all("  # " in line for line in parameters.source.splitlines())
    assert all(len(cell.source.splitlines()) <= 25 for cell in code)
    assert sum(c.cell_type == "markdown" for c in notebook.cells) >= len(code) - 1


@pytest.fixture(scope="module", params=["cached", "recomputed"])
def executed(request, tmp_path_factory):
    """All notebooks run by the command line, from the committed results or recomputed on the smoke model."""
    into = tmp_path_factory.mktemp(request.param)
    arguments = ["--recompute", "--profile", "smoke", "-p", "n_seeds=1"] if request.param == "recomputed" else []
    environment = os.environ | {"SSAH_CACHE": str(into / "cache"), "SSAH_FIGURES": str(into / "figures"), "SSAH_OFFLINE": "" if arguments else "1"}
    run = subprocess.run([sys.executable, "-m", "ssah.cli", "run", "--into", str(into), *arguments],
                         cwd=into, env=environment, capture_output=True, text=True)
    return request.param, into, run


def test_all_notebooks_run(executed):
    kind, into, run = executed
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert {p.stem for p in (into / "notebooks").glob("*.ipynb")} == {p.stem[:2] for p in NOTEBOOKS}


def test_figures_are_there_and_labelled(executed):
    """Every figure that a notebook saves is written as PNG and SVG."""
    kind, into, run = executed
    named = {line.split('"')[1] for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells
             for line in cell.source.splitlines() if line.startswith("figures.save(")}
    for name in named:
        for suffix in ("png", "svg"):
            assert (into / "figures" / f"{name}.{suffix}").stat().st_size > 1000


def test_links_and_images_resolve(executed):
    """No page under the output folder links to a file that is not there."""
    import re

    kind, into, run = executed
    pages = [into / "index.html", *(into / "html").glob("*.html")]
    for page in pages:
        for target in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_cached_notebooks_do_not_import_torch(tmp_path):
    """Each notebook's cells, run in one plain interpreter, leave torch unloaded."""
    for path in NOTEBOOKS:
        source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        check = "\nimport sys; assert not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'"
        run = subprocess.run([sys.executable, "-c", "import matplotlib; matplotlib.use('Agg')\n" + source + check], cwd=tmp_path,
                             env=os.environ | {"SSAH_FIGURES": str(tmp_path)}, capture_output=True, text=True)
        assert run.returncode == 0, f"{path.name}: {run.stderr[-2000:]}"
