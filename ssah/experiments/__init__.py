"""The named, recomputable steps, and the plan of which of them each claim needs."""

from . import foundation, four_kinds     # noqa: F401  (importing registers the steps)
from .engine import STEPS, Lab, Need, code_fingerprint, default_root, find_step, label, slug
from .four_kinds import CONDITIONS, TRANSPLANTS, VARIATIONS

__all__ = ["CONDITIONS", "Lab", "Need", "STEPS", "TRANSPLANTS", "VARIATIONS", "code_fingerprint", "core", "default_root",
           "extended", "find_step", "label", "slug"]


def core(seed: int) -> list[Need]:
    """What the claims need for one seed, in the order in which it is computed."""
    return [Need("judge_on_people"), Need("judge_threshold"),
            *[Need("ablation", {"seed": seed, "condition": c}) for c in CONDITIONS],
            *[Need("transplant", {"seed": seed, "units": u}) for u in TRANSPLANTS],
            *[Need("behaviour", {"seed": seed, "role": role}) for role in ("base", "aligned", "unaligned")]]


def extended(seed: int) -> list[Need]:
    """What is committed for the first seed only: the scan is in the core, the other choices are here."""
    return [Need("variation", {"seed": seed, "variation": v}) for v in VARIATIONS]
