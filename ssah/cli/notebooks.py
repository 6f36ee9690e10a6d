"""``ssah run``, ``rerun`` and ``site``: notebooks executed, on committed or new results; pages."""

import os
import sys
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

from ..errors import SsahError
from ..inputs import archives
from . import places
from .estimates import estimate, expected
from .jobs import in_parallel
from .options import chosen_profile, divided, pairs
from .words import text_table


def run(args) -> int:
    """Execute notebooks (default: all) and write executed copies, HTML pages and an index."""
    from ..claims.profiles import absolute

    settings, given = divided(pairs(args.parameter))
    profile = absolute("+".join([args.profile, *settings]))
    if profile != "default":
        given["profile"] = profile
    if args.recompute:
        given["recompute"] = "true"
    return run_notebooks(args.notebooks, given, args.into or places.BUILD, again=args.again)


def rerun(args) -> int:
    """Recompute results into a folder of their own, after an estimate, and run the notebooks."""
    from ..claims import lab_of, plan

    profile = chosen_profile(args)
    n_seeds = len(profile.seeds) if args.all else 1
    lab = places.lab_of_notebooks(profile, args.into or places.BUILD)
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
    return run_notebooks([], given, args.into or places.BUILD)


def run_notebooks(numbers: list[str], given: dict[str, str], into: Path,
                  again: bool = False) -> int:
    """Check first, then run; print the summary. 1 if a notebook failed.

    `again`: also what has not changed since it was run.
    """
    from ..claims import check_models, load_profile
    from ..lab import notebooks
    from ..site import front

    if not places.NOTEBOOKS.exists():
        raise SsahError(f"there are no notebooks in {places.NOTEBOOKS.parent}; they are not part "
                        "of an installed package: run this from a checkout (`pip install -e .` in "
                        "it)")
    profile = load_profile(given.get("profile", "default"))
    check_models(profile)
    if len(profile.seeds) < len(load_profile("default").seeds):     # that a notebook asks for
        given = {"n_seeds": str(len(profile.seeds)), **given}
    paths = notebooks.choose(places.NOTEBOOKS, numbers or notebooks_of(profile))
    _check_readable(profile, paths)
    parameters = notebooks.check_parameters(paths, given)
    if not 1 <= parameters.get("n_seeds", 1) <= len(profile.seeds):     # not in every notebook
        raise SsahError(f"n_seeds is 1 to {len(profile.seeds)} for this profile; "
                        f"got {parameters['n_seeds']}")
    if profile.name != "default":       # pages of one profile never replace another's
        into = into / profile.name
    environment = kernel_variables(parameters, into.resolve())
    figures = environment.get("SSAH_FIGURES") or os.environ.get("SSAH_FIGURES") or places.FIGURES
    # side by side they only read: two that compute would compute the same results
    jobs = 1 if environment else min(2, os.cpu_count() or 1)
    # what computes, or asks a model, is run whenever it is asked for
    only_reads = not parameters.get("recompute") and not parameters.get("live")
    inputs = what_is_read(profile) if only_reads and not again else ""
    outcomes = notebooks.run_notebooks(paths, parameters, into, figures=Path(figures),
                                       environment=environment, jobs=jobs, inputs=inputs,
                                       front=partial(front.page, profile=profile.name))
    print_outcomes(outcomes, into)
    return int(any(outcome.error for outcome in outcomes))


def notebooks_of(profile) -> list[str]:
    """The numbers of the notebooks that read the results of one profile; empty for all."""
    if profile.probing.pair:        # two models of one's own
        return ["01"]
    if profile.bench:
        return ["07"]
    return []


def _check_readable(profile, paths: list[Path]) -> None:
    """Raise `SsahError` for a notebook that reads other results than those of the profile."""
    readable = notebooks_of(profile)
    if not readable:
        return
    for path in paths:
        number = path.name[:2]
        if number not in readable:
            raise SsahError(f"notebook {number} reads no results of {profile.name!r}; of such a "
                            f"profile run {', '.join(readable)}, and {number} without --profile "
                            "(there the models of the second bench stand side by side)")


def print_outcomes(outcomes: list, into: Path) -> None:
    """A row a notebook, and where its page is."""
    from ..lab import notebooks

    summary = notebooks.summary(outcomes)
    print("\n" + text_table(["notebook", "verdict", "seconds", "state"], summary))
    if any(outcome.unchanged for outcome in outcomes):
        print("\nunchanged: nothing that it reads is new since it was run "
              "(ssah run --again runs it)")
    print(f"\nopen {into / 'index.html'}")


def what_is_read(profile) -> str:
    """A digest of all that notebooks read besides themselves: code, data, results, versions."""
    from ..claims import PLACE
    from ..lab.notebooks import digest_of

    folders = [places.PACKAGE, archives.DATA, PLACE.results(profile),
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


def site(args) -> int:
    """Write all pages, figures and the explorer into a folder, as a static site."""
    from ..site import static

    static.write(args.folder, places.BUILD, places.NOTEBOOKS, places.FIGURES)
    print(f"open {args.folder / 'index.html'}")
    return 0
