"""C3: flows between labels as ribbons and as matrices, how stable labels are, and whether they go with the harm."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ...classification import LABELS
from ..shared.flows import NAMES
from ..shared.pictures import STYLES

MARKERS = {"disjoint": ("o", "#000000"), "nested": ("D", "#7f7f7f"), "other": ("^", "#7b3294")}


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
