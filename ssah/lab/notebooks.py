"""Notebooks: checked parameters, executed copies with a page each, a front page and a summary.

Committed notebooks are only read. Each runs in a fresh kernel of *this* interpreter, whatever
kernels the user has. One that fails is reported and the others go on. One that ran well before is
not run again while nothing that it reads, and nothing that it left, has changed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import nbformat
from ipykernel.kernelspec import write_kernel_spec
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError, execute_notebook, inspect_notebook
from tqdm.auto import tqdm

from ..errors import SsahError
from .pages import Link, index_page, link, notebook_page
from .words import NOTE

#: What became of the notebooks of a folder.
RECORD = "outcomes.json"

_READERS = {"int": int, "float": float, "str": str,
            "bool": lambda text: {"true": True, "false": False}[text.lower()]}


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook; `error` is one line, empty if all went well.

    `digest`: of all that it read and of what it left; empty where that was not asked for.
    `unchanged`: both were as before, so it was not run again.
    """

    path: Path
    title: str
    verdicts: list[dict]
    seconds: float
    error: str = ""
    digest: str = ""
    unchanged: bool = False

    @property
    def number(self) -> str:
        """``02`` of ``02_name.ipynb``; what its copies are called."""
        return self.path.name[:2]


# ---- what to run -----------------------------------------------------------------------------

def choose(folder: Path, numbers: list[str]) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` with these numbers (default: all), in order.

    Raises `SsahError` for an unknown number, and for two notebooks of one.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    known = {path.name[:2]: path for path in paths}
    if len(known) < len(paths):
        raise SsahError(f"two notebooks in {folder} have one number: rename one of "
                        + ", ".join(path.name for path in paths if known[path.name[:2]] != path))
    wanted = {number.zfill(2) for number in numbers} or set(known)
    if unknown := sorted(wanted - set(known)):
        raise SsahError(f"no notebook {', '.join(unknown)} in {folder}; known: {', '.join(known) or 'none'}")
    return [path for number, path in known.items() if number in wanted]


def check_parameters(paths: list[Path], given: dict[str, str]) -> dict:
    """`given` as values of the types that the notebooks declare.

    Raises `SsahError` for unknown names, of which papermill itself would only warn.
    """
    values = {}
    for path in paths:
        try:
            declared = inspect_notebook(path)
        except (ValueError, nbformat.ValidationError) as error:
            raise SsahError(f"{path} is not a notebook that can be run: "
                            f"{_one_line(str(error))}") from error
        for name, text in given.items():
            if name not in declared:
                raise SsahError(f"{path.name} has no parameter {name!r}; it has: "
                                f"{', '.join(declared) or 'none'} (name the notebooks that a "
                                "parameter is meant for: ssah run 02 -p ...)")
            values[name] = _read(name, text, declared[name]["inferred_type_name"])
    return values


def _read(name: str, text: str, kind: str):
    if kind not in _READERS:
        raise SsahError(f"parameter {name!r} has no type in the notebook; annotate it as one of: "
                        f"{', '.join(_READERS)}")
    try:
        return _READERS[kind](text)
    except (KeyError, ValueError):     # KeyError: neither true nor false
        raise SsahError(f"parameter {name!r} takes {kind}; got {text!r}"
                        + (" (write true or false)" if kind == "bool" else "")) from None


# ---- running ---------------------------------------------------------------------------------

def run_notebooks(paths: list[Path], parameters: dict, into: Path, *, figures: Path,
                  environment: dict[str, str], jobs: int = 1, inputs: str = "",
                  front: Callable[[list[Outcome], Path, Path], str] = index_page) -> list[Outcome]:
    """Execute notebooks, `jobs` side by side; their outcomes in the order of `paths`.

    Under `into`: ``notebooks/NN.ipynb``, ``html/NN.html`` and ``index.html``. `figures`: the folder
    in which they leave their figures, ``NN_name.png`` and the like; `environment`: variables for
    their kernels; `front`: what makes the index of outcomes, `into` and `figures`. `inputs`: a
    digest of all that notebooks read besides themselves (`digest_of`); with it those that ran well
    before are left as they are while nothing has changed.
    """
    into = into.resolve()
    for name in ("notebooks", "html"):
        (into / name).mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(paths), desc="notebooks", unit="notebook")
    with bar, own_kernel(into / "kernel", environment), ThreadPoolExecutor(jobs) as pool:
        run = partial(_run, parameters=parameters, into=into, figures=figures, inputs=inputs,
                      neighbours=neighbours(with_pages(paths, into)),
                      earlier={outcome.number: outcome for outcome in outcomes_of(into)})
        running = [pool.submit(run, path) for path in paths]
        try:
            for done in as_completed(running):
                outcome = done.result()
                if not outcome.unchanged:
                    state = outcome.error or "ok"
                    bar.write(f"{outcome.path.stem}: {state} ({outcome.seconds:.1f} s)",
                              file=sys.stdout)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)      # what is not begun stays undone
            raise
    outcomes = [done.result() for done in running]
    page = front(_with_earlier(outcomes, into), into, figures)
    (into / "index.html").write_text(page, encoding="utf-8")
    return outcomes


def with_pages(paths: list[Path], into: Path) -> list[Path]:
    """The notebooks of a folder that have a page under `into`, or get one now."""
    return [path for path in choose(paths[0].parent, [])
            if path in paths or (into / "html" / f"{path.name[:2]}.html").exists()]


def neighbours(paths: list[Path]) -> dict[str, dict[str, Link]]:
    """Number of a notebook -> links to the pages ``before`` and ``after`` it."""
    links = []
    for path in paths:
        title = _title(nbformat.read(path, as_version=4), path.stem)
        links.append(Link(f"{path.name[:2]}.html", title.partition(" (")[0]))
    found = {}
    for position, path in enumerate(paths):
        beside = {}
        if position > 0:
            beside["before"] = links[position - 1]
        if position + 1 < len(links):
            beside["after"] = links[position + 1]
        found[path.name[:2]] = beside
    return found


def _with_earlier(outcomes: list[Outcome], into: Path) -> list[Outcome]:
    """Also what earlier runs left in the folder, for an index that lists all of its pages."""
    by_number = {outcome.number: outcome for outcome in [*outcomes_of(into), *outcomes]}
    record = {number: {**asdict(outcome), "path": str(outcome.path), "unchanged": False}
              for number, outcome in sorted(by_number.items())}
    (into / RECORD).write_text(json.dumps(record, indent=1), "utf-8")
    return [outcome for number, outcome in sorted(by_number.items())
            if (into / "html" / f"{number}.html").exists()]


def outcomes_of(into: Path) -> list[Outcome]:
    """What became of all notebooks that were run into a folder so far."""
    record = into / RECORD
    if not record.exists():
        return []
    return [Outcome(**{**facts, "path": Path(facts["path"])})
            for facts in json.loads(record.read_text("utf-8")).values()]


@contextlib.contextmanager
def own_kernel(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """For a while ``python3`` is this interpreter, without the user's start-up files and history."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "kernels").mkdir(parents=True)
    write_kernel_spec(folder / "kernels" / "python3",
                      extra_arguments=["--HistoryManager.enabled=False", "--log-level=ERROR"],
                      overrides={"env": {"IPYTHONDIR": str(folder / "ipython"), **environment}})
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder)    # before the user's and the system's folders
    try:
        yield
    finally:
        del os.environ["JUPYTER_PATH"]
        if before is not None:
            os.environ["JUPYTER_PATH"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _run(path: Path, parameters: dict, into: Path, figures: Path, inputs: str,
         neighbours: dict[str, dict[str, Link]], earlier: dict[str, Outcome]) -> Outcome:
    number = path.name[:2]
    executed = into / "notebooks" / f"{number}.ipynb"
    written = into / "html" / f"{number}.html"

    def digest() -> str:
        """Of all that goes in, and all that came out."""
        made = [path, executed, written, *figures.glob(f"{number}_*")]
        asked = [inputs, parameters, figures.resolve(), neighbours[number]]
        return digest_of(made, *map(str, asked)) if inputs else ""

    before = earlier.get(number)
    if inputs and before and not before.error and before.digest == digest():
        return replace(before, path=path, unchanged=True)
    started = time.perf_counter()
    error = _execute(path, parameters, executed)
    notebook = nbformat.read(executed, as_version=4)
    title = _title(notebook, path.stem)
    page = notebook_page(notebook, title, link(figures, into / "html"), **neighbours[number])
    written.write_text(page, encoding="utf-8")
    seconds = time.perf_counter() - started
    return Outcome(path, title, notes(notebook, NOTE), seconds, error, digest())


def digest_of(paths: Iterable[Path], *texts: str) -> str:
    """SHA-256 of the names and contents of files (of folders: all files below), and of texts.

    A file that is not there counts as such; what Python compiled does not count.
    """
    found = hashlib.sha256("\n".join(texts).encode())
    for path in sorted(paths):
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            if "__pycache__" not in file.parts and not file.is_dir():
                content = file.read_bytes() if file.exists() else b"missing"
                found.update(f"{file}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    return found.hexdigest()


def _execute(path: Path, parameters: dict, executed: Path) -> str:
    """Run one notebook; one line of what failed, or an empty one."""
    try:
        # cwd as in JupyterLab; stderr: what steps say while they compute; when all cells are done
        # nothing is waited for
        execute_notebook(path.resolve(), executed, parameters, kernel_name="python3",
                         cwd=path.resolve().parent, progress_bar=False, stderr_file=sys.stderr,
                         shutdown_kernel="immediate")
    except PapermillExecutionError as failure:
        return _one_line(f"{failure.ename}: {failure.evalue}")
    except DeadKernelError:
        return "the kernel died (out of memory?)"
    except RuntimeError as failure:
        return _one_line(f"the kernel did not start: {failure}")
    return ""


def _one_line(text: str) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    return lines[0] if lines else "failed"


def _title(notebook, otherwise: str) -> str:
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    found = re.search(r"^# +(.+)$", "\n".join(texts), re.M)
    return found[1].strip() if found else otherwise


def notes(notebook, mimetype: str) -> list[dict]:
    """What an executed notebook left under a mimetype of ours, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[mimetype] for output in outputs if mimetype in output.get("data", {})]


# ---- telling ---------------------------------------------------------------------------------

def summary(outcomes: list[Outcome]) -> list[list[str]]:
    """A row a notebook: name, verdicts, seconds, ok or what failed."""
    rows = []
    for outcome in outcomes:
        verdicts = ", ".join(f"{note['claim']} {note['verdict']}" for note in outcome.verdicts)
        state = f"failed: {outcome.error}" if outcome.error else "ok"
        if outcome.unchanged:
            state = "ok, unchanged"
        rows.append([outcome.path.stem, verdicts or "-", f"{outcome.seconds:.1f}", state])
    return rows
