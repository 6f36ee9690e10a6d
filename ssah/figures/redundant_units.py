"""C6: Table 4 as points, answers after a prefill, and how much of the model it takes."""

import matplotlib.pyplot as plt
import pandas as pd

from ..tables.redundant_units import NAMES
from .style import interval_panels, marked

#: Colour, marker and line of a condition; the random twin is hollow and dotted.
STYLES = {"start": ("#4d4d4d", "o", "-"), "full": ("#000000", "X", "-"), "RU": ("#009e73", "^", "-"),
          "random": ("#009e73", "^", ":"), "only SCU": ("#d55e00", "s", "-"), "LoRA": ("#cc79a7", "*", "-")}


def style_of(condition: str) -> dict:
    """Colour and marker of a condition; random units are hollow."""
    colour, marker, _ = STYLES[condition]
    return {"color": colour, "marker": marker, "markerfacecolor": "white" if condition == "random" else colour}


def table_four(table: pd.DataFrame, points: pd.DataFrame):
    """Table 4: what it buys (keyword and strict ASR) and what it costs (accuracy, divergence); ticks are the seeds."""
    columns = (("ASR", "ASR", "keyword ASR (%)", True), ("strict ASR", "strict ASR", "strict ASR: comply (%)", True),
               ("accuracy", "accuracy", "accuracy (%)", True),
               ("divergence", "divergence", "KL from base (nats)", False))
    names, star = marked(table, NAMES)
    return interval_panels(table, points, columns, "trained" + star, (14, 0.42 * len(table) + 0.9), style_of=style_of,
                           names=names)[0]


def after_prefill(table: pd.DataFrame, budgets: pd.DataFrame):
    """Keyword and strict ASR against how many tokens of a fulfilment stand before the answer (`budgets`: Table 4)."""
    names, star = marked(budgets, NAMES)
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.6), sharey=True)
    for axis, column, title in zip(axes, ("ASR", "strict ASR"), ("keyword ASR (%)", "strict ASR: comply (%)")):
        for condition, part in table.groupby("condition", sort=False):
            x = range(len(part))
            axis.plot(x, part[column] * 100, linestyle=STYLES[condition][2], markersize=7, label=names[condition],
                      **style_of(condition))
            axis.fill_between(x, part[f"{column} low"] * 100, part[f"{column} high"] * 100, alpha=0.08,
                              color=STYLES[condition][0], linewidth=0)
        axis.set_xticks(range(part["length"].size), part["length"])
        axis.set(xlabel="tokens of a fulfilment put before the answer", ylabel=title, ylim=(-4, 104))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9,
                  title="trained" + star)
    return figure


def by_share(table: pd.DataFrame):
    """Keyword ASR and divergence from the base model against the share of units that trains."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.2))
    for kind in ("random", "RU"):       # RU on top
        part = table[table["kind"] == kind]
        missed = part[part["reached"] < 1]
        for axis, column, factor in zip(axes, ("ASR", "divergence"), (100, 1)):
            axis.plot(part["share"] * 100, part[column] * factor, linestyle=STYLES[kind][2], markersize=8,
                      label=NAMES[kind], **style_of(kind))
            axis.plot(missed["share"] * 100, missed[column] * factor, "o", markersize=16, markerfacecolor="none",
                      markeredgecolor="#7f7f7f", label="_" if kind == "random" else "grey ring: loss missed")
    axes[0].set(xlabel="units that train (%)", ylabel="keyword ASR (%)", ylim=(-4, 104))
    axes[1].set(xlabel="units that train (%)", ylabel="KL from base (nats a token)")
    axes[1].legend(frameon=False)
    return figure
