"""The conditions of benign fine-tuning, a row each: plan, runs, tables and figures follow.

Units stay frozen (Table 2, claim C4), an adapter trains in place of the model's own weights
(Table 3, C5), or single weights stay frozen (C7). To add a condition is to add its row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...classification import Units
from ...errors import SsahError


class Look(NamedTuple):
    """How a condition is drawn: where the line is dotted, the marks are hollow."""

    colour: str
    marker: str
    line: str = "-"


def usual_rate(profile) -> float:
    """The learning rate of full fine-tuning."""
    return profile.freezing.lr


def slower_rate(profile) -> float:
    """A lower one, which learns more slowly without freezing anything."""
    return profile.freezing.slower_lr


@dataclass(frozen=True)
class Condition:
    """What one run of benign fine-tuning leaves as it is, and how that is called and drawn.

    `frozen` takes the units, the profile's section `freezing` and the seed, and returns a Boolean
    mask (len(index),). `rate` takes the profile. `adapter` takes the chat model and the profile's
    section `comparison`, and returns a ``peft`` configuration.
    """

    name: str                               # the parameter of its step
    title: str                              # where people read it
    look: Look
    frozen: Callable[..., np.ndarray] | None = None     # units that stay; none: all move
    rest: bool = False                      # what belongs to no unit stays too
    rate: Callable[..., float] = usual_rate
    adapter: Callable | None = None         # what trains in place of the model's own weights
    objective: Callable | None = None       # makes what the run makes smaller; none: SFT's loss
    scored: bool = False                    # single weights by their scores, not at random
    doubled: bool = False                   # goes on to twice the epochs (paper), past equal loss
    kept: bool = False                      # its weights at equal loss stay in the cache folder


# ---- which units stay ------------------------------------------------------------------------

def nothing(units: Units, options, seed: int) -> np.ndarray:
    """No unit."""
    return np.zeros(len(units.index), bool)


def scu(units: Units, options, seed: int) -> np.ndarray:
    """All SCU."""
    return units.mask("SCU")


def scu_and_all_cu(units: Units, options, seed: int) -> np.ndarray:
    """All SCU and all CU."""
    return units.mask("SCU", "CU")


def scu_and_top_cu(units: Units, options, seed: int) -> np.ndarray:
    """All SCU, and CU of highest I_S: as many as a share of *all* units (paper: 6 %)."""
    wanted = round(options.top_cu * len(units.index))
    among_cu = np.where(units.mask("CU"), units.safety, -np.inf)
    mask = scu(units, options, seed)
    mask[np.argsort(-among_cu, kind="stable")[:wanted]] = True
    return mask


def most_safety(units: Units, options, seed: int) -> np.ndarray:
    """SCU, and CU of highest I_S - I_U, up to a share of every block x kind (`disjoint_share`)."""
    mask = scu(units, options, seed)
    # CU by how much more they matter for safety, SCU before all of them
    leaning = np.where(units.mask("CU"), units.safety - units.utility, -np.inf)
    leaning[mask] = np.inf
    for _, _, where in units.index.modules():
        wanted = round(options.disjoint_share * (where.stop - where.start))
        order = np.argsort(-leaning[where], kind="stable")[:wanted]
        is_allowed = leaning[where][order] > -np.inf
        mask[where.start + order[is_allowed]] = True
    return mask


def remainder(units: Units, options, seed: int) -> np.ndarray:
    """As many random units of the others, with as many parameters (see `disjoint_random`)."""
    return units.index.disjoint_random(most_safety(units, options, seed), seed)


def random_like(treated: Callable, without: Callable = nothing) -> Callable:
    """As many random units of every block x kind as `treated` freezes, none of `without`."""
    def drawn(units: Units, options, seed: int) -> np.ndarray:
        mask = treated(units, options, seed)
        return units.index.matched_random(mask, seed, exclude=without(units, options, seed))
    return drawn


def least_like(treated: Callable) -> Callable:
    """As many units of every block x kind as `treated` freezes, those of lowest I_S."""
    def lowest(units: Units, options, seed: int) -> np.ndarray:
        twin = treated(units, options, seed)
        mask = np.zeros(len(units.index), bool)
        for _, _, where in units.index.modules():
            order = np.argsort(units.safety[where], kind="stable")
            wanted = int(twin[where].sum())
            mask[where.start + order[:wanted]] = True
        return mask
    return lowest


def random_share(share: float) -> Callable:
    """A share of the units of every block x kind, at random."""
    def drawn(units: Units, options, seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        mask = np.zeros(len(units.index), bool)
        for _, _, where in units.index.modules():
            n_units = where.stop - where.start
            wanted = round(share * n_units)
            mask[where.start + draw.choice(n_units, wanted, replace=False)] = True
        return mask
    return drawn


# ---- which adapter trains --------------------------------------------------------------------

def lora(rank: int):
    """LoRA on all linear maps of the blocks, scaled by 2."""
    import peft

    return peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear",
                           task_type="CAUSAL_LM")


def lora_adapter(chat, options):
    """`lora` of the profile's rank."""
    return lora(options.lora_rank)


def llama_adapter(chat, options):
    """LLaMA-Adapter in every block."""
    import peft

    return peft.AdaptionPromptConfig(adapter_len=options.prompt_tokens,
                                     adapter_layers=chat.model.config.num_hidden_layers,
                                     task_type="CAUSAL_LM")


# ---- which objective -------------------------------------------------------------------------

def constrained():
    """SFT that holds the first tokens of an answer back (Qi et al. 2025)."""
    from ...objectives import Constrained

    return Constrained()


# ---- the rows --------------------------------------------------------------------------------

#: The model before fine-tuning: no run, but the first row of every table.
START = Condition("start", "before fine-tuning", Look("#4d4d4d", "o"))
#: Its loss at the end is that at which all others are compared.
FULL = Condition("full", "nothing frozen", Look("#000000", "X"), kept=True)

#: Table 2, in the order of its rows: each random twin stands above its set.
TABLE_2 = (
    FULL,
    Condition("full slower", "nothing frozen, lower rate", Look("#7f7f7f", "X", "--"),
              rate=slower_rate),
    Condition("SCU", "SCU", Look("#d55e00", "s"), frozen=scu, doubled=True),
    Condition("random small", "random, as many as SCU + top CU, no SCU", Look("#c9a400", "D", ":"),
              frozen=random_like(scu_and_top_cu, without=scu)),
    Condition("SCU + top CU", "SCU + top 6 % CU", Look("#c9a400", "D"),
              frozen=scu_and_top_cu, doubled=True),
    Condition("random large without SCU", "random, as many as SCU + all CU, no SCU",
              Look("#56b4e9", "v", ":"), frozen=random_like(scu_and_all_cu, without=scu),
              doubled=True, kept=True),
    Condition("random large", "random, as many as SCU + all CU", Look("#0072b2", "^", ":"),
              frozen=random_like(scu_and_all_cu)),
    Condition("SCU + all CU", "SCU + all CU", Look("#0072b2", "^"), frozen=scu_and_all_cu,
              doubled=True, kept=True),
    Condition("SCU + all CU + rest", "SCU + all CU + rest", Look("#7b3294", "P"),
              frozen=scu_and_all_cu, rest=True))

#: Beside Table 2, with the first seed only: would any units do, even those of lowest I_S?
FURTHER = (
    Condition("least safety", "least safety, as many as SCU + all CU", Look("#b2182b", "<", "-."),
              frozen=least_like(scu_and_all_cu)),)

#: Of the second bench: two disjoint sets of equal size and equal parameters.
DISJOINT = (
    Condition("most safety", "SCU + CU of most safety, up to 27 %", Look("#1b9e77", "8"),
              frozen=most_safety),
    Condition("remainder", "as many of the remainder", Look("#66c2a5", "8", ":"),
              frozen=remainder))

#: Of the second bench: units at random, and as many single weights of every matrix (C7).
UNIT_SHARES = (
    Condition("random units 25 %", "random units, 25 %", Look("#e7298a", "d", ":"),
              frozen=random_share(0.25)),
    Condition("random units 70 %", "random units, 70 %", Look("#980043", "d", ":"),
              frozen=random_share(0.70)))
WEIGHT_SHARES = (
    Condition("random weights 25 %", "random single weights, as many as 25 % of the units",
              Look("#e7298a", "p", ":"), frozen=random_share(0.25)),
    Condition("random weights 70 %", "random single weights, as many as 70 % of the units",
              Look("#980043", "p", ":"), frozen=random_share(0.70)))

#: Of the second bench: the published rival of freezing.
CONSTRAINED = Condition("constrained", "nothing, by constrained SFT", Look("#8c6d31", "H"),
                        objective=constrained)

#: All that `tuning` knows.
FREEZING = (*TABLE_2, *FURTHER, *DISJOINT, *UNIT_SHARES, CONSTRAINED)

#: Adapters in place of the model's own weights (Table 3): two of the paper's three.
TABLE_3 = (
    Condition("LoRA", "LoRA (every weight of the maps moves)", Look("#cc79a7", "*"), adapter=lora_adapter,
              rate=lambda profile: profile.comparison.lora_lr),
    Condition("LLaMA-Adapter", "LLaMA-Adapter (no weight moves)", Look("#a6761d", "h", ""),
              adapter=llama_adapter, rate=lambda profile: profile.comparison.prompt_lr))

#: Single weights that stay, in every matrix as many as with SCU + all CU frozen (C7).
SINGLE_WEIGHTS = (
    Condition("SNIP difference", "single weights (SNIP), as many as SCU + all CU",
              Look("#009e73", "p"), frozen=scu_and_all_cu, scored=True),
    Condition("random weights", "random single weights, as many", Look("#009e73", "p", ":"),
              frozen=scu_and_all_cu))


# ---- what follows from the rows --------------------------------------------------------------

def names(rows) -> tuple[str, ...]:
    """The names of some rows, in their order."""
    return tuple(row.name for row in rows)


def find(rows, name: str, what: str = "condition") -> Condition:
    """The row of that name; `SsahError` with the known names otherwise."""
    for row in rows:
        if row.name == name:
            return row
    raise SsahError(f"unknown {what} {name!r}; known: {', '.join(names(rows))}")


_EVERY = (START, *FREEZING, *TABLE_3, *SINGLE_WEIGHTS, *WEIGHT_SHARES)
#: How a condition is called where people read it.
NAMES = {row.name: row.title for row in _EVERY}
#: Colour, marker and line of a condition.
STYLES = {row.name: row.look for row in _EVERY}
