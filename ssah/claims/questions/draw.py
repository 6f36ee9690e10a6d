"""Notebook 08: what the removal of each kind costs."""

import matplotlib.pyplot as plt
import pandas as pd

from ..shared.style import COLOURS, MARKERS, WIDTH

#: The measures of both panels, with what their axes say.
PANELS = {"refusals": "change of refusals (points)", "accuracy": "change of accuracy (points)"}


def exclusive(table: pd.DataFrame):
    """What removing each kind changes, with 95 % intervals; `table`: `read.exclusive`.

    Hollow: minus as many random units; filled: minus nothing removed.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(WIDTH, 3.4), sharey=True)
    for axis, (measure, title) in zip(axes, PANELS.items()):
        part = table[table["measure"] == measure].reset_index(drop=True)
        for place, row in part.iterrows():
            _mark(axis, place, row)
        axis.axvline(0, color="#444444", linewidth=0.8)
        axis.set_xlabel(title)
        axis.grid(axis="y", visible=False)
        names = [f"{row.kind}, {row.compared}" for row in part.itertuples()]
        axis.set_yticks(range(len(part)), names)
    axes[0].invert_yaxis()      # the first row on top; both panels share the axis
    return figure


def _mark(axis, place: int, row: pd.Series) -> None:
    """A change with its interval."""
    colour = COLOURS[row["kind"]]
    beside_random = "random" in row["compared"]
    axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, alpha=0.7)
    axis.plot(row["mean"], place, MARKERS[row["kind"]], color=colour, markersize=9,
              markeredgewidth=1.6, markerfacecolor="white" if beside_random else colour)
