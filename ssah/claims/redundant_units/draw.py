"""C6: Table 4 as points, answers after a prefill, and how much of the model it takes."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..shared.style import (
    LOOKS,
    PERCENT,
    QUIET,
    THIN,
    WIDTH,
    Look,
    fill_panels,
    hollow_if_dotted,
    legend_above,
    marked,
    name_lines,
    plain_log,
)

#: Table 4: column of the table, of the points, title, whether in per cent.
BUYS = (
    ("ASR", "ASR", "keyword ASR (%)", True),
    ("strict ASR", "strict ASR", "strict ASR: comply (%)", True),
    ("other ASR", "other ASR", "HarmBench ASR (%)", True))
COSTS = (
    ("accuracy", "accuracy", "accuracy (%)", True),
    ("gold", "gold", "log P(right) (nats)", False),
    ("divergence", "divergence", "KL from base (nats)", False))
#: After a prefill: column, title.
AFTER_PREFILL = (
    ("ASR", "no refusal keyword"),
    ("strict ASR", "complies"),
    ("refused", "refuses"))
#: The conditions that are told apart there, and how far they stand aside of each other (lengths).
MAIN = ("full", "RU", "random", "only SCU")
ASIDE = 0.1
#: By share: column, factor, title.
BY_SHARE = (
    ("ASR", 100, "keyword ASR (%)"),
    ("wiki_perplexity", 1, "Wikipedia perplexity"),
    ("divergence", 1, "KL from base (nats a token)"))
#: The kinds that `by_share` draws: what is filled last, so that it lies on top.
KINDS = ("random", "RU", "random like SCU", "only SCU", "full")


def looks_of(table: pd.DataFrame) -> dict[str, Look]:
    """Condition (a row) -> its look."""
    return {condition: LOOKS[name] for condition, name in table["look"].items()}


def table_four(table: pd.DataFrame, points: pd.DataFrame):
    """Table 4: what alignment buys (above: three ASR) and costs (below); ticks are the seeds."""
    names, star = marked(table, dict(table["title"]))
    style_of = partial(hollow_if_dotted, looks_of(table))
    parts = [[column for column in columns if column[0] in table] for columns in (BUYS, COSTS)]
    figure = plt.figure(figsize=(WIDTH, 0.68 * len(table) + 1.6), layout="constrained")
    for part, columns in zip(figure.subfigures(2, 1), parts):
        axes = part.subplots(1, len(columns), sharey=True)
        fill_panels(axes, table, points, columns, style_of=style_of, names=names)
        axes[0].set_ylabel("trained" + star)
    return figure


def after_prefill(table: pd.DataFrame, budgets: pd.DataFrame):
    """What answers do against how many tokens of a fulfilment stand before them.

    `budgets`: Table 4, whose rows say how the conditions are called and drawn; those of `MAIN` are
    named and have intervals, all others are thin and grey.
    """
    names, star = marked(budgets, dict(budgets["title"]))
    looks = looks_of(budgets)
    lengths = table["length"].unique()
    figure, axes = plt.subplots(1, len(AFTER_PREFILL), figsize=(WIDTH, 4), sharey=True)
    for axis, (column, title) in zip(axes, AFTER_PREFILL):
        for condition, part in table.groupby("condition", sort=False):
            if condition in MAIN:
                _with_intervals(axis, part, column, looks, condition)
            else:
                axis.plot(range(len(part)), part[column] * 100, **THIN)
        axis.set_xticks(range(len(lengths)), lengths)
        axis.set(title=title, ylim=PERCENT)
    axes[0].set_ylabel("answers (%)")
    figure.supxlabel("tokens of a fulfilment put first", fontsize=10)
    last = table[table["length"] == lengths[-1]].set_index("condition")["refused"] * 100
    ends = {names[condition]: (last[condition], looks[condition].colour) for condition in MAIN}
    ends[f"thin: all other rows{star}"] = (PERCENT[1], QUIET)
    name_lines(axes[-1], ends)
    return figure


def _with_intervals(axis, part: pd.DataFrame, column: str, looks: dict[str, Look],
                    condition: str) -> None:
    """One line with its intervals, a little aside of the others'."""
    aside = MAIN.index(condition) - (len(MAIN) - 1) / 2
    x = np.arange(len(part)) + ASIDE * aside        # the lengths are far from even
    mean = part[column] * 100
    low = part[f"{column} low"] * 100
    high = part[f"{column} high"] * 100
    style = hollow_if_dotted(looks, condition)
    axis.vlines(x, low, high, color=style["color"], linewidth=1.2, alpha=0.5)
    axis.plot(x, mean, linestyle=looks[condition].line, markersize=6, **style)


def by_share(table: pd.DataFrame):
    """What it buys and what it costs against the share of units that train."""
    figure, axes = plt.subplots(1, len(BY_SHARE), figsize=(WIDTH, 3.8))
    for axis, (column, factor, title) in zip(axes, BY_SHARE):
        for kind in KINDS:
            part = table[table["kind"] == kind]
            looks = looks_of(part.set_index("kind"))
            style = hollow_if_dotted(looks, kind)
            axis.plot(part["share"] * 100, part[column] * factor, linestyle=looks[kind].line,
                      markersize=8, label=part["title"].iloc[0], **style)
        ring_missed(axis, table, column, factor)
        plain_log(axis.xaxis)
        axis.set(xlabel="units that train (%)", ylabel=title)
    legend_above(figure, axes[0])
    return figure


def ring_missed(axis, table: pd.DataFrame, column: str, factor: float) -> None:
    """A ring around every run that missed the loss."""
    missed = table[table["reached"] < 1]
    label = "loss missed" if len(missed) else "_"       # without a line in the legend
    axis.plot(missed["share"] * 100, missed[column] * factor, "o", markersize=16,
              markerfacecolor="none", markeredgecolor="#7f7f7f", label=label)
