"""One style, one palette, and the parts that several figures share.

The palette is Okabe and Ito's with a grey, a gold and a violet, told apart also in greyscale by marker and hatch.
Every figure carries a label of origin: *paper-reported*, *recomputed here* (model, n, seeds) or *toy*.
"""

import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ...inputs import archives
from .tables import NAMES

COLOURS = {"none": "#4d4d4d", "SCU": "#d55e00", "UCU": "#0072b2", "CU": "#c9a400", "RU": "#009e73",
           "direction": "#7b3294"}
MARKERS = {"none": "o", "SCU": "s", "UCU": "D", "RU": "^", "direction": "P"}
LABEL_STYLES = {"refuse": ("#2b6a99", ""), "evasive": ("#9ecae1", "///"), "incoherent": ("#d9d9d9", "..."),
                "comply": ("#d55e00", "")}


def use_style() -> None:
    """The look of all figures; called by every notebook once."""
    sns.set_theme(style="whitegrid", font="DejaVu Sans")
    matplotlib.rcParams.update({
        "figure.dpi": 100, "savefig.dpi": 160, "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11,
        "legend.fontsize": 10, "svg.hashsalt": "ssah", "svg.fonttype": "path", "axes.titleweight": "bold",
        "figure.constrained_layout.use": True, "grid.linewidth": 0.6, "axes.edgecolor": "#444444"})


def save(figure, name: str, origin: str) -> None:
    """Stamp the label of origin and write ``NAME.png`` and ``NAME.svg`` to ``figures/`` (or ``SSAH_FIGURES``)."""
    figure.text(0.005, -0.01, origin, fontsize=8.5, color="#444444", ha="left", va="top")
    folder = Path(os.environ.get("SSAH_FIGURES") or archives.REPOSITORY / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", bbox_inches="tight", metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})


def recomputed(lab, n: str, seeds: int | None = None) -> str:
    """Label of origin for what this repository computed; `seeds`: how many, if not all of the lab's."""
    seeds = len(lab.seeds) if seeds is None else seeds
    return f"recomputed here: {lab.profile.model.label}; {n}; {seeds} seed{'s' if seeds > 1 else ''}"


def plain_log(axis) -> None:
    """Make an axis (``ax.xaxis`` or ``ax.yaxis``) logarithmic, with plain numbers at 1, 2, 5, 10, ..."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def style_of(condition: str) -> dict:
    """Colour and marker of a condition; matched random units are the hollow twin of their set."""
    name = condition.removeprefix("random ")
    return {"color": COLOURS[name], "marker": MARKERS[name],
            "markerfacecolor": COLOURS[name] if name == condition else "white"}


def hollow_if_dotted(styles: dict[str, tuple], condition: str) -> dict:
    """Colour and marker of a condition in `styles` (colour, marker, line), hollow where its line is dotted."""
    colour, marker, line = styles[condition]
    return {"color": colour, "marker": marker, "markerfacecolor": "white" if line == ":" else colour}


def intervals(axis, table: pd.DataFrame, column: str, points: pd.DataFrame | None = None, *,
              percent: bool = True, style_of=style_of, names: dict[str, str] = NAMES) -> None:
    """A row a condition: mean with its interval (columns ``low``, ``high``), and the seeds' own values as ticks.

    `points`: condition, value. `style_of(condition)`: colour, marker and markerfacecolor; `names`: of the rows.
    """
    factor = 100 if percent else 1
    for y, (condition, row) in enumerate(table.iterrows()):
        style = style_of(condition)
        if f"{column} low" in table:
            axis.plot([row[f"{column} low"] * factor, row[f"{column} high"] * factor], [y, y], color=style["color"],
                      linewidth=2, alpha=0.7)
        if points is not None:
            own = points.loc[points["condition"] == condition, "value"] * factor
            axis.plot(own, np.full(len(own), y + 0.24), "|", color=style["color"], markersize=7)
        axis.plot(row[column] * factor, y, linestyle="", markersize=9, markeredgewidth=1.6,
                  markeredgecolor=style["color"], **style)
    axis.set_yticks(range(len(table)), [names.get(c, c) for c in table.index])
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def interval_panels(table: pd.DataFrame, points: pd.DataFrame, columns, ylabel: str, size: tuple, **look):
    """`intervals` side by side: (figure, axes). `columns`: (column of the table, of the points, title, per cent?).

    Of the columns those are drawn that the table has.
    """
    columns = [column for column in columns if column[0] in table]
    figure, axes = plt.subplots(1, len(columns), figsize=size, sharey=True)
    for axis, (column, point, title, percent) in zip(axes, columns):
        intervals(axis, table, column, points.assign(value=points[point]), percent=percent, **look)
        axis.set(xlabel=title, **({"xlim": (-4, 104)} if "ASR" in column else {}))
    axes[0].set_ylabel(ylabel)
    return figure, axes


def marked(table: pd.DataFrame, names: dict[str, str]) -> tuple[dict[str, str], str]:
    """The names of the rows, with a star where a seed missed the loss; and what the star says."""
    missed = [condition for condition, row in table.iterrows() if row["reached"] < 1]
    return ({condition: names[condition] + (" *" if condition in missed else "") for condition in table.index},
            " (* loss missed in one seed or more)" if missed else "")


