"""C8: refusals and log-odds against the length of a prefill, and how soon answers turn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..shared.conditions import Look
from ..shared.style import COLOURS, PERCENT, QUIET, THIN, WIDTH, hollow_if_dotted, name_lines

#: How the arms of models that refuse are drawn; those of others are thin and grey.
LOOKS = {
    "aligned, as usual": Look(COLOURS["none"], "o"),
    "aligned, asked again": Look(COLOURS["direction"], "P"),
    "aligned, neutral": Look(COLOURS["direction"], "P", ":"),
    "deepened, as usual": Look(COLOURS["RU"], "^")}
#: Panels of `after_prefill`: requests, column, factor, title.
PANELS = (
    ("harmful", "refused", 100, "harmful requests\nrefused (%)"),
    ("safe", "refused", 100, "safe requests\nrefused (%)"),
    ("harmful", "log-odds", 1, "harmful requests\nrefusal log-odds (nats)"))
#: How far the arms stand aside of each other (lengths).
ASIDE = 0.1


def after_prefill(table: pd.DataFrame, titles: dict[str, str]):
    """Refusals of harmful and of safe requests, and log-odds, against the tokens put first.

    With 95 % intervals. `titles`: of the arms.
    """
    lengths = list(table["length"].unique())
    figure, axes = plt.subplots(1, len(PANELS), figsize=(WIDTH, 4))
    for axis, (requests, column, factor, title) in zip(axes, PANELS):
        of_panel = table[table["requests"] == requests]
        for arm, part in of_panel.groupby("arm", sort=False):
            if arm in LOOKS:
                _with_intervals(axis, part, column, factor, arm)
            else:
                axis.plot(range(len(part)), part[column] * factor, **THIN)
        axis.set_xticks(range(len(lengths)), lengths)
        axis.set_title(title)
        if column == "refused":
            axis.set_ylim(*PERCENT)
        else:
            axis.axhline(0, color=QUIET, linewidth=0.8)
    figure.supxlabel("tokens of a fulfilment put first", fontsize=10)
    last = table[(table["length"] == lengths[-1]) & (table["requests"] == "harmful")]
    ends = last.set_index("arm")["log-odds"]
    names = {titles[arm]: (ends[arm], LOOKS[arm].colour) for arm in LOOKS if arm in ends}
    others = [arm for arm in ends.index if arm not in LOOKS]
    if others:
        names["thin: a model that refuses nothing"] = (ends[others].max(), QUIET)
    name_lines(axes[-1], names)
    return figure


def _with_intervals(axis, part: pd.DataFrame, column: str, factor: float, arm: str) -> None:
    """One line with its intervals, a little aside of the others'."""
    aside = list(LOOKS).index(arm) - (len(LOOKS) - 1) / 2
    x = np.arange(len(part)) + ASIDE * aside        # the lengths are far from even
    style = hollow_if_dotted(LOOKS, arm)
    low = part[f"{column} low"] * factor
    high = part[f"{column} high"] * factor
    axis.vlines(x, low, high, color=style["color"], linewidth=1.2, alpha=0.5)
    axis.plot(x, part[column] * factor, linestyle=LOOKS[arm].line, markersize=6, **style)


def recovery(table: pd.DataFrame, titles: dict[str, str]):
    """The part of prefilled answers that has turned to a refusal, by the number of new tokens."""
    figure, axis = plt.subplots(figsize=(0.7 * WIDTH, 3.4))
    ends = {}
    for arm, part in table.groupby("arm", sort=False):
        style = hollow_if_dotted(LOOKS, arm)
        axis.plot(part["within"], part["turned"] * 100, linestyle=LOOKS[arm].line, markersize=5,
                  drawstyle="steps-post", **style)
        ends[titles[arm]] = (part["turned"].iloc[-1] * 100, style["color"])
    axis.set(xlabel="new tokens after the prefill", ylabel="turned to a refusal (%)",
             ylim=PERCENT)
    name_lines(axis, ends)
    return figure
