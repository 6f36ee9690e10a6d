"""Accepting a change of code that changes no result: run before and after, compared, then noted.

Neutrality is run, not asserted: a step is computed on a small profile by the code of a commit whose
results the stored ones are, and by the code of the working tree, on the same machine. Only if all
contents are equal, fractions up to rounding, a line is written (`Place.accepted`): step -> the
fingerprint of today's code, the fingerprints of the stored results that it covers (of all profiles
in git), the commit compared with, by how much the most different fraction differed, and the reason.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SsahError
from . import code
from .results import Lab
from .steps import find_step, slug
from .store import Result, Store

#: What a sum in another order may change of a fraction: relative, and of one near zero.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}

#: Where the hashes of files stand that a step left in the cache folder.
KEPT = "values.artifacts."

#: (step, slug) -> what was computed for it.
Results = dict[tuple[str, str], Result]


@dataclass(frozen=True)
class Trial:
    """How a tree of the repository computes steps on a small profile."""

    plans: Callable[[str], bool]                        # whether the profile has a step
    command: Callable[[list[str], Path], list[str]]     # of steps and a folder: what Python runs
    results: Callable[[Path], Path]                     # of the folder: where results are then


def accept(labs: Sequence[Lab], names: Iterable[str], reason: str, trials: Sequence[Trial],
           before: str | None = None) -> list[str]:
    """Compare, and note what is neutral; the steps that were noted.

    `labs`: of one place, a lab a profile whose results are in git. A step is computed by the first
    of the `trials` that plans it. `before`: the commit to compare with (default: the newest at
    which the stored results were those of the code). Raises `SsahError` if there is none, if a
    step is in no trial or cannot be computed, and if contents differ by more than rounding;
    then of the steps that were computed together nothing is noted.
    """
    changed = [name for name in names if needs_a_line(labs, name)]
    place = labs[0].place
    if before is None:
        compared_with = last_valid_commits(labs, changed)
    else:
        whole = _git(place.repository, "rev-parse", "--verify", f"{before}^{{commit}}").strip()
        compared_with = dict.fromkeys(changed, whole or before)
    tried = {name: _trial_of(name, trials) for name in changed}
    with tempfile.TemporaryDirectory(prefix="accept-") as scratch:
        for commit in dict.fromkeys(compared_with.values()):
            tree = _checked_out(place.repository, commit, Path(scratch) / commit)
            for number, trial in enumerate(trials):
                steps = [name for name in changed
                         if compared_with[name] == commit and tried[name] is trial]
                if not steps:
                    continue
                print(f"computing {', '.join(steps)} by the code of {commit[:7]} and of today",
                      flush=True)
                into = Path(scratch) / f"{commit}-{number}"
                found = compare(computed(tree, steps, trial, into / "then"),
                                computed(place.repository, steps, trial, into / "now"))
                _note(labs, {name: found[name] for name in steps}, commit, reason)
    return changed


def _note(labs: Sequence[Lab], differences: dict[str, float], commit: str, reason: str) -> None:
    """A line for each step, beside those that are there."""
    path = labs[0].place.accepted
    lines = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name, largest in differences.items():
        lines[name] = {"code": code.fingerprint(find_step(name).run),
                       "covers": _codes(labs, name), "before": commit, "reason": reason}
        if largest:
            lines[name]["largest_difference"] = float(f"{largest:.1g}")
    _write(path, lines)


def _trial_of(name: str, trials: Sequence[Trial]) -> Trial:
    """The first trial that has a step."""
    for trial in trials:
        if trial.plans(name):
            return trial
    raise SsahError(f"no small profile computes {name}; bump its version and recompute its results")


def needs_a_line(labs: Sequence[Lab], name: str) -> bool:
    """Whether some stored result of a step was made by other code that nobody accepted yet."""
    return any(lab.code_changed(result) for lab in labs for result in _results(lab, name))


def last_valid_commits(labs: Sequence[Lab], names: Iterable[str]) -> dict[str, str]:
    """Step -> the newest commit whose code made, or was accepted for, all its stored results.

    `names`: steps of one package. Raises `SsahError` for a step that has none.
    """
    repository = labs[0].place.repository
    accepted = labs[0].accepted
    stored = {name: _codes(labs, name) for name in names}
    found = {}
    if not stored:
        return found
    package = find_step(next(iter(stored))).run.__module__.partition(".")[0]
    for commit in _git(repository, "log", "--format=%H", "--", package).split():
        open_steps = [name for name in stored if name not in found]
        if not open_steps:
            break
        tree = package_at(repository, commit, package)
        for name in open_steps:
            if _is_valid(tree, name, stored[name], accepted.get(name)):
                found[name] = commit
    missing = [name for name in stored if name not in found]
    if missing:
        raise SsahError(f"no commit has the code that made the stored results of {missing[0]}; "
                        "name the one to compare with (--before COMMIT), or recompute them")
    return {name: found[name] for name in stored}


def _is_valid(tree: code.Package, name: str, stored: list[str], line: dict | None) -> bool:
    """Whether the code of a tree is that which made all stored results of a step."""
    home = tree.home_of_step(name)
    if home is None:
        return False
    fingerprint = tree.fingerprint(home, name)
    return all(code.is_known(fingerprint, then, line) for then in stored)


def package_at(repository: Path, commit: str, package: str) -> code.Package:
    """The texts of a package at a commit."""
    archived = subprocess.run(["git", "archive", commit, package], cwd=repository, check=True,
                              capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        return code.Package({member.name: archive.extractfile(member).read().decode("utf-8")
                             for member in archive if member.name.endswith(".py")})


def computed(tree: Path, names: list[str], trial: Trial, into: Path) -> Results:
    """All results of some steps that the code of a tree computes."""
    done = _run(tree, trial.command(names, into), into)
    if done.returncode == 2:        # a tree whose command takes one step at a time
        for name in names:
            done = _run(tree, trial.command([name], into), into)
            if done.returncode:
                break
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise SsahError(f"{tree} cannot compute {', '.join(names)}: {last}")
    store = Store(trial.results(into))
    return {(step, result): store.load(step, result)
            for step, result in store.slugs() if step in names}


def _run(tree: Path, command: list[str], into: Path) -> subprocess.CompletedProcess:
    # a cache of its own: neither tree may find what another one made
    environment = os.environ | {"PYTHONPATH": str(tree), "SSAH_CACHE": str(into / "cache")}
    return subprocess.run([sys.executable, *command], cwd=tree, env=environment,
                          capture_output=True, text=True)


def compare(then: Results, now: Results) -> dict[str, float]:
    """Step -> the largest difference of a fraction in its results; `SsahError` beyond rounding.

    A result that is planned only now is no other one, where its step had some before.
    """
    largest = {}
    different = sorted({step for step, _ in now} - {step for step, _ in then})
    for step, slug_ in sorted(then):
        result = (step, slug_)
        found = difference(then[result], now[result]) if result in now else np.inf
        largest[step] = max(found, largest.get(step, 0.0))
        if found == np.inf:
            different.append(f"{step}({slug_})")
    if different:
        raise SsahError(f"other results now: {', '.join(different)}; bump the version of the step "
                        "and recompute it, or undo the change. Nothing was accepted")
    return largest


def difference(then: Result, now: Result) -> float:
    """The largest difference between fractions of two results; infinite if it is beyond rounding.

    So it is where anything else differs: a name, a shape, a text, a whole number. Files that are
    kept in the cache folder only now change nothing.
    """
    before = dict(_parts(then))
    after = dict(_parts(now))
    added = after.keys() - before.keys()
    if not before.keys() <= after.keys() or not all(name.startswith(KEPT) for name in added):
        return np.inf
    largest = 0.0
    for name, old in before.items():
        new = after[name]
        if old.dtype != new.dtype or old.shape != new.shape:
            return np.inf
        if old.dtype.kind != "f":
            if old.tolist() != new.tolist():
                return np.inf
        elif not np.allclose(old, new, equal_nan=True, **ROUNDING):
            return np.inf
        elif old.size:
            largest = max(largest, float(np.nanmax(np.abs(old - new), initial=0.0)))
    return largest


def _parts(result: Result) -> Iterator[tuple[str, np.ndarray]]:
    """All facts, columns and arrays of a result by name."""
    yield from _facts("values", result.values)
    for table, frame in result.tables.items():
        for column in frame:
            yield f"{table}.{column}", frame[column].to_numpy()
    for name, array in result.arrays.items():
        yield f"array {name}", array


def _facts(name: str, value) -> Iterator[tuple[str, np.ndarray]]:
    """The scalars in a JSON value, each by where it stands."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in inner:
            yield from _facts(f"{name}.{key}", one)
    elif isinstance(value, float):
        yield name, np.array([value])
    else:
        yield name, np.array([value], dtype=object)


def _results(lab: Lab, name: str) -> list[Result]:
    """The stored planned results of a step, whatever their state."""
    found = [lab.store.load(name, slug(need.params)) for need in lab.planned(name)]
    return [result for result in found if result is not None]


def _codes(labs: Sequence[Lab], name: str) -> list[str]:
    """The fingerprints of the stored results of a step, each once."""
    return sorted({code.recorded(result.provenance)
                   for lab in labs for result in _results(lab, name)})


def _checked_out(repository: Path, commit: str, folder: Path) -> Path:
    """The files of a commit in a folder."""
    if not folder.exists():
        archived = subprocess.run(["git", "archive", commit], cwd=repository, capture_output=True)
        if archived.returncode:
            raise SsahError(f"{commit!r} is no commit of this repository")
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
            archive.extractall(folder, filter="data")
    return folder


def _git(repository: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=repository, capture_output=True,
                          text=True).stdout


def _write(path: Path, lines: dict[str, dict]) -> None:
    """A line a step, in the order of their names."""
    rows = [f" {json.dumps(name)}: {json.dumps(lines[name])}" for name in sorted(lines)]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", "utf-8")
