"""The engine: named steps with declared inputs, run when their result is missing, else loaded.

A step is a function of a `Context`; it reads only the profile sections, upstream results and
artifacts that it declares, so that its key can be computed without running it, and without torch.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from .. import sources
from ..errors import SsahError
from ..profiles import Profile
from ..store import RESULTS, Result, Store, canonical

PACKAGES = ("torch", "transformers", "numpy", "pandas", "scipy", "tokenizers", "peft", "gguf")


@dataclass(frozen=True)
class Need:
    """An upstream result; with `artifact=True` also the files that it left in the cache folder."""

    step: str
    params: dict = field(default_factory=dict)
    artifact: bool = False


@dataclass(frozen=True)
class Step:
    """A named, recomputable function. `minutes`: roughly, on two cores with the default profile; printed first."""

    name: str
    run: Callable
    version: int
    reads: tuple[str, ...]          # sections of the profile
    uses: tuple[str, ...]           # modules of the package whose code makes the result
    needs: Callable[..., list[Need]]
    minutes: float


STEPS: dict[str, Step] = {}


def step(*, version: int, reads=(), uses=(), needs: Callable[..., list[Need]] = lambda profile, **params: [],
         minutes=0.1):
    """Register a function ``run(context, **params) -> Result`` as a step under its own name (fields as in `Step`)."""
    def register(run: Callable) -> Callable:
        STEPS[run.__name__] = Step(run.__name__, run, version, tuple(reads), tuple(uses), needs, minutes)
        return run
    return register


@dataclass
class Context:
    """What a running step sees: its sections as attributes of `profile`, its inputs, and a folder for artifacts."""

    profile: SimpleNamespace
    inputs: dict[str, Result]
    artifacts: dict[str, Path]
    folder: Path                    # the step's own artifacts go here

    def get(self, name: str, **params) -> Result:
        """A declared upstream result (parameters in the order of the declaration; KeyError otherwise)."""
        return self.inputs[label(name, params)]

    def artifact(self, name: str, **params) -> Path:
        """Folder with the artifacts of an upstream result that was declared with ``artifact=True``."""
        return self.artifacts[label(name, params)]


class Lab:
    """Results of one profile: loaded if valid, computed if not (`SsahError` where `compute` is False).

    `recompute`: results to run afresh, as `label` calls them. `root` is where results live: the committed ones by
    default, which computing overwrites. `seeds` are those that a reader asked for.
    """

    def __init__(self, profile: Profile, *, recompute=(), root: Path | None = None, compute: bool = True,
                 n_seeds: int | None = None):
        self.profile, self.recompute, self.compute = profile, recompute, compute
        self.seeds = profile.seeds[:n_seeds]
        _commit()       # asked before anything is computed: the tree may change meanwhile
        self.store = Store(root if root is not None else default_root(profile))
        self.fresh: dict[str, Result] = {}      # what was validated or computed by this lab

    def get(self, name: str, **params) -> Result:
        """The result of a step, computed (with all it needs) if missing, stale, damaged or asked for afresh."""
        params = bound(name, params)
        tag = label(name, params)
        if tag in self.fresh:
            return self.fresh[tag]
        state, result, reason = self.look(name, params)
        if state != "ok" or tag in self.recompute:
            result = self._run(name, params, reason or "asked for afresh")
        self.fresh[tag] = result
        return result

    def across(self, name: str, table: str, key: str, choices, seeds=None) -> pd.DataFrame:
        """One table of a step for all seeds and `choices` of parameter `key` below each other, with both as columns."""
        parts = [self.get(name, seed=seed, **{key: choice}).tables[table].assign(seed=seed, **{key: choice})
                 for choice in choices for seed in (self.seeds if seeds is None else seeds)]
        return pd.concat(parts, ignore_index=True)

    def look(self, name: str, params: dict) -> tuple[str, Result | None, str]:
        """``("ok" | "missing" | "stale" | "corrupt", result, why)``; runs its inputs if need be, never the step."""
        found_step = find_step(name)
        try:
            result = self.store.load(name, slug(params))
        except SsahError as error:
            return "corrupt", None, str(error)
        if result is None:
            return "missing", None, "not in the store"
        inputs = {label(n.step, n.params): self.get(n.step, **n.params)
                  for n in found_step.needs(self.profile, **params)}
        if result.key != self.key(found_step, params, inputs):
            return "stale", result, "its config, sources, inputs or version changed"
        # committed results are held against the code by a test, which knows what changes nothing
        if self.store.root != RESULTS / "default" and result.provenance["code"] != code_fingerprint(found_step):
            return "stale", result, "the code behind it changed"
        return "ok", result, ""

    def key(self, found_step: Step, params: dict, inputs: dict[str, Result]) -> str:
        """What identifies a result: step, version, params, sections, sources, content of the inputs; not the code."""
        sections = {name: asdict(getattr(self.profile, name)) for name in found_step.reads}
        names = [s for name in found_step.reads for s in getattr(self.profile, name).sources()]
        facts = {"step": found_step.name, "version": found_step.version, "params": params, "sections": sections,
                 "sources": {name: sources.fingerprint(name) for name in names},
                 "inputs": {tag: result.content for tag, result in inputs.items()}}
        return hashlib.sha256(canonical(facts).encode()).hexdigest()[:16]

    def artifact(self, name: str, params: dict) -> Path:
        """Folder of a result's artifacts; the step is run again if the folder is gone or damaged."""
        params = bound(name, params)
        result = self.get(name, **params)
        if not _intact(self._folder(result.key), result.values.get("artifacts", {})):
            again = self._run(name, params, "its artifacts are not in the cache folder")
            if again.content != result.content:
                self.fresh.clear()      # what was validated against the old content may be stale
            self.fresh[label(name, params)] = result = again
        return self._folder(result.key)

    def _folder(self, key: str) -> Path:
        """Where a result's artifacts (checkpoints, completions) live: the user's cache folder, never git.

        Those of another root are kept apart, so that a rerun never replaces what the committed results were made with.
        """
        apart = "" if self.store.root == default_root(self.profile) else \
            "-" + hashlib.sha256(str(self.store.root.resolve()).encode()).hexdigest()[:8]
        return sources.cache_dir() / "artifacts" / (key + apart)

    def _run(self, name: str, params: dict, reason: str) -> Result:
        found_step, tag = find_step(name), label(name, params)
        if not self.compute:
            option = self.profile.option
            raise SsahError(f"{tag}: {reason}; set recompute = True (or `ssah rerun{option}`) to compute it apart, "
                            f"`{command(self.profile, name, params)} --in-place` to replace the stored result")
        needs = found_step.needs(self.profile, **params)
        artifacts = None        # to make one anew may make another stale: until none moves
        while (found := {label(n.step, n.params): self.artifact(n.step, n.params)
                         for n in needs if n.artifact}) != artifacts:
            artifacts = found
        inputs = {label(n.step, n.params): self.get(n.step, **n.params) for n in needs}
        key = self.key(found_step, params, inputs)
        cost = f" (about {found_step.minutes:g} min)" if self.profile.name == "default" else ""
        print(f"[{time.strftime('%H:%M:%S')}] computing {tag}: {reason}{cost}", file=sys.stderr, flush=True)
        folder = self._folder(key)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"{key}.", dir=folder.parent) as scratch:   # another may compute it too
            made_in = Path(scratch) / "artifacts"
            made_in.mkdir(mode=0o700)
            context = Context(
                SimpleNamespace(name=self.profile.name, **{r: getattr(self.profile, r) for r in found_step.reads}),
                inputs, artifacts, made_in)
            result = found_step.run(context, **params)
            made = {path.relative_to(made_in).as_posix(): sources.sha256_of(path)
                    for path in sorted(made_in.rglob("*")) if path.is_file()}
            if made:
                result = replace(result, values={**result.values, "artifacts": made})
                shutil.rmtree(folder, ignore_errors=True)
                made_in.replace(folder)
        provenance = _provenance(found_step, params, self.profile, time.perf_counter() - started)
        return self.store.save(name, slug(params),
                               replace(result, key=key, provenance={**result.provenance, **provenance}))


def default_root(profile: Profile) -> Path:
    """Committed results for the default profile; the cache folder for all others (never in git)."""
    return RESULTS / "default" if profile.name == "default" else sources.cache_dir() / "results" / profile.name


def find_step(name: str) -> Step:
    """A registered step; `SsahError` with the known names otherwise."""
    if name not in STEPS:
        raise SsahError(f"unknown step {name!r}; known: {', '.join(STEPS)}")
    return STEPS[name]


def with_upstream(profile: Profile, needs) -> list[Need]:
    """Results and all that they are computed from, each once and after what it needs."""
    found: dict[str, Need] = {}

    def add(need: Need) -> None:
        if label(need.step, need.params) not in found:
            for upstream in find_step(need.step).needs(profile, **need.params):
                add(upstream)
            found[label(need.step, need.params)] = Need(need.step, need.params)

    for need in needs:
        add(need)
    return list(found.values())


def bound(name: str, params: dict) -> dict:
    """Parameters of a step in the order of its function, as plain Python; `SsahError` for unknown or missing ones."""
    known = list(inspect.signature(find_step(name).run).parameters.values())[1:]        # without the context
    missing = [p.name for p in known if p.name not in params and p.default is p.empty]
    if unknown := set(params) - {p.name for p in known} or missing:
        raise SsahError(f"{name} takes {', '.join(p.name for p in known) or 'no parameters'}; "
                        f"{'missing' if unknown is missing else 'unknown'}: {', '.join(sorted(unknown))}")
    return {p.name: value.item() if isinstance(value := params[p.name], np.generic) else value
            for p in known if p.name in params}


def command(profile: Profile, name: str, params: dict) -> str:
    """What computes one result on the command line."""
    chosen = "".join(f" -p {shlex.quote(f'{k}={v}')}" for k, v in params.items())
    return f"ssah recompute {name}{chosen}{profile.option}"


def slug(params: dict) -> str:
    """File name of a result: its parameters, readable, in the order in which they are given."""
    return ",".join(f"{k}={v}" for k, v in params.items()) or "result"


def label(name: str, params: dict) -> str:
    """How a result is called in messages and keys: ``step(a=1,b=2)``."""
    return f"{name}({slug(params)})" if params else name


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all((folder / name).exists() and sources.sha256_of(folder / name) == digest
               for name, digest in files.items())


@functools.cache
def code_fingerprint(found_step: Step) -> dict[str, str]:
    """Hash of the code behind a step: its function, the helpers beside it, and the modules that it names.

    Comments, layout, decorators and the words of docstrings do not count. Of the code that this process runs.
    """
    name = found_step.run.__module__.rpartition(".")[2]
    functions = {node.name: node for node in _module_tree(f"experiments/{name}").body
                 if isinstance(node, ast.FunctionDef)}
    prints = {f"experiments.{name}.{found_step.name}": _hash_of(functions[found_step.name])}
    for module in dict.fromkeys((f"experiments/{name}", "experiments/foundation")):
        helpers = [node for node in _module_tree(module).body if not isinstance(node, (ast.Import, ast.ImportFrom))
                   and getattr(node, "name", "") not in STEPS]
        prints[f"{module.replace('/', '.')} (helpers)"] = _hash_of(ast.Module(helpers, []))
    return prints | {module: _hash_of(_module_tree(module)) for module in found_step.uses}


_PACKAGE = Path(sources.__file__).parent
#: The package as it was when this process began, which is what runs; files may be edited meanwhile.
_TEXTS = {path.relative_to(_PACKAGE).with_suffix("").as_posix(): path.read_text("utf-8")
          for path in _PACKAGE.rglob("*.py")}


def _module_tree(module: str) -> ast.Module:
    return ast.parse(_TEXTS[module])


def _hash_of(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) \
                and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            body[0] = ast.Pass()
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []        # version and cost stand there; they are no code of the step
    everything = {"show_empty": True} if sys.version_info >= (3, 13) else {}    # all Pythons print what 3.11 does
    text = ast.dump(tree, **everything).replace(", type_params=[]", "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _provenance(found_step: Step, params: dict, profile: Profile, seconds: float) -> dict:
    import torch

    from ..finetuning import peak_memory

    where = torch.device(device())
    return {"step": found_step.name, "version": found_step.version, "params": params, "profile": profile.name,
            "sections": {name: asdict(getattr(profile, name)) for name in found_step.reads},
            "command": command(profile, found_step.name, params),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name(where) if where.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads",
            "seconds": round(seconds, 1), "date": date.today().isoformat(), **_commit(),
            "peak_memory_gib": round(peak_memory(where), 2),
            "code": code_fingerprint(found_step)}


@functools.cache
def _commit() -> dict:
    """The commit, and whether code or hand-made data differ from it (results being written do not count)."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=sources.REPOSITORY, capture_output=True,
                              text=True).stdout.strip()

    with contextlib.suppress(OSError):
        changes = git("status", "--porcelain", "--", "ssah", ":(glob)data/*", "requirements.lock")
        return {"commit": git("rev-parse", "HEAD") or None, "clean": bool(git("rev-parse", "HEAD")) and not changes}
    return {"commit": None, "clean": False}


def device() -> str:
    """Where models run: a GPU if there is one (``SSAH_DEVICE`` overrides)."""
    import torch

    return os.environ.get("SSAH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
