"""Profiles: every number of a run, in frozen sections. One code path serves them all.

- ``smoke``: a random two-block model on synthetic prompts; seconds; what the tests run.
- ``organism``: a model made in half a minute of which it is known what learnt to refuse; minutes.
- ``default``: SmolLM2-135M-Instruct from pinned archives on two CPU cores; the committed results.
- models and settings of one's own: see `load_profile`.

A step's result is keyed by the sections that it reads, so a change touches just the steps
concerned. A field that is added with a default leaves the keys of older results as they are.

    sections, claim_sections -> profile -> known -> loading
"""
# ruff: noqa: F401  (its parts have this name too)

from .claim_sections import (
    ReevaluationSection,
    RemovalSection,
    SecondJudgeSection,
)
from .known import (
    BENCH,
    DEFAULT,
    SMOKE,
    TINY_PAIR,
)
from .loading import (
    absolute,
    load_profile,
    with_settings,
)
from .profile import (
    SECTIONS,
    Profile,
)
