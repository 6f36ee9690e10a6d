"""Whether results are what the code makes: `ssah verify`, in three depths.

- ``quick``: files, hashes and keys, and what follows from stored arrays, exactly (no model);
- ``spot``: also two numbers of the base model and of the first training steps, within 2 %;
- ``full``: also the first seed, trained again.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import SsahError
from ..inputs import archives
from ..lab import Context, Lab
from . import CLAIMS, lab_of, plan
from .claim import Recheck
from .profiles import Profile
from .shared import foundation, material

#: Relative, of a loss on another machine.
TOLERANCE = 0.02
#: Answers whose NLL is computed again.
ANSWERS = 8
#: Of one core: a stored result that is read, hashed and compared.
SECONDS_A_RESULT = 0.1
#: What `spot` takes beside that, on two cores with the default profile.
SPOT_MINUTES = 5


def announcement(profile: Profile, *, depth: str, into: Path) -> str:
    """What a check will read, download and take, in a line; nothing is computed for it.

    Minutes of ``full`` are those that the same results took when they were stored.
    """
    lab = lab_of(profile, compute=False)
    files = [path for path in lab.store.root.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    n_results = len(plan(profile))
    seconds = max(1.0, n_results * SECONDS_A_RESULT)
    reads = f"{depth}: reads {n_results} stored results ({megabytes:.1f} MB)"
    if depth == "quick":
        return f"{reads}, without a model and nothing to download; about {seconds:.0f} s"
    minutes = SPOT_MINUTES
    if depth == "full":
        minutes += retraining_minutes(lab, lab_of(profile, root=into / "verify" / profile.name))
    return f"{reads}, needs the model and prompts ({to_download()}); about {minutes:.0f} minutes"


def to_download() -> str:
    """What of the pinned archives is not in the cache folder yet."""
    missing = [archive for name, archive in archives.ARCHIVES.items()
               if not archives.archive_path(name).exists()]
    size = sum(archive.megabytes for archive in missing)
    return f"up to {size:.0f} MB to download" if missing else "all in the cache folder"


def retraining_minutes(lab: Lab, scratch: Lab) -> float:
    """What the first seed's removals, and all that they stand on, took when they were stored.

    Without those that an earlier check has made in `scratch`.
    """
    first = lab.profile.seeds[0]
    needs = [need for need in plan(lab.profile)
             if need.step == "ablation" and need.params.get("seed") == first]
    seconds = 0.0
    for need in scratch.to_compute(needs):
        _, result, _ = lab.look(need.step, need.params)
        if result is not None:
            seconds += result.provenance["seconds"]
    return seconds / 60


def verify(profile: Profile, *, depth: str, into: Path) -> int:
    """Print a line a check; the number of those that failed.

    What must be computed for it goes to `into`. `depth`: ``quick``, ``spot`` or ``full``.
    """
    lab = lab_of(profile, compute=False)
    scratch = lab_of(profile, root=into / "verify" / profile.name)
    if failed := _tell(stored(lab)):
        print("the other checks need results in order: see `ssah status`")
        return failed
    failed = _tell(recomputed(lab))
    if depth != "quick":
        failed += _tell(spot_checks(lab, scratch))
    if depth == "full":
        failed += _tell(retrained(lab, scratch))
    return failed


def _tell(rechecks: Iterable[Recheck]) -> int:
    failed = 0
    for recheck in rechecks:
        state = "pass" if recheck.passed else "FAIL"
        details = f": {recheck.details}" if recheck.details else ""
        print(f"{state}  {recheck.name}{details}", flush=True)
        failed += not recheck.passed
    return failed


def stored(lab: Lab) -> Iterator[Recheck]:
    """(a) Every planned result is there, undamaged, and of today's inputs, config and version."""
    for need in plan(lab.profile):
        state, _, why = lab.look(need.step, need.params)
        yield Recheck(f"stored {need.label}", state == "ok", why)


def recomputed(lab: Lab) -> Iterator[Recheck]:
    """(b) What the claims compute again from stored arrays."""
    for claim in CLAIMS:
        yield from claim.rechecks(lab)


def retrained(lab: Lab, scratch: Lab) -> Iterator[Recheck]:
    """(full) What the claims hold against the first seed, trained again."""
    for claim in CLAIMS:
        yield from claim.retrained(lab, scratch)


def spot_checks(lab: Lab, scratch: Lab) -> Iterator[Recheck]:
    """(c) The base model and the first training steps give the stored numbers on this machine."""
    try:
        answers = lab.artifact("base_answers", {})
    except SsahError:       # not in this machine's cache: made again, beside the committed results
        answers = scratch.artifact("base_answers", {})
    context = Context(lab.profile, {"splits": lab.get("splits")}, {"base_answers": answers},
                      answers)
    losses = lab.get("judge_threshold").tables["nll"]
    coherent = losses.query("split == 'select' and source == 'benign' and not corrupted")
    yield _close("mean NLL of benign answers, base model", _nll(context).mean(),
                 coherent["nll"].to_numpy()[:ANSWERS].mean())
    first = lab.profile.seeds[0]
    history = lab.get("checkpoint", role="aligned", seed=first).tables["history"]
    yield _close("first training losses, aligned", _first_losses(context, 3),
                 history["loss"].to_numpy()[:3])


def _close(name: str, here, there) -> Recheck:
    passed = np.allclose(here, there, rtol=TOLERANCE, atol=0)
    return Recheck(name, passed, f"{_numbers(here)} here, {_numbers(there)} stored")


def _numbers(values) -> str:
    return " ".join(f"{number:.4f}" for number in np.atleast_1d(values))


def _nll(context: Context) -> np.ndarray:
    """Mean NLL (ANSWERS,) of the first benign answers of `select` under the base model."""
    _, questions, texts = next(foundation.coherent_answers(context, "select", "train"))
    return foundation.answer_nll(material.load_base(context), questions[:ANSWERS],
                                 texts[:ANSWERS], context.profile.evaluation.answer_tokens)


def _first_losses(context: Context, n_steps: int) -> np.ndarray:
    """Training losses (n_steps,) of the aligned model's first steps, first seed."""
    from ..finetuning import finetune

    options = context.profile.alignment
    seed = context.profile.seeds[0]
    examples = foundation.alignment_examples(context, "aligned", seed)
    trained = finetune(
        material.load_base(context, "float32"), examples, epochs=options.epochs, lr=options.lr,
        batch_size=options.batch_size, system=options.system, seed=seed,
        autocast=context.profile.model.dtype == "bfloat16", max_steps=n_steps, progress=None)
    return trained.history["loss"].to_numpy()
