"""Whether committed results are what the code makes: the plan of results, their state, and `ssah verify`.

Three depths: (a) files, hashes and keys; (b) what follows from stored arrays, exactly; (c) two numbers of
the base model and of the first training steps, within 2 %. `full` trains the first seed again.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import SsahError
from ..profiles import Profile
from ..store import Result
from . import core, extended, foundation, four_kinds
from .engine import Context, Lab, Need, label, with_upstream

Check = tuple[str, bool, str]       # what was checked, passed or not, details
TOLERANCE = 0.02                    # relative, of a loss on another machine
MARGIN = 0.1                        # of a rate around the range that the committed seeds span
LOOKED_AT = 8                       # answers whose NLL is computed again


# ---- the plan --------------------------------------------------------------------------------

def plan(profile: Profile, n_seeds: int | None = None) -> list[Need]:
    """All that is committed: the core of the (first) seeds and the first one's extended rows, each after its needs."""
    seeds = profile.seeds[:n_seeds]
    needs = [need for seed in seeds for need in core(seed)] + extended(seeds[0])
    if profile.probing.pair:        # two models of one's own: notebook 01 alone
        needs = [need for need in needs if need.step in ("probe", "along_answers")]
    return with_upstream(profile, needs)


def state(lab: Lab, need: Need) -> tuple[str, Result | None, str]:
    """As `Lab.look`; a result whose inputs are not in order is stale. `lab` must not compute."""
    try:
        return lab.look(need.step, need.params)
    except SsahError as error:
        return "stale", None, str(error)


# ---- the checks ------------------------------------------------------------------------------

def verify(profile: Profile, *, full: bool, into: Path) -> int:
    """Print a line a check; the number of those that failed. What must be computed for it goes to `into`."""
    lab, scratch = Lab(profile, compute=False), Lab(profile, root=into / "verify" / profile.name)
    if failed := _tell(stored(lab)):
        print("the other checks need results in order: see `ssah status`")
        return failed
    failed = _tell(recomputed(lab)) + _tell(spot_checks(lab, scratch))
    return failed + (_tell(retrained(lab, scratch)) if full else 0)


def _tell(checks: Iterator[Check]) -> int:
    failed = 0
    for name, passed, details in checks:
        print("pass" if passed else "FAIL", f"{name}: {details}" if details else name, sep="  ", flush=True)
        failed += not passed
    return failed


def stored(lab: Lab) -> Iterator[Check]:
    """(a) Every planned result is there, undamaged, and made from the inputs, config and version of today."""
    for need in plan(lab.profile):
        found, _, why = state(lab, need)
        yield f"stored {label(need.step, need.params)}", found == "ok", why


def recomputed(lab: Lab) -> Iterator[Check]:
    """(b) Shares of every kind, and the variations' SCU, follow from the stored scan and scores, exactly."""
    profile = lab.profile
    chosen = four_kinds.choose_shares(lab.get("scan", seed=profile.seeds[0]).tables["scan"])
    yield "shares from the scan", chosen == lab.get("shares").values, ""
    for seed in profile.seeds:
        units = four_kinds.classified(lab, seed)
        for condition in four_kinds.CONDITIONS[1:-1]:       # the first and the last remove no units
            mask = four_kinds.condition_mask(units, condition, seed)
            facts = {"share": float(mask.mean()), "parameter_share": units.index.parameter_share(mask)}
            kept = lab.get("ablation", seed=seed, condition=condition).values
            yield f"labels, seed {seed}, {condition}", facts.items() <= kept.items(), ""
    for name in four_kinds.VARIATIONS:
        kept = lab.get("variation", seed=profile.seeds[0], variation=name).arrays["scu"]
        yield f"labels, variation {name}", np.array_equal(_varied_scu(lab, profile.seeds[0], name), kept), ""


def _varied_scu(lab: Lab, seed: int, name: str) -> np.ndarray:
    scored = lab.get("attribution", **four_kinds.attribution_params(seed, name))
    scale = four_kinds.VARIATIONS[name].get("scale", lab.profile.classification.scale)
    return np.flatnonzero(four_kinds.classify_scores(scored, scale, **lab.get("shares").values).mask("SCU"))


def spot_checks(lab: Lab, scratch: Lab) -> Iterator[Check]:
    """(c) The base model and the first training steps give the stored numbers on this machine."""
    try:
        answers = lab.artifact("base_answers", {})
    except SsahError:       # not in this machine's cache: made again (minutes), beside the committed results
        answers = scratch.artifact("base_answers", {})
    context = Context(lab.profile, {"splits": lab.get("splits")}, {"base_answers": answers}, answers)
    table = lab.get("judge_threshold").tables["nll"].query("split == 'select' and source == 'benign' and not corrupted")
    yield _close("mean NLL of benign answers, base model", _nll(context).mean(),
                 table["nll"].to_numpy()[:LOOKED_AT].mean())
    history = lab.get("checkpoint", role="aligned", seed=lab.profile.seeds[0]).tables["history"]
    yield _close("first training losses, aligned", _first_losses(context, 3), history["loss"].to_numpy()[:3])


def _close(name: str, got, kept) -> Check:
    here, there = (" ".join(f"{number:.4f}" for number in np.atleast_1d(numbers)) for numbers in (got, kept))
    return name, np.allclose(got, kept, rtol=TOLERANCE, atol=0), f"{here} here, {there} stored"


def _nll(context: Context) -> np.ndarray:
    _, questions, texts = next(foundation.coherent_answers(context, "select", "train"))
    return foundation.answer_nll(foundation.load_base(context), questions[:LOOKED_AT], texts[:LOOKED_AT],
                                 context.profile.evaluation.answer_tokens)


def _first_losses(context: Context, n: int) -> np.ndarray:
    from ..finetuning import finetune

    options, seed = context.profile.alignment, context.profile.seeds[0]
    trained = finetune(foundation.load_base(context, "float32"),
                       foundation.alignment_examples(context, "aligned", seed), epochs=options.epochs, lr=options.lr,
                       batch_size=options.batch_size, system=options.system, seed=seed,
                       autocast=context.profile.model.dtype == "bfloat16", max_steps=n, progress=None)
    return trained.history["loss"].to_numpy()


def retrained(lab: Lab, scratch: Lab) -> Iterator[Check]:
    """(full) The first seed from nothing: attack rates near the range that the committed seeds span."""
    seeds = lab.profile.seeds
    for condition in four_kinds.CONDITIONS:
        fresh = _rates(scratch.get("ablation", seed=seeds[0], condition=condition))
        kept = np.array([_rates(lab.get("ablation", seed=seed, condition=condition)) for seed in seeds])
        for name, rate, low, high in zip(("keyword", "strict"), fresh, kept.min(0) - MARGIN, kept.max(0) + MARGIN):
            yield f"{name} ASR, {condition}", low <= rate <= high, f"{rate:.3f} within {low:.3f} ... {high:.3f}"


def _rates(result: Result) -> tuple[float, float]:
    answers = result.tables["answers"]
    return float((~answers["keyword"]).mean()), float((answers["label"] == "comply").mean())
