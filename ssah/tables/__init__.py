"""Reader-facing tables and facts, computed from stored results alone: a file a claim. No torch, no plotting."""

from . import four_kinds, reasoning_direction
from .ledger import ledger, verdict

__all__ = ["four_kinds", "ledger", "reasoning_direction", "verdict"]
