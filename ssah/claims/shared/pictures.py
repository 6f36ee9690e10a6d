"""Figures that several claims draw: the paper's table and ours, tuned models, labels of answers."""

from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from . import tables
from .conditions import NAMES, STYLES
from .side_by_side import OURS, PAPER
from .style import (
    LABEL_STYLES,
    PERCENT,
    QUIET,
    THIN,
    WIDTH,
    fill_panels,
    hollow_if_dotted,
    interval_panels,
    marked,
    name_lines,
    plain_log,
)

style_of = partial(hollow_if_dotted, STYLES)

#: Panels of Table 2: column of the table, of the points, title, in per cent?
PANELS = (("ASR", "keyword_asr", "keyword ASR (%)", True),
          ("strict ASR", "strict_asr", "strict ASR: comply (%)", True),
          ("log-odds", "log_odds", "refusal log-odds (nats)", False))


def table_two(table: pd.DataFrame, points: pd.DataFrame):
    """Table 2: keyword ASR, strict ASR and log-odds, a row a condition; ticks are the seeds."""
    names, star = marked(table, NAMES)
    size = (WIDTH, 0.36 * len(table) + 0.9)
    figure, _ = interval_panels(table, points, PANELS, "frozen" + star, size, style_of=style_of,
                                names=names)
    return figure


def by_model(models: dict[str, tuple[pd.DataFrame, pd.DataFrame]], panels, ylabel: str,
             names_of: Callable[[pd.DataFrame], dict[str, str]],
             style_of: Callable[[str], dict] = style_of):
    """A row of panels a model, in each a row a condition: the figure, and its axes (model, panel).

    `models`: name -> a table with intervals, and its points; `names_of(table)`: of its rows.
    """
    heights = [1.2 + 0.3 * len(table) for table, _ in models.values()]
    figure = plt.figure(figsize=(WIDTH, sum(heights)))
    parts = figure.subfigures(len(models), 1, height_ratios=heights, squeeze=False)[:, 0]
    rows = []
    for part, (name, (table, points)) in zip(parts, models.items()):
        axes = part.subplots(1, len(panels), sharey=True)
        fill_panels(axes, table, points, panels, names=names_of(table), style_of=style_of)
        axes[0].set_ylabel(ylabel)
        part.suptitle(name, fontsize=10.5, weight="bold")
        rows.append(axes)
    return figure, np.array(rows)


def tuned_by_model(models: dict[str, tuple[pd.DataFrame, pd.DataFrame]]):
    """`table_two` of several models. `models`: name -> `runs.table_two` and `runs.points`."""
    figure, _ = by_model(models, PANELS, "frozen", lambda table: marked(table, NAMES)[0])
    return figure


def along_training(table: pd.DataFrame, main: tuple[str, ...]):
    """Log-odds (every checkpoint) and keyword ASR (where taken) against the loss to go.

    A column of panels a seed; `table`: of `runs.along`; `main`: the conditions that are told
    apart and named, all others are thin and grey.
    """
    seeds = table["seed"].unique()
    figure, axes = plt.subplots(2, len(seeds), figsize=(WIDTH, 6), sharex=True, sharey="row",
                                squeeze=False)
    for (above, below), seed in zip(axes.T, seeds):
        of_seed = table[table["seed"] == seed]
        _lines(above, of_seed, "log_odds", 1, main)
        _lines(below, of_seed, "keyword_asr", 100, main)
        above.set_title(f"seed {seed}")
    # from left to right; a run that jumped far above the loss of the start is cut off
    furthest = table.loc[table["epoch"] == 0, "to_go"].max()
    axes[0, 0].set_xlim(1.35 * furthest, table["to_go"].min() - 0.08)
    axes[0, 0].set_ylabel("refusal log-odds (nats)")
    axes[1, 0].set(ylabel="keyword ASR (%)", ylim=PERCENT)
    figure.supxlabel("training loss above that of full fine-tuning (nats); "
                     "training goes to the right", fontsize=10)
    _name_conditions(axes[0, -1], table[table["seed"] == seeds[-1]], main)
    return figure


def _name_conditions(axis, of_seed: pd.DataFrame, main: tuple[str, ...]) -> None:
    """The names of the main conditions beside the ends of their lines, and what is grey."""
    last = of_seed.groupby("condition")["log_odds"].last()
    names = {NAMES[condition]: (last[condition], STYLES[condition].colour) for condition in main}
    others = [condition for condition in last.index if condition not in main]
    if others:
        top = axis.get_ylim()[1]
        grey = NAMES[others[0]] if len(others) == 1 else f"the other {len(others)} rows"
        names[f"thin: {grey}"] = (top, QUIET)
    name_lines(axis, names)


def _lines(axis, table: pd.DataFrame, column: str, factor: float, main: tuple[str, ...]) -> None:
    """A line a condition against the loss to go, which ends where the full run ended."""
    for condition, part in table.dropna(subset=column).groupby("condition", sort=False):
        values = part[column] * factor
        if condition in main:
            line = STYLES[condition].line
            size = 5 if line else 3
            axis.plot(part["to_go"], values, linestyle=line, markersize=size, linewidth=1.6,
                      **style_of(condition))
        else:
            axis.plot(part["to_go"], values, **THIN)
    axis.axvline(0, color="#444444", linestyle=":", linewidth=1.4)


def four_labels(table: pd.DataFrame):
    """Stacked bars: how the answers of every condition (a row) divide into the four labels."""
    figure, axis = plt.subplots(figsize=(9, 0.36 * len(table) + 1.1))
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
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
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


# ---- the paper's table and ours --------------------------------------------------------------

#: Whose a mark is: its colour, and what it is called above the picture.
SOURCES = {
    PAPER: ("#0072b2", "the paper, as printed"),
    OURS: ("#d55e00", "ours, with 95 % intervals"),
}
#: Shapes of marks: marker, size in points, whether it is filled.
SHAPES = {
    "before": ("o", 7, False),
    "full": ("X", 8, True),
    "some": ("D", 6.5, True),
    "most": ("^", 8, True),
    "random": ("v", 7, False),
}
#: The height of a row in inches, and of what stands above and below all rows.
ROW = 0.225
AROUND = 1.4
#: How many rows a row with intervals is high; its marks stand below each other.
WITH_INTERVALS = 2.2
SPREAD = 1.5


def paper_and_ours(table: pd.DataFrame, marks: dict[str, str], scales: dict[str, str]):
    """The paper's printed rows and ours on the same axes: a panel a measure, a row a model.

    `table`: of `side_by_side.table_of`. `marks`: what is marked -> its shape (of `SHAPES`).
    `scales`: panel -> "percent" (0 to 100), "log", "change" (with a line at 0) or "free".
    """
    lines = row_places(table)
    bottom = lines["place"].iloc[-1] + lines["height"].iloc[-1] / 2
    figure, axes = plt.subplots(1, len(scales), figsize=(WIDTH, ROW * bottom + AROUND),
                                sharey=True, squeeze=False)
    for axis, (panel, scale) in zip(axes[0], scales.items()):
        of_panel = table[table["panel"] == panel]
        for line in lines.itertuples():
            of_group = of_panel[of_panel["group"] == line.group]
            _row_of_marks(axis, of_group[of_group["row"] == line.row], line.place, marks)
        axis.set_xlabel(panel)
        _scale(axis, scale)
    _row_names(axes[0], lines)
    axes[0, 0].set_ylim(bottom + 0.1, -0.6)
    _key(figure, marks)
    return figure


def row_places(table: pd.DataFrame) -> pd.DataFrame:
    """Every line from the top: group, row, source, place (its middle, in rows), and height.

    A group begins with a line for its name, of which row and source are empty.
    """
    lines = []
    top = -0.5
    for group, of_group in table.groupby("group", sort=False):
        lines.append((group, "", "", top + 0.5, 1))
        top += 1
        for row, of_row in of_group.groupby("row", sort=False):
            height = WITH_INTERVALS if of_row["low"].notna().any() else 1
            lines.append((group, row, of_row["source"].iloc[0], top + height / 2, height))
            top += height
    return pd.DataFrame(lines, columns=["group", "row", "source", "place", "height"])


def _row_of_marks(axis, points: pd.DataFrame, place: float, marks: dict[str, str]) -> None:
    """The marks of one row: on one line, or with intervals below each other."""
    has_intervals = points["low"].notna().any()
    apart = SPREAD / max(len(points) - 1, 1) if has_intervals else 0
    first = place - SPREAD / 2 if has_intervals and len(points) > 1 else place
    for number, point in enumerate(points.itertuples()):
        y = first + number * apart
        colour, _ = SOURCES[point.source]
        marker, size, filled = SHAPES[marks[point.mark]]
        axis.plot([point.low, point.high], [y, y], color=colour, linewidth=2, alpha=0.5)
        axis.plot(point.value, y, marker, color=colour, markersize=size, markeredgecolor=colour,
                  markeredgewidth=0 if filled else 1.3,
                  markerfacecolor=colour if filled else "white")
    if not has_intervals and len(points):
        ends = [points["value"].min(), points["value"].max()]
        axis.plot(ends, [place, place], color=SOURCES[PAPER][0], linewidth=0.8, zorder=1)


def _scale(axis, scale: str) -> None:
    """What kind of horizontal axis a panel has."""
    if scale == "percent":
        axis.set_xlim(*PERCENT)
    if scale == "change":
        axis.axvline(0, color="#444444", linewidth=1)
    if scale == "log":
        plain_log(axis.xaxis, (1, 3))


def _row_names(axes, lines: pd.DataFrame) -> None:
    """Names at the left, groups bold, rows in the colour of whose they are; no line at a group."""
    axes[0].set_yticks(lines["place"], lines["row"].where(lines["row"] != "", lines["group"]))
    for label, source in zip(axes[0].get_yticklabels(), lines["source"]):
        if source:
            label.set_color(SOURCES[source][0])
        else:
            label.set_fontweight("bold")
    for axis in axes:
        for tick, source in zip(axis.yaxis.get_major_ticks(), lines["source"]):
            tick.gridline.set_visible(source != "")


def _key(figure, marks: dict[str, str]) -> None:
    """What colours and shapes mean, above all panels."""
    handles = []
    for source in SOURCES:
        colour, name = SOURCES[source]
        handles.append(plt.Line2D([], [], color=colour, linewidth=4, label=name))
    for mark, shape in marks.items():
        marker, size, filled = SHAPES[shape]
        handles.append(plt.Line2D([], [], linestyle="", marker=marker, markersize=size,
                                  color="#444444", label=mark,
                                  markerfacecolor="#444444" if filled else "white"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
