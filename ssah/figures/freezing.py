"""C4: Table 2 as points, and attack success and log-odds against training loss along the runs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..tables.freezing import NAMES

#: Colour, marker and line of a condition; random twins are hollow and dotted.
STYLES = {"start": ("#4d4d4d", "o", "-"), "full": ("#000000", "X", "-"), "full slower": ("#7f7f7f", "X", "--"),
          "SCU": ("#d55e00", "s", "-"), "SCU + top CU": ("#c9a400", "D", "-"), "random small": ("#c9a400", "D", ":"),
          "SCU + all CU": ("#0072b2", "^", "-"), "random large": ("#0072b2", "^", ":"),
          "random large without SCU": ("#56b4e9", "v", ":"), "SCU + all CU + rest": ("#7b3294", "P", "-")}


def _face(condition: str) -> str:
    return "white" if condition.startswith("random") else STYLES[condition][0]


def table_two(table: pd.DataFrame, points: pd.DataFrame):
    """Table 2: keyword ASR, strict ASR and log-odds, a row a condition; ticks are the seeds."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 5), sharey=True)
    panels = (("ASR", "keyword_asr", "keyword ASR (%)", 100),
              ("strict ASR", "strict_asr", "strict ASR: comply (%)", 100),
              ("log-odds", "log_odds", "refusal log-odds (nats)", 1))
    for axis, (column, point, title, factor) in zip(axes, panels):
        for y, (condition, row) in enumerate(table.iterrows()):
            colour, marker, _ = STYLES[condition]
            interval = np.array([row[f"{column} low"], row[f"{column} high"]]) * factor
            axis.plot(interval, [y, y], color=colour, linewidth=2, alpha=0.7)
            own = points.loc[points["condition"] == condition, point] * factor
            axis.plot(own, np.full(len(own), y + 0.26), "|", color=colour, markersize=7)
            axis.plot(row[column] * factor, y, marker, color=colour, markerfacecolor=_face(condition), markersize=9,
                      markeredgewidth=1.6)
        axis.set_xlabel(title)
        axis.grid(axis="y", visible=False)
        if factor == 100:
            axis.set_xlim(-4, 104)
    reached = ["" if row["reached"] == 1 else " *" for _, row in table.iterrows()]
    axes[0].set_yticks(range(len(table)), [NAMES[c] + r for c, r in zip(table.index, reached)])
    axes[0].set_ylim(len(table) - 0.4, -0.6)
    axes[0].set_ylabel("frozen" + (" (* loss not reached in every seed)" if any(reached) else ""))
    return figure


def along_training(table: pd.DataFrame):
    """Log-odds (every checkpoint) and keyword ASR (where taken) against the loss to go; a line a condition and seed."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharex=True)
    for (condition, seed), part in table.groupby(["condition", "seed"], sort=False):
        colour, marker, style = STYLES[condition]
        for axis, column, factor in zip(axes, ("log_odds", "keyword_asr"), (1, 100)):
            shown = part.dropna(subset=column)
            axis.plot(shown["to_go"], shown[column] * factor, style, marker=marker, color=colour, markersize=5,
                      linewidth=1.3, markerfacecolor=_face(condition),
                      label=NAMES[condition] if seed == table["seed"].iloc[0] else "_")
    for axis in axes:
        axis.axvline(0, color="#444444", linestyle=":", linewidth=1.4)
        axis.set_xlabel("training loss above that of full fine-tuning (nats); training goes to the right")
    axes[0].invert_xaxis()
    axes[0].set_ylabel("refusal log-odds (nats)")
    axes[1].set_ylabel("keyword ASR (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure
