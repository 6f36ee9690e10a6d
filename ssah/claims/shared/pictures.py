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
from .conditions import NAMES, STYLES
from .style import COLOURS, LABEL_STYLES, hollow_if_dotted, interval_panels, marked

BAR, GAP = 0.07, 0.035      # width of a bar, space between two, of a panel that is 1 wide and 1 high
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
