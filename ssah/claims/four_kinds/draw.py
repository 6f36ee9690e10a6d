"""C2: Table 1, the ratio scan, the map, the transplant, other choices, the judge's threshold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..shared.pictures import by_model
from ..shared.style import (
    COLOURS,
    LABEL_STYLES,
    MARKERS,
    WIDTH,
    interval_panels,
    legend_above,
    plain_log,
)

#: The kinds that are removed, in the order of panels.
KINDS = ("SCU", "UCU", "RU")

#: The panels of what was removed: column of the table, of the points, title, whether in per cent.
REMOVAL_PANELS = (
    ("ASR", "keyword_asr", "keyword ASR (%)", True),
    ("strict ASR", "strict_asr", "strict ASR: comply (%)", True),
    ("wiki ppl", "wiki ppl", "Wikipedia perplexity (log)", False),
)

#: What is removed where models of several sizes are compared, as the legend calls it.
GROWN = {"SCU": "without the SCU (1.3 % of the units)",
         "random SCU": "without as many random units",
         "direction": "without the refusal direction"}

#: Two sets of bars in one row: their height, and how far each is from the middle.
BAR = 0.36
APART = 0.19


def table_one(table: pd.DataFrame, points: pd.DataFrame):
    """Table 1 in four panels, a row a condition: both ASR, accuracy, Wikipedia perplexity.

    `table`, `points`: `read.table_one` and `read.per_seed`.
    """
    columns = (
        ("ASR", "keyword_asr", "keyword ASR (%)", True),
        ("strict ASR", "strict_asr", "strict ASR: comply (%)", True),
        ("accuracy", "accuracy", "accuracy (%)", True),
        ("wiki ppl", "wiki ppl", "perplexity (log)", False),
    )
    titles = table["title"].to_dict()
    figure, axes = interval_panels(
        table, points, columns, "removed", (WIDTH, 3.8), names=titles
    )
    plain_log(axes[3].xaxis, (1, 3))
    return figure


def removals(models: dict[str, tuple[pd.DataFrame, pd.DataFrame]]):
    """Table 1 of the second bench in three panels a model, a row a removal; ticks are draws.

    `models`: name -> `removed.table_one` and `removed.per_draw`.
    """
    figure, axes = by_model(models, REMOVAL_PANELS, "removed", lambda table: table["title"].to_dict(),
                            _removal_style)
    for axis, (_, points) in zip(axes[:, 2], models.values()):
        perplexity = points["wiki ppl"]
        is_narrow = perplexity.max() < 10 * perplexity.min()        # one decade: more numbers fit
        plain_log(axis.xaxis, (1, 2, 5) if is_narrow else (1, 3))
    return figure


def grows(table: pd.DataFrame):
    """Refusals lost against the size of the model, and how far the labels hold.

    `table`: `growth.by_size`.
    """
    figure, (refusals, overlap) = plt.subplots(1, 2, figsize=(WIDTH, 3.4), width_ratios=(2, 1))
    for name, part in table.groupby("removed", sort=False):
        look = _removal_style(name)
        spread = [part["lost"] - part["low"], part["high"] - part["lost"]]
        refusals.errorbar(part["billions"], part["lost"] * 100, np.array(spread) * 100,
                          linestyle=":" if "random" in name else "-", capsize=3,
                          label=GROWN[name], **look)
    refusals.set(xlabel="weights (billions, by the model's name)",
                 ylabel="refusals lost (% of what could be)", ylim=(-10, 115))
    labels = table.drop_duplicates("model")
    overlap.plot(labels["billions"], labels["overlap"], marker=MARKERS["SCU"],
                 color=COLOURS["SCU"])
    overlap.axhline(labels["gate"].iloc[0], color="black", linestyle=":", linewidth=1.4,
                    label="gate")
    overlap.set(xlabel="weights (billions)", ylim=(0, 1),
                ylabel="SCU of two halves\nof the texts: IoU")
    overlap.legend(frameon=False, loc="lower left")
    for axis in (refusals, overlap):
        axis.set(xscale="log", xlim=(labels["billions"].min() / 1.3, labels["billions"].max() * 1.3))
        axis.set_xticks(labels["billions"], [f"{size:g}" for size in labels["billions"]])
        axis.minorticks_off()
    legend_above(figure, refusals)
    return figure


def _removal_style(name: str) -> dict[str, str]:
    """Colour and marker of a removal: those of its kind, hollow where the units are random."""
    kind = next((kind for kind in (*KINDS, "direction") if kind in name), "none")
    colour = COLOURS[kind]
    is_random = "random" in name
    return {"color": colour, "marker": MARKERS[kind],
            "markerfacecolor": "white" if is_random else colour}


# ---- the ratio scan --------------------------------------------------------------------------


def ratio_scan(table: pd.DataFrame):
    """Refusal and perplexity on `select` against the removed share, a column a kind.

    `table`: `choices.ratio_scan`; dotted: the chosen share.
    """
    figure, axes = plt.subplots(2, len(KINDS), figsize=(WIDTH, 5.2), sharey="row")
    for (refusing, perplexity), kind in zip(axes.T, KINDS):
        _along_shares(refusing, table, kind, "refusing", 100)
        _along_shares(perplexity, table, kind, "perplexity", 1)
        (chosen,) = table[(table["label"] == kind) & table["chosen"]].itertuples()
        missed = "" if chosen.meets_rule else " (no share meets the rule)"
        refusing.set_title(f"{kind}: {chosen.share:.2%}{missed}")
        perplexity.set_xlabel("units removed (%)")
    axes[0, 0].set_ylabel("requests refused (%)")
    axes[1, 0].set_ylabel("perplexity of\nbenign answers (log)")
    for axis in axes[1]:
        plain_log(axis.yaxis)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _along_shares(axis, table: pd.DataFrame, kind: str, column: str, factor: float):
    """One panel: a column of the scan, times a factor, against the share of a kind."""
    intact = table[table["label"] == "none"].iloc[0]
    part = table[table["label"] == kind].sort_values("share")
    axis.axhline(
        intact[column] * factor,
        color=COLOURS["none"],
        linestyle="--",
        linewidth=1.2,
        label="nothing removed",
    )
    axis.plot(
        part["share"] * 100,
        part[column] * factor,
        marker=MARKERS[kind],
        color=COLOURS[kind],
        label="units of the panel's kind removed",
    )
    axis.axvline(
        part.loc[part["chosen"], "share"].item() * 100,
        color="black",
        linestyle=":",
        linewidth=1.4,
        label="share taken",
    )
    plain_log(axis.xaxis)


# ---- the map ---------------------------------------------------------------------------------


def unit_map(table: pd.DataFrame):
    """Share (%) of every module's units with each label, a panel a label.

    Rows are attention and MLP, columns blocks. `table`: a row a unit with block, kind and label.
    """
    figure, axes = plt.subplots(
        len(KINDS), 1, figsize=(WIDTH, 1.35 * len(KINDS) + 0.9), sharex=True
    )
    for axis, label in zip(axes, KINDS):
        is_hit = table["label"] == label
        _module_shares(axis, table.assign(block=table["block"] + 1, hit=is_hit))
        title = f"{label} ({is_hit.mean():.2%} of all units)"
        axis.set(title=title, xlabel="", ylabel="")
        axis.tick_params(axis="y", rotation=0)
    axes[-1].set_xlabel("block")
    return figure


def _module_shares(axis, table: pd.DataFrame):
    """A heat map of the part of every module's units that is a hit."""
    import seaborn as sns       # slow to import

    shares = table.pivot_table(
        index="kind", columns="block", values="hit", aggfunc="mean"
    )
    sns.heatmap(
        shares * 100,
        ax=axis,
        cmap="cividis",
        vmin=0,
        cbar_kws={"label": "% of module", "pad": 0.01},
        linewidths=0.4,
    )


# ---- other choices ---------------------------------------------------------------------------


def transplant(table: pd.DataFrame, points: pd.DataFrame):
    """Refusals and refusal log-odds of the unaligned model with units of the aligned one.

    `table`, `points`: `choices.transplants`.
    """
    columns = (
        ("refused", "refused", "refuses (%)", True),
        ("log-odds", "log_odds", "refusal log-odds (nats)", False),
    )
    titles = table["title"].to_dict()
    figure, axes = interval_panels(
        table, points, columns, "taken from aligned", (9.5, 2.9), names=titles
    )
    axes[0].set_xlim(-4, 104)
    axes[1].axvline(0, color="#444444", linewidth=1)
    return figure


def variations(table: pd.DataFrame):
    """One choice changed at a time: what removing the SCU does, and how many are the same units.

    `table`: `choices.variations`.
    """
    size = (WIDTH, 0.33 * len(table) + 1.4)
    figure, (attacks, perplexity, overlap) = plt.subplots(
        1, 3, figsize=size, sharey=True
    )
    rows = np.arange(len(table))
    _attack_bars(attacks, table, rows)
    perplexity.plot(table["perplexity"], rows, "o", color=COLOURS["UCU"], markersize=8)
    perplexity.set(xlabel="perplexity of benign answers")
    overlap.plot(table["iou"], rows, "D", color=COLOURS["RU"], markersize=8)
    chance = table["chance"].iloc[0]
    overlap.axvline(chance, color="black", linestyle=":", label="by chance")
    overlap.set(xlabel="overlap with Table 1's SCU (IoU)", xlim=(-0.03, 1.03))
    overlap.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    attacks.set_yticks(rows, table.index)
    attacks.set_ylim(len(table) - 0.4, -0.6)
    return figure


def _attack_bars(axis, table: pd.DataFrame, rows: np.ndarray):
    """Keyword and strict ASR, a pair of bars a row."""
    axis.barh(
        rows - APART,
        table["keyword_asr"] * 100,
        height=BAR,
        color="#bdbdbd",
        label="keyword ASR",
    )
    axis.barh(
        rows + APART,
        table["strict_asr"] * 100,
        height=BAR,
        color=COLOURS["SCU"],
        hatch="//",
        edgecolor="white",
        label="strict ASR",
    )
    axis.set(xlabel="attack success (%)", xlim=(0, 100))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


# ---- the judge -------------------------------------------------------------------------------


def babble_threshold(table: pd.DataFrame, threshold: float):
    """Mean NLL under the base model of coherent and of shuffled answers, and the judge's cut.

    `table`: that of the step `judge_threshold`.
    """
    titles = {
        "select": "select: the threshold is set here",
        "evaluate": "evaluate: and checked here",
    }
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.3), sharey=True)
    bins = np.linspace(0, table["nll"].max(), 40)
    for axis, (split, title) in zip(axes, titles.items()):
        _losses(axis, table[table["split"] == split], bins)
        axis.axvline(
            threshold, color="black", linestyle=":", label=f"threshold {threshold:.2f}"
        )
        axis.set(title=title, xlabel="mean NLL (nats a token)")
    axes[0].set_ylabel("answers")
    legend_above(figure, axes[1])
    return figure


def _losses(axis, table: pd.DataFrame, bins: np.ndarray):
    """Stacked histogram of coherent and of shuffled answers."""
    is_shuffled = table["corrupted"]
    axis.hist(
        [table.loc[~is_shuffled, "nll"], table.loc[is_shuffled, "nll"]],
        bins,
        stacked=True,
        color=[LABEL_STYLES["refuse"][0], "#d9d9d9"],
        label=["coherent", "words shuffled"],
        hatch=None,
        edgecolor="#333333",
        linewidth=0.4,
    )


# ---- the toy of notebook 00 ------------------------------------------------------------------


def toy_units(table: pd.DataFrame):
    """The plane in which units are classified: scaled utility against scaled safety importance.

    `table`: a row a unit with safety, utility and label.
    """
    figure, axis = plt.subplots(figsize=(5.6, 4.6))
    for label, marker in (("CU", "."), ("RU", "^"), ("UCU", "D"), ("SCU", "s")):
        units = table[table["label"] == label]
        axis.plot(
            units["utility"],
            units["safety"],
            marker,
            color=COLOURS[label],
            label=f"{label} ({len(units)})",
            markersize=7,
            alpha=0.85,
        )
    axis.set(xlabel="utility importance (scaled)", ylabel="safety importance (scaled)")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
