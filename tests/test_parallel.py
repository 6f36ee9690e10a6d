"""Steps on Dask workers that are processes: the same results, whatever happens to them."""

import contextlib
import importlib
import os
import select
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import toy_steps
from toy_steps import lab_at

from ssah import cli
from ssah.claims.shared import memory
from ssah.cli import jobs
from ssah.cli import notebooks as commands
from ssah.errors import SsahError
from ssah.inputs import archives
from ssah.lab import Need, Store, code, find_step, parallel
from ssah.lab.graph import Task, at_least, chains, longest_chain, tasks_of
from ssah.lab.parallel import Outcome, Recipe

pytestmark = pytest.mark.slow

#: Seconds after which a test fails that waits for something: far more than it takes.
PATIENCE = 300

SEEDS = [Need("numbers", {"seed": seed}) for seed in (0, 1)]


class Gates:
    """The pipes of `toy_steps`, seen from the test."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for name in ("events", "permits"):
            os.mkfifo(folder / name)
        # open at both ends, so that no opening waits for the other side
        self.events = os.open(folder / "events", os.O_RDWR)
        self.permits = os.open(folder / "permits", os.O_RDWR)
        self.seen: list[str] = []
        self._rest = b""

    def wait_for(self, event: str) -> int:
        """Read events up to this one; the process that it came from."""
        while True:
            process, _, found = self._line().partition(" ")
            self.seen.append(found)
            if found == event:
                return int(process)

    def _line(self) -> str:
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.events], [], [], PATIENCE)
            if not ready:
                self.let_go(1000)       # else the steps would wait for ever, and this test for them
                pytest.fail(f"nothing happened after {self.seen}")
            self._rest += os.read(self.events, 4096)
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def let_go(self, steps: int = 1) -> None:
        """Let so many gated steps go on."""
        os.write(self.permits, b"." * steps)

    def all_seen(self) -> list[str]:
        """Everything that was told until now."""
        os.write(self.events, b"0 now\n")
        self.wait_for("now")
        return self.seen[:-1]


@pytest.fixture
def gates(tmp_path):
    made = Gates(tmp_path / "gates")
    yield made
    os.close(made.events)
    os.close(made.permits)


@pytest.fixture(scope="module")
def workers():
    """A client of two workers, of 3 and 1 GiB."""
    with parallel.own_workers([3.0, 1.0], threads=1) as client:
        yield client


def worker_here(memory: float):
    """A client with a scheduler and a worker of its own, both threads of this process: cheap."""
    return parallel.engine().Client(processes=False, n_workers=1, threads_per_worker=1,
                                    dashboard_address="127.0.0.1:0", resources={"memory": memory})


def declared(step: str) -> float:
    """The minutes that a toy step declares."""
    return find_step(step).minutes


def made(folder: Path, needs: list[Need], client, recompute=(), **environment) -> list[Outcome]:
    """Compute toy results in a folder on a client's workers."""
    lab = lab_at(folder, recompute=recompute)
    tasks = tasks_of(lab, needs, declared)
    recipe = Recipe(lab_at, {"folder": folder}, environment, parallel.packages_of(tasks))
    return parallel.compute(tasks, lab, recipe, client)


def contents(folder: Path, needs: list[Need]) -> dict[str, str]:
    """Label -> content of toy results that are stored and valid in a folder."""
    lab = lab_at(folder)
    found = {}
    for need in needs:
        state, result, _ = lab.look(need.step, need.params)
        if state == "ok":
            found[need.label] = result.content
    return found


ALL = [*SEEDS, *(Need("doubled", need.params) for need in SEEDS), Need("total")]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """Contents of the toy results, computed in this process one after the other."""
    folder = tmp_path_factory.mktemp("serial")
    lab_at(folder).require([Need("total"), Need("gated")])
    return contents(folder, [*ALL, Need("gated")])


# ---- the same results ------------------------------------------------------------------------

def test_workers_make_what_one_process_makes_and_a_failure_stops_only_what_stands_on_it(
        workers, serial, tmp_path, capsys):
    outcomes = made(tmp_path, [Need("after_broken"), Need("total")], workers)
    found = {outcome.label: outcome for outcome in outcomes}
    assert contents(tmp_path, ALL) == {need.label: serial[need.label] for need in ALL}
    assert found.pop("broken") == Outcome("broken", error="ValueError: no such unit")
    assert found.pop("after_broken") == Outcome("after_broken", left_out=True)
    assert set(found) == {need.label for need in ALL}
    assert all(outcome.done for outcome in found.values())
    bar = capsys.readouterr().err
    assert "7 of 7 results 100%" in bar and "broken failed: ValueError: no such unit" in bar


def test_what_is_stored_is_not_computed_again_unless_asked_for(workers, gates, tmp_path):
    opened = {toy_steps.GATES: str(gates.folder)}
    made(tmp_path, [Need("total")], workers)
    assert made(tmp_path, SEEDS, workers, **opened) == []
    (outcome,) = made(tmp_path, SEEDS, workers, recompute=("numbers(seed=1)",), **opened)
    assert outcome == Outcome("numbers(seed=1)")
    assert [event for event in gates.all_seen() if "begin" in event] == ["begin numbers 1"]


def test_files_that_are_missing_are_made_again_before_what_reads_them(workers, serial, tmp_path):
    made(tmp_path, [Need("total")], workers)
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "results" / "total")
    outcomes = made(tmp_path, [Need("total")], workers)
    labels = {outcome.label for outcome in outcomes}
    assert labels == {"total", "doubled(seed=0)", "doubled(seed=1)"}
    assert contents(tmp_path, ALL) == {need.label: serial[need.label] for need in ALL}


# ---- whatever happens ------------------------------------------------------------------------

EXTENDED = [pytest.param(time, marks=pytest.mark.extended) for time in range(1, 10)]


@pytest.mark.parametrize("time", [0, *EXTENDED])
def test_a_worker_may_be_killed_while_it_computes(workers, gates, serial, tmp_path, time):
    """What it had finished stays as it is, and what it computed another one begins again."""
    lab = lab_at(tmp_path)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(made, tmp_path, [Need("gated")], workers,
                              **{toy_steps.GATES: str(gates.folder)})
        killed = gates.wait_for("begin gated")
        saved = parallel.saved_at(lab, SEEDS[0])
        os.kill(killed, signal.SIGKILL)
        second = gates.wait_for("begin gated")
        gates.let_go()
        outcomes = running.result(PATIENCE)
    assert killed != second
    assert [outcome.label for outcome in outcomes if outcome.done] == ["numbers(seed=0)", "gated"]
    assert saved is not None and parallel.saved_at(lab, SEEDS[0]) == saved
    needs = [SEEDS[0], Need("gated")]
    assert contents(tmp_path, needs) == {need.label: serial[need.label] for need in needs}


def test_a_result_made_afresh_is_not_made_twice_when_its_worker_is_lost_later(tmp_path):
    """Dask runs a task again whose outcome went with its worker."""
    need = SEEDS[0]
    recipe = Recipe(lab_at, {"folder": tmp_path}, {}, {})
    lab_at(tmp_path).get(need.step, **need.params)
    before = parallel.saved_at(lab_at(tmp_path), need)
    assert parallel.compute_one(recipe, need, before).done
    after = parallel.saved_at(lab_at(tmp_path), need)
    assert parallel.compute_one(recipe, need, before).done
    assert before < after == parallel.saved_at(lab_at(tmp_path), need)


def test_two_schedulers_on_one_store_compute_a_result_once(workers, gates, serial, tmp_path):
    """The second waits for its turn while the first computes, and takes what that stored."""
    opened = {toy_steps.GATES: str(gates.folder)}
    with ThreadPoolExecutor() as pool, worker_here(1.0) as others:
        first = pool.submit(made, tmp_path, [Need("gated")], workers, **opened)
        gates.wait_for("begin gated")
        second = pool.submit(made, tmp_path, [Need("gated")], others, **opened)
        gates.wait_for("turn gated")
        gates.let_go()
        outcomes = [first.result(PATIENCE), second.result(PATIENCE)]
    assert all(outcome.done for part in outcomes for outcome in part)
    assert gates.all_seen().count("begin gated") == 1
    assert contents(tmp_path, [Need("gated")]) == {"gated": serial["gated"]}


def test_a_step_that_ends_its_worker_every_time_is_given_up():
    """And what stands on it is left out; both have the same error, of the first task."""
    class Ended:
        def exception(self):
            return parallel.engine().KilledWorker("key-of-deadly", None, 3)

    labels = {"key-of-deadly": "deadly"}
    outcome = parallel._outcome("deadly", Ended(), labels)
    assert "its worker was ended from outside 4 times" in outcome.error
    assert parallel._outcome("after", Ended(), labels) == Outcome("after", left_out=True)


@pytest.mark.extended       # four workers are started again
def test_a_step_that_ends_its_worker_every_time_is_given_up_by_real_workers(workers, tmp_path):
    (outcome,) = made(tmp_path, [Need("deadly")], workers)
    assert "its worker was ended from outside 4 times" in outcome.error


#: A run that a test interrupts; the folders of results and of pipes are its arguments.
INTERRUPTED = """
import signal
import sys
from pathlib import Path
from ssah.lab import Need, parallel
from test_parallel import made

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)    # tests in the background ignore it
    results, gates = sys.argv[1:]
    try:
        with parallel.own_workers([2.0, 2.0], threads=1) as client:
            made(Path(results), [Need("gated")], client, TOY_GATES=gates)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.extended       # three more processes that import everything
def test_ctrl_c_ends_all_workers_and_keeps_what_is_finished(gates, serial, tmp_path):
    """As a terminal sends it: to all processes of the command at once."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen([sys.executable, script, tmp_path, gates.folder], env=environment,
                               start_new_session=True, stderr=subprocess.PIPE, text=True)
    gates.wait_for("begin gated")
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=PATIENCE)[1]     # until no process holds that pipe
    assert running.returncode == 130 and "Traceback" not in said
    needs = [SEEDS[0], Need("gated")]
    assert contents(tmp_path, needs) == {SEEDS[0].label: serial[SEEDS[0].label]}


# ---- memory ----------------------------------------------------------------------------------

def test_no_more_memory_is_taken_than_there_is(workers, gates, tmp_path):
    """Of 4 GiB: while one step holds 3, another of 3 waits, though a worker is free for less."""
    needs = [Need("large", {"number": 1}), Need("large", {"number": 2}), Need("small")]
    with ThreadPoolExecutor() as pool:
        running = pool.submit(made, tmp_path, needs, workers,
                              **{toy_steps.GATES: str(gates.folder)})
        gates.wait_for("end small")         # on the free worker
        gates.let_go(2)
        running.result(PATIENCE)
    events = [event.split() for event in gates.all_seen() if event.startswith(("begin", "end"))]
    held = 0
    for event, step, *_ in events:
        gib = declared_memory(step)
        held += gib if event == "begin" else -gib
        assert held <= 4
    assert len(events) == 6


def declared_memory(step: str) -> float:
    """The GiB that a toy step declares."""
    return find_step(step).memory(None)


def test_memory_is_shared_evenly_unless_a_step_needs_more():
    tasks = [task("a", memory=3.0), task("b", memory=8.0)]
    assert parallel.shares_of(16.0, 2, tasks) == [8.0, 8.0]
    assert parallel.shares_of(16.0, 4, tasks[:1]) == [4.0] * 4
    assert parallel.shares_of(16.0, 3, tasks) == [8.0, 4.0, 4.0]
    assert parallel.shares_of(8.0, 1, tasks) == [8.0]
    with pytest.raises(SsahError, match="b may take 8.0 GiB, and there are 7.0; .* --memory 8"):
        parallel.shares_of(7.0, 2, tasks)
    some_more = [replace(task, memory=task.memory + 0.02) for task in tasks]
    with pytest.raises(SsahError, match=".* --memory 9$"):      # 8 would not do
        parallel.shares_of(8.0, 2, some_more)


@pytest.mark.parametrize("model, billions", [
    ("smollm2-135m", 0.135), ("owner/Llama-2-7b-chat-hf", 7), ("hub:o/Qwen2.5-0.5B@main", 0.5),
    ("tiny:0", 0), ("organism:0", 0), ("owner/name", memory.UNKNOWN_SIZE)])
def test_a_models_size_is_read_off_its_name(model, billions):
    assert memory.billions(model) == billions


# ---- other code ------------------------------------------------------------------------------

def use_copy(folder: str) -> str:
    """In a worker: from now on the toy package is the one in this folder."""
    before = sys.path[0]
    sys.path[0] = folder
    del sys.modules["toy_steps"]
    importlib.invalidate_caches()
    importlib.import_module("toy_steps")
    code.imported_package.cache_clear()
    code.package_fingerprint.cache_clear()
    return before


def test_a_worker_with_other_code_is_refused_and_told_how_to_mend_it(workers, tmp_path):
    copy = tmp_path / "copy" / "toy_steps"
    shutil.copytree(Path(toy_steps.__file__).parent, copy)
    source = (copy / "__init__.py").read_text()
    (copy / "__init__.py").write_text(source.replace("return Result()", "return Result({})"))
    lab = lab_at(tmp_path / "lab")
    tasks = tasks_of(lab, SEEDS, declared)
    recipe = Recipe(lab_at, {"folder": tmp_path / "lab"}, {}, parallel.packages_of(tasks))
    assert sorted(parallel.check_workers(workers, recipe, tasks)) == [1.0, 3.0]
    one, _ = workers.scheduler_info()["workers"]
    before = workers.run(use_copy, str(copy.parent), workers=[one])[one]
    message = f"other code of toy_steps .*{copy}.* bring that folder to the version that you run"
    try:
        with pytest.raises(SsahError, match=message):
            parallel.check_workers(workers, recipe, tasks)
        # as of a worker that came when the look was over
        late = workers.submit(parallel.compute_one, recipe, SEEDS[0], None, workers=[one])
        with pytest.raises(parallel.OtherWorker, match=message):
            parallel._outcome(SEEDS[0].label, late, {})
    finally:
        workers.run(use_copy, before, workers=[one])
    assert contents(tmp_path / "lab", SEEDS) == {}


def hide(name: str) -> None:
    """In a worker: a module cannot be imported, as where its package is not installed."""
    sys.modules[f"hidden {name}"] = sys.modules[name]
    sys.modules[name] = None


def show(name: str) -> None:
    """In a worker: it can be imported again."""
    sys.modules[name] = sys.modules.pop(f"hidden {name}")


@pytest.mark.parametrize("name", ["ssah.lab.parallel", "toy_steps"])
def test_a_worker_without_the_package_is_refused(workers, tmp_path, name):
    lab = lab_at(tmp_path)
    tasks = tasks_of(lab, SEEDS, declared)
    recipe = Recipe(lab_at, {"folder": tmp_path}, {}, parallel.packages_of(tasks))
    workers.run(importlib.invalidate_caches)
    one, _ = workers.scheduler_info()["workers"]
    workers.run(hide, name, workers=[one])
    try:
        with pytest.raises(parallel.OtherWorker, match="cannot import .*pip install -e"):
            parallel.check_workers(workers, recipe, tasks)
    finally:
        workers.run(show, name, workers=[one])


class Scheduler:
    """A client that only knows what its workers say."""

    def __init__(self, **facts):
        self.workers = {"tcp://somewhere:1": facts} if facts else {}

    def scheduler_info(self) -> dict:
        return {"workers": self.workers}


@pytest.mark.parametrize("facts, message", [
    ({"nthreads": 4, "resources": {"memory": 8}}, "runs 4 tasks in one process.*--nthreads 1"),
    ({"nthreads": 1, "resources": {}}, "a may take 2.0 GiB.*the largest: 0.0.*--resources memory"),
    ({"nthreads": 1, "resources": {"memory": 1.5}}, "the largest: 1.5")])
def test_a_worker_that_cannot_do_the_work_is_refused_before_anything_runs(facts, message):
    recipe = Recipe(lab_at, {}, {}, {})
    with pytest.raises(SsahError, match=message):
        parallel.check_workers(Scheduler(**facts), recipe, [task("a", memory=2.0)])


def test_workers_may_come_later():
    assert parallel.check_workers(Scheduler(), Recipe(lab_at, {}, {}, {}), [task("a")]) == []


# ---- how long it takes -----------------------------------------------------------------------

def task(name: str, *after: str, minutes: float = 1.0, memory: float = 1.0) -> Task:
    """A made-up task."""
    return Task(Need(name), after, minutes, memory)


def test_a_task_waits_for_all_that_is_computed_upstream_of_it(tmp_path):
    lab = lab_at(tmp_path)
    waits = {one.label: one.after for one in tasks_of(lab, [Need("total")], declared)}
    assert waits["numbers(seed=0)"] == () and waits["doubled(seed=0)"] == ("numbers(seed=0)",)
    assert waits["total"] == tuple(waits)[:-1]
    lab_at(tmp_path).get("doubled", seed=0)
    labels = [one.label for one in tasks_of(lab_at(tmp_path), [Need("total")], declared)]
    assert labels == ["numbers(seed=1)", "doubled(seed=1)", "total"]


DIAMOND = [task("a", minutes=2), task("b", "a", minutes=3), task("c", "a", minutes=5),
           task("d", "a", "b", "c", minutes=1)]


def test_the_longest_chain_by_hand():
    assert chains(DIAMOND) == {"a": 8, "b": 4, "c": 6, "d": 1}
    assert [one.label for one in longest_chain(DIAMOND)] == ["a", "c", "d"]


def test_no_order_beats_the_least_time():
    """By hand: the chain of 8; one worker: the sum; memory for one large task: their sum."""
    assert at_least(DIAMOND, [1.0, 1.0]) == 8
    assert at_least(DIAMOND, [1.0]) == 11
    many = [task(str(number)) for number in range(9)]
    assert at_least(many, [1.0, 1.0, 1.0]) == 3
    large = [task("x", minutes=4, memory=3), task("y", minutes=4, memory=3), *many]
    assert at_least(large, [3.0, 1.0, 1.0]) == 8
    with pytest.raises(ZeroDivisionError):
        at_least(large, [1.0, 1.0])


# ---- the command line ------------------------------------------------------------------------

@pytest.fixture
def one_thread(monkeypatch):
    """A worker that is a thread of this process, where torch is loaded already."""
    monkeypatch.setattr(parallel, "own_workers", lambda shares, threads: worker_here(shares[0]))


def test_recompute_takes_jobs(one_thread, tmp_path, capsys):
    command = ["recompute", "splits", "--profile", "smoke", "--into", str(tmp_path / "serial")]
    assert cli.main(command) == 0
    capsys.readouterr()
    command[-1] = str(tmp_path / "parallel")
    before = dict(os.environ)
    assert cli.main([*command, "--jobs", "1"]) == 0
    found = capsys.readouterr()
    assert "1 workers with" in found.out and "1 of 1 results 100%" in found.err
    first, second = (Store(tmp_path / name / "results" / "smoke").load("splits", "result")
                     for name in ("serial", "parallel"))
    assert first.content == second.content and first.key == second.key
    assert os.environ == before


@pytest.mark.extended       # each worker imports torch
def test_real_steps_have_the_same_contents_on_two_workers(tmp_path):
    chosen = ["recompute", "attribution", "-p", "seed=0", "--profile", "smoke", "--into"]
    assert cli.main([*chosen, str(tmp_path / "serial")]) == 0
    assert cli.main([*chosen, str(tmp_path / "parallel"), "--jobs", "2"]) == 0
    stores = [Store(tmp_path / name / "results" / "smoke") for name in ("serial", "parallel")]
    assert stores[0].slugs() == stores[1].slugs()
    assert len(stores[0].slugs()) > 4
    for step, name in stores[0].slugs():
        first, second = (store.load(step, name) for store in stores)
        assert first.content == second.content, step


def test_what_failed_is_said_with_the_reason_and_what_stood_on_it(monkeypatch, capsys):
    outcomes = [Outcome("splits"), Outcome("judge_on_people", error="ValueError: x"),
                Outcome("base_answers", left_out=True)]
    monkeypatch.setattr(parallel, "compute", lambda *_: outcomes)
    monkeypatch.setattr(parallel, "own_workers", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(commands, "run_notebooks", lambda *_: pytest.fail("it ran"))
    assert cli.main(["rerun", "--profile", "smoke", "--jobs", "2"]) == 1
    said = capsys.readouterr().out
    assert "1 of 3 results failed:\n  judge_on_people: ValueError: x" in said
    assert "by itself: ssah recompute judge_on_people --profile smoke" in said
    assert "left out, since they stand on these: base_answers" in said


def test_an_estimate_with_jobs_starts_no_worker(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "own_workers", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(commands, "run_notebooks", lambda *_: pytest.fail("it ran"))
    given = ["rerun", "--profile", "smoke", "--jobs", "2", "--estimate", "--memory"]
    assert cli.main([*given, "4"]) == 0
    assert "2 workers with 2.0 GiB each: at least " in capsys.readouterr().out
    assert cli.main([*given, "0.5"]) == 2
    assert "may take 1.0 GiB, and there are 0.5" in capsys.readouterr().err


def test_the_least_time_is_said_in_words():
    tasks = [task("x", minutes=60, memory=3), task("y", minutes=60, memory=3), task("z")]
    assert jobs.side_by_side(tasks, [3.0, 1.0], 1) == (
        "2 workers with 3.0 and 1.0 GiB: at least 2.0 hours. One after the other it is 2.0 hours; "
        "the longest chain, of which each waits for the one before it, is 60 min (x). Only 1 of "
        "the workers can run what takes most memory (3.0 GiB). Minutes are those of two threads; "
        "here a step has one, and may take twice as long.")
    assert "wait for the first one" in jobs.side_by_side(tasks, [], None)


def test_without_dask_one_line_names_the_remedy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(["rerun", "--profile", "smoke", "--jobs", "2"]) == 2
    error = capsys.readouterr().err
    assert "distributed is not installed" in error and "`make models`" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("options", ["--jobs 0", "--jobs two", "--jobs 2 --scheduler tcp://a:1",
                                     "--jobs 2 --memory -1"])
def test_jobs_are_a_number_and_stand_alone(options, capsys):
    with pytest.raises(SystemExit):
        cli.main(["rerun", *options.split()])
    assert "ssah rerun: error: argument" in capsys.readouterr().err


def test_the_commands_of_the_cluster_page_are_those_of_dask_and_ssah():
    """Options and all: read by the programs themselves, and not run."""
    from distributed.cli import dask_scheduler, dask_worker

    text = (archives.REPOSITORY / "docs" / "running.md").read_text("utf-8")
    section = text.split("## On a cluster")[1].split("\n## ")[0]
    block = section.split("```sh\n")[1].split("```")[0]
    programs = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    read = []
    for line in block.splitlines():
        command = line.partition("#")[0].rstrip(" &")
        if command.startswith("ssah"):
            read.append(cli.parser().parse_args(command.split()[1:]).scheduler)
            continue
        name, *options = command.partition("dask ")[2].split()
        read.append(programs[name].make_context(name, options).params["scheduler_file"])
    assert read == ["dask.json"] * 4
