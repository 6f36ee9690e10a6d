"""Figures from tables, deterministic PNG and SVG: a file a claim. No computing here."""

from . import attribute_transfer, four_kinds, freezing, reasoning_direction, redundant_units, which_units
from .style import four_labels, recomputed, save, use_style

__all__ = ["attribute_transfer", "four_kinds", "four_labels", "freezing", "reasoning_direction", "recomputed",
           "redundant_units", "save", "use_style", "which_units"]
