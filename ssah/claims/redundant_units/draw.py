"""C6: Table 4 as points, answers after a prefill, and how much of the model it takes."""

from functools import partial

import matplotlib.pyplot as plt
import pandas as pd

from ..shared.style import hollow_if_dotted, interval_panels, marked, plain_log
from .read import NAMES

#: Colour, marker and line of a condition; a control is hollow and dotted.
STYLES = {"start": ("#4d4d4d", "o", "-"), "full": ("#000000", "X", "-"), "full slower": ("#000000", "X", ":"),
          "RU": ("#009e73", "^", "-"),
          "random": ("#009e73", "^", ":"), "only SCU": ("#d55e00", "s", "-"),
          "random like SCU": ("#d55e00", "s", ":"), "LoRA": ("#cc79a7", "*", "-")}


style_of = partial(hollow_if_dotted, STYLES)


def table_four(table: pd.DataFrame, points: pd.DataFrame):
    """Table 4: what it buys (three ASR) and costs (accuracy, right answers, divergence); ticks are the seeds."""
    columns = (("ASR", "ASR", "keyword ASR (%)", True), ("strict ASR", "strict ASR", "strict ASR: comply (%)", True),
               ("other ASR", "other ASR", "HarmBench ASR (%)", True), ("accuracy", "accuracy", "accuracy (%)", True),
               ("gold", "gold", "log P(right) (nats)", False),
               ("divergence", "divergence", "KL from base (nats)", False))
    names, star = marked(table, NAMES)
    return interval_panels(table, points, columns, "trained" + star, (18, 0.42 * len(table) + 0.9), style_of=style_of,
                           names=names)[0]


def after_prefill(table: pd.DataFrame, budgets: pd.DataFrame):
    """What answers do against how many tokens of a fulfilment stand before them (`budgets`: Table 4)."""
    names, star = marked(budgets, NAMES)
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), sharey=True)
    columns = {"ASR": "keyword ASR (%)", "strict ASR": "strict ASR: comply (%)", "refused": "refuses (%)"}
    for axis, (column, title) in zip(axes, columns.items()):
        for condition, part in table.groupby("condition", sort=False):
            x = range(len(part))
            axis.plot(x, part[column] * 100, linestyle=STYLES[condition][2], markersize=7, label=names[condition],
                      **style_of(condition))
            axis.fill_between(x, part[f"{column} low"] * 100, part[f"{column} high"] * 100, alpha=0.08,
                              color=STYLES[condition][0], linewidth=0)
        axis.set_xticks(range(part["length"].size), part["length"])
        axis.set(xlabel="tokens of a fulfilment put first", ylabel=title, ylim=(-4, 104))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9,
                  title="trained" + star)
    return figure


def by_share(table: pd.DataFrame):
    """What it buys and what it costs against the share of units that train."""
    columns = (("ASR", 100, "keyword ASR (%)"), ("wiki_perplexity", 1, "Wikipedia perplexity"),
               ("divergence", 1, "KL from base (nats a token)"))
    figure, axes = plt.subplots(1, len(columns), figsize=(14, 4.4))
    for axis, (column, factor, title) in zip(axes, columns):
        for kind in ("random", "RU", "random like SCU", "only SCU", "full"):        # what is filled, on top
            part = table[table["kind"] == kind]
            axis.plot(part["share"] * 100, part[column] * factor, linestyle=STYLES[kind][2], markersize=8,
                      label=NAMES[kind], **style_of(kind))
        missed = table[table["reached"] < 1]
        axis.plot(missed["share"] * 100, missed[column] * factor, "o", markersize=16, markerfacecolor="none",
                  markeredgecolor="#7f7f7f", label="loss missed" if len(missed) else "_")
        plain_log(axis.xaxis)
        axis.set(xlabel="units that train (%)", ylabel=title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure
