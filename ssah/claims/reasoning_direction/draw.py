"""C1: the probe's distances by token and block, and the doubts about it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

#: Models and kinds of opening have colours, markers and lines of their own.
ROLES = {"aligned": ("#009e73", "^", "-"), "unaligned": ("#7b3294", "D", "--")}
LINES = {"refusal": ("#0072b2", "o", "-", "to query + refusal opening"),
         "fulfilment": ("#d55e00", "s", "--", "to query + fulfilment opening")}
DIFFERENCE = ("#4d4d4d", "P", ":")


def _bars(axis, part: pd.DataFrame, shift: float, colour: str, marker: str, style: str, label: str) -> None:
    """Means joined by a line, intervals as bars, each seed's own mean as a small hollow mark beside."""
    x = part["n"].to_numpy() + shift
    reach = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
    axis.errorbar(x, part["mean"], reach, color=colour, marker=marker, linestyle=style, capsize=3, markersize=6,
                  label=label)
    for own in np.stack(part["seeds"].to_list()).T:
        axis.plot(x + 0.14, own, marker, color=colour, markersize=3, markerfacecolor="white", markeredgewidth=0.8)


def _band(axis, part: pd.DataFrame, x: str, colour: str, marker: str, style: str, label: str, **options) -> None:
    """One line with its interval as a band."""
    axis.plot(part[x], part["mean"], color=colour, marker=marker, linestyle=style, label=label, **options)
    axis.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)


def by_tokens(table: pd.DataFrame, x: str = "generated tokens"):
    """Fig. 2 / 7: distance to either branch for both models, and the direction, by number of tokens."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    for axis, role in zip(axes, ROLES):
        for shift, (line, (colour, marker, style, label)) in zip((-0.15, 0.15), LINES.items()):
            _bars(axis, table.query("role == @role and line == @line"), shift, colour, marker, style, label)
        axis.set(title=f"{role} model", xlabel=x, xticks=table["n"].unique())
    axes[0].set_ylabel("cosine distance")
    axes[1].sharey(axes[0])
    axes[1].autoscale(axis="y")
    axes[1].tick_params(labelleft=False)
    styles = {**ROLES, "difference": DIFFERENCE}
    for shift, (role, style) in zip((-0.2, 0, 0.2), styles.items()):
        part = table.query("role == @role and line == 'direction'")
        _bars(axes[2], part, shift, *style, "aligned minus unaligned" if role == "difference" else role)
    axes[2].axhline(0, color="#444444", linewidth=1)
    axes[2].set(title="direction: to fulfilment − to refusal", xlabel=x, xticks=table["n"].unique(),
                ylabel="above 0: leans to refusal")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    return figure


def by_block(table: pd.DataFrame):
    """Fig. 3: distance in every block, a row a model and a column a number of generated tokens."""
    steps = table["n"].unique()
    figure, axes = plt.subplots(2, len(steps), figsize=(2.7 * len(steps), 5), sharex=True, sharey=True, squeeze=False)
    for row, role in zip(axes, ROLES):
        for axis, n in zip(row, steps):
            for line, (colour, _, style, label) in LINES.items():
                part = table.query("role == @role and line == @line and n == @n")
                _band(axis, part, "block", colour, "", style, label)
        row[0].set_ylabel(f"{role}\ncosine distance")
    for axis, n in zip(axes[0], steps):
        axis.set_title(f"{n} tokens")
    for axis in axes[1]:
        axis.set_xlabel("block")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def difference_by_block(tables: dict[str, pd.DataFrame], width: int = 5):
    """Fig. 4: size of the direction in every block; marks (hollow: not the claimed sign) and a smoothed line."""
    figure, axes = plt.subplots(1, len(tables), figsize=(6 * len(tables), 4), sharey=True, squeeze=False)
    for axis, (title, table) in zip(axes[0], tables.items()):
        for shift, (role, (colour, marker, style)) in zip((-0.15, 0.15), ROLES.items()):
            part = table[table["role"] == role]
            flip = np.sign(part["mean"].to_numpy())[:, None]        # the interval of the size, not of the direction
            ends = np.sort(part[["low", "high"]].to_numpy() * flip, axis=1)
            axis.vlines(part["block"] + shift, *ends.T, color=colour, linewidth=1, alpha=0.5)
            for right, face in ((True, colour), (False, "white")):
                chosen = part[part["right"] == right]
                axis.plot(chosen["block"] + shift, chosen["mean"].abs(), marker, color=colour, markersize=5,
                          markerfacecolor=face, label=f"{role}, not the claimed sign" if not right else role)
            smooth = part.set_index("block")["mean"].abs().rolling(width, center=True, min_periods=1).mean()
            axis.plot(smooth.index, smooth, style, color=colour, linewidth=2, label=f"mean of up to {width} blocks")
        axis.axhline(0, color="#444444", linewidth=1)
        axis.set(title=title, xlabel="block")
    axes[0, 0].set_ylabel("|direction|")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def residual(table: pd.DataFrame):
    """The direction on harmful and on benign queries, and what is left when the second is taken off the first."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.7), sharey=True)
    for axis, line in zip(axes, ("harmful queries", "benign queries", "residual")):
        for role, style in ROLES.items():
            _band(axis, table.query("role == @role and line == @line"), "n", *style, role)
        axis.axhline(0, color="#444444", linewidth=1)
        axis.set(title="intent residual: first minus second" if line == "residual" else line,
                 xlabel="generated tokens", xticks=table["n"].unique())
    axes[0].set_ylabel("direction (above 0: to refusal)")
    axes[2].legend(frameon=True, fontsize=9)
    return figure


def by_wording(tables: dict[str, pd.DataFrame]):
    """The direction of every pair of wordings, a panel a model; names are the ids of ``data/openings.csv``."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4))
    limit = max(table.abs().to_numpy().max() for table in tables.values())
    for axis, (role, table) in zip(axes, tables.items()):
        sns.heatmap(table, ax=axis, cmap="RdBu", center=0, vmin=-limit, vmax=limit, annot=True, fmt="+.3f",
                    annot_kws={"size": 8.5}, linewidths=0.5, square=True, cbar=axis is axes[-1],
                    cbar_kws={"label": "direction"})
        axis.set(title=f"{role} model", xlabel="fulfilment wording", ylabel="refusal wording")
        axis.tick_params(axis="y", rotation=0)
    return figure


def predictions(table: pd.DataFrame):
    """AUROC for the aligned model's own refusals, a row a set and seed; without interval where answers are too few."""
    figure, axis = plt.subplots(figsize=(8.5, 0.6 * len(table) + 1.6))
    scores = {"direction": ("#0072b2", "o", "direction, mean over n"), "first n": ("#56b4e9", "^", "at the smallest n"),
              "log-odds": ("#d55e00", "s", "refusal log-odds of the first tokens")}
    for offset, (name, (colour, marker, label)) in zip((-0.2, 0, 0.2), scores.items()):
        for y, row in table.iterrows():
            if row["enough"]:
                axis.plot([row[f"{name} low"], row[f"{name} high"]], [y + offset] * 2, color=colour, linewidth=2)
            axis.plot(row[name], y + offset, marker, color=colour, markersize=7,
                      markerfacecolor=colour if row["enough"] else "white",
                      label=label if y == len(table) - 1 else "_")
    axis.axvline(0.5, color="#444444", linestyle=":", linewidth=1.4)
    axis.set_yticks(table.index, [f"{r['set']}, seed {r['seed']}\n({r['refused']} of {r['n']} refused)"
                                  for _, r in table.iterrows()], fontsize=9)
    axis.set(xlabel="AUROC for the model's own refusals (0.5: chance; hollow: too few of one kind)", xlim=(0, 1.03),
             ylim=(len(table) - 0.4, -0.6))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def along(directions: pd.DataFrame, refused: pd.DataFrame, shown=(0, 5, 20)):
    """The direction at every token after a prefill (of `shown` lengths), and how many answers still refuse."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    table = directions[directions["t"] > 0]
    lengths = [n for n in table["prefilled"].unique() if n in shown] or list(table["prefilled"].unique())
    for axis, role in zip(axes, ROLES):
        colours = sns.color_palette("viridis", len(lengths))
        for colour, marker, style, length in zip(colours, "osD", ("-", "--", "-."), lengths):
            part = table.query("role == @role and prefilled == @length")
            _band(axis, part, "t", colour, marker, style, f"{length} tokens put first", markersize=5, markevery=3)
        axis.axhline(0, color="#444444", linewidth=1)
        axis.set(title=f"{role} model", xlabel="token after the prefill")
        axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axes[0].set_ylabel("direction (above 0: to refusal)")
    axes[1].sharey(axes[0])
    axes[1].autoscale(axis="y")
    axes[1].tick_params(labelleft=False)
    for role, (colour, marker, style) in ROLES.items():
        part = refused[refused["role"] == role].reset_index(drop=True)
        part[["mean", "low", "high"]] *= 100
        _band(axes[2], part.assign(place=part.index), "place", colour, marker, style, role)
        for own in np.stack(part["prefills"].to_list()).T:
            axes[2].plot(part.index, own * 100, marker, color=colour, markersize=4, markerfacecolor="white")
    axes[2].set_xticks(range(len(part)), part["prefilled"])
    axes[2].set(title="still refuses (small: each prefill)", xlabel="tokens put first", ylabel="answers (%)",
                ylim=(-4, 104))
    axes[2].legend(fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(lengths), frameon=False)
    return figure
