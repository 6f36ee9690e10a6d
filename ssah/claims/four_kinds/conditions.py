"""C2: what is taken out of the aligned model, and what could have been chosen otherwise."""

from dataclasses import dataclass, field

import numpy as np

from ...classification import Units
from ...errors import SsahError

# ---- the conditions of Table 1 ---------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """A row of Table 1: what is taken out of the aligned model."""

    name: str  # the parameter of the step
    title: str  # where people read it
    kind: str = ""  # whose units: SCU, UCU or RU; empty where no units are removed
    random: bool = False  # as many other units instead, at random in the same modules
    is_direction: bool = False  # no units, but the refusal direction

    def mask(self, units: Units, seed: int) -> np.ndarray:
        """Boolean (len(index),): the units that it removes, none without a `kind`."""
        if not self.kind:
            return np.zeros(len(units.index), bool)
        mask = units.mask(self.kind)
        if self.random:
            return units.index.matched_random(mask, seed)
        return mask


CONDITIONS = (
    Condition("none", "nothing"),
    Condition("SCU", "SCU", kind="SCU"),
    Condition("UCU", "UCU", kind="UCU"),
    Condition("RU", "RU", kind="RU"),
    Condition("random SCU", "random SCU", kind="SCU", random=True),
    Condition("random UCU", "random UCU", kind="UCU", random=True),
    Condition("random RU", "random RU", kind="RU", random=True),
    Condition("direction", "refusal direction", is_direction=True),
)

#: Whose weights are copied from the aligned model into the unaligned one.
TRANSPLANTS = ("none", "SCU", "random SCU")


def find_condition(name: str) -> Condition:
    """The condition of this name; `SsahError` with the known names otherwise."""
    return _named("condition", name, CONDITIONS)


# ---- choices that could have been made otherwise ---------------------------------------------


@dataclass(frozen=True)
class Variation:
    """Table 1's SCU row with one choice changed."""

    name: str  # the parameter of the step
    choice: str  # which one: scale, score, positions, value, texts; or nothing
    scale: str = ""  # of the scores; empty: the profile's
    scores: dict[str, str] = field(default_factory=dict)  # parameters of `attribution`
    value: str = "zero"  # what the activation of a removed unit becomes

    def scale_in(self, profile) -> str:
        """The scale on which it subtracts I_U from I_S."""
        return self.scale or profile.classification.scale

    def attribution(self, seed: int) -> dict:
        """The parameters of the `attribution` result that it classifies."""
        return {"seed": seed, **self.scores}


VARIATIONS = (
    Variation("as in Table 1", "nothing"),
    Variation("scale z", "scale", scale="z"),
    Variation("scale rank", "scale", scale="rank"),
    Variation("scale raw", "scale", scale="raw"),
    Variation("score wanda", "score", scores={"method": "wanda"}),
    Variation("score gradient", "score", scores={"method": "gradient"}),
    Variation("positions response", "positions", scores={"positions": "response"}),
    Variation("mean instead of zero", "value", value="mean"),
    Variation(
        "refusals on benign prompts", "texts", scores={"safety_set": "benign-refusals"}
    ),
)


def find_variation(name: str) -> Variation:
    """The variation of this name; `SsahError` with the known names otherwise."""
    return _named("variation", name, VARIATIONS)


def _named(what: str, name: str, rows: tuple):
    for row in rows:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in rows)
    raise SsahError(f"unknown {what} {name!r}; known: {known}")
