"""Figures that several claims draw: tuned models, and the labels of answers."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from . import tables
from .conditions import NAMES, STYLES
from .style import LABEL_STYLES, hollow_if_dotted, interval_panels, marked

style_of = partial(hollow_if_dotted, STYLES)

#: Panels of Table 2: column of the table, of the points, title, in per cent?
PANELS = (("ASR", "keyword_asr", "keyword ASR (%)", True),
          ("strict ASR", "strict_asr", "strict ASR: comply (%)", True),
          ("log-odds", "log_odds", "refusal log-odds (nats)", False))


def table_two(table: pd.DataFrame, points: pd.DataFrame):
    """Table 2: keyword ASR, strict ASR and log-odds, a row a condition; ticks are the seeds."""
    names, star = marked(table, NAMES)
    size = (13, 0.42 * len(table) + 0.9)
    figure, _ = interval_panels(table, points, PANELS, "frozen" + star, size, style_of=style_of,
                                names=names)
    return figure


def along_training(table: pd.DataFrame):
    """Log-odds (every checkpoint) and keyword ASR (where taken) against the loss to go.

    A column of panels a seed; `table`: of `runs.along`.
    """
    seeds = table["seed"].unique()
    figure, axes = plt.subplots(2, len(seeds), figsize=(max(4.3 * len(seeds), 7), 7.5),
                                sharex=True, sharey="row", squeeze=False)
    for (above, below), seed in zip(axes.T, seeds):
        of_seed = table[table["seed"] == seed]
        _lines(above, of_seed, "log_odds", factor=1)
        _lines(below, of_seed, "keyword_asr", factor=100)
        above.set_title(f"seed {seed}")
    # from left to right; a run that jumped far above the loss of the start is cut off
    furthest = table.loc[table["epoch"] == 0, "to_go"].max()
    axes[0, 0].set_xlim(1.35 * furthest, table["to_go"].min() - 0.08)
    axes[0, 0].set_ylabel("refusal log-odds (nats)")
    axes[1, 0].set_ylabel("keyword ASR (%)")
    figure.supxlabel("training loss above that of full fine-tuning (nats); "
                     "training goes to the right", fontsize=11)
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9,
                  title="frozen")
    return figure


def _lines(axis, table: pd.DataFrame, column: str, factor: float) -> None:
    """A line a condition against the loss to go, which ends where the full run ended."""
    for condition, part in table.dropna(subset=column).groupby("condition", sort=False):
        axis.plot(
            part["to_go"],
            part[column] * factor,
            linestyle=STYLES[condition].line,
            markersize=5,
            linewidth=1.3,
            label=NAMES[condition],
            **style_of(condition))
    axis.axvline(0, color="#444444", linestyle=":", linewidth=1.4)


def four_labels(table: pd.DataFrame):
    """Stacked bars: how the answers of every condition (a row) divide into the four labels."""
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(table) + 1.5))
    left = np.zeros(len(table))
    for label, (colour, hatch) in LABEL_STYLES.items():
        values = table[label].to_numpy() * 100
        axis.barh(
            range(len(table)),
            values,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.8,
            label=label)
        for row, (start, value) in enumerate(zip(left, values)):
            if value >= 6:
                _inside(axis, start + value / 2, row, value, label)
        left += values
    axis.set_yticks(range(len(table)), [tables.NAMES.get(name, name) for name in table.index])
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="answers (%)")
    axis.grid(visible=False)
    axis.legend(ncols=len(LABEL_STYLES), loc="upper center",
                bbox_to_anchor=(0.5, -0.18 - 0.5 / len(table)), frameon=False)
    return figure


def _inside(axis, x: float, y: float, value: float, label: str) -> None:
    """The number in a part of a bar; on a hatch it has a ground of its own."""
    _, hatch = LABEL_STYLES[label]
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    axis.text(
        x,
        y,
        f"{value:.0f}",
        ha="center",
        va="center",
        fontsize=9,
        color="white" if label in ("refuse", "comply") else "black",
        bbox=ground if hatch else None)


