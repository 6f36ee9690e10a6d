"""One style, one palette, and the parts that several figures share.

The palette is Okabe and Ito's with a grey, a gold and a violet, told apart also in greyscale by
marker and hatch. Every figure carries a label of origin: *paper-reported*, *recomputed here*
(model, n, seeds) or *toy*.
"""

import io
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import fill

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Image, display

from ...errors import SsahError
from ...inputs import archives
from ...inputs.words import data_file
from ...lab import Lab
from .conditions import Look
from .tables import NAMES

#: The look of all figures, as a style sheet of matplotlib.
STYLE = Path(__file__).with_name("figures.mplstyle")

#: By the kind of units that a condition concerns.
COLOURS = {
    "none": "#4d4d4d",
    "SCU": "#d55e00",
    "UCU": "#0072b2",
    "CU": "#c9a400",
    "RU": "#009e73",
    "direction": "#7b3294",
}
MARKERS = {
    "none": "o",
    "SCU": "s",
    "UCU": "D",
    "RU": "^",
    "direction": "P",
}

#: Conditions that concern a kind of units, nothing or everything, and matched random units.
LOOKS = {
    "none": Look(COLOURS["none"], MARKERS["none"]),
    "direction": Look(COLOURS["direction"], MARKERS["direction"]),
    "SCU": Look(COLOURS["SCU"], MARKERS["SCU"]),
    "random SCU": Look(COLOURS["SCU"], MARKERS["SCU"], ":"),
    "UCU": Look(COLOURS["UCU"], MARKERS["UCU"]),
    "random UCU": Look(COLOURS["UCU"], MARKERS["UCU"], ":"),
    "RU": Look(COLOURS["RU"], MARKERS["RU"]),
    "random RU": Look(COLOURS["RU"], MARKERS["RU"], ":"),
    "everything": Look("#000000", "X"),
    "everything, control": Look("#000000", "X", ":"),
    "LoRA": Look("#cc79a7", "*"),
}

#: Colour and hatch of an answer's label.
LABEL_STYLES = {
    "refuse": ("#2b6a99", ""),
    "evasive": ("#9ecae1", "///"),
    "incoherent": ("#d9d9d9", "..."),
    "comply": ("#d55e00", ""),
}

#: The ends of an axis in per cent, so that marks at 0 and 100 are whole.
PERCENT = (-4, 104)

#: The width of the largest figures in inches. A page shows about so much, so that text keeps its
#: size; a wider figure would be shown smaller, with its letters.
WIDTH = 10
#: The smallest text in a figure (points).
SMALLEST = 8
#: Lines that stand behind those that matter, and what is said of them.
THIN = {"color": "#c4c4c4", "linewidth": 0.9, "zorder": 1}
QUIET = "#6b6b6b"
#: How many times its lowest end a logarithmic axis ends, if there is room for powers of ten alone.
WIDE_LOG = 1000
#: The height of a line of small text (inches).
LINE_HEIGHT = 0.145
#: Where the header of a PNG has its width in pixels.
PNG_WIDTH = slice(16, 20)

#: Hexadecimal digits at the end of a name that matplotlib makes in an SVG.
HASH_LENGTH = 10
#: Such a name: of a clip path, hatch, marker, image or path of a collection.
HASHED_ID = rf"\b(?:[hmp]|image|C[0-9a-f]+_[0-9a-f]+_)[0-9a-f]{{{HASH_LENGTH}}}\b"

#: A panel of `interval_panels`: column of the table, of the points, title, whether in per cent.
Panel = tuple[str, str, str, bool]


# ---- the look of all figures -----------------------------------------------------------------

def use_style() -> None:
    """The look of all figures (``figures.mplstyle``); called by every notebook once."""
    plt.style.use(STYLE)


def save(figure, name: str, origin: str) -> None:
    """Stamp the label of origin on a figure, write ``NAME.png`` and ``NAME.svg``, and show it.

    Into ``figures/``, or the folder that ``SSAH_FIGURES`` names. A notebook shows the PNG that was
    written, with its `alternative_text`; the figure is closed.
    """
    alternative = alternative_text(name)
    figure.text(0.005, -0.01, origin, fontsize=8.5, color="#444444", ha="left", va="top")
    folder = Path(os.environ.get("SSAH_FIGURES") or archives.REPOSITORY / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    png = folder / f"{name}.png"
    # without the version and the date, so that the same numbers are the same bytes
    figure.savefig(png, bbox_inches="tight", metadata={"Software": None})
    figure.set_layout_engine("none")        # the layout stays as it is in the PNG
    svg = io.StringIO()
    figure.savefig(svg, format="svg", bbox_inches="tight",
                   metadata={"Date": None, "Creator": None})
    (folder / f"{name}.svg").write_text(with_numbered_ids(svg.getvalue()), "utf-8")
    plt.close(figure)
    if get_ipython() is not None:
        show(png, figure.dpi, alternative)


def with_numbered_ids(svg: str) -> str:
    """An SVG whose hashed ids are numbers, in the order in which they appear.

    Matplotlib names a clip path by a hash of its corners, which differs from machine to machine
    with the last bit of a layout.
    """
    numbered = {}
    for name in re.findall(rf'id="({HASHED_ID})"', svg):
        kind = name[:-HASH_LENGTH]
        numbered.setdefault(name, f"{kind}{len(numbered) + 1}")
    return re.sub(HASHED_ID, lambda found: numbered.get(found[0], found[0]), svg)


def show(png: Path, dpi: float, alternative: str) -> None:
    """Show a saved figure in the notebook, as large as it is on a screen of `dpi` dots an inch."""
    data = png.read_bytes()
    pixels = int.from_bytes(data[PNG_WIDTH], "big")
    width = pixels * dpi / matplotlib.rcParams["savefig.dpi"]
    display(Image(data=data, width=round(width), alt=alternative))


def alternative_text(name: str) -> str:
    """What a figure shows, for those who do not see it: a line of ``figures.csv``.

    Raises `SsahError` for a figure that has none.
    """
    texts = data_file("figures").set_index("figure")["alt"]
    if name not in texts.index:
        raise SsahError(f"the figure {name!r} has no text for those who do not see it; add a line "
                        "that begins with its name to ssah/inputs/data/figures.csv")
    return texts[name]


def recomputed(lab: Lab, n: str, seeds: int | None = None) -> str:
    """Label of origin for what this repository computed; `seeds`: if not all of the lab's."""
    seeds = len(lab.seeds) if seeds is None else seeds
    plural = "s" if seeds > 1 else ""
    return f"recomputed here: {lab.profile.model.label}; {n}; {seeds} seed{plural}"


def plain_log(axis, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """Make an axis (``ax.xaxis``, ``ax.yaxis``) logarithmic, with plain numbers at 1, 2, 5, ...

    `steps`: which of every ten numbers are written; on an axis of more than three decades powers of
    ten alone.
    """
    def written(x: float, place: int) -> str:
        low, high = axis.get_view_interval()
        is_power = math.isclose(math.log10(x) % 1, 0)
        return f"{x:g}" if is_power or high <= WIDE_LOG * low else ""

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=steps))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(written))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def legend_above(figure, axis, title: str | None = None) -> None:
    """One legend for all panels, above them: what is drawn in one of them."""
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize=9,
                  title=title)


def name_lines(axis, names: dict[str, tuple[float, str]], width: int = 20) -> None:
    """The names of lines at the right of a panel, beside their ends: name -> end, colour.

    Names that would overlap are moved apart. `width`: of a name in letters, then it is broken.
    """
    axis.autoscale_view()
    low, high = axis.get_ylim()
    _, inches = axis.get_position().size * axis.figure.get_size_inches()
    free = 0.0          # everything below this height is taken, as a part of the panel's height
    for name, (end, colour) in sorted(names.items(), key=lambda item: item[1][0]):
        text = fill(name, width)
        height = LINE_HEIGHT * (text.count("\n") + 1) / inches
        middle = max((end - low) / (high - low), free + height / 2)
        free = middle + height / 2
        axis.annotate(text, (1.03, middle), xycoords="axes fraction", color=colour, fontsize=9,
                      va="center", ha="left", linespacing=1)


# ---- conditions ------------------------------------------------------------------------------

def style_of(condition: str) -> dict[str, str]:
    """Colour and marker of a condition of `LOOKS`."""
    return hollow_if_dotted(LOOKS, condition)


def hollow_if_dotted(looks: dict[str, Look], condition: str) -> dict[str, str]:
    """Colour and marker of a condition, hollow where its line is dotted, as `plot` takes them."""
    colour, marker, line = looks[condition]
    return {"color": colour, "marker": marker,
            "markerfacecolor": "white" if line == ":" else colour}


def marked(table: pd.DataFrame, names: dict[str, str]) -> tuple[dict[str, str], str]:
    """The names of the rows, with a star where a seed missed the loss; and what the star says."""
    starred = {}
    for condition, row in table.iterrows():
        star = " *" if row["reached"] < 1 else ""
        starred[condition] = names[condition] + star
    missed = (table["reached"] < 1).any()
    return starred, " (* loss missed in one seed or more)" if missed else ""


# ---- means with intervals --------------------------------------------------------------------

def intervals(axis, table: pd.DataFrame, column: str, points: pd.DataFrame | None = None, *,
              percent: bool = True, style_of: Callable[[str], dict] = style_of,
              names: dict[str, str] = NAMES) -> None:
    """A row a condition: mean with its interval (columns ``low``, ``high``), seeds as ticks.

    `points`: condition, value. `style_of(condition)`: colour, marker and markerfacecolor; `names`:
    of the rows.
    """
    factor = 100 if percent else 1
    for y, (condition, row) in enumerate(table.iterrows()):
        style = style_of(condition)
        colour = style["color"]
        if f"{column} low" in table:
            low = row[f"{column} low"] * factor
            high = row[f"{column} high"] * factor
            axis.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.7)
        if points is not None:
            of_seeds = points.loc[points["condition"] == condition, "value"] * factor
            below = np.full(len(of_seeds), y + 0.24)
            axis.plot(of_seeds, below, "|", color=colour, markersize=7)
        mean = row[column] * factor
        axis.plot(mean, y, linestyle="", markersize=9, markeredgewidth=1.6,
                  markeredgecolor=colour, **style)
    titles = [names.get(condition, condition) for condition in table.index]
    axis.set_yticks(range(len(table)), titles)
    axis.set_ylim(len(table) - 0.4, -0.6)       # the first row on top
    axis.grid(axis="y", visible=False)


def interval_panels(table: pd.DataFrame, points: pd.DataFrame, columns: Iterable[Panel],
                    ylabel: str, size: tuple[float, float], **look):
    """`intervals` side by side: (figure, axes); of the columns those that the table has."""
    columns = [column for column in columns if column[0] in table]
    figure, axes = plt.subplots(1, len(columns), figsize=size, sharey=True)
    fill_panels(axes, table, points, columns, **look)
    axes[0].set_ylabel(ylabel)
    return figure, axes


def fill_panels(axes, table: pd.DataFrame, points: pd.DataFrame, columns: Iterable[Panel],
                **look) -> None:
    """`intervals` of a column of the table in every panel; rates go from 0 to 100."""
    for axis, (column, point, title, percent) in zip(axes, columns):
        of_seeds = points.assign(value=points[point])
        intervals(axis, table, column, of_seeds, percent=percent, **look)
        axis.set_xlabel(title)
        if "ASR" in column:
            axis.set_xlim(*PERCENT)
