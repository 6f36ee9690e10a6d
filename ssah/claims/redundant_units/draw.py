"""C6: Table 4 as points, answers after a prefill, and how much of the model it takes."""

from functools import partial

import matplotlib.pyplot as plt
import pandas as pd

from ..shared.style import (
    LOOKS,
    PERCENT,
    Look,
    hollow_if_dotted,
    interval_panels,
    legend_above,
    marked,
    plain_log,
)

#: Table 4: column of the table, of the points, title, whether in per cent.
TABLE_4 = (
    ("ASR", "ASR", "keyword ASR (%)", True),
    ("strict ASR", "strict ASR", "strict ASR: comply (%)", True),
    ("other ASR", "other ASR", "HarmBench ASR (%)", True),
    ("accuracy", "accuracy", "accuracy (%)", True),
    ("gold", "gold", "log P(right) (nats)", False),
    ("divergence", "divergence", "KL from base (nats)", False))
#: After a prefill: column, title.
AFTER_PREFILL = (
    ("ASR", "keyword ASR (%)"),
    ("strict ASR", "strict ASR: comply (%)"),
    ("refused", "refuses (%)"))
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
    """Table 4: what alignment buys (three ASR) and costs; ticks are the seeds."""
    names, star = marked(table, dict(table["title"]))
    style_of = partial(hollow_if_dotted, looks_of(table))
    size = (18, 0.42 * len(table) + 0.9)
    figure, _ = interval_panels(table, points, TABLE_4, "trained" + star, size,
                                style_of=style_of, names=names)
    return figure


def after_prefill(table: pd.DataFrame, budgets: pd.DataFrame):
    """What answers do against how many tokens of a fulfilment stand before them.

    `budgets`: Table 4, whose rows say how the conditions are called and drawn.
    """
    names, star = marked(budgets, dict(budgets["title"]))
    looks = looks_of(budgets)
    lengths = table["length"].unique()
    figure, axes = plt.subplots(1, len(AFTER_PREFILL), figsize=(14, 4.6), sharey=True)
    for axis, (column, title) in zip(axes, AFTER_PREFILL):
        for condition, part in table.groupby("condition", sort=False):
            look = looks[condition]
            x = range(len(part))        # the lengths are far from even
            mean = part[column] * 100
            low = part[f"{column} low"] * 100
            high = part[f"{column} high"] * 100
            style = hollow_if_dotted(looks, condition)
            axis.plot(x, mean, linestyle=look.line, markersize=7, label=names[condition], **style)
            axis.fill_between(x, low, high, alpha=0.08, color=look.colour, linewidth=0)
        axis.set_xticks(range(len(lengths)), lengths)
        axis.set(xlabel="tokens of a fulfilment put first", ylabel=title, ylim=PERCENT)
    legend_above(figure, axes[0], title="trained" + star)
    return figure


def by_share(table: pd.DataFrame):
    """What it buys and what it costs against the share of units that train."""
    figure, axes = plt.subplots(1, len(BY_SHARE), figsize=(14, 4.4))
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
