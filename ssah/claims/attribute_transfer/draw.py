"""C3: flows as matrices, how stable labels are, and whether they go with the harm."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..shared.conditions import STYLES
from ..shared.style import PERCENT, WIDTH

#: Marker and colour of a group of comparisons.
MARKERS = {"disjoint": ("o", "#000000"), "nested": ("D", "#7f7f7f"), "other": ("^", "#7b3294")}


def matrices(flows: dict[str, pd.DataFrame]):
    """The flows as matrices, a panel each: per cent of the row, below it per cent of all units.

    `flows`: title -> shares or counts, before x after.
    """
    import seaborn as sns       # slow to import

    size = (min(WIDTH, 3.1 * len(flows)), 2.9)
    figure, axes = plt.subplots(1, len(flows), figsize=size, sharey=True, squeeze=False)
    for axis, (title, counts) in zip(axes[0], flows.items()):
        of_all = counts / counts.to_numpy().sum() * 100
        sizes = of_all.sum(axis="columns").replace(0, np.nan)
        of_row = of_all.div(sizes, axis="index") * 100
        texts = np.vectorize(cell_text, otypes=[object])(of_row, of_all)
        sns.heatmap(
            of_row.fillna(0), ax=axis,
            cmap="Blues", vmin=0, vmax=100,
            annot=texts, fmt="", annot_kws={"size": 8},
            linewidths=0.6, cbar=False, square=True)
        axis.set(title=fill(title, 20), xlabel="after", ylabel="")
        axis.tick_params(axis="y", rotation=0)
    axes[0, 0].set_ylabel("before")
    return figure


def cell_text(of_row: float, of_all: float) -> str:
    """What a cell of `matrices` says, from per cents; a kind without units has no row."""
    if np.isnan(of_row):
        return "–"
    return f"{of_row:.0f}\n({of_all:.2f})"


def stability(table: pd.DataFrame):
    """Overlap of every kind under another choice, a row a choice.

    Ticks are the runs, the dotted line is chance. `table`: that of `read.stability`.
    """
    choices = table.groupby(["group", "title"], sort=False)["texts"].mean().reset_index()
    labels = table["label"].unique()
    size = (WIDTH, 0.34 * len(choices) + 1.3)
    figure, axes = plt.subplots(1, len(labels), figsize=size, sharey=True)
    for axis, label in zip(axes, labels):
        of_label = table[table["label"] == label]
        for y, choice in choices.iterrows():
            marker, colour = MARKERS[choice["group"]]
            overlaps = of_label.loc[of_label["title"] == choice["title"], "iou"]
            ticks_y = np.full(len(overlaps), y + 0.27)
            axis.plot(overlaps, ticks_y, "|", color=colour, markersize=7)
            axis.plot(overlaps.mean(), y, marker, color=colour, markersize=8)
        chance = of_label["chance"].mean()
        axis.axvline(chance, color="black", linestyle=":", linewidth=1.4)
        axis.set(title=label, xlabel="overlap (IoU)", xlim=(-0.03, 1.03))
        axis.grid(axis="y", visible=False)
    texts = choices["texts"].map("{:.0f}".format)
    names = choices["title"] + "  (" + texts + ")"
    axes[0].set_yticks(choices.index, names)
    axes[0].set_ylim(len(choices) - 0.4, -0.6)
    axes[0].set_ylabel("what is compared (refusals)")
    return figure


def harm(table: pd.DataFrame, noise: pd.DataFrame):
    """Attack success of the tuned models against the part of the SCU that left.

    A line joins the models of a seed. `table`: that of `read.harm`; `noise`: rows of `changes` with
    what leaves between two halves of the texts, drawn as a dotted line.
    """
    per_cent = table.assign(left=table["left"] * 100, attacks=table["keyword_asr"] * 100)
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for _, models in per_cent.groupby("run"):
        models = models.sort_values("left")
        axis.plot(models["left"], models["attacks"], color="#bdbdbd", linewidth=1, zorder=1)
    for (condition, title), models in per_cent.groupby(["condition", "title"], sort=False):
        look = STYLES[condition]
        axis.plot(
            models["left"], models["attacks"], look.marker,
            color=look.colour, markerfacecolor="none" if look.line == ":" else look.colour,
            markersize=9, markeredgewidth=1.6, label=title)
    axis.axvline(
        noise["left"].mean() * 100,
        color="black", linestyle=":", linewidth=1.4, label=noise["title"].iloc[0])
    axis.set(xlabel="SCU that left their label (%)", ylabel="keyword ASR (%)", ylim=PERCENT)
    axis.set_xlim(left=0)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def turnover(models: dict[str, pd.DataFrame], titles: dict[str, str]):
    """SCU with another label on other texts, and attack success: a row of panels a model.

    A line joins what was made of one seed's model; squares are means. `models`: name -> a table of
    `turned.turned`; `titles`: of its column model, in their order.
    """
    measures = {"left": "SCU with another label\non the other half of the texts (%)",
                "keyword_asr": "keyword ASR (%)"}
    figure, axes = plt.subplots(len(models), 2, figsize=(WIDTH, 0.4 + 2.2 * len(models)),
                                sharex="col", sharey=True, squeeze=False)
    places = {model: place for place, model in enumerate(titles)}
    for row, (name, table) in zip(axes, models.items()):
        for axis, column in zip(row, measures):
            for _, of_seed in table.groupby("seed"):
                axis.plot(of_seed[column] * 100, of_seed["model"].map(places), "-o",
                          color="#9e9e9e", markersize=4, linewidth=1, zorder=1)
            means = table.groupby("model")[column].mean()
            axis.plot(means * 100, means.index.map(places), "s", color="black", markersize=9,
                      markerfacecolor="none", markeredgewidth=1.8)
            axis.set_xlim(PERCENT)
            axis.set_yticks(list(places.values()), list(titles.values()))
        row[0].set_ylim(len(places) - 0.6, -0.4)
        row[0].set_title(name, loc="left")
    for axis, title in zip(axes[-1], measures.values()):
        axis.set_xlabel(title)
    return figure
