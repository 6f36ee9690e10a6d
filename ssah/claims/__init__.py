"""The reproduction: a room for every claim, the plan of their runs, and the door for notebooks.

A room has `run` (steps), `read` (facts, tables and the rule; no torch, no figures), `draw` (figures
of tables), `seen` (what one sees in them, in words), `paper` where a printed table stands beside
ours, and in its ``__init__`` the claim itself. What rooms share is in `shared`.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import NotStored, SsahError, check_models_installed
from ..inputs import archives
from ..lab import Lab, Need, Place, with_upstream
from ..lab.accept import Trial
from . import (
    attribute_transfer,
    every_step,
    four_kinds,
    freezing,
    questions,
    reasoning_direction,
    redundant_units,
    which_units,
)
from .claim import Claim
from .profiles import BENCH, Profile, load_profile
from .rules import ROWS, Verdict

#: In the order of the ledger.
CLAIMS: tuple[Claim, ...] = (
    reasoning_direction.CLAIM, four_kinds.CLAIM, attribute_transfer.CLAIM, freezing.CLAIM,
    which_units.C5, redundant_units.CLAIM, which_units.C7, every_step.CLAIM)

RESULTS = archives.DATA / "results"
#: Profiles whose results are in git.
COMMITTED = ("default", *BENCH)


def claim(claim_id: str) -> Claim:
    """The claim ``"C1"`` to ``"C8"``; `SsahError` for another."""
    for found in CLAIMS:
        if found.id == claim_id:
            return found
    raise SsahError(f"unknown claim {claim_id!r}; known: {', '.join(c.id for c in CLAIMS)}")


def plan(profile: Profile, n_seeds: int | None = None) -> list[Need]:
    """All that is committed, each result after its needs.

    The core of the (first) seeds, and the extended rows of the first one. Of a profile of the
    second bench: what is measured there.
    """
    seeds = profile.seeds[:n_seeds]
    if profile.bench:
        return with_upstream(profile, _plan_of_bench(profile, seeds))
    if profile.probing.pair:        # two models of one's own: notebook 01 alone
        claims = (reasoning_direction.CLAIM,)
    else:
        claims = CLAIMS
    needs = []
    for seed in seeds:
        for planned in claims:
            needs += planned.core(seed)
    for planned in claims:
        needs += planned.extended(seeds[0])
    return with_upstream(profile, needs)


def _plan_of_bench(profile: Profile, seeds: tuple[int, ...]) -> list[Need]:
    """What is measured on the second bench, of the first seeds."""
    needs = []
    tuned = (*seeds, *profile.further_tunings)
    if not profile.milder_alone:
        rooms = [*(claim.bench for claim in CLAIMS), questions.bench]
        needs += [need for seed in seeds for bench in rooms for need in bench(profile, seed)]
        needs += [need for seed in tuned for claim in CLAIMS for need in claim.tunings(profile, seed)]
    needs += [need for seed in tuned for claim in CLAIMS for need in claim.milder(profile, seed)]
    return needs


def results_of(profile: Profile) -> Path:
    """Where results live: in git for those of `COMMITTED`, in the cache folder for all others."""
    if profile.name in COMMITTED:
        return RESULTS / profile.name
    return archives.cache_dir() / "results" / profile.name


def peak_memory(device) -> float:
    """Most memory so far, GiB (see `ssah.finetuning.peak_memory`)."""
    from ..finetuning import peak_memory as measured

    return measured(device)


PLACE = Place(
    repository=archives.REPOSITORY,
    watched=("ssah", ":(glob)data/*", "requirements.lock"),
    committed=RESULTS,
    accepted=archives.DATA / "accepted.json",
    results=results_of,
    cache=archives.cache_dir,
    fingerprint=archives.fingerprint,
    plan=plan,
    packages=("torch", "transformers", "numpy", "pandas", "scipy", "tokenizers", "peft", "gguf"),
    peak_memory=peak_memory)


#: The small profiles on which `ssah accept` runs a step before and after a change: the first that
#: has it. The organism, for what only the second bench has, with fewer draws, requests and tokens;
#: the tiny pair, for what only its pair has; that pair with a small real model as the second judge,
#: since a made-up tokenizer has no yes.
TRIALS = ("smoke",
          "organism+removal.draws=1+removal.further_draws=1"
          "+evaluation.harmful=20+evaluation.benign=10+reevaluation.lengths=0,5"
          "+reevaluation.decided_at=5+reevaluation.harmful=8+reevaluation.safe=8",
          "tiny-pair",
          "tiny-pair+second_judge.seeds=1+second_judge.answers=4+second_judge.name=smollm2-135m"
          "+second_judge.dtype=float32")


def trial(name: str) -> Trial:
    """How `ssah accept` computes steps on a profile by the code of a tree."""
    planned = {need.step for need in plan(load_profile(name))}

    def command(steps: list[str], into: Path) -> list[str]:
        return ["-m", "ssah.cli", "recompute", *steps, "--profile", name, "--into", str(into)]

    def results(into: Path) -> Path:
        # by a name of the tree's own, which tells its settings
        (folder,) = (into / "results").iterdir()
        return folder

    return Trial(plans=planned.__contains__, command=command, results=results)


def check_models(profile: Profile) -> None:
    """Raise `SsahError` for a model that cannot be, before anything is downloaded for it."""
    for model in (*profile.model.sources(), *profile.probing.pair):
        archives.check_model(model)


def lab_of(profile: Profile, **options) -> Lab:
    """A lab of this package; `options` as of `ssah.lab.Lab`.

    Raises `SsahError` for a profile of a model that cannot be (`check_models`).
    """
    check_models(profile)
    return Lab(profile, PLACE, **options)


def open_lab(profile: str = "default", recompute: bool = False, n_seeds: int | None = None) -> Lab:
    """The results that a notebook reads; with `recompute` those that are missing are computed.

    Of the first `n_seeds` of the profile's seeds (default: of all).

    Of the default profile the committed results are read, and what is recomputed lives apart
    (``build/results``, or ``SSAH_RECOMPUTED``), so that they stay as they are. Results of every
    other profile have one place (`results_of`). What is there and still valid is taken, so an
    interrupted run goes on. Raises `SsahError` for an unknown profile or more seeds than it has.
    """
    if recompute:
        check_models_installed()
    chosen = load_profile(profile)
    if n_seeds is None:
        n_seeds = len(chosen.seeds)
    if not 1 <= n_seeds <= len(chosen.seeds):
        raise SsahError(f"n_seeds must be from 1 to {len(chosen.seeds)} for the profile "
                        f"{profile!r}; got {n_seeds} (`-p n_seeds=1` on the command line)")
    build = archives.REPOSITORY / "build"
    committed = chosen.name in COMMITTED
    if recompute or not committed or n_seeds < len(chosen.seeds):
        # figures/ shows the committed results
        os.environ.setdefault("SSAH_FIGURES", str(build / "figures"))
    root = None
    if recompute and committed:
        root = Path(os.environ.get("SSAH_RECOMPUTED") or build / "results") / chosen.name
    # results take minutes to hours: a missing one is reported, not computed by surprise
    return lab_of(chosen, root=root, n_seeds=n_seeds, compute=recompute)


# ---- words of the second bench ---------------------------------------------------------------

def verdict(lab: Lab, row_id: str) -> Verdict:
    """The two words on a row of the ledger, such as ``"C2-SCU"``, with gates and estimates.

    Raises `NotStored` where its results are not there, and `SsahError` for an unknown row and for
    results that are stale or damaged.
    """
    if row_id not in ROWS:
        raise SsahError(f"unknown row {row_id!r}; known: {', '.join(ROWS)}")
    rows = claim(ROWS[row_id].claim).rows
    if row_id not in rows:
        raise NotStored(f"{row_id} has no runs on the second bench yet")
    return lab.once(rows[row_id])


def verdicts(lab: Lab, rows: Iterable[str] = tuple(ROWS)) -> dict[str, Verdict]:
    """The words on those `rows` (default: all) whose results are there, by the row's id.

    Raises `SsahError` for results that are stale or damaged.
    """
    found = {}
    for row_id in rows:
        try:
            found[row_id] = verdict(lab, row_id)
        except NotStored:       # not run; the ledger says so
            continue
    return found
