"""The lab: results of one profile, loaded if they are valid, computed if they are not."""

import contextlib
import hashlib
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from filelock import FileLock
from tqdm.auto import tqdm

from ..errors import NotStored, SsahError
from . import code, machine
from .keys import key
from .steps import (
    Context,
    Need,
    Step,
    bound,
    find_step,
    label,
    sections_read,
    slug,
    with_upstream,
)
from .store import Result, Store, sha256_of


@dataclass(frozen=True)
class Place:
    """What a package hands to its labs: where things are, and what stands for a source."""

    repository: Path                            # its commit is noted with every result
    watched: tuple[str, ...]                    # paths in it whose changes are noted, as git takes them
    committed: Path                             # results in git, held against the code by a test
    accepted: Path                              # JSON: step -> changes of code that change no result
    results: Callable[[object], Path]           # of a profile: the folder of its results
    cache: Callable[[], Path]                   # private folder for artifacts
    fingerprint: Callable[[str], str]           # of a source
    plan: Callable[..., list[Need]]             # of a profile and a number of seeds
    packages: tuple[str, ...]                   # whose versions are noted
    peak_memory: Callable                       # GiB, of a torch device


class Lab:
    """Results of one profile: loaded if valid, computed if not (`SsahError` if not `compute`).

    `recompute`: results to run afresh, as `label` calls them. `root` is where results live: by
    default the profile's own folder, which computing overwrites. `seeds` are those that a reader
    asked for.
    """

    def __init__(self, profile, place: Place, *, recompute=(), root: Path | None = None,
                 compute: bool = True, n_seeds: int | None = None):
        self.profile = profile
        self.place = place
        self.recompute = recompute
        self.compute = compute
        self.seeds = profile.seeds[:n_seeds]
        self.store = Store(root if root is not None else place.results(profile))
        self.fresh: dict[str, Result] = {}      # what was validated or computed by this lab
        self.formed: dict[tuple, object] = {}   # what was made of results (`once`)
        self.frames: dict[tuple[str, str], tuple[list[str], pd.DataFrame]] = {}     # with contents
        self.bar: tqdm | None = None            # of `require`, while it computes
        # of the code that runs: asked before anything is computed, as files may change meanwhile
        self.commit = machine.commit(place.repository, place.watched)
        code.imported_package(__name__.partition(".")[0])
        self.accepted = json.loads(place.accepted.read_text()) if place.accepted.exists() else {}

    # ---- reading -----------------------------------------------------------------------------

    def get(self, name: str, /, **params) -> Result:
        """A step's result; computed, with all it needs, if missing, stale or damaged.

        Where the lab may not compute: `NotStored` for one that is missing, else `SsahError`.
        """
        params = bound(name, params)
        tag = label(name, params)
        if tag in self.fresh:
            return self.fresh[tag]
        for need in find_step(name).needs(self.profile, **params):
            self.get(need.step, **need.params)
        state, result, reason = self.look(name, params)
        if state == "missing" and not self.compute:
            raise NotStored(self._why_not(name, params, reason), tag)
        if state != "ok" or self._afresh(tag):
            result = self._computed(name, params, reason or "asked for afresh")
        self.fresh[tag] = result
        return result

    def require(self, needs: Iterable[Need]) -> None:
        """Results that are to be read: computed if missing, `SsahError` if the lab may not.

        One bar tells how many of all that must be computed are done.
        """
        needs = list(needs)
        missing = self.to_compute(needs)
        if missing and self.compute:
            try:
                with tqdm(total=len(missing), desc="results", unit="result") as self.bar:
                    for need in missing:
                        self.get(need.step, **need.params)
            finally:
                self.bar = None
        for need in needs:
            self.get(need.step, **need.params)

    def to_compute(self, needs: Iterable[Need]) -> list[Need]:
        """What of some results and all upstream of them this lab would compute, in order."""
        return [need for need in with_upstream(self.profile, needs)
                if self._afresh(need.label) or self.look(need.step, need.params)[0] != "ok"]

    def _afresh(self, tag: str) -> bool:
        """Whether a result was asked for afresh and has not been made by this lab yet."""
        return tag in self.recompute and tag not in self.fresh

    def look(self, name: str, params: dict) -> tuple[str, Result | None, str]:
        """``("ok" | "missing" | "stale" | "corrupt", result, why)``; computes nothing."""
        tag = label(name, params)
        if tag in self.fresh:
            return "ok", self.fresh[tag], ""
        try:
            result = self.store.load(name, slug(params))
        except SsahError as error:
            return "corrupt", None, str(error)
        if result is None:
            return "missing", None, "not in the store"
        inputs = {}
        for need in find_step(name).needs(self.profile, **params):
            state, upstream, why = self.look(need.step, need.params)
            if state != "ok":
                return "stale", result, f"{need.label}: {why}"
            inputs[need.label] = upstream
        why = self._outdated(find_step(name), params, result, inputs)
        if not why and not self._afresh(tag):
            self.fresh[tag] = result
        return ("stale" if why else "ok"), result, why

    def _outdated(self, step: Step, params: dict, result: Result, inputs: dict) -> str:
        """Why a stored result is not what would be computed today; empty if it is."""
        wanted = key(step, params, self.profile, inputs, self.place.fingerprint,
                     made_with=result.provenance["sections"])
        if result.key != wanted:
            return "its config, sources, inputs or version changed"
        # an edit of the code, such as an exercise, leaves the committed results readable
        if self.place.committed not in self.store.root.parents and self.code_changed(result):
            return "the code behind it changed"
        return ""

    def code_changed(self, result: Result) -> bool:
        """Whether a result was made by other code than today's that nobody accepted."""
        step = find_step(result.provenance["step"])
        then = code.recorded(result.provenance)
        return not code.is_known(code.fingerprint(step.run), then, self.accepted.get(step.name))

    def plan(self) -> list[Need]:
        """All that is planned for the seeds of this lab, each result after its needs."""
        return self.place.plan(self.profile, len(self.seeds))

    def planned(self, name: str) -> list[Need]:
        """The planned results of a step."""
        find_step(name)
        return [need for need in self.plan() if need.step == name]

    def stored(self, name: str) -> Iterator[tuple[dict, Result]]:
        """``(params, result)`` of every planned run of a step that is stored and valid.

        Computes nothing. What is damaged or stale is left out, and said on stderr.
        """
        for need in self.planned(name):
            result = self._stored(need)
            if result is not None:
                yield need.params, result

    def has_all(self, needs: Iterable[Need]) -> bool:
        """Whether some results are all stored and valid. Computes nothing; tells as `stored` does."""
        return all(self._stored(need) is not None for need in needs)

    def _stored(self, need: Need) -> Result | None:
        """A result that is stored and valid; of another one than a missing one stderr tells."""
        state, result, why = self.look(need.step, need.params)
        if state == "ok":
            return result
        if state != "missing":
            print(f"left out: {need.label} is {state} ({why})", file=sys.stderr)
        return None

    def has(self, name: str) -> bool:
        """Whether a planned run of a step is stored and valid."""
        return any(True for _ in self.stored(name))

    def frame(self, name: str, table: str) -> pd.DataFrame:
        """One table of a step: all its stored planned runs below each other.

        The step's parameters are columns. Computes nothing; what is not stored is not there.
        Raises `SsahError` for an unknown step, and for a table that none of its results has.
        """
        runs = list(self.stored(name))
        if not runs:
            raise NotStored(self._nothing_stored(name))
        contents = [f"{result.key} {result.content}" for _, result in runs]
        of_then, frame = self.frames.get((name, table), ([], None))
        if contents != of_then:
            frame = _below_each_other(name, table, runs)
            self.frames[name, table] = (contents, frame)
        return frame.copy()

    def once(self, form: Callable, **options):
        """``form(lab, **options)``, which reads results; formed once, so it must not be changed.

        Formed again after this lab has computed (or waited for) a result. What raises is not kept.
        """
        asked = (form, *sorted(options.items()))
        if asked not in self.formed:
            self.formed[asked] = form(self, **options)
        return self.formed[asked]

    def facts(self, name: str) -> pd.DataFrame:
        """The scalars of a step: a row a stored planned run, its parameters first.

        Computes nothing. Raises `SsahError` for an unknown step and where nothing is stored.
        """
        rows = [{**params, **_scalars(result.values)} for params, result in self.stored(name)]
        if not rows:
            raise NotStored(self._nothing_stored(name))
        return pd.DataFrame(rows)

    def _nothing_stored(self, name: str) -> str:
        option = self.profile.option
        if not self.planned(name):
            return (f"this profile plans no result of {name}; `ssah status{option}` lists what it "
                    "plans")
        return (f"no planned result of {name} is stored in {self.store.root}; compute it: "
                f"`ssah recompute {name}{option} --in-place`, or `ssah status{option}` shows what "
                "is there")

    # ---- computing ---------------------------------------------------------------------------

    def artifact(self, name: str, params: dict) -> Path:
        """Folder of a result's artifacts; the step runs again if it is gone or damaged."""
        params = bound(name, params)
        result = self.get(name, **params)
        if not self._has_files(result):
            again = self._made_again(name, params, result.key)
            if again.content != result.content:
                self.fresh.clear()      # what was validated against the old content may be stale
            self.fresh[label(name, params)] = again
            result = again
        return self._folder(result.key)

    def has_files(self, name: str, params: dict) -> bool:
        """Whether a result is stored and valid, and all its artifacts are in the cache folder."""
        state, result, _ = self.look(name, bound(name, params))
        return state == "ok" and self._has_files(result)

    def _has_files(self, result: Result) -> bool:
        return _intact(self._folder(result.key), result.values.get("artifacts", {}))

    def _folder(self, result_key: str) -> Path:
        """Where a result's artifacts (checkpoints, completions) live: never in git.

        Those of another root are kept apart, so that a rerun never replaces what the committed
        results were made with.
        """
        apart = ""
        if self.store.root != self.place.results(self.profile):
            apart = f"-{_short_hash(self.store.root)}"
        return self.place.cache() / "artifacts" / (result_key + apart)

    def _computed(self, name: str, params: dict, reason: str) -> Result:
        """Run now, or what another process stored while this one waited for its turn."""
        with self._turn(name, params, reason):
            state, result, _ = self.look(name, params)
            if state == "ok" and not self._afresh(label(name, params)):
                return result
            return self._run(name, params, reason)

    def _made_again(self, name: str, params: dict, result_key: str) -> Result:
        """A stored result with its artifacts: run now, or by another process meanwhile."""
        reason = "its artifacts are not in the cache folder"
        with self._turn(name, params, reason):
            stored = self.store.load(name, slug(params))
            if stored is not None and stored.key == result_key and self._has_files(stored):
                return stored
            return self._run(name, params, reason)

    @contextlib.contextmanager
    def _turn(self, name: str, params: dict, reason: str) -> Iterator[None]:
        """The right to compute a result, which one process has at a time; the others wait.

        It ends with the process, however that ends. A result's needs are waited for after it, so
        nobody waits in a ring. Raises `SsahError` in a lab that may not compute.
        """
        if not self.compute:
            raise SsahError(self._why_not(name, params, reason))
        folder = self.place.cache() / "locks" / _short_hash(self.store.root) / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / f"{slug(params)}.lock"):
            self.formed.clear()     # there will be a result that was not there when it was formed
            yield

    def _run(self, name: str, params: dict, reason: str) -> Result:
        step = find_step(name)
        tag = label(name, params)
        needs = step.needs(self.profile, **params)
        artifacts = self._artifacts(needs)
        inputs = {need.label: self.get(need.step, **need.params) for need in needs}
        result_key = key(step, params, self.profile, inputs, self.place.fingerprint)
        self.store.prepare(name)        # rather than find out when it is computed
        self._tell(step, tag, reason)
        started = time.perf_counter()
        with self._artifact_folder(result_key) as folder:
            profile = SimpleNamespace(name=self.profile.name, **sections_read(step, self.profile))
            result = step.run(Context(profile, inputs, artifacts, folder), **params)
            made = {path.relative_to(folder).as_posix(): sha256_of(path)
                    for path in sorted(folder.rglob("*")) if path.is_file()}
        if made:
            result = replace(result, values={**result.values, "artifacts": made})
        if self.bar is not None:
            self.bar.update()
        provenance = {**result.provenance,
                      **self._provenance(step, params, time.perf_counter() - started)}
        return self.store.save(name, slug(params),
                               replace(result, key=result_key, provenance=provenance))

    def _why_not(self, name: str, params: dict, reason: str) -> str:
        """Why there is no result, and what makes one."""
        option = self.profile.option
        if label(name, params) not in {need.label for need in self.place.plan(self.profile, None)}:
            return (f"{label(name, params)}: {reason}, and this profile does not plan it (`ssah status"
                    f"{option}` lists what it plans); with recompute = True it would be computed")
        again = f"`{command(self.profile, name, params)} --in-place`"
        remedy = f"set recompute = True (or `ssah run --recompute{option}`) to compute it"
        if self.place.committed in self.store.root.parents:
            remedy = f"set recompute = True (or `ssah rerun{option}`) to compute it apart"
        return f"{label(name, params)}: {reason}; {remedy}, {again} to replace the stored result"

    def _tell(self, step: Step, tag: str, reason: str) -> None:
        """What is being computed, and why: beside the bar, or a line of its own."""
        if self.bar is not None:
            self.bar.set_postfix_str(tag)
            return
        cost = f" (about {step.minutes:g} min)" if self.profile.name == "default" else ""
        now = time.strftime("%H:%M:%S")
        print(f"[{now}] computing {tag}: {reason}{cost}", file=sys.stderr, flush=True)

    def _artifacts(self, needs: list[Need]) -> dict[str, Path]:
        """The folders of the artifacts that are needed.

        To make one anew may make another one stale, so they are asked for until none moves.
        """
        wanted = [need for need in needs if need.artifact]
        before = None
        found = {need.label: self.artifact(need.step, need.params) for need in wanted}
        while found != before:
            before = found
            found = {need.label: self.artifact(need.step, need.params) for need in wanted}
        return found

    @contextlib.contextmanager
    def _artifact_folder(self, result_key: str) -> Iterator[Path]:
        """A scratch folder that takes the place of the result's artifacts, if anything is in it."""
        folder = self._folder(result_key)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # a name of its own, since another process may compute the same result
        with tempfile.TemporaryDirectory(prefix=f"{result_key}.", dir=folder.parent) as scratch:
            made_in = Path(scratch) / "artifacts"
            made_in.mkdir(mode=0o700)
            yield made_in
            if any(made_in.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
                made_in.replace(folder)

    def _provenance(self, step: Step, params: dict, seconds: float) -> dict:
        sections = {name: asdict(section) if is_dataclass(section) else vars(section)
                    for name, section in sections_read(step, self.profile).items()}
        return {
            "step": step.name, "version": step.version, "params": params,
            "profile": self.profile.name, "sections": sections,
            "command": command(self.profile, step.name, params),
            "packages": machine.versions(self.place.packages),
            **machine.description(self.place.peak_memory),
            "seconds": round(seconds, 1), "date": date.today().isoformat(), **self.commit,
            "code": code.fingerprint(step.run)}


def command(profile, name: str, params: dict) -> str:
    """What computes one result on the command line."""
    chosen = "".join(f" -p {shlex.quote(f'{key}={value}')}" for key, value in params.items())
    return f"ssah recompute {name}{chosen}{profile.option}"


def _with_columns(table: pd.DataFrame, params: dict) -> pd.DataFrame:
    """The table with parameters as columns, last; a column of its own of that name is kept."""
    return table.assign(**{name: value for name, value in params.items() if name not in table})


def _below_each_other(name: str, table: str, runs: list[tuple[dict, Result]]) -> pd.DataFrame:
    """One table of all runs of a step (params, result) that have it; `SsahError` if none has."""
    parts = [_with_columns(result.tables[table], params)
             for params, result in runs if table in result.tables]
    if not parts:
        there = sorted({known for _, result in runs for known in result.tables})
        raise SsahError(f"{name} has no table {table!r}; it has: {', '.join(there) or 'none'}")
    return pd.concat(parts, ignore_index=True)


def _scalars(values: dict) -> dict:
    return {name: value for name, value in values.items()
            if isinstance(value, (bool, int, float, str))}


def _short_hash(folder: Path) -> str:
    """Eight hex digits that stand for a folder in the names of others."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all((folder / name).exists() and sha256_of(folder / name) == digest
               for name, digest in files.items())
