"""What the paper's reviewers asked (notebook 08): mostly from results that other rooms stored."""

from . import preferred  # noqa: F401  (its step)
from .run import bench  # noqa: F401  (what this room adds to the plan)

#: Its figures, and the steps that they show.
FIGURES = {"08_exclusive": ("ablation",)}
