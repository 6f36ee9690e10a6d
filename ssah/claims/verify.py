"""Whether results are what the code makes: `ssah verify`, in three depths.

- ``quick``: files, hashes and keys, and what follows from stored arrays, exactly (no model);
- ``spot``: also two numbers of the base model and of the first training steps, within 2 %;
- ``full``: also the first seed, trained again.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import SsahError
from ..lab import Context, Lab
from . import CLAIMS, lab_of, plan
from .claim import Recheck
from .profiles import Profile
from .shared import foundation, material

#: Relative, of a loss on another machine.
TOLERANCE = 0.02
#: Answers whose NLL is computed again.
ANSWERS = 8


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
