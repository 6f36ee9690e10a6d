"""C1: the probe's distances by token and block, and the doubts about it."""

from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..shared.style import PERCENT, WIDTH, name_lines

GREY = "#444444"


@dataclass(frozen=True)
class Look:
    """How one line of a figure is drawn, and what it is called."""

    colour: str
    marker: str
    line: str
    label: str

    @property
    def options(self) -> dict[str, str]:
        """As the functions of matplotlib take it."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line,
                "label": self.label}


#: Models and kinds of opening have looks of their own.
ROLES = {
    "aligned": Look("#009e73", "^", "-", "aligned"),
    "unaligned": Look("#7b3294", "D", "--", "unaligned")}
DIFFERENCE = Look("#4d4d4d", "P", ":", "aligned minus unaligned")
KINDS = {
    "refusal": Look("#0072b2", "o", "-", "to query + refusal opening"),
    "fulfilment": Look("#d55e00", "s", "--", "to query + fulfilment opening")}
#: What is asked whether it goes with a refusal.
SCORES = {
    "direction": Look("#0072b2", "o", "", "direction, mean over n"),
    "first n": Look("#56b4e9", "^", "", "at the smallest n"),
    "log-odds": Look("#d55e00", "s", "", "refusal log-odds of the first tokens")}


# ---- parts -----------------------------------------------------------------------------------

def _bars(axis, table: pd.DataFrame, shift: float, look: Look) -> None:
    """Means joined by a line, intervals as bars, each seed's own mean as a small hollow mark."""
    x = table["n"].to_numpy() + shift
    mean = table["mean"].to_numpy()
    reach = np.abs(table[["low", "high"]].to_numpy().T - mean)
    axis.errorbar(x, mean, reach, capsize=3, markersize=6, **look.options)
    for seed_means in np.stack(table["seeds"].to_list()).T:
        axis.plot(x + 0.14, seed_means, look.marker, color=look.colour,
                  markersize=3, markerfacecolor="white", markeredgewidth=0.8)


def _band(axis, table: pd.DataFrame, x: str, look: Look, **options) -> None:
    """One line with its interval as a band."""
    axis.plot(table[x], table["mean"], **look.options, **options)
    axis.fill_between(table[x], table["low"], table["high"],
                      color=look.colour, alpha=0.18, linewidth=0)


def _zero(axis) -> None:
    """The line between leaning to a refusal and leaning to a fulfilment."""
    axis.axhline(0, color=GREY, linewidth=1)


def _share_scale(first, second) -> None:
    """One vertical scale for two panels side by side, written at the first."""
    second.sharey(first)
    second.autoscale(axis="y")
    second.tick_params(labelleft=False)


def _legend(figure, axis, place: str, columns: int) -> None:
    """The legend of one panel, outside of all."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc=f"outside upper {place}", ncols=columns, frameon=False)


# ---- the claim -------------------------------------------------------------------------------

def by_tokens(table: pd.DataFrame, x: str = "generated tokens"):
    """Fig. 2 / 7: distance to either branch for both models, and the direction, by tokens.

    `table`: as of `read.curve`; `x`: what the tokens are called.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.9))
    steps = table["n"].unique()
    for axis, role in zip(axes, ROLES):
        for shift, (kind, look) in zip((-0.15, 0.15), KINDS.items()):
            part = table.query("role == @role and line == @kind")
            _bars(axis, part, shift, look)
        axis.set(title=f"{role} model", xlabel=x, xticks=steps)
    axes[0].set_ylabel("cosine distance")
    _share_scale(axes[0], axes[1])
    directions = table.query("line == 'direction'")
    looks = {**ROLES, "difference": DIFFERENCE}
    for shift, (role, look) in zip((-0.2, 0, 0.2), looks.items()):
        _bars(axes[2], directions.query("role == @role"), shift, look)
    _zero(axes[2])
    axes[2].set(title="direction: to fulfilment − to refusal", xlabel=x, xticks=steps,
                ylabel="above 0: leans to refusal")
    _legend(figure, axes[0], "left", 2)
    _legend(figure, axes[2], "right", 3)
    return figure


def by_block(table: pd.DataFrame):
    """Fig. 3 as direction: in every block, a panel a number of generated tokens.

    `table`: as of `read.by_block`. Above 0 a block leans to a refusal.
    """
    steps = table["n"].unique()
    figure, axes = plt.subplots(1, len(steps), figsize=(WIDTH, 3.2), sharey=True, squeeze=False)
    for axis, n in zip(axes[0], steps):
        for role, look in ROLES.items():
            part = table.query("role == @role and n == @n")
            _band(axis, part, "block", replace(look, marker=""))
        _zero(axis)
        axis.set(title=f"{n} tokens", xlabel="block")
    axes[0, 0].set_ylabel("direction (above 0: to refusal)")
    last = table[table["n"] == steps[-1]]
    name_lines(axes[0, -1], {look.label: (last_of(last, role), look.colour)
                             for role, look in ROLES.items()})
    return figure


def last_of(table: pd.DataFrame, role: str) -> float:
    """Where the line of a model ends."""
    return table.loc[table["role"] == role, "mean"].iloc[-1]


def difference_by_block(tables: dict[str, pd.DataFrame], width: int = 5):
    """Fig. 4 with its sign: the direction in every block, and a mean over `width` blocks.

    `tables`: {title: as of `read.direction_by_block`}.
    """
    n = len(tables)
    figure, axes = plt.subplots(1, n, figsize=(WIDTH, 3.8), sharey=True, squeeze=False)
    for axis, (title, table) in zip(axes[0], tables.items()):
        for shift, (role, look) in zip((-0.15, 0.15), ROLES.items()):
            _with_mean(axis, table[table["role"] == role], shift, look, width)
        _zero(axis)
        axis.set(title=title, xlabel="block")
    axes[0, 0].set_ylabel("direction (above 0: to refusal)")
    last = list(tables.values())[-1]
    name_lines(axes[0, -1], {look.label: (last_of(last, role), look.colour)
                             for role, look in ROLES.items()})
    return figure


def _with_mean(axis, table: pd.DataFrame, shift: float, look: Look, width: int) -> None:
    """One model's direction by block: marks with intervals, and a smoothed line."""
    x = table["block"] + shift
    axis.vlines(x, table["low"], table["high"], color=look.colour, linewidth=1, alpha=0.5)
    axis.plot(x, table["mean"], look.marker, color=look.colour, markersize=4)
    by_block = table.set_index("block")["mean"]
    smooth = by_block.rolling(width, center=True, min_periods=1).mean()
    axis.plot(smooth.index, smooth, look.line, color=look.colour, linewidth=2)


# ---- the doubts ------------------------------------------------------------------------------

def residual(table: pd.DataFrame):
    """The direction on harmful queries, on benign ones, and the first minus the second."""
    titles = {
        "harmful queries": "harmful queries",
        "benign queries": "benign queries",
        "residual": "intent residual: first minus second"}
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.4), sharey=True)
    for axis, (line, title) in zip(axes, titles.items()):
        for role, look in ROLES.items():
            _band(axis, table.query("role == @role and line == @line"), "n", look)
        _zero(axis)
        axis.set(title=title, xlabel="generated tokens", xticks=table["n"].unique())
    axes[0].set_ylabel("direction (above 0: to refusal)")
    last = table[table["line"] == "residual"]
    name_lines(axes[2], {look.label: (last_of(last, role), look.colour)
                         for role, look in ROLES.items()})
    return figure


def by_wording(tables: dict[str, pd.DataFrame]):
    """The direction of every pair of wordings, a panel a model.

    Wordings are called by their ids in ``data/openings.csv``.
    """
    import seaborn as sns       # slow to import

    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4))
    limit = max(table.abs().to_numpy().max() for table in tables.values())
    for axis, (role, table) in zip(axes, tables.items()):
        last = axis is axes[-1]
        sns.heatmap(table, ax=axis, cmap="RdBu", center=0, vmin=-limit, vmax=limit,
                    annot=True, fmt="+.3f", annot_kws={"size": 8}, linewidths=0.5,
                    square=True, cbar=last, cbar_kws={"label": "direction"})
        axis.set(title=f"{role} model", xlabel="fulfilment wording", ylabel="refusal wording")
        axis.tick_params(axis="y", rotation=0)
    return figure


def predictions(table: pd.DataFrame):
    """AUROC for the aligned model's own refusals, a row a set and seed.

    Hollow and without interval where answers of one kind are too few.
    """
    figure, axis = plt.subplots(figsize=(8.5, 0.6 * len(table) + 1.6))
    for offset, (score, look) in zip((-0.2, 0, 0.2), SCORES.items()):
        for place, row in table.iterrows():
            y = place + offset
            face = "white"
            if row["enough"]:
                face = look.colour
                ends = [row[f"{score} low"], row[f"{score} high"]]
                axis.plot(ends, [y, y], color=look.colour, linewidth=2)
            label = look.label if place == len(table) - 1 else "_"
            axis.plot(row[score], y, look.marker, color=look.colour,
                      markersize=7, markerfacecolor=face, label=label)
    axis.axvline(0.5, color=GREY, linestyle=":", linewidth=1.4)
    names = [f"{row['set']}, seed {row['seed']}\n({row['refused']} of {row['n']} refused)"
             for _, row in table.iterrows()]
    axis.set_yticks(table.index, names, fontsize=9)
    axis.set(xlabel="AUROC for the model's own refusals (0.5: chance; hollow: too few of one kind)",
             xlim=(0, 1.03), ylim=(len(table) - 0.4, -0.6))
    _legend(figure, axis, "center", 3)
    return figure


def along(directions: pd.DataFrame, refused: pd.DataFrame, lengths=(0, 5)):
    """The direction at every token after a prefill, and how many answers still refuse.

    `lengths`: of the prefills that the first two panels show; all where none of them was measured.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.6), width_ratios=(1, 1, 1.1))
    measured = directions["prefilled"].unique()
    lengths = [length for length in measured if length in lengths] or list(measured)
    after = directions[directions["t"] > 0]
    for axis, role in zip(axes, ROLES):
        for length, look in zip(lengths, _looks_of(lengths)):
            part = after.query("role == @role and prefilled == @length")
            _band(axis, part, "t", look, markersize=4, markevery=3)
        _zero(axis)
        axis.set(title=f"{role} model", xlabel="token after the prefill")
        axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axes[0].set_ylabel("direction (above 0: to refusal)")
    _share_scale(axes[0], axes[1])
    _still_refuses(axes[2], refused)
    _legend(figure, axes[0], "left", len(lengths))
    return figure


def _looks_of(lengths: list[int]) -> list[Look]:
    """A look for every length of a prefill."""
    # neither end of the map: too dark and too light
    colours = plt.get_cmap("cividis")(np.linspace(0, 1, len(lengths) + 3))[1:-1]
    looks = []
    for length, colour, marker, line in zip(lengths, colours, "osD", ("-", "--", "-.")):
        looks.append(Look(colour, marker, line, f"{length} tokens put first"))
    return looks


def _still_refuses(axis, table: pd.DataFrame) -> None:
    """Share of answers that refuse by length of the prefill; small marks: each prefill."""
    names = {}
    for role, look in ROLES.items():
        part = table[table["role"] == role].reset_index(drop=True)
        part[["mean", "low", "high"]] *= 100
        _band(axis, part.assign(place=part.index), "place", look)
        for shares in np.stack(part["prefills"].to_list()).T:
            axis.plot(part.index, shares * 100, look.marker, color=look.colour,
                      markersize=4, markerfacecolor="white")
        names[look.label] = (part["mean"].iloc[-1], look.colour)
    axis.set_xticks(range(len(part)), part["prefilled"])
    axis.set(title="still refuses", xlabel="tokens put first (small marks: each prefill)",
             ylabel="answers (%)", ylim=PERCENT)
    name_lines(axis, names)
