"""How attribution's time grows with tokens, blocks and width."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..attribution import importance
from .table import Growth
from .timing import seconds
from .training import stack

#: What each size is while another one grows.
USUAL = {"tokens": 512, "blocks": 2, "width": 256}
#: Sizes that are tried.
TRIED = {
    "tokens": [256, 512, 1024, 2048],
    "blocks": [1, 2, 4, 8],
    "width": [256, 512, 1024, 2048],
}
#: Tokens of a text, and channels of a head.
LENGTH = 64
HEAD = 64


def measured(repeats: int) -> Iterator[Growth]:
    """Attribution's time against each size, the other two as usual."""
    for size, values in TRIED.items():
        times = []
        for value in values:
            times.append(attribution_seconds(**{**USUAL, size: value}, repeats=repeats))
        yield Growth(size, values, times, slope(values, times))


def attribution_seconds(tokens: int, blocks: int, width: int, repeats: int) -> float:
    """Median seconds of attribution on a random stack, every token scored, after one warm-up."""
    heads = width // HEAD
    model = stack(width, 4 * width, heads, heads, blocks).eval()
    ids = torch.randint(1, model.config.vocab_size, (tokens // LENGTH, LENGTH)).to(model.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    importance(model, batch)
    return float(np.median([seconds(lambda: importance(model, batch)) for _ in range(repeats)]))


def slope(values: list[int], times: list[float]) -> float:
    """The power by which times grow with values: the slope of a line through their logarithms."""
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def draw(growth: list[Growth], path: Path) -> None:
    """A panel a size, both axes logarithmic, with the slope."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(growth), figsize=(9, 3), sharey=True, layout="constrained")
    for axis, line in zip(axes, growth):
        axis.loglog(line.values, line.seconds, marker="o")
        axis.set_xticks(line.values, line.values)
        axis.minorticks_off()
        axis.set_xlabel(line.size)
        axis.set_title(f"grows with the power {line.slope:.2f}", fontsize="medium")
    axes[0].set_ylabel("attribution, seconds")
    figure.savefig(path)
    plt.close(figure)
