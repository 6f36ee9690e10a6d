"""Notebooks, one after the other: checked parameters, executed copies, HTML pages, an index and a summary.

Committed notebooks are only read. Each runs in a fresh kernel of *this* interpreter, whatever kernels
the user has. One that fails is reported and the next is started. Not here: notebooks in parallel.
"""

import contextlib
import html
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
from ipykernel.kernelspec import write_kernel_spec
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill import PapermillExecutionError, execute_notebook, inspect_notebook

from ..errors import SsahError
from .words import NOTE

_READERS = {"int": int, "float": float, "str": str, "bool": lambda text: {"true": True, "false": False}[text.lower()]}


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
    """The notebooks ``NN_name.ipynb`` with these numbers (default: all), in order; `SsahError` for an unknown one."""
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
    """`given` as values of the types that the notebooks declare; papermill itself would only warn of unknown names."""
    values = {}
    for path in paths:
        try:
            declared = inspect_notebook(path)
        except (ValueError, nbformat.ValidationError) as error:
            raise SsahError(f"{path} is not a notebook that can be run: {_one_line(str(error))}") from error
        for name, text in given.items():
            if name not in declared:
                raise SsahError(f"{path.name} has no parameter {name!r}; it has: {', '.join(declared) or 'none'} "
                                "(name the notebooks that a parameter is meant for: ssah run 02 -p ...)")
            values[name] = _read(name, text, declared[name]["inferred_type_name"])
    return values


def _read(name: str, text: str, kind: str):
    if kind not in _READERS:
        raise SsahError(f"parameter {name!r} has no type in the notebook; annotate it as one of: {', '.join(_READERS)}")
    try:
        return _READERS[kind](text)
    except (KeyError, ValueError):     # KeyError: neither true nor false
        raise SsahError(f"parameter {name!r} takes {kind}; got {text!r}"
                        + (" (write true or false)" if kind == "bool" else "")) from None


# ---- running ---------------------------------------------------------------------------------

def run_notebooks(paths: list[Path], parameters: dict, into: Path, *, figures: Path,
                  environment: dict[str, str]) -> list[Outcome]:
    """Execute notebooks in order; under `into`: ``notebooks/NN.ipynb``, ``html/NN.html``, ``index.html``.

    `figures`: the folder in which they leave their figures; `environment`: variables for their kernels.
    """
    into = into.resolve()
    for name in ("notebooks", "html"):
        (into / name).mkdir(parents=True, exist_ok=True)
    outcomes = []
    exporter = Pages(embed_images=True)     # one for all: its templates compile slowly
    with own_kernel(into / "kernel", environment):
        for position, path in enumerate(paths, 1):
            print(f"[{position}/{len(paths)}] {path.stem} ...", flush=True)
            outcome = _run(path, parameters, into, figures, exporter)
            print(f"      {outcome.error or 'ok'} ({outcome.seconds:.1f} s)", flush=True)
            outcomes.append(outcome)
    (into / "index.html").write_text(index_page(outcomes, into, figures), encoding="utf-8")
    return outcomes


@contextlib.contextmanager
def own_kernel(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """For a while ``python3`` is this interpreter, without the user's IPython start-up files and history."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "kernels").mkdir(parents=True)
    write_kernel_spec(folder / "kernels" / "python3",
                      extra_arguments=["--HistoryManager.enabled=False", "--log-level=ERROR"],
                      overrides={"env": {"IPYTHONDIR": str(folder / "ipython"), **environment}})
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder)            # looked at before the user's and the system's folders
    try:
        yield
    finally:
        del os.environ["JUPYTER_PATH"]
        if before is not None:
            os.environ["JUPYTER_PATH"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _run(path: Path, parameters: dict, into: Path, figures: Path, exporter: "Pages") -> Outcome:
    number, started, error = path.name[:2], time.perf_counter(), ""
    executed = into / "notebooks" / f"{number}.ipynb"
    try:
        # cwd as in JupyterLab; stderr: what steps say while they compute; when all cells are done nothing is waited for
        execute_notebook(path.resolve(), executed, parameters, kernel_name="python3", cwd=path.resolve().parent,
                         progress_bar=False, stderr_file=sys.stderr, shutdown_kernel="immediate")
    except PapermillExecutionError as failure:
        error = _one_line(f"{failure.ename}: {failure.evalue}")
    except DeadKernelError:
        error = "the kernel died (out of memory?)"
    except RuntimeError as failure:
        error = _one_line(f"the kernel did not start: {failure}")
    notebook = nbformat.read(executed, as_version=4)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem, "path": str(path.parent)}})
    page = re.sub(r'href="(\d\d)_\w+\.ipynb', r'href="\1.html', page)       # links between notebooks, and to figures
    page = page.replace('href="../figures/', f'href="{link(figures, into / "html")}/')
    (into / "html" / f"{number}.html").write_text(page, encoding="utf-8")
    return Outcome(path, _title(notebook, path.stem), _verdicts(notebook), time.perf_counter() - started, error)


def _one_line(text: str) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    return lines[0] if lines else "failed"


def _title(notebook, otherwise: str) -> str:
    found = re.search(r"^# +(.+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
    return found[1].strip() if found else otherwise


def _verdicts(notebook) -> list[dict]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[NOTE] for output in outputs if NOTE in output.get("data", {})]


class Pages(HTMLExporter):
    """HTML that draws without the network: equations are MathML, and no script is loaded."""

    raw_template = "{% extends 'lab/index.html.j2' %}" + "".join(
        f"{{% block {name} %}}{{% endblock %}}"
        for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs"))
    _code_or_math = re.compile(r"<(pre|code)\b.*?</\1>|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)

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
    return [[o.path.stem, ", ".join(f"{v['claim']} {v['verdict']}" for v in o.verdicts) or "-", f"{o.seconds:.1f}",
             f"failed: {o.error}" if o.error else "ok"] for o in outcomes]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Notebooks of this run</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 0 auto; padding: 1rem }}
h2 {{ font-size: 1.15rem; margin: 0 }} a {{ color: #1a5a96 }} p {{ margin: .3rem 0 }}
section {{ border-top: 1px solid #ccc; padding: 1rem 0; overflow-wrap: anywhere }}
.quiet {{ color: #595959 }} .failed {{ color: #a1260d }}
.figures {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr));
            margin-top: .7rem }}
img {{ width: 100%; border: 1px solid #ddd }}
</style></head><body>
<h1>Notebooks of this run</h1>
<p class="quiet">{when}{ledger}</p>
{sections}
</body></html>
"""


def index_page(outcomes: list[Outcome], into: Path, figures: Path) -> str:
    """The page that links everything of a run; figures only of notebooks that went well."""
    sections = "\n".join(_section(outcome, into, figures) for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    ledger = ' · <a href="html/09.html">the claim ledger</a>' if any(o.number == "09" for o in outcomes) else ""
    return _PAGE.format(when=f"{datetime.now():%Y-%m-%d %H:%M}, {seconds:.0f} s", ledger=ledger, sections=sections)


def link(path: Path, start: Path) -> str:
    """A link from a page in the folder `start` to `path`."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:      # another drive
        return path.resolve().as_uri()


def _section(outcome: Outcome, into: Path, figures: Path) -> str:
    escape = html.escape
    lines = [f'<h2><a href="html/{outcome.number}.html">{escape(outcome.title)}</a></h2>']
    lines += [f"<p><b>{escape(v['claim'])}: {escape(v['verdict'])}</b> {escape(v.get('why', ''))}</p>"
              for v in outcome.verdicts]
    state = f'<span class="failed">failed: {escape(outcome.error)}</span>' if outcome.error else "ok"
    lines += [f'<p class="quiet">{state}, {outcome.seconds:.1f} s</p>']
    pictures = [] if outcome.error else sorted(figures.glob(f"{outcome.number}_*.png"))
    links = [(escape(link(picture, into)), escape(picture.stem)) for picture in pictures]
    images = "".join(f'<a href="{link}"><img src="{link}" alt="{name}" loading="lazy"></a>' for link, name in links)
    return "<section>" + "\n".join(lines) + (f'<div class="figures">{images}</div>' if images else "") + "</section>"
