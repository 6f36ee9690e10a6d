"""Every notebook: well-kept as a file, runs from cache without torch, and recomputes on the smoke model."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from in_process import run_notebook

from ssah.claims import readme
from ssah.claims.shared import style
from ssah.inputs.archives import REPOSITORY

pytestmark = pytest.mark.slow

matplotlib.use("Agg")

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
    has_live_cells = any("\nif live:" in f"\n{cell.source}" for cell in code)
    names = ["profile", "recompute", "n_seeds", *(["live"] if has_live_cells else [])]
    names += ["method"] if path.name.startswith("02") else []       # of scores in its live cells
    assert [line.split(":")[0] for line in parameters.source.splitlines()] == names
    assert all("  # " in line for line in parameters.source.splitlines())
    assert all(len(cell.source.splitlines()) <= 25 for cell in code)
    assert sum(c.cell_type == "markdown" for c in notebook.cells) >= len(code) - 1


def names_of(notebook) -> tuple[set[str], set[str]]:
    """The names that the cells of a notebook import, and those that they give to something else."""
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imported = set()
    given = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            given |= {node.name, *(argument.arg for argument in node.args.args)}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given.add(node.id)
    return imported, given


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_cell_gives_an_imported_name_to_something_else(path):
    """A later cell would find an answer where it looks for the module `answers`."""
    imported, given = names_of(nbformat.read(path, as_version=4))
    assert imported and not imported & given


def forbid(folder: Path, *names: str) -> Path:
    """A folder for PYTHONPATH in which packages of these names stand that cannot be imported."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise ImportError('{name} is not needed for reading')")
    return folder


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """All notebooks run by the command line from the committed results; the folder, and the run.

    Reading needs no torch: its import fails in the kernels.
    """
    into = tmp_path_factory.mktemp("cached")
    environment = os.environ | {
        "SSAH_CACHE": str(into / "cache"), "SSAH_FIGURES": str(into / "figures"), "SSAH_OFFLINE": "1",
        "PYTHONPATH": str(forbid(into / "forbidden", "torch", "transformers"))}
    run = subprocess.run([sys.executable, "-m", "ssah.cli", "run", "--into", str(into)],
                         cwd=into, env=environment, capture_output=True, text=True)
    return into, run


def test_all_notebooks_run(executed):
    into, run = executed
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert {p.stem for p in (into / "notebooks").glob("*.ipynb")} == {p.stem[:2] for p in NOTEBOOKS}


def figures_of(path: Path) -> set[str]:
    """The figures that a notebook saves."""
    return {line.split('"')[1] for cell in nbformat.read(path, as_version=4).cells
            for line in cell.source.splitlines() if line.strip().startswith("style.save(")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_on_recomputed_results(path, smoke_seed, monkeypatch, tmp_path):
    """On the tiny model, of which the session computes everything once; no files are drawn.

    ``verify --full`` in `test_cli` and the extended tests of `test_own_model` compute from nothing,
    the latter by the command line and papermill.
    """
    drawn = set()
    monkeypatch.setattr(style, "save", lambda figure, name, origin: drawn.add(name))
    monkeypatch.setenv("SSAH_CACHE", str(smoke_seed))
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    monkeypatch.chdir(path.parent)
    given = {"profile": "smoke", "recompute": True, "n_seeds": 1}
    run_notebook(path, **given)
    plt.close("all")
    assert drawn == figures_of(path)


@pytest.mark.extended
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "\\nif live:" in path.read_text("utf-8")
                                  or '"if live:' in path.read_text("utf-8")], ids=lambda p: p.stem)
def test_live_cells_run(path, monkeypatch, tmp_path):
    """On a model that is made for them; all else from the committed results."""
    monkeypatch.setattr(style, "save", lambda figure, name, origin: None)
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    monkeypatch.chdir(path.parent)
    run_notebook(path, live=True)
    plt.close("all")


def test_figures_are_there_and_labelled(executed):
    """Every figure that a notebook saves is written as PNG and SVG."""
    into, run = executed
    for name in set.union(*map(figures_of, NOTEBOOKS)):
        for suffix in ("png", "svg"):
            assert (into / "figures" / f"{name}.{suffix}").stat().st_size > 1000


def readings(notebook) -> list[str]:
    """The texts that a reader meets, in order; for a picture its alternative text with a sign."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                texts.append("picture: " + output.metadata["image/png"].get("alt", ""))
            elif "text/markdown" in data:
                texts.append(data["text/markdown"])
    return texts


def test_every_picture_is_described_and_followed_by_what_we_see(executed):
    """In the notebook, and with the same words in the page that is made of it."""
    into, run = executed
    n_pictures = 0
    for path in (into / "notebooks").glob("*.ipynb"):
        texts = readings(nbformat.read(path, as_version=4))
        page = BeautifulSoup((into / "html" / f"{path.stem}.html").read_text("utf-8"), "html.parser")
        described = [image["alt"] for image in page.select("img[src^='data:image/png']")]
        pictures = [text.removeprefix("picture: ") for text in texts if text.startswith("picture: ")]
        assert described == pictures and all(pictures), path.name
        for text, following in zip(texts, [*texts[1:], ""]):
            if text.startswith("picture: "):
                assert following.startswith("**What we see"), f"{path.name}: {text}"
                n_pictures += 1
    assert n_pictures > 30


def test_every_solution_gives_something(executed):
    """What a solution gives is computed in the run, so it must be there."""
    into, run = executed
    n_solutions = 0
    for path in (into / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if "solution" in cell.metadata.get("tags", []):
                n_solutions += 1
                assert cell.outputs, f"{path.name}: {cell.id}"
        page = BeautifulSoup((into / "html" / f"{path.stem}.html").read_text("utf-8"), "html.parser")
        assert page.select("details.solution .output") and page.select("div.card ol li")
    assert n_solutions == 3 * len(NOTEBOOKS) - 1


#: Words that one reads in a minute.
WORDS_A_MINUTE = 200


def prose_of(notebook) -> str:
    """What there is to read: Markdown, written or generated, without code, tables, and what is folded."""
    texts = []
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        for output in cell.get("outputs", []):
            texts.append(output.get("data", {}).get("text/markdown", ""))
    text = re.sub(r"<details>.*?</details>|^```.*?^```|^\|.*?$", "", "\n".join(texts), flags=re.S | re.M)
    return re.sub(r"<[^>]+>|\]\([^)]*\)", " ", text)


def test_cards_say_how_long_reading_takes(executed):
    into, run = executed
    for path in (into / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        told = int(re.search(r"\*\*Minutes\*\* (\d+) to read", notebook.cells[1].source)[1])
        measured = len(prose_of(notebook).split()) / WORDS_A_MINUTE
        assert abs(told - measured) <= max(1.5, 0.15 * measured), f"{path.name}: {measured:.1f} minutes"


def test_links_and_images_resolve(executed):
    """No page under the output folder links to a file that is not there."""
    into, run = executed
    pages = [into / "index.html", *(into / "html").glob("*.html")]
    for page in pages:
        for target in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_committed_figures_are_those_that_notebooks_draw(executed):
    """Pixel by pixel, and the SVG byte by byte."""
    into, run = executed
    for committed in sorted((REPOSITORY / "figures").glob("*.png")):
        np.testing.assert_array_equal(plt.imread(into / "figures" / committed.name), plt.imread(committed), committed.stem)
    for committed in sorted((REPOSITORY / "figures").glob("*.svg")):
        assert (into / "figures" / committed.name).read_bytes() == committed.read_bytes(), committed.stem


# ---- code in the prose -----------------------------------------------------------------------

def fenced(path: Path) -> list[str]:
    """The Python blocks of a notebook's prose, or of a Markdown file."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


WITH_CODE = [path for path in [*NOTEBOOKS, *readme.PAGES] if fenced(path)]


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.stem)
def test_code_in_the_prose_runs_as_written(path, monkeypatch, tmp_path):
    """On the tiny model in place of the real one, with short lists of what a reader brings."""
    import ssah
    from ssah.models import tiny_chat

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ssah, "load_chat_model", lambda *names, **how: tiny_chat(), raising=False)
    chat = tiny_chat()
    index = ssah.UnitIndex.of(chat.model)
    draw = np.random.default_rng(0)
    units = ssah.classify(draw.random(len(index)), draw.random(len(index)), index=index)
    benign = ssah.load_prompts("tiny-benign").iloc[:4]
    given = {"ssah": ssah, "chat": chat, "index": index, "units": units,
             "prompts": benign["text"].tolist(), "answers": benign["response"].tolist(),
             "refusals": ["sorry i can not help with that"] * len(benign),
             "pairs": [{"prompt": prompt, "response": response, "rejected": "sorry i can not help with that"}
                       for prompt, response in zip(benign["text"], benign["response"])],
             "examples": [{"prompt": prompt, "response": response}
                          for prompt, response in zip(benign["text"], benign["response"])]}
    for block in fenced(path):
        exec(compile(block, path.name, "exec"), given)      # noqa: S102: our own text
