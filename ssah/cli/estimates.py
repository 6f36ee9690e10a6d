"""How long results will take, before anything is computed."""

import math
from collections import Counter
from functools import cache

from .words import duration, text_table

#: Results of a model of a few thousand weights that are computed in a minute.
TINY_A_MINUTE = 60
#: How a result's note of its device begins where that was no GPU (`ssah.lab.machine`).
CPU = "CPU"


def estimate(profile, needs: list) -> str:
    """Rough time of some results, from the minutes that their steps declare.

    Those are of the default profile. What another model takes is not known before, but it grows
    with its weights.
    """
    from ..lab import find_step

    if profile.model.name.startswith("tiny"):
        return f"about {math.ceil(len(needs) / TINY_A_MINUTE)} min"
    time = duration(sum(find_step(need.step).minutes for need in needs))
    if profile.name == "default":
        return f"about {time} on two cores"
    return f"about {time} on two cores for a model of 135M weights, in proportion for others"


def expected(lab, needs: list) -> str:
    """What some results take, a row a step, and the sum.

    Measured where the profile has results of the step already (`lab`), else as the step declares.
    """
    rows = []
    total = 0.0
    for name, count in Counter(need.step for need in needs).items():
        minutes, known = minutes_of(name, lab.profile, lab)
        total += count * minutes
        rows.append([name, count, f"{minutes:.1f}", f"{count * minutes:.0f}", known])
    rows.append(["all", len(needs), "", f"{total:.0f}", f"{total / 60:.1f} hours"])
    return text_table(["step", "results", "minutes each", "minutes", ""], rows)


@cache
def minutes_of(name: str, profile, measured=None) -> tuple[float, str]:
    """Minutes of one result of a step, and how they are known.

    As `measured` where that lab has results of the step that were made on such a machine, with a
    GPU or without, else as the step declares.
    """
    from ..lab import find_step

    seconds = []
    if measured is not None:
        seconds = [result.provenance["seconds"] for _, result in measured.stored(name)
                   if result.provenance["device"].startswith(CPU) == is_without_gpu()]
    if seconds:
        return sum(seconds) / len(seconds) / 60, "measured"
    if profile.model.name.startswith("tiny"):
        return 1 / TINY_A_MINUTE, "as other tiny ones"
    return find_step(name).minutes, "as declared for 135M weights"


def is_without_gpu() -> bool:
    """Whether models run on the CPU here; also where torch, which knows it, is not installed."""
    from ..lab.machine import device

    try:
        return device() == "cpu"
    except ModuleNotFoundError:
        return True
