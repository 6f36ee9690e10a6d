"""Steps side by side, as ``--jobs`` and ``--scheduler`` ask for: on this machine, or a cluster."""

import contextlib

from ..errors import check_models_installed
from .estimates import minutes_of
from .words import duration, gibibytes


def in_parallel(lab, needs: list, args, only_estimate: bool = False) -> int:
    """Compute results side by side, as ``--jobs`` or ``--scheduler`` say; how many failed."""
    from ..claims import lab_of
    from ..claims.workers import fetch_sources, recipe
    from ..lab import parallel
    from ..lab.graph import tasks_of

    parallel.engine()
    check_models_installed()
    measured = lab_of(lab.profile, compute=False) if only_estimate else None
    tasks = tasks_of(lab, needs, lambda step: minutes_of(step, lab.profile, measured)[0])
    if not tasks:
        return 0
    made_by = recipe(lab, tasks)
    with contextlib.ExitStack() as opened:
        if args.scheduler:
            client = opened.enter_context(parallel.running_workers(args.scheduler))
            shares = parallel.check_workers(client, made_by, tasks)
            threads = None
        else:
            memory = args.memory or parallel.memory_of_machine()
            shares = parallel.shares_of(memory, args.jobs, tasks)
            threads = max(1, parallel.cores() // args.jobs)
        print(side_by_side(tasks, shares, threads), flush=True)
        if only_estimate:
            return 0
        fetch_sources(lab.profile, {task.need.step for task in tasks})
        if not args.scheduler:
            client = opened.enter_context(parallel.own_workers(shares, threads))
        outcomes = parallel.compute(tasks, lab, made_by, client)
    return say_failures(lab, tasks, outcomes)


def side_by_side(tasks: list, shares: list[float], threads: int | None) -> str:
    """How long some tasks take at least on workers of `shares` GiB, and why, in words.

    `threads`: of each worker, where that is known.
    """
    from ..lab.graph import at_least, longest_chain

    if not shares:
        return "no worker is there yet: the steps wait for the first one"
    fit = [task.memory for task in tasks]
    chain = longest_chain(tasks)
    all_minutes = sum(task.minutes for task in tasks)
    chain_minutes = sum(task.minutes for task in chain)
    names = " > ".join(task.need.step for task in chain)
    text = (f"{len(shares)} workers with {gibibytes(shares)}: at least "
            f"{duration(at_least(tasks, shares))}. One after the other it is "
            f"{duration(all_minutes)}; the longest chain, of which each waits for the one before "
            f"it, is {duration(chain_minutes)} ({names}).")
    for_all = sum(share >= max(fit) for share in shares)
    if for_all < len(shares):
        text += (f" Only {for_all} of the workers can run what takes most memory "
                 f"({max(fit):.1f} GiB).")
    if threads == 1:
        text += (" Minutes are those of two threads; here a step has one, and may take twice as "
                 "long.")
    return text


def say_failures(lab, tasks: list, outcomes: list) -> int:
    """Say which tasks failed and why, and what was left out for that; how many failed."""
    from ..lab.results import command

    needs = {task.label: task.need for task in tasks}
    failed = [outcome for outcome in outcomes if outcome.error]
    left_out = [outcome.label for outcome in outcomes if outcome.left_out]
    if not failed:
        return 0
    print(f"{len(failed)} of {len(outcomes)} results failed:")
    for outcome in failed:
        need = needs[outcome.label]
        print(f"  {outcome.label}: {outcome.error}")
        print(f"    by itself: {command(lab.profile, need.step, need.params)}")
    if left_out:
        print(f"left out, since they stand on these: {', '.join(left_out)}")
    print(f"all others are in {lab.store.root}; once this is mended, the same command goes on")
    return len(failed)
