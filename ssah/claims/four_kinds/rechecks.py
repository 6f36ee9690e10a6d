"""C2: what `ssah verify` computes again."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ...lab import Lab, Result
from ..claim import Recheck
from ..shared.measuring import classified
from .conditions import CONDITIONS, VARIATIONS
from .ratio_scan import choose_shares
from .run import shares_of
from .variations import varied_units

#: Of a rate, around the range that the committed seeds span.
MARGIN = 0.1


def rechecks(lab: Lab) -> Iterator[Recheck]:
    """Shares and labels follow from the stored scan and scores, exactly."""
    first = lab.profile.seeds[0]
    scan = lab.get("scan", seed=first).tables["scan"]
    chosen = choose_shares(scan)
    yield Recheck("shares from the scan", chosen == lab.get("shares").values)
    for seed in lab.profile.seeds:
        yield from _rechecked_shares(lab, seed)
    for variation in VARIATIONS:
        stored = lab.get("variation", seed=first, variation=variation.name).arrays[
            "scu"
        ]
        again = np.flatnonzero(varied_units(lab, variation, first).mask("SCU"))
        is_same = np.array_equal(again, stored)
        yield Recheck(f"labels, variation {variation.name}", is_same)


def _rechecked_shares(lab: Lab, seed: int) -> Iterator[Recheck]:
    """Of the conditions that remove units."""
    units = classified(lab, seed)
    for condition in CONDITIONS:
        if condition.kind:
            again = shares_of(condition.mask(units, seed), units.index)
            stored = lab.get("ablation", seed=seed, condition=condition.name).values
            is_same = again.items() <= stored.items()
            yield Recheck(f"labels, seed {seed}, {condition.name}", is_same)


def retrained(lab: Lab, scratch: Lab) -> Iterator[Recheck]:
    """The first seed from nothing: attack rates near the range that the committed seeds span."""
    seeds = lab.profile.seeds
    for condition in CONDITIONS:
        chosen = {"condition": condition.name}
        fresh = _rates(scratch.get("ablation", seed=seeds[0], **chosen))
        stored = pd.DataFrame(
            [_rates(lab.get("ablation", seed=seed, **chosen)) for seed in seeds]
        )
        for name, rate in fresh.items():
            low = stored[name].min() - MARGIN
            high = stored[name].max() + MARGIN
            details = f"{rate:.3f} within {low:.3f} ... {high:.3f}"
            yield Recheck(f"{name} ASR, {condition.name}", low <= rate <= high, details)


def _rates(result: Result) -> dict[str, float]:
    answers = result.tables["answers"]
    return {
        "keyword": float((~answers["keyword"]).mean()),
        "strict": float((answers["label"] == "comply").mean()),
    }
