"""Reader-facing tables and facts, computed from stored results alone: a file a claim. No torch, no plotting."""

from . import attribute_transfer, four_kinds, freezing, reasoning_direction, redundant_units, which_units
from .deviations import deviations
from .ledger import by_strict, checks, costs, ledger, traces, verdict

__all__ = ["attribute_transfer", "by_strict", "checks", "costs", "deviations", "four_kinds", "freezing", "ledger",
           "reasoning_direction", "redundant_units", "traces", "verdict", "which_units"]
