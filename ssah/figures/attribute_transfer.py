"""C3: flows between labels as ribbons and as matrices, how stable labels are, and whether they go with the harm."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from ..classification import LABELS
from ..tables.attribute_transfer import NAMES
from .freezing import STYLES
from .style import COLOURS

BAR, GAP = 0.07, 0.035      # width of a bar, space between two, of a panel that is 1 wide and 1 high
MARKERS = {"disjoint": ("o", "#000000"), "nested": ("D", "#7f7f7f"), "other": ("^", "#7b3294")}


def alluvial(flows: dict[str, pd.DataFrame], zoom: str | None = "SCU"):
    """Fig. 5: what became of every label, a panel a flow (title -> shares or counts, before x after).

    `zoom`: a second row shows the units of this label alone, enlarged.
    """
    rows = 2 if zoom else 1
    figure, axes = plt.subplots(rows, len(flows), figsize=(3.4 * len(flows), 3.7 * rows), squeeze=False)
    for column, (title, counts) in zip(axes.T, flows.items()):
        ribbons(column[0], counts / counts.to_numpy().sum())
        column[0].set_title(fill(title, 20))
        if zoom:
            own = counts * (counts.index == zoom)[:, None]
            ribbons(column[1], own / own.to_numpy().sum())
    axes[0, 0].set_ylabel("all units (%)")
    if zoom:
        axes[1, 0].set_ylabel(f"{zoom} alone (% of them)")
    return figure


def ribbons(axis, shares: pd.DataFrame) -> None:
    """One flow: bars of the labels before and after with their per cents, ribbons in the colour of before."""
    sides = {"left": shares.sum(axis=1), "right": shares.sum(axis=0)}
    tops = {side: dict(zip(LABELS, _tops(sizes))) for side, sizes in sides.items()}
    for side, sizes in sides.items():
        x, text, align = (0, -0.02, "right") if side == "left" else (1 - BAR, 1.02, "left")
        for label in LABELS:
            if sizes[label] == 0:
                continue
            top = tops[side][label]
            axis.add_patch(Rectangle((x, top - sizes[label]), BAR, sizes[label], facecolor=COLOURS[label], linewidth=0,
                                     zorder=3))
            axis.text(text, top - sizes[label] / 2, f"{label}\n{sizes[label] * 100:.1f}", ha=align, va="center",
                      fontsize=9, linespacing=0.95)
    for source in LABELS:
        for target in LABELS:
            size = shares.loc[source, target]
            _ribbon(axis, tops["left"][source], tops["right"][target], size, COLOURS[source])
            tops["left"][source] -= size
            tops["right"][target] -= size
    axis.set(xlim=(-0.24, 1.24), ylim=(-0.04, 1 + GAP * 3 + 0.03), xticks=[], yticks=[])
    axis.set_xlabel("before → after")
    sns.despine(ax=axis, left=True, bottom=True)


def _tops(sizes: pd.Series) -> np.ndarray:
    """Upper ends (label,) of bars that stand on each other with gaps, the first on top."""
    return 1 + GAP * (len(LABELS) - 1) - np.concatenate([[0], np.cumsum(sizes[[*LABELS]])[:-1]]) \
        - GAP * np.arange(len(LABELS))


def _ribbon(axis, left: float, right: float, size: float, colour: str) -> None:
    """A band of constant height from a left bar to a right one, as two Bézier curves."""
    if size == 0:
        return
    a, b, middle = BAR, 1 - BAR, 0.5
    points = [(a, left), (middle, left), (middle, right), (b, right),
              (b, right - size), (middle, right - size), (middle, left - size), (a, left - size), (a, left)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    # an edge, so that also a flow of a few units is seen
    axis.add_patch(PathPatch(Path(points, codes), facecolor=colour, edgecolor=colour, alpha=0.45, linewidth=0.5))


def matrices(flows: dict[str, pd.DataFrame]):
    """The flows as matrices, a panel each: per cent of the row, and below it per cent of all units."""
    figure, axes = plt.subplots(1, len(flows), figsize=(3.1 * len(flows), 3.6), sharey=True, squeeze=False)
    for axis, (title, counts) in zip(axes[0], flows.items()):
        shares = counts / counts.to_numpy().sum() * 100
        of_row = shares.div(shares.sum(axis=1).replace(0, np.nan), axis=0) * 100
        text = [[f"{row:.0f}\n({share:.2f})" if np.isfinite(row) else "–" for row, share in zip(*pair)]
                for pair in zip(of_row.to_numpy(), shares.to_numpy())]
        sns.heatmap(of_row.fillna(0), ax=axis, cmap="Blues", vmin=0, vmax=100, annot=np.array(text), fmt="",
                    annot_kws={"size": 8.5}, linewidths=0.6, cbar=False, square=True)
        axis.set(title=fill(title, 20), xlabel="after", ylabel="")
        axis.tick_params(axis="y", rotation=0)
    axes[0, 0].set_ylabel("before")
    return figure


def stability(table: pd.DataFrame):
    """Overlap of every kind under another choice, a row a choice; ticks are the runs, the dotted line is chance."""
    rows = table[["group", "comparison"]].drop_duplicates().reset_index(drop=True)
    figure, axes = plt.subplots(1, len(LABELS), figsize=(13, 0.36 * len(rows) + 1.3), sharey=True)
    for axis, label in zip(axes, LABELS):
        own = table[table["label"] == label]
        for y, row in rows.iterrows():
            marker, colour = MARKERS[row["group"]]
            values = own.loc[own["comparison"] == row["comparison"], "iou"]
            axis.plot(values, np.full(len(values), y + 0.27), "|", color=colour, markersize=7)
            axis.plot(values.mean(), y, marker, color=colour, markersize=8)
        axis.axvline(own["chance"].mean(), color="black", linestyle=":", linewidth=1.4)
        axis.set(title=label, xlabel="overlap (IoU)", xlim=(-0.03, 1.03))
        axis.grid(axis="y", visible=False)
    texts = table.groupby("comparison")["texts"].mean()
    axes[0].set_yticks(rows.index, [f"{name}  ({texts[name]:.0f})" for name in rows["comparison"]])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    axes[0].set_ylabel("what is compared (refusals)")
    return figure


def harm(table: pd.DataFrame, noise: float):
    """Attack success of the tuned models against the part of the SCU that left; a line joins the models of a seed.

    `noise`: what leaves between two halves of the texts.
    """
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for _, own in table.groupby("run"):
        own = own.sort_values("left")
        axis.plot(own["left"] * 100, own["keyword_asr"] * 100, color="#bdbdbd", linewidth=1, zorder=1)
    for condition, own in table.groupby("condition", sort=False):
        colour, marker, _ = STYLES[condition]
        axis.plot(own["left"] * 100, own["keyword_asr"] * 100, marker, color=colour, markersize=9, markeredgewidth=1.6,
                  markerfacecolor="none" if condition.startswith("random") else colour, label=NAMES[condition])
    axis.axvline(noise * 100, color="black", linestyle=":", linewidth=1.4, label=NAMES["halves"])
    axis.set(xlabel="SCU that left their label (%)", ylabel="keyword ASR (%)", ylim=(-4, 104))
    axis.set_xlim(left=0)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
