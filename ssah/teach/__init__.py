"""Checks and given results for the course (`notebooks/course`).

``teach.check_importance(importance)`` calls a student's function on hand-made and real data. It
prints one line if all is right, and else raises `Wrong` with one line that says what is wrong, and
seldom what would be right. ``teach.given("scores")`` hands out what an exercise starts from, so
that a blank in one exercise does not stop the next.

Names are loaded on first use, so that the assignments without a model never import torch.
"""

from importlib import import_module

_HOME = {
    "answers": ("NotWritten", "Wrong"),
    "material": ("given",),
    "finding": (
        "check_importance",
        "check_scaled",
        "check_classify",
        "check_matched_random",
    ),
    "editing": (
        "check_activations_of",
        "check_without",
        "check_judge",
        "check_attack_success",
        "check_transplant",
    ),
    "freezing": (
        "check_slice_gradient",
        "check_masked_step",
        "check_at_equal_loss",
        "check_protected",
    ),
    "believing": (
        "check_paired",
        "check_interval_over_seeds",
        "check_power",
        "check_words",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ssah.teach' has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__():
    return __all__
