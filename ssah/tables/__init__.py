"""Reader-facing tables and facts, computed from stored results alone: a file a claim. No torch, no plotting."""

from . import attribute_transfer, four_kinds, freezing, reasoning_direction, redundant_units, which_units
from .ledger import ledger, verdict

__all__ = ["attribute_transfer", "four_kinds", "freezing", "ledger", "reasoning_direction", "redundant_units",
           "verdict", "which_units"]
