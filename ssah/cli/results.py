"""What is stored, made anew or looked at: ``ssah recompute``, ``accept``, ``status``, and so on."""

from collections import Counter

from ..errors import SsahError
from . import places
from .estimates import estimate
from .jobs import in_parallel
from .options import chosen_profile, divided, pairs
from .words import text_table


def recompute(args) -> int:
    """Run steps afresh, for all their planned parameters or those given with -p."""
    from ..claims import lab_of

    profile = chosen_profile(args)
    if args.steps == ["help"]:
        print(steps_of(profile))
        return 0
    _, given = divided(pairs(args.parameter))
    chosen = [need for step in args.steps for need in planned_sets(profile, step, given)]
    anew = {need.label for need in chosen}
    # committed results are kept unless asked: on another machine bits differ, and what stands on
    # them would be stale
    lab = (lab_of(profile, recompute=anew) if args.in_place
           else places.recomputed_lab(profile, args.into, recompute=anew))
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


def steps_of(profile) -> str:
    """The steps that a profile plans: how many results, the minutes of one, what they are."""
    from ..claims import plan
    from ..lab import find_step

    planned = Counter(need.step for need in plan(profile))
    rows = []
    for name, count in planned.items():
        step = find_step(name)
        about = step.run.__doc__.strip().splitlines()[0]
        rows.append([name, count, f"{step.minutes:g}", about])
    return text_table(["step", "results", "minutes each", ""], rows)


def planned_sets(profile, step: str, given: dict[str, str]) -> list:
    """The planned results of a step whose parameters are as `given`.

    Raises `SsahError` if there is none.
    """
    from ..claims import plan
    from ..lab import find_step, slug

    find_step(step)
    planned = [need for need in plan(profile) if need.step == step]
    matching = [need for need in planned if _is_as(need, given)]
    if not planned:
        raise SsahError(f"this profile has no results of {step}")
    if not matching:
        raise SsahError(f"no planned result of {step} has {slug(given).replace(',', ', ')}; "
                        f"planned: {'; '.join(slug(need.params) for need in planned)}")
    return matching


def _is_as(need, given: dict[str, str]) -> bool:
    """Whether a planned result has the parameters that were typed."""
    typed = {name: str(value) for name, value in need.params.items()}
    return given.items() <= typed.items()


def accept(args) -> int:
    """Note that a change of code changes no result, after running steps before and after it."""
    from ..claims import COMMITTED, TRIALS, lab_of, load_profile, trial
    from ..lab.accept import accept as accept_change
    from ..lab.accept import needs_a_line

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


def status(args) -> int:
    """Show which planned results are there and valid; nothing is computed."""
    from ..claims import lab_of, plan
    from ..lab.machine import in_short

    profile = chosen_profile(args)
    elsewhere = args.recomputed or args.into
    lab = (places.recomputed_lab(profile, args.into, compute=False) if elsewhere
           else lab_of(profile, compute=False))
    rows = []
    for need in plan(lab.profile):
        found, result, why = lab.look(need.step, need.params)
        if found == "ok" and lab.code_changed(result):
            why = f"the code behind it changed since: `ssah accept {need.step}`, or recompute it"
        origin = result.provenance if result else {}
        rows.append([need.label, found, origin.get("date", ""), origin.get("seconds", ""),
                     in_short(origin) if origin else "", why])
    print(text_table(["result", "state", "date", "seconds", "commit", "why"], rows))
    counts = Counter(row[1] for row in rows)
    totals = ", ".join(f"{n} {name}" for name, n in counts.items())
    print(f"\n{len(rows)} results in {lab.store.root}: {totals}")
    return int(set(counts) != {"ok"})


def verify(args) -> int:
    """Check results: hashes, keys, labels from stored scores (--spot, --full: with the model)."""
    from ..claims.verify import announcement
    from ..claims.verify import verify as failed_checks

    profile = chosen_profile(args)
    depth = "quick"
    if args.spot:
        depth = "spot"
    if args.full:
        depth = "full"
    into = args.into or places.BUILD
    print(announcement(profile, depth=depth, into=into), flush=True)
    failed = failed_checks(profile, depth=depth, into=into)
    print(f"{failed} checks failed" if failed else "all checks passed")
    return int(failed > 0)


def compare(args) -> int:
    """Put the ledgers of two profiles side by side, from what is stored; nothing is computed."""
    from ..claims import lab_of, load_profile
    from ..claims.scoreboard import comparison

    labs = [lab_of(load_profile(name), compute=False) for name in (args.first, args.second)]
    print(comparison(*labs))
    return 0


def readme(args) -> int:
    """Bring the generated parts of README.md and docs/ up to date with the committed results."""
    from ..claims import lab_of, load_profile
    from ..claims.readme import rewrite

    for page in rewrite(lab_of(load_profile("default"), compute=False)):
        print(f"{page.name} rewritten")
    return 0


def preregister(args) -> int:
    """Fix rules, gates and prompts of the second bench in a file, before anything of it runs."""
    from ..claims import answers, preregistration

    labs = answers.labs(compute=True)
    preregistration.write(labs)
    print(f"{preregistration.PATH}: sha256 {preregistration.digest()}; commit it before the runs")
    return 0
