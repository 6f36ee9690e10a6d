"""Results to compute as a graph of tasks: what each waits for, and how long all of it takes.

Nothing here runs anything: `ssah.lab.parallel` does, and the estimate is said before that.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .results import Lab
from .steps import Need, find_step, with_upstream


@dataclass(frozen=True)
class Task:
    """One result that is to be computed."""

    need: Need
    after: tuple[str, ...]      # labels of the tasks that must be done before it
    minutes: float              # roughly
    memory: float               # GiB at most

    @property
    def label(self) -> str:
        """How the result is called in messages."""
        return self.need.label


def tasks_of(lab: Lab, needs: Iterable[Need], minutes: Callable[[str], float]) -> list[Task]:
    """A task for all that a lab would compute for some results, each after what it waits for.

    `minutes`: of one result of a step. Results whose artifacts are missing are made again, too.
    """
    needs = list(needs)
    missing = lab.to_compute(needs)
    wanted = {need.label for need in [*missing, *_without_files(lab, missing)]}
    tasks = []
    for need in with_upstream(lab.profile, needs):
        if need.label not in wanted:
            continue
        *upstream, _ = with_upstream(lab.profile, [need])
        # all of it, since what lies between may be stale as soon as its own upstream is new
        after = tuple(before.label for before in upstream if before.label in wanted)
        memory = find_step(need.step).memory(lab.profile)
        tasks.append(Task(need, after, minutes(need.step), memory))
    return tasks


def _without_files(lab: Lab, missing: Iterable[Need]) -> list[Need]:
    """Stored results that are read with their artifacts, where these are missing."""
    found: dict[str, Need] = {}
    waiting = list(missing)
    while waiting:
        need = waiting.pop()
        for upstream in find_step(need.step).needs(lab.profile, **need.params):
            if not upstream.artifact or upstream.label in found:
                continue
            if not lab.has_files(upstream.step, upstream.params):
                found[upstream.label] = upstream
                waiting.append(upstream)        # which may read files itself
    return list(found.values())


def chains(tasks: list[Task]) -> dict[str, float]:
    """Minutes from the beginning of each task to the end of the longest chain behind it.

    `tasks` as `tasks_of` orders them.
    """
    longest = {task.label: task.minutes for task in tasks}
    alone = dict(longest)
    for task in reversed(tasks):        # so all that waits for a task was seen before it
        for label in task.after:
            through = alone[label] + longest[task.label]
            longest[label] = max(longest[label], through)
    return longest


def longest_chain(tasks: list[Task]) -> list[Task]:
    """The tasks of the chain that takes most minutes, each of which waits for the one before it."""
    minutes = chains(tasks)
    found: list[Task] = []
    behind = tasks
    while behind:
        longest = max(behind, key=lambda task: minutes[task.label])
        found.append(longest)
        behind = [task for task in tasks if longest.label in task.after]
    return found


def at_least(tasks: list[Task], shares: list[float]) -> float:
    """Minutes that no order of the tasks can beat on workers of `shares` GiB.

    A worker runs one task at a time. Bounds are the longest chain; and for any amount of memory,
    what needs so much, shared among the workers that have it. ZeroDivisionError for a task that
    fits no worker.
    """
    bounds = [max(chains(tasks).values(), default=0.0)]
    for memory in {task.memory for task in tasks}:
        minutes = sum(task.minutes for task in tasks if task.memory >= memory)
        workers = sum(share >= memory for share in shares)
        bounds.append(minutes / workers)
    return max(bounds)
