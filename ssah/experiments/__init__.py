"""The named, recomputable steps, the plan of which of them the claims need, and the door for notebooks."""

import os
from pathlib import Path

from .. import sources
from ..errors import SsahError
from ..profiles import load_profile
# importing registers the steps
from . import (attribute_transfer, foundation, four_kinds, freezing, reasoning_direction,     # noqa: F401
               redundant_units, which_units)
from .engine import STEPS, Lab, Need, code_fingerprint, default_root, find_step, label, slug, with_upstream
from .foundation import ROLES
from .four_kinds import CONDITIONS, TRANSPLANTS, VARIATIONS
from .reasoning_direction import PAIR

__all__ = ["CONDITIONS", "Lab", "Need", "PAIR", "ROLES", "STEPS", "TRANSPLANTS", "VARIATIONS",
           "code_fingerprint", "core", "default_root", "extended", "find_step", "label", "open_lab", "slug",
           "with_upstream"]


def core(seed: int) -> list[Need]:
    """What the claims need for one seed, in the order in which it is computed."""
    return [Need("judge_on_people"), Need("judge_threshold"),
            *[Need("probe", {"seed": seed, "requests": r}) for r in ("harmful", "unseen")],
            *[Need("ablation", {"seed": seed, "condition": c}) for c in CONDITIONS],
            *freezing.core(seed),
            *attribute_transfer.core(seed), *which_units.core(seed), *redundant_units.core(seed)]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: doubts, other choices, other examples."""
    return [Need("probe", {"seed": seed, "requests": "benign"}),
            *[Need("probe", {"seed": seed, "requests": r, "reading": "static"}) for r in ("harmful", "unseen")],
            Need("along_answers", {"seed": seed}),
            *[Need("transplant", {"seed": seed, "units": u}) for u in TRANSPLANTS],
            *[Need("behaviour", {"seed": seed, "role": role}) for role in ROLES],
            *[Need("variation", {"seed": seed, "variation": v}) for v in VARIATIONS],
            *attribute_transfer.extended(seed), *freezing.extended(seed), *redundant_units.extended(seed)]


def open_lab(profile: str = "default", recompute: bool = False, n_seeds: int = 3) -> Lab:
    """The results that a notebook reads: the committed ones, or with `recompute` those of this machine.

    Recomputed results live in a folder of their own (``build/results``, or ``SSAH_RECOMPUTED``), so the
    committed ones stay as they are; what is already there and still valid is taken, so an interrupted run goes on.
    Raises `SsahError` for an unknown profile or more seeds than it has.
    """
    chosen = load_profile(profile)
    if not 1 <= n_seeds <= len(chosen.seeds):
        raise SsahError(f"n_seeds must be from 1 to {len(chosen.seeds)} for the profile {profile!r}; got {n_seeds} "
                        "(`-p n_seeds=1` on the command line)")
    build = sources.REPOSITORY / "build"
    if recompute or chosen.name != "default" or n_seeds < len(chosen.seeds):    # figures/ shows committed results
        os.environ.setdefault("SSAH_FIGURES", str(build / "figures"))
    root = Path(os.environ.get("SSAH_RECOMPUTED") or build / "results") / chosen.name
    # the committed results took hours: a missing one is reported, not computed by surprise
    return Lab(chosen, root=root if recompute else None, n_seeds=n_seeds, compute=recompute or chosen.name != "default")
