"""A small laboratory that knows no science: named steps, their results, and what made them.

    steps -> keys -> store -> results (`Lab`) -> notebooks

A *step* is a function of a frozen config. Its *result* is kept with a key of everything that made
it, and with the fingerprint of the code that ran. Of the rest of the package this folder imports
the error class alone; profiles, sources and folders are handed in (`Place`).
"""

from .results import Lab, Place
from .steps import STEPS, Context, Need, find_step, label, slug, step, with_upstream
from .store import Result, Store

__all__ = ["STEPS", "Context", "Lab", "Need", "Place", "Result", "Store", "find_step", "label",
           "slug", "step", "with_upstream"]
