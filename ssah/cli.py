"""The command line: run, site, rerun, recompute, accept, status, verify, course, fetch, and so on.

Each command is a function of the parsed arguments that returns an exit code: 0, or 1 where
something failed that was looked at. `main` turns bad input (2) and Ctrl-C (130) into one line.
Heavy modules are imported where they are used, so that help and cached notebooks never wait for
torch.
"""

import argparse
import contextlib
import errno
import logging
import math
import os
import shutil
import sys
from collections import Counter
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from .errors import MODEL_PACKAGES, SsahError, check_models_installed, no_models
from .inputs import archives

BUILD = archives.REPOSITORY / "build"
NOTEBOOKS = archives.REPOSITORY / "notebooks"
FIGURES = archives.REPOSITORY / "figures"

#: Results of a model of a few thousand weights that are computed in a minute.
TINY_A_MINUTE = 60


# ---- notebooks -------------------------------------------------------------------------------

def run(args) -> int:
    """Execute notebooks (default: all) and write executed copies, HTML pages and an index."""
    settings, given = divided(pairs(args.parameter))
    profile = "+".join([args.profile, *settings])
    if profile != "default":
        given["profile"] = profile
    if args.recompute:
        given["recompute"] = "true"
    return run_notebooks(args.notebooks, given, args.into or BUILD, again=args.again)


def run_notebooks(numbers: list[str], given: dict[str, str], into: Path,
                  again: bool = False) -> int:
    """Check first, then run; print the summary. 1 if a notebook failed.

    `again`: also what has not changed since it was run.
    """
    from .claims import check_models, load_profile
    from .lab import notebooks
    from .site import front

    if not NOTEBOOKS.exists():
        raise SsahError(f"there are no notebooks in {NOTEBOOKS.parent}; they are not part of an "
                        "installed package: run this from a checkout (`pip install -e .` in it)")
    profile = load_profile(given.get("profile", "default"))
    check_models(profile)
    if not numbers and profile.probing.pair:        # a pair has results for notebook 01 alone
        numbers = ["01"]
    paths = notebooks.choose(NOTEBOOKS, numbers)
    parameters = notebooks.check_parameters(paths, given)
    if not 1 <= parameters.get("n_seeds", 1) <= len(profile.seeds):     # not in every notebook
        raise SsahError(f"n_seeds is 1 to {len(profile.seeds)} for this profile; "
                        f"got {parameters['n_seeds']}")
    if profile.name != "default":       # pages of one profile never replace another's
        into = into / profile.name
    environment = kernel_variables(parameters, into.resolve())
    figures = environment.get("SSAH_FIGURES") or os.environ.get("SSAH_FIGURES") or FIGURES
    # side by side they only read: two that compute would compute the same results
    jobs = 1 if environment else min(2, os.cpu_count() or 1)
    # what computes, or asks a model, is run whenever it is asked for
    only_reads = not parameters.get("recompute") and not parameters.get("live")
    inputs = what_is_read(profile) if only_reads and not again else ""
    outcomes = notebooks.run_notebooks(paths, parameters, into, figures=Path(figures),
                                       environment=environment, jobs=jobs, inputs=inputs,
                                       front=partial(front.page, profile=profile.name))
    summary = notebooks.summary(outcomes)
    print("\n" + text_table(["notebook", "verdict", "seconds", "state"], summary))
    if any(outcome.unchanged for outcome in outcomes):
        print("\nunchanged: nothing that it reads is new since it was run (ssah run --again runs it)")
    print(f"\nopen {into / 'index.html'}")
    return int(any(outcome.error for outcome in outcomes))


def what_is_read(profile) -> str:
    """A digest of all that notebooks read besides themselves: code, data, results, versions."""
    from .claims import PLACE
    from .lab.notebooks import digest_of

    folders = [Path(__file__).parent, archives.DATA, PLACE.results(profile),
               archives.REPOSITORY / "requirements.lock"]
    variables = [f"{name}={value}" for name, value in os.environ.items()
                 if name.startswith("SSAH_")]
    installed = [f"{found.name} {found.version}" for found in distributions()]
    return digest_of(folders, sys.version, *sorted(variables), *sorted(installed))


def kernel_variables(parameters: dict, into: Path) -> dict[str, str]:
    """Where kernels write: with any parameter not as committed, never where committed files are."""
    if parameters.items() <= {"profile": "default", "recompute": False}.items():
        return {}
    # a model of a few thousand weights is slower on several threads
    tiny = parameters.get("profile", "").startswith("smoke")
    threads = {"OMP_NUM_THREADS": "1"} if tiny else {}
    return {"SSAH_RECOMPUTED": str(into / "results"), "SSAH_FIGURES": str(into / "figures"),
            **threads}


def rerun(args) -> int:
    """Recompute results into a folder of their own, after an estimate, and run the notebooks."""
    from .claims import lab_of, plan

    profile = chosen_profile(args)
    n_seeds = len(profile.seeds) if args.all else 1
    lab = lab_of_notebooks(profile, args.into or BUILD)
    wanted = plan(profile, n_seeds)
    missing = lab.to_compute(wanted)
    print(f"{len(missing)} of {len(wanted)} results to compute, {estimate(profile, missing)}; "
          f"into {lab.store.root} (delete that folder to start from nothing)", flush=True)
    if args.estimate:
        print("\n" + expected(lab_of(profile, compute=False), missing))
    if (args.jobs or args.scheduler) and in_parallel(lab, wanted, args, args.estimate):
        return 1
    if args.estimate:
        return 0
    name = profile.chosen or profile.name
    given = {"profile": name, "recompute": "true", "n_seeds": str(n_seeds)}
    return run_notebooks([], given, args.into or BUILD)


def lab_of_notebooks(profile, into: Path):
    """A lab on what `run_notebooks` recomputes: apart from what is committed, under `into`."""
    from .claims import COMMITTED, lab_of

    if profile.name not in COMMITTED:
        return lab_of(profile, compute=False)
    if profile.name != "default":
        into = into / profile.name
    return lab_of(profile, root=into / "results" / profile.name, compute=False)


def in_parallel(lab, needs: list, args, only_estimate: bool = False) -> int:
    """Compute results side by side, as ``--jobs`` or ``--scheduler`` say; how many failed."""
    from .claims import lab_of
    from .claims.workers import fetch_sources, recipe
    from .lab import parallel
    from .lab.graph import tasks_of

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
    from .lab.graph import at_least, longest_chain

    if not shares:
        return "no worker is there yet: the steps wait for the first one"
    fit = [task.memory for task in tasks]
    chain = longest_chain(tasks)
    all_minutes = sum(task.minutes for task in tasks)
    chain_minutes = sum(task.minutes for task in chain)
    names = " > ".join(task.need.step for task in chain)
    text = (f"{len(shares)} workers with {_gib(shares)}: at least "
            f"{duration(at_least(tasks, shares))}. One after the other it is "
            f"{duration(all_minutes)}; the longest chain, of which each waits for the one before "
            f"it, is {duration(chain_minutes)} ({names}).")
    for_all = sum(share >= max(fit) for share in shares)
    if for_all < len(shares):
        text += (f" Only {for_all} of the workers can run what takes most memory "
                 f"({max(fit):.1f} GiB).")
    if threads == 1:
        text += " Minutes are those of two threads; here a step has one, and may take twice as long."
    return text


def _gib(shares: list[float]) -> str:
    """Shares of memory in words: ``7.8 GiB each``, ``12.6 and 3.4 GiB``."""
    sizes = [f"{share:.1f}" for share in shares]
    if len(set(sizes)) == 1:
        return f"{sizes[0]} GiB each"
    return f"{', '.join(sizes[:-1])} and {sizes[-1]} GiB"


def say_failures(lab, tasks: list, outcomes: list) -> int:
    """Say which tasks failed and why, and what was left out for that; how many failed."""
    from .lab.results import command

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


def site(args) -> int:
    """Write all pages, figures and the explorer into a folder, as a static site."""
    from .site import static

    static.write(args.folder, BUILD, NOTEBOOKS, FIGURES)
    print(f"open {args.folder / 'index.html'}")
    return 0


# ---- results ---------------------------------------------------------------------------------

def recompute(args) -> int:
    """Run steps afresh, for all their planned parameters or those given with -p."""
    from .claims import lab_of

    profile = chosen_profile(args)
    if args.steps == ["help"]:
        print(steps_of(profile))
        return 0
    _, given = divided(pairs(args.parameter))
    chosen = [need for step in args.steps for need in planned_sets(profile, step, given)]
    recompute = {need.label for need in chosen}
    # committed results are kept unless asked: on another machine bits differ, and what stands on
    # them would be stale
    lab = (lab_of(profile, recompute=recompute) if args.in_place
           else recomputed_lab(profile, args.into, recompute=recompute))
    wanted = lab.to_compute(chosen)
    upstream = len(wanted) - len(chosen)
    print(f"{len(chosen)} results of {', '.join(args.steps)} and {upstream} missing upstream, "
          f"{estimate(profile, wanted)}", flush=True)
    if not (args.jobs or args.scheduler):
        lab.require(chosen)
    elif in_parallel(lab, chosen, args):
        return 1
    after = "; `ssah status` shows what is stale by now" if args.in_place else ""
    print(f"written to {lab.store.root}{after}")
    return 0


def accept(args) -> int:
    """Note that a change of code changes no result, after running steps before and after it."""
    from .claims import COMMITTED, TRIALS, lab_of, load_profile, trial
    from .lab.accept import accept as accept_change
    from .lab.accept import needs_a_line

    labs = [lab_of(load_profile(name), compute=False) for name in COMMITTED]
    planned = dict.fromkeys(need.step for lab in labs for need in lab.plan())
    changed = [name for name in args.steps or planned if needs_a_line(labs, name)]
    if not changed:
        print("nothing to accept: the stored results are known to be those of today's code")
        return 0
    if not args.reason:
        raise SsahError(f"the code behind {', '.join(changed)} changed; say why no result does: "
                        '--reason "..."')
    noted = accept_change(labs, changed, args.reason, list(map(trial, TRIALS)), args.before)
    print(f"accepted in {labs[0].place.accepted}: {', '.join(noted)}")
    return 0


def steps_of(profile) -> str:
    """The steps that a profile plans: how many results, the minutes of one, what they are."""
    from .claims import plan
    from .lab import find_step

    planned = Counter(need.step for need in plan(profile))
    rows = []
    for name, count in planned.items():
        step = find_step(name)
        about = step.run.__doc__.strip().splitlines()[0]
        rows.append([name, count, f"{step.minutes:g}", about])
    return text_table(["step", "results", "minutes each", ""], rows)


def chosen_profile(args):
    """The profile of ``--profile``, with the settings among the ``-p`` options."""
    from .claims import load_profile

    settings, _ = divided(pairs(args.parameter))
    return load_profile("+".join([args.profile, *settings]))


def divided(given: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """``-p`` options: settings of the profile (``section.field=value``), and all others."""
    settings = [f"{name}={value}" for name, value in given.items() if "." in name]
    return settings, {name: value for name, value in given.items() if "." not in name}


def recomputed_lab(profile, into: Path | None, **options):
    """A lab on what this machine computes: apart from what is committed.

    Under `into`, where it is given; else of the default profile under ``build``, and of any other
    where all its results are.
    """
    from .claims import lab_of

    if into is None and profile.name != "default":
        return lab_of(profile, **options)
    return lab_of(profile, root=(into or BUILD) / "results" / profile.name, **options)


def planned_sets(profile, step: str, given: dict[str, str]) -> list:
    """The planned results of a step whose parameters are as `given`; `SsahError` if there is none."""
    from .claims import plan
    from .lab import find_step, slug

    find_step(step)
    planned = [need for need in plan(profile) if need.step == step]
    matching = [need for need in planned
                if given.items() <= {name: str(value) for name, value in need.params.items()}.items()]
    if not planned:
        raise SsahError(f"this profile has no results of {step}")
    if not matching:
        raise SsahError(f"no planned result of {step} has {slug(given).replace(',', ', ')}; "
                        f"planned: {'; '.join(slug(need.params) for need in planned)}")
    return matching


def status(args) -> int:
    """Show which planned results are there and valid; nothing is computed."""
    from .claims import lab_of, plan

    profile = chosen_profile(args)
    elsewhere = args.recomputed or args.into
    lab = (recomputed_lab(profile, args.into, compute=False) if elsewhere
           else lab_of(profile, compute=False))
    rows = []
    for need in plan(lab.profile):
        found, result, why = lab.look(need.step, need.params)
        if found == "ok" and lab.code_changed(result):
            why = f"the code behind it changed since: `ssah accept {need.step}`, or recompute it"
        origin = result.provenance if result else {}
        rows.append([need.label, found, origin.get("date", ""), origin.get("seconds", ""),
                     _commit_of(origin), why])
    print(text_table(["result", "state", "date", "seconds", "commit", "why"], rows))
    counts = Counter(row[1] for row in rows)
    totals = ", ".join(f"{n} {name}" for name, n in counts.items())
    print(f"\n{len(rows)} results in {lab.store.root}: {totals}")
    return int(set(counts) != {"ok"})


def _commit_of(provenance: dict) -> str:
    """The commit that made a result, in short; empty where there is no result."""
    if not provenance:
        return ""
    commit = (provenance.get("commit") or "none")[:7]
    return commit if provenance.get("clean") else f"{commit} + changes"


def verify(args) -> int:
    """Check results: hashes, keys, labels from stored scores (--spot, --full: with the model)."""
    from .claims.verify import announcement, verify

    profile = chosen_profile(args)
    depth = "full" if args.full else "spot" if args.spot else "quick"
    into = args.into or BUILD
    print(announcement(profile, depth=depth, into=into), flush=True)
    failed = verify(profile, depth=depth, into=into)
    print(f"{failed} checks failed" if failed else "all checks passed")
    return int(failed > 0)


def compare(args) -> int:
    """Put the ledgers of two profiles side by side, from what is stored; nothing is computed."""
    from .claims import lab_of, load_profile
    from .claims.scoreboard import comparison

    labs = [lab_of(load_profile(name), compute=False) for name in (args.first, args.second)]
    print(comparison(*labs))
    return 0


def readme(args) -> int:
    """Bring the generated parts of README.md up to date with the committed results."""
    from .claims import lab_of, load_profile
    from .claims.readme import rewrite

    changed = rewrite(lab_of(load_profile("default"), compute=False))
    print("README.md rewritten" if changed else "README.md is up to date")
    return 0


def preregister(args) -> int:
    """Fix rules, gates and prompts of the second bench in a file, before anything of it runs."""
    from .claims import answers, preregistration

    labs = answers.labs(compute=True)
    preregistration.write(labs)
    print(f"{preregistration.PATH}: sha256 {preregistration.digest()}; commit it before the runs")
    return 0


# ---- the course ------------------------------------------------------------------------------

def course(args) -> int:
    """Build the assignments of the course, or grade what students handed in."""
    return args.part(args)


def course_build(args) -> int:
    """Write all versions of the assignments (default: of all)."""
    from .course.build import build

    into = args.into or BUILD / "course"
    for path in build(assignments(args.assignments), into):
        print(path)
    print("student/ is for students; all else has the answers in it")
    return 0


def course_grade(args) -> int:
    """Run submitted notebooks with our tests, and write a table of marks."""
    from .course.grade import grade, totals, write_csv

    print("the submissions' code runs as you, on this machine, with a time limit and no other wall "
          "(notebooks/course/README.md)", flush=True)
    marks = grade(args.folder, assignments([]), args.seconds)
    path = args.csv or args.folder / "grades.csv"
    write_csv(marks, path)
    head = ["submission", "assignment", "points", "of", "left to a person"]
    print("\n" + text_table(head, totals(marks)))
    print(f"\n{path}")
    return 0


def assignments(numbers: list[str]) -> list[Path]:
    """The sources of the course's assignments with these numbers (default: all)."""
    from .lab import notebooks

    return notebooks.choose(NOTEBOOKS / "course", numbers)


# ---- the cache and this machine --------------------------------------------------------------

def fetch(args) -> int:
    """Download all pinned archives and dequantize the model, so that everything else works offline.

    Large models come only by name.
    """
    from .claims import load_profile
    from .loading import dequantized

    unknown = [name for name in args.models if name not in archives.LARGE_FILES]
    if unknown:
        raise SsahError(f"unknown model {unknown[0]!r}; known: {', '.join(archives.LARGE_FILES)}")
    for name in args.models:
        print(dequantized(name))
    if args.models:
        return 0
    for name in archives.ARCHIVES:
        archives.discard_damaged(name)
        print(archives.fetch_archive(name))
    print(dequantized(load_profile("default").model.name))
    return 0


def clean(args) -> int:
    """Empty the cache folder: archives, models, checkpoints, answers, other profiles' results."""
    folders = archives.cache_folders()
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{archives.cache_dir()}: {size / 2**30:.2f} GiB")
    # without a terminal nobody can be asked
    if not args.yes and not (sys.stdin.isatty() and input("delete it? [y/N] ").strip().lower() == "y"):
        print("kept (--yes deletes without asking)")
        return 0
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def bench(args) -> int:
    """Time ours and its peers in turn on this machine; or plan memory and hours of large models."""
    if args.plan:
        from .bench import plan, table

        computed = plan.computed()
        print(table.plan_markdown(computed))
        if args.save:
            computed.save()
        return 0
    from .bench import run

    repeats = 1 if args.quick else 3
    return run.main(args.profile, repeats=repeats, save=args.save, figure=args.figure)


# ---- arguments and errors --------------------------------------------------------------------

def pairs(texts: list[str]) -> dict[str, str]:
    """``name=value`` options as a dict."""
    for text in texts:
        if "=" not in text:
            raise SsahError(f"-p takes name=value; got {text!r}")
    given = dict(text.split("=", 1) for text in texts)
    if len(given) < len(texts):
        raise SsahError("-p gives a name twice; run the command once for each value, or leave the "
                        "name out for all")
    return given


def estimate(profile, needs: list) -> str:
    """Rough time of some results, from the minutes that their steps declare for the default profile.

    What another model takes is not known before, but it grows with its weights.
    """
    from .lab import find_step

    if profile.model.name.startswith("tiny"):
        return f"about {math.ceil(len(needs) / TINY_A_MINUTE)} min"
    time = duration(sum(find_step(need.step).minutes for need in needs))
    if profile.name == "default":
        return f"about {time} on two cores"
    return f"about {time} on two cores for a model of 135M weights, in proportion for others"


def duration(minutes: float) -> str:
    """``45 min``, ``3.0 hours``."""
    if minutes < 1:
        return "less than a minute"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} hours"


@cache
def minutes_of(name: str, profile, measured=None) -> tuple[float, str]:
    """Minutes of one result of a step, and how they are known.

    As `measured` where that lab has results of the step, else as the step declares.
    """
    from .lab import find_step

    seconds = []
    if measured is not None:
        seconds = [result.provenance["seconds"] for _, result in measured.stored(name)]
    if seconds:
        return sum(seconds) / len(seconds) / 60, "measured"
    if profile.model.name.startswith("tiny"):
        return 1 / TINY_A_MINUTE, "as other tiny ones"
    return find_step(name).minutes, "as declared for 135M weights"


def expected(lab, needs: list) -> str:
    """What some results take, a row a step, and the sum.

    Measured where the profile has results of the step already (`lab`), else as the step declares.
    """
    rows = []
    total = 0.0
    for name, count in Counter(need.step for need in needs).items():
        minutes, known = minutes_of(name, lab.profile, lab)
        total += count * minutes
        rows.append([name, count, f"{minutes:.1f}", f"{count * minutes:.0f}", known])
    rows.append(["all", len(needs), "", f"{total:.0f}", f"{total / 60:.1f} hours"])
    return text_table(["step", "results", "minutes each", "minutes", ""], rows)


def text_table(head: list[str], rows: list[list]) -> str:
    """Left-aligned columns for a terminal."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def parser() -> argparse.ArgumentParser:
    """All commands; the global options are taken before or after the command."""
    everywhere = _options(["--offline"], action="store_true", default=argparse.SUPPRESS,
                          help="never use the network")
    everywhere.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                            help="show tracebacks")
    profile = _options(["--profile"], default="default", type=_absolute,
                       help="default, smoke, qwen-0.5b, qwen-1.5b, model:BASE[,aligned=CHAT], "
                            "pair:ALIGNED,UNALIGNED or "
                            "a TOML file")
    into = _options(["--into"], type=Path, metavar="FOLDER",
                    help="where everything is written (build)")
    parameter = _options(["-p"], dest="parameter", action="append", default=[],
                         metavar="NAME=VALUE",
                         help="a parameter, or a setting such as alignment.epochs=4; may be "
                              "repeated")
    top = argparse.ArgumentParser(prog="ssah", parents=[everywhere],
                                  description="Run, recompute and check everything.")
    top.add_argument("--version", action="version", version=f"ssah {_version()}")
    top.set_defaults(function=lambda args: top.print_help() or 0)
    commands = top.add_subparsers(metavar="COMMAND")

    def add(function, *parents) -> argparse.ArgumentParser:
        command = commands.add_parser(function.__name__, parents=[everywhere, *parents],
                                      help=function.__doc__, description=function.__doc__,
                                      conflict_handler="resolve")       # a --help of its own
        command.set_defaults(function=function)
        return command

    command = add(run, profile, parameter, into)
    command.add_argument("notebooks", nargs="*", metavar="NN", help="numbers of notebooks, such as 02")
    command.add_argument("--recompute", action="store_true", help="from results made on this machine")
    command.add_argument("--again", action="store_true",
                         help="also what has not changed since it was run")
    add(site).add_argument("folder", type=Path, metavar="FOLDER", help="is made if it is not there")
    command = add(rerun, profile, parameter, into, _side_by_side())
    command.add_argument("--all", action="store_true",
                         help="every committed result, not only seed 0")
    command.add_argument("--estimate", action="store_true",
                         help="say what it would take, step by step, and compute nothing")
    command = add(recompute, profile, parameter, into, _side_by_side())
    command.add_argument("steps", nargs="+", metavar="STEP", help="those below, or `help`")
    command.add_argument("--help", "-h", action=_HelpWithSteps, help="show this message and exit")
    command.add_argument("--in-place", action="store_true",
                         help="into the committed results (for maintainers)")
    command = add(accept)
    command.add_argument("steps", nargs="*", metavar="STEP", help="default: all that changed")
    command.add_argument("--reason", help="why no result changes; kept in data/accepted.json")
    command.add_argument("--before", metavar="COMMIT",
                         help="compare with it (default: the last whose code made the results)")
    command = add(status, profile, parameter, into)
    command.add_argument("--recomputed", action="store_true",
                         help="those of `ssah rerun` instead of the committed ones")
    command = add(verify, profile, parameter, into)
    command.add_argument("--quick", action="store_true", help="no model (seconds; the default)")
    command.add_argument("--spot", action="store_true",
                         help="two numbers of the model and of training, too (minutes)")
    command.add_argument("--full", action="store_true", help="train the first seed again (hours)")
    command = add(compare)
    command.add_argument("first", metavar="PROFILE", help="such as default")
    command.add_argument("second", metavar="PROFILE", help="such as model:BASE,aligned=CHAT")
    add(readme)
    add(preregister)
    _add_course_parts(add(course), everywhere, into)
    command = add(fetch)
    command.add_argument("models", nargs="*", metavar="MODEL",
                         help=f"only these large models: {', '.join(archives.LARGE_FILES)}")
    add(clean).add_argument("--yes", action="store_true", help="do not ask")
    command = add(bench, profile)
    command.add_argument("--quick", action="store_true", help="measure once instead of three times")
    command.add_argument("--save", action="store_true",
                         help="into data/, from which `ssah readme` makes README's parts")
    command.add_argument("--figure", type=Path, metavar="PATH",
                         help="draw how time grows with tokens, blocks and width")
    command.add_argument("--plan", action="store_true",
                         help="measure nothing; bytes and hours of models of 7B to 70B weights")
    return top


def _add_course_parts(command, everywhere, into) -> None:
    """``course build`` and ``course grade``."""
    command.set_defaults(part=lambda args: command.print_help() or 0)
    parts = command.add_subparsers(metavar="PART")
    build = parts.add_parser("build", parents=[everywhere, into], help=course_build.__doc__,
                             description=course_build.__doc__)
    build.add_argument("assignments", nargs="*", metavar="NN", help="such as 01 (default: all)")
    build.set_defaults(part=course_build)
    grade = parts.add_parser("grade", parents=[everywhere], help=course_grade.__doc__,
                             description=course_grade.__doc__)
    grade.add_argument("folder", type=Path, help="with the notebooks, also in folders of it")
    grade.add_argument("--csv", type=Path, metavar="FILE", help="default: grades.csv in the folder")
    grade.add_argument("--seconds", type=int, default=120,
                       help="that a cell may take (120); a notebook may take five times that")
    grade.set_defaults(part=course_grade)


def _side_by_side() -> argparse.ArgumentParser:
    """Options of what runs steps side by side."""
    shared = argparse.ArgumentParser(add_help=False)
    workers = shared.add_mutually_exclusive_group()
    workers.add_argument("--jobs", type=_positive(int), metavar="N",
                         help="so many steps side by side on this machine, which share its cores")
    workers.add_argument("--scheduler", metavar="ADDRESS",
                         help="on the workers of a Dask cluster that runs already")
    shared.add_argument("--memory", type=_positive(float), metavar="GIB",
                        help="with --jobs: what the steps may take together, of the GPU where there "
                             "is one (all the memory of this machine)")
    return shared


def _positive(kind: type):
    """A reader of numbers above zero, for an argument."""
    def read(text: str):
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return number
    read.__name__ = kind.__name__       # what argparse calls it in its message
    return read


class _HelpWithSteps(argparse.Action):
    """Show a command's help, and below it the steps of the default profile."""

    def __init__(self, option_strings, dest, help):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        from .claims import load_profile

        parser.print_help()
        print("\n" + steps_of(load_profile("default")))
        parser.exit()


def _options(names: list[str], **settings) -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(*names, **settings)
    return shared


def _absolute(name: str) -> str:
    """The profile's name with the paths in it made absolute."""
    from .claims.profiles import absolute

    return absolute(name)


def _version() -> str:
    try:
        return version("ssah")
    except PackageNotFoundError:
        return "(not installed)"


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code, or 2 after bad input and 130 after Ctrl-C, with one line."""
    args = parser().parse_args(argv)
    if "offline" in args:
        os.environ.update(SSAH_OFFLINE="1", HF_HUB_OFFLINE="1")
    try:
        return args.function(args)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True    # else it reports the notebook that was left
        code, line = 130, "interrupted; finished results are kept; " + (
            "-p picks those that are left" if args.function is recompute else "run the same command to go on")
    except SsahError as error:
        if "debug" in args:
            raise
        code, line = 2, f"error: {error}"
    except ModuleNotFoundError as error:
        if "debug" in args or error.name not in MODEL_PACKAGES:
            raise
        code, line = 2, f"error: {no_models(error.name)}"
    except OSError as error:
        full = error.errno == errno.ENOSPC
        if "debug" in args or not (full or isinstance(error, (PermissionError, NotADirectoryError, FileExistsError))):
            raise
        code, line = 2, (f"error: the disk is full ({error.filename}); `ssah clean` empties the cache folder" if full
                         else f"error: {error}")
    print(line, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
