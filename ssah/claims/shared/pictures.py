"""Figures that several claims draw: tuned models, labels of answers, flows between kinds."""

from functools import partial
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from ...classification import LABELS
from . import tables
from .runs import NAMES
from .style import COLOURS, LABEL_STYLES, hollow_if_dotted, interval_panels, marked

#: Colour, marker and line of a condition; random twins are hollow and dotted.
STYLES = {"start": ("#4d4d4d", "o", "-"), "full": ("#000000", "X", "-"), "full slower": ("#7f7f7f", "X", "--"),
          "SCU": ("#d55e00", "s", "-"), "SCU + top CU": ("#c9a400", "D", "-"), "random small": ("#c9a400", "D", ":"),
          "SCU + all CU": ("#0072b2", "^", "-"), "random large": ("#0072b2", "^", ":"),
          "random large without SCU": ("#56b4e9", "v", ":"), "SCU + all CU + rest": ("#7b3294", "P", "-"),
          "least safety": ("#b2182b", "<", "-."), "LoRA": ("#cc79a7", "*", "-"), "LLaMA-Adapter": ("#a6761d", "h", ""),
          "SNIP difference": ("#009e73", "p", "-"), "random weights": ("#009e73", "p", ":")}


style_of = partial(hollow_if_dotted, STYLES)


def table_two(table: pd.DataFrame, points: pd.DataFrame):
    """Table 2: keyword ASR, strict ASR and log-odds, a row a condition; ticks are the seeds."""
    columns = (("ASR", "keyword_asr", "keyword ASR (%)", True),
               ("strict ASR", "strict_asr", "strict ASR: comply (%)", True),
               ("log-odds", "log_odds", "refusal log-odds (nats)", False))
    names, star = marked(table, NAMES)
    return interval_panels(table, points, columns, "frozen" + star, (13, 0.42 * len(table) + 0.9), style_of=style_of,
                           names=names)[0]


def along_training(table: pd.DataFrame):
    """Log-odds (every checkpoint) and keyword ASR (where taken) against the loss to go; a column a seed."""
    seeds = table["seed"].unique()
    figure, axes = plt.subplots(2, len(seeds), figsize=(max(4.3 * len(seeds), 7), 7.5), sharex=True, sharey="row",
                                squeeze=False)
    for row, column, factor in zip(axes, ("log_odds", "keyword_asr"), (1, 100)):
        for axis, seed in zip(row, seeds):
            for condition, part in table[table["seed"] == seed].dropna(subset=column).groupby("condition", sort=False):
                axis.plot(part["to_go"], part[column] * factor, linestyle=STYLES[condition][2], markersize=5,
                          linewidth=1.3, label=NAMES[condition], **style_of(condition))
            axis.axvline(0, color="#444444", linestyle=":", linewidth=1.4)
    for axis, seed in zip(axes[0], seeds):
        axis.set_title(f"seed {seed}")
    # from left to right; a run that jumped far above the loss of the start is cut off
    axes[0, 0].set_xlim(1.35 * table.loc[table["epoch"] == 0, "to_go"].max(), table["to_go"].min() - 0.08)
    axes[0, 0].set_ylabel("refusal log-odds (nats)")
    axes[1, 0].set_ylabel("keyword ASR (%)")
    figure.supxlabel("training loss above that of full fine-tuning (nats); training goes to the right", fontsize=11)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False,
                  fontsize=9, title="frozen")
    return figure


def four_labels(table: pd.DataFrame):
    """Stacked bars: how the answers of every condition (a row) divide into the four labels."""
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(table) + 1.5))
    left = np.zeros(len(table))
    for label, (colour, hatch) in LABEL_STYLES.items():
        values = table[label].to_numpy() * 100
        axis.barh(range(len(table)), values, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.8,
                  label=label)
        for y, (start, value) in enumerate(zip(left, values)):
            if value >= 6:
                axis.text(start + value / 2, y, f"{value:.0f}", ha="center", va="center", fontsize=9,
                          color="white" if label in ("refuse", "comply") else "black", bbox=None if not hatch else
                          {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8})
        left += values
    axis.set_yticks(range(len(table)), [tables.NAMES.get(c, c) for c in table.index])
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="answers (%)")
    axis.grid(visible=False)
    axis.legend(ncols=len(LABEL_STYLES), loc="upper center", bbox_to_anchor=(0.5, -0.18 - 0.5 / len(table)),
                frameon=False)
    return figure
