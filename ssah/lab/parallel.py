"""A graph of tasks on Dask workers: processes of this machine, or of any cluster that Dask runs on.

    client: tasks in, outcomes out  ->  Dask scheduler  ->  worker: its own lab  ->  one store

Results do not travel: a worker makes a lab like the client's (`Recipe`), computes one result and
saves it into the store, a folder that all see. What comes back is a line, the `Outcome`. So a
worker may be lost at any moment: what it had finished is in the store, and what it was computing is
begun again elsewhere. Dask is imported where it is used.
"""

import contextlib
import importlib
import io
import logging
import math
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import SsahError, no_dask
from . import code
from .graph import Task, chains
from .results import Lab
from .steps import Need, find_step, slug

#: Variables by which numerical libraries choose their number of threads, when they are imported.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: Seconds until a scheduler that does not answer is taken for none.
PATIENCE = 30


class OtherWorker(SsahError):
    """A worker that would not compute what the client would; the message names the remedy."""


@dataclass(frozen=True)
class Recipe:
    """How a worker makes the client's lab. Dask pickles it on its way, and nobody keeps it."""

    make: Callable[..., Lab]        # a function of a module; also takes `recompute`
    arguments: dict
    environment: dict[str, str]     # variables, such as where the cache folder is
    packages: dict[str, str]        # the fingerprints of the packages that compute


@dataclass(frozen=True)
class Outcome:
    """What became of a task: done, failed (`error`), or left out since one before it failed."""

    label: str
    error: str = ""
    left_out: bool = False

    @property
    def done(self) -> bool:
        """Whether the result is in the store now."""
        return not self.error and not self.left_out


def packages_of(tasks: list[Task]) -> dict[str, str]:
    """The packages whose code computes some tasks, with their fingerprints here."""
    modules = [__name__, *(find_step(task.need.step).run.__module__ for task in tasks)]
    names = sorted({module.partition(".")[0] for module in modules})
    return {name: code.package_fingerprint(name) for name in names}


# ---- in a worker -----------------------------------------------------------------------------

def compute_one(recipe: Recipe, need: Need, replaced: int | None, *before: Outcome) -> Outcome:
    """Compute one result in this process, unless something before it failed.

    `replaced`: when the result that is to be made afresh was saved (`saved_at`); a newer one is
    taken, as where a worker was lost after it had finished. Raises `OtherWorker`.
    """
    check_code(recipe.packages)
    if not all(outcome.done for outcome in before):
        return Outcome(need.label, left_out=True)
    with _surroundings(recipe.environment):
        try:
            lab = recipe.make(**recipe.arguments, recompute=())
            if replaced is not None and saved_at(lab, need) == replaced:
                lab.recompute = (need.label,)
            lab.artifact(need.step, need.params)
        except Exception as error:      # a step can fail in any way; the others go on
            return Outcome(need.label, error=_one_line(error))
    return Outcome(need.label)


@contextlib.contextmanager
def _surroundings(environment: dict[str, str]) -> Iterator[None]:
    """The client's variables, for a while, and silence: the client's bar is the only one."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _one_line(error: Exception) -> str:
    first, *_ = str(error).splitlines() or [""]
    if isinstance(error, SsahError):
        return first
    return f"{type(error).__name__}: {first}"


def saved_at(lab: Lab, need: Need) -> int | None:
    """When a stored result was saved (the clock of the file system); None where there is none."""
    path = lab.store.root / need.step / f"{slug(need.params)}.json"
    return path.stat().st_mtime_ns if path.exists() else None


def check_code(packages: dict[str, str]) -> None:
    """Raise `OtherWorker` where this process would run another text of a package."""
    for name, fingerprint in packages.items():
        package = importlib.import_module(name)
        if code.package_fingerprint(name) != fingerprint:
            folder = Path(package.__file__).parent
            raise OtherWorker(
                f"a worker on {socket.gethostname()} has other code of {name} ({folder}): bring "
                "that folder to the version that you run here, and start the worker again")


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the client."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# ---- workers ---------------------------------------------------------------------------------

def engine():
    """The module `distributed`; `SsahError` with the remedy where it is not installed."""
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        raise no_dask(error.name) from error


def memory_of_machine() -> float:
    """GiB of this machine, or of the part of it that this process may use."""
    engine()
    from distributed.system import MEMORY_LIMIT

    return MEMORY_LIMIT / 2**30


def cores() -> int:
    """Cores of this machine that this process may use."""
    engine()
    from dask.system import CPU_COUNT

    return CPU_COUNT


def shares_of(memory: float, jobs: int, tasks: list[Task]) -> list[float]:
    """The GiB of each of `jobs` workers, which are `memory` together.

    As much for each; where the largest task needs more, one worker has that, and the others share
    the rest. Raises `SsahError` where not even one worker can have it.
    """
    largest = max(tasks, key=lambda task: task.memory)
    if largest.memory > memory:
        raise SsahError(f"{largest.label} may take {largest.memory:.1f} GiB, and there are "
                        f"{memory:.1f}; where you know that it takes less, say so: "
                        f"--memory {math.ceil(largest.memory)}")
    if largest.memory <= memory / jobs:
        return [memory / jobs] * jobs
    rest = (memory - largest.memory) / (jobs - 1)
    return [largest.memory, *[rest] * (jobs - 1)]


@contextlib.contextmanager
def own_workers(shares: list[float], threads: int) -> Iterator:
    """A Dask client of worker processes on this machine, which end with the block.

    `shares`: GiB of each worker, which runs one task at a time, with `threads` threads.
    """
    distributed = engine()
    import dask as settings

    scheduler = {"cls": distributed.Scheduler,
                 "options": {"host": "127.0.0.1", "port": 0, "dashboard": False,
                             "dashboard_address": "127.0.0.1:0"}}
    workers = {}
    for number, share in enumerate(shares):
        # no limit by Dask, whose remedy is to write to disk what it holds itself: nothing
        options = {"host": "127.0.0.1", "nthreads": 1, "resources": {"memory": share},
                   "memory_limit": 0, "silence_logs": logging.CRITICAL}
        workers[number] = {"cls": distributed.Nanny, "options": options}
    chosen = {
        # what the shell sets goes first
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREADS, threads),
        # a killed worker starts again, however slow a busy machine is
        "distributed.deploy.lost-worker-timeout": "1 day"}
    with (settings.config.set(chosen),
          distributed.SpecCluster(workers=workers, scheduler=scheduler,
                                  silence_logs=logging.CRITICAL) as cluster,
          distributed.Client(cluster) as client):
        client.run(ignore_interrupts)
        yield client


@contextlib.contextmanager
def running_workers(address: str) -> Iterator:
    """A Dask client of a cluster that runs already: its address, or its scheduler file (.json)."""
    distributed = engine()
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = distributed.Client(**where, timeout=PATIENCE)
    except (OSError, ValueError) as error:      # a time-out is an OSError, too
        raise SsahError(f"no Dask scheduler answers at {address} ({error}); `dask scheduler` "
                        "starts one, and prints its address") from error
    with client:
        yield client


def check_workers(client, recipe: Recipe, tasks: list[Task]) -> list[float]:
    """The GiB of each worker that is there, after a look at whether they can do these tasks.

    Raises `SsahError` for the first that cannot, and where none is large enough. There may be none
    yet, as where jobs wait in a queue: a worker that comes later is looked at when it begins.
    """
    workers = client.scheduler_info()["workers"]
    shares = [facts["resources"].get("memory", 0.0) for facts in workers.values()]
    if not workers:
        return shares
    how = "start workers with `dask worker ADDRESS --nthreads 1 --resources memory=GIB`"
    for address, facts in workers.items():
        if facts["nthreads"] != 1:
            raise OtherWorker(f"the worker {address} runs {facts['nthreads']} tasks in one "
                              f"process, where they would share a random generator; {how}")
    largest = max(tasks, key=lambda task: task.memory)
    if max(shares) < largest.memory:
        raise SsahError(f"{largest.label} may take {largest.memory:.1f} GiB, and no worker says "
                        f"that it has them (the largest: {max(shares):.1f}); {how}")
    try:
        client.run(check_code, recipe.packages)
    except OtherWorker:
        raise
    except Exception as error:      # Dask wraps what happens before a function is called
        raise _cannot_import(error) from error
    return shares


def _cannot_import(error: Exception) -> OtherWorker:
    return OtherWorker(f"a worker cannot import what is run here ({error}); install this version "
                       f"of it there (`pip install -e {Path(__file__).parents[2]}`, if it sees "
                       "that folder), and start the worker again")


# ---- running ---------------------------------------------------------------------------------

def compute(tasks: list[Task], lab: Lab, recipe: Recipe, client) -> list[Outcome]:
    """Run tasks on a client's workers; what became of each, in the order in which they ended.

    Those of the longest chains begin first. Raises `OtherWorker` for a worker that came later and
    has other code; what was finished until then is kept.
    """
    priority = chains(tasks)
    futures = {}
    labels = {}
    for task in tasks:
        afresh = task.label in lab.recompute
        replaced = saved_at(lab, task.need) if afresh else None
        before = [futures[label] for label in task.after]
        # a key of its own: another client's task of this name may be of another lab
        key = f"{task.need.step}-{uuid.uuid4().hex}"
        labels[key] = task.label
        futures[task.label] = client.submit(
            compute_one, recipe, task.need, replaced, *before, key=key,
            resources={"memory": task.memory}, priority=priority[task.label])
    return list(_outcomes(tasks, futures, labels))


def _outcomes(tasks: list[Task], futures: dict, labels: dict[str, str]) -> Iterator[Outcome]:
    """Each outcome when it is there; a bar tells how much is done, and the time left.

    The bar goes by minutes, as tasks declare them, since some take a hundred times as long.
    """
    minutes = {task.label: task.minutes for task in tasks}
    bar = tqdm(total=sum(minutes.values()), desc=f"0 of {len(tasks)} results", file=sys.stderr,
               bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]")
    n_done = 0
    with bar:
        for future in engine().as_completed(futures.values()):
            outcome = _outcome(labels[future.key], future, labels)
            n_done += 1
            bar.set_description_str(f"{n_done} of {len(tasks)} results", refresh=False)
            bar.set_postfix_str(outcome.label, refresh=False)
            bar.update(minutes[outcome.label])
            if outcome.error:
                bar.write(f"{outcome.label} failed: {outcome.error}", file=sys.stderr)
            yield outcome


def _outcome(label: str, future, labels: dict[str, str]) -> Outcome:
    """The outcome of a task that ended, also where it took its workers with it."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, OtherWorker):
        raise error
    if not isinstance(error, engine().KilledWorker):
        raise _cannot_import(error) from error
    if labels[error.task] != label:
        return Outcome(label, left_out=True)
    times = error.allowed_failures + 1
    return Outcome(label, error=f"its worker was ended from outside {times} times, as happens "
                                "where memory is short: take fewer jobs")
