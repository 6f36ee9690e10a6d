"""C1: the probe's distances by token and block, and the doubts about it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

ROLES = {"aligned": ("#0072b2", "o", "-"), "unaligned": ("#d55e00", "s", "--")}
LINES = {"refusal": ("#0072b2", "o", "-", "to query + refusal opening"),
         "fulfilment": ("#d55e00", "s", "--", "to query + fulfilment opening")}


def _line(axis, part: pd.DataFrame, x: str, colour: str, marker: str, style: str, label: str, **options) -> None:
    """One line with its interval as a band."""
    axis.plot(part[x], part["mean"], color=colour, marker=marker, linestyle=style, label=label, **options)
    axis.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)


def _direction(axis, table: pd.DataFrame, x: str = "n") -> None:
    """Both models' direction with its zero line."""
    for role, (colour, marker, style) in ROLES.items():
        _line(axis, table[table["role"] == role], x, colour, marker, style, role)
    axis.axhline(0, color="#444444", linewidth=1)


def by_tokens(table: pd.DataFrame, x: str = "generated tokens"):
    """Fig. 2 / 7: distance to either branch for both models, and the direction, by number of tokens."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.9))
    for axis, role in zip(axes, ROLES):
        for line, (colour, marker, style, label) in LINES.items():
            _line(axis, table.query("role == @role and line == @line"), "n", colour, marker, style, label)
        axis.set(title=f"{role} model", xlabel=x, xticks=table["n"].unique())
    axes[0].set_ylabel("cosine distance")
    axes[1].sharey(axes[0])
    axes[1].autoscale(axis="y")
    axes[0].legend(frameon=True, fontsize=9)
    _direction(axes[2], table[table["line"] == "direction"])
    axes[2].set(title="direction: dashed minus solid", xlabel=x, xticks=table["n"].unique(),
                ylabel="above 0: leans to refusal")
    axes[2].legend(frameon=True, fontsize=9)
    return figure


def by_block(table: pd.DataFrame):
    """Fig. 3: distance in every block, a row a model and a column a number of generated tokens."""
    steps = table["n"].unique()
    figure, axes = plt.subplots(2, len(steps), figsize=(2.7 * len(steps), 5), sharex=True, sharey=True, squeeze=False)
    for row, role in zip(axes, ROLES):
        for axis, n in zip(row, steps):
            for line, (colour, _, style, label) in LINES.items():
                part = table.query("role == @role and line == @line and n == @n")
                _line(axis, part, "block", colour, "", style, label)
        row[0].set_ylabel(f"{role}\ncosine distance")
    for axis, n in zip(axes[0], steps):
        axis.set_title(f"{n} tokens")
    for axis in axes[1]:
        axis.set_xlabel("block")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def difference_by_block(tables: dict[str, pd.DataFrame], width: int = 5):
    """Fig. 4: absolute direction in every block, mean over n; points, and a line smoothed over `width` blocks."""
    figure, axes = plt.subplots(1, len(tables), figsize=(5.5 * len(tables), 3.6), sharey=True, squeeze=False)
    for axis, (title, table) in zip(axes[0], tables.items()):
        for role, (colour, marker, style) in ROLES.items():
            values = table.query("role == @role and line == 'direction'").groupby("block")["mean"].mean()
            axis.plot(values.index, values.abs(), marker, color=colour, markersize=5, markerfacecolor="white")
            axis.plot(values.index, values.abs().rolling(width, center=True, min_periods=1).mean(), style, color=colour,
                      linewidth=2, label=f"{role}, mean of {width} blocks")
        axis.set(title=title, xlabel="block", ylim=(0, None))
    axes[0, 0].set_ylabel("|difference of distances|")
    axes[0, -1].legend(frameon=True, fontsize=9)
    return figure


def residual(table: pd.DataFrame):
    """The direction on harmful and on benign queries, and what is left when the second is taken off the first."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.7), sharey=True)
    for axis, line in zip(axes, ("harmful queries", "benign queries", "residual")):
        _direction(axis, table[table["line"] == line])
        axis.set(title="intent residual: first minus second" if line == "residual" else line,
                 xlabel="generated tokens", xticks=table["n"].unique())
    axes[0].set_ylabel("direction (above 0: to refusal)")
    axes[2].legend(frameon=True, fontsize=9)
    return figure


def by_wording(tables: dict[str, np.ndarray]):
    """The direction of every pair of wordings, a panel a model."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4))
    limit = max(np.abs(values).max() for values in tables.values())
    for axis, (role, values) in zip(axes, tables.items()):
        sns.heatmap(values, ax=axis, cmap="RdBu", center=0, vmin=-limit, vmax=limit, annot=True, fmt="+.2f",
                    annot_kws={"size": 9}, linewidths=0.5, square=True, cbar=axis is axes[-1],
                    xticklabels=range(1, values.shape[1] + 1), yticklabels=range(1, values.shape[0] + 1))
        axis.set(title=f"{role} model", xlabel="fulfilment wording", ylabel="refusal wording")
    return figure


def predictions(table: pd.DataFrame):
    """AUROC of the direction and of the log-odds for the aligned model's own refusals, a row a set and seed."""
    shown = table[np.isfinite(table["direction"])].reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(8, 0.5 * max(len(shown), 2) + 1.6))
    styles = (("direction", "#0072b2", "o"), ("log-odds", "#d55e00", "s"))
    for offset, (name, colour, marker) in zip((-0.13, 0.13), styles):
        for y, row in shown.iterrows():
            axis.plot([row[f"{name} low"], row[f"{name} high"]], [y + offset] * 2, color=colour, linewidth=2)
        axis.plot(shown[name], shown.index + offset, marker, color=colour, markersize=8,
                  label="probe: direction" if name == "direction" else "refusal log-odds of the first tokens")
    axis.axvline(0.5, color="#444444", linestyle=":", linewidth=1.4)
    axis.set_yticks(shown.index, [f"{r['set']}, seed {r['seed']}\n({r['refused']} of {r['n']} refused)"
                                  for _, r in shown.iterrows()], fontsize=9)
    axis.set(xlabel="AUROC for the model's own refusals (0.5: chance)", xlim=(0, 1.03), ylim=(len(shown) - 0.4, -0.6))
    axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.1 - 0.45 / max(len(shown), 2)), ncols=2, frameon=False)
    return figure


def along(directions: pd.DataFrame, refused: pd.DataFrame):
    """The direction at every token after a prefilled opening, and how many answers still refuse."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    lengths = directions["prefilled"].unique()
    colours = sns.color_palette("viridis", len(lengths))
    for axis, role in zip(axes, ROLES):
        for colour, marker, length in zip(colours, "osD^vP*X", lengths):
            part = directions.query("role == @role and prefilled == @length")
            axis.plot(part["t"], part["mean"], color=colour, marker=marker, markersize=5, markevery=3, label=length)
        axis.axhline(0, color="#444444", linewidth=1)
        axis.set(title=f"{role} model", xlabel="token after the prefill")
        axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axes[0].set_ylabel("direction (above 0: to refusal)")
    axes[1].sharey(axes[0])
    axes[1].autoscale(axis="y")
    axes[0].legend(title="prefilled tokens", title_fontsize=9, ncols=3, fontsize=9, loc="lower center")
    for role, (colour, marker, style) in ROLES.items():
        part = refused[refused["role"] == role].reset_index(drop=True)
        part[["mean", "low", "high"]] *= 100
        _line(axes[2], part.assign(place=part.index), "place", colour, marker, style, role)
    axes[2].set_xticks(range(len(lengths)), lengths)
    axes[2].set(title="still refuses", xlabel="prefilled tokens", ylabel="answers (%)", ylim=(-4, 104))
    axes[2].legend(fontsize=9)
    return figure
