"""Notebooks: checked parameters, executed copies, HTML pages, an index and a summary.

Committed notebooks are only read. Each runs in a fresh kernel of *this* interpreter, whatever
kernels the user has. One that fails is reported and the others go on.
"""

import contextlib
import html
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import nbformat
from ipykernel.kernelspec import write_kernel_spec
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill import PapermillExecutionError, execute_notebook, inspect_notebook
from tqdm.auto import tqdm

from ..errors import SsahError
from .words import NOTE, say

_READERS = {"int": int, "float": float, "str": str,
            "bool": lambda text: {"true": True, "false": False}[text.lower()]}


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook; `error` is one line, empty if all went well."""

    path: Path
    title: str
    verdicts: list[dict]
    seconds: float
    error: str = ""

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
                  environment: dict[str, str], jobs: int = 1) -> list[Outcome]:
    """Execute notebooks, `jobs` side by side; their outcomes in the order of `paths`.

    Under `into`: ``notebooks/NN.ipynb``, ``html/NN.html`` and ``index.html``. `figures`: the folder
    in which they leave their figures; `environment`: variables for their kernels.
    """
    into = into.resolve()
    for name in ("notebooks", "html"):
        (into / name).mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(paths), desc="notebooks", unit="notebook")
    with bar, own_kernel(into / "kernel", environment), ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(_run, path, parameters, into, figures) for path in paths]
        try:
            for done in as_completed(running):
                outcome = done.result()
                state = outcome.error or "ok"
                bar.write(f"{outcome.path.stem}: {state} ({outcome.seconds:.1f} s)",
                          file=sys.stdout)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)      # what is not begun stays undone
            raise
    outcomes = [done.result() for done in running]
    page = index_page(_with_earlier(outcomes, into), into, figures)
    (into / "index.html").write_text(page, encoding="utf-8")
    return outcomes


def _with_earlier(outcomes: list[Outcome], into: Path) -> list[Outcome]:
    """Also what earlier runs left in the folder, for an index that lists all of its pages."""
    record = into / "outcomes.json"
    known = json.loads(record.read_text("utf-8")) if record.exists() else {}
    known |= {outcome.number: {**asdict(outcome), "path": str(outcome.path)}
              for outcome in outcomes}
    record.write_text(json.dumps(known, indent=1), "utf-8")
    return [Outcome(**{**facts, "path": Path(facts["path"])})
            for number, facts in sorted(known.items())
            if (into / "html" / f"{number}.html").exists()]


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


def _run(path: Path, parameters: dict, into: Path, figures: Path) -> Outcome:
    number = path.name[:2]
    started = time.perf_counter()
    executed = into / "notebooks" / f"{number}.ipynb"
    error = _execute(path, parameters, executed)
    notebook = nbformat.read(executed, as_version=4)
    about = {"metadata": {"name": path.stem, "path": str(path.parent)}}
    page, _ = Pages(embed_images=True).from_notebook_node(notebook, about)
    page = re.sub(r'href="(\d\d)_\w+\.ipynb', r'href="\1.html', page)
    page = page.replace('href="../figures/', f'href="{link(figures, into / "html")}/')
    (into / "html" / f"{number}.html").write_text(page, encoding="utf-8")
    return Outcome(path, _title(notebook, path.stem), _verdicts(notebook),
                   time.perf_counter() - started, error)


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


def _verdicts(notebook) -> list[dict]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[NOTE] for output in outputs if NOTE in output.get("data", {})]


#: A picture with the alternative text that its output has; nbconvert's page leaves that out.
PICTURE = """{% block data_png scoped %}
{% set alternative = output | get_metadata('alt', 'image/png') or '' %}
{{ super() | replace('<img ', '<img alt="' ~ alternative | escape_html ~ '" ', 1) }}
{% endblock %}"""


class Pages(HTMLExporter):
    """HTML that draws without the network: equations are MathML, and no script is loaded."""

    raw_template = "{% extends 'lab/index.html.j2' %}" + PICTURE + "".join(
        f"{{% block {name} %}}{{% endblock %}}"
        for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs"))
    _code_or_math = re.compile(r"<(pre|code)\b.*?</\1>|\$\$(?P<block>.+?)\$\$"
                               r"|\$(?P<inline>[^$\n]+)\$", re.DOTALL)

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        """Markdown as HTML; code, which may have dollar signs too, stays as it is."""
        def mathml(found: re.Match) -> str:
            text = found["block"] or found["inline"]
            display = "block" if found["block"] else "inline"
            return convert(html.unescape(text), display=display) if text else found[0]

        return self._code_or_math.sub(mathml, super().markdown2html(context, source))


# ---- telling ---------------------------------------------------------------------------------

def summary(outcomes: list[Outcome]) -> list[list[str]]:
    """A row a notebook: name, verdicts, seconds, ok or what failed."""
    rows = []
    for outcome in outcomes:
        verdicts = ", ".join(f"{note['claim']} {note['verdict']}" for note in outcome.verdicts)
        state = f"failed: {outcome.error}" if outcome.error else "ok"
        rows.append([outcome.path.stem, verdicts or "-", f"{outcome.seconds:.1f}", state])
    return rows


def index_page(outcomes: list[Outcome], into: Path, figures: Path) -> str:
    """The page that links everything of a run; figures only of notebooks that went well."""
    pictures = {outcome.number: [] if outcome.error else
                [link(path, into) for path in sorted(figures.glob(f"{outcome.number}_*.png"))]
                for outcome in outcomes}
    return say(Path(__file__).with_name("index.html.j2"), "page", outcomes=outcomes,
               pictures=pictures, when=datetime.now(),
               seconds=sum(outcome.seconds for outcome in outcomes))


def link(path: Path, start: Path) -> str:
    """A link from a page in the folder `start` to `path`."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:      # another drive
        return path.resolve().as_uri()
