"""C2: Table 1, the ratio scan, the map, the transplant, other choices, the judge's threshold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..shared.style import COLOURS, LABEL_STYLES, MARKERS, interval_panels, plain_log


def table_one(table: pd.DataFrame, points: pd.DataFrame):
    """Table 1 in four panels, a row a condition: keyword and strict ASR, accuracy, Wikipedia perplexity."""
    columns = (("ASR", "keyword_asr", "keyword ASR (%)", True),
               ("strict ASR", "strict_asr", "strict ASR: comply (%)", True),
               ("accuracy", "accuracy", "multiple choice, accuracy (%)", True),
               ("wiki ppl", "wiki ppl", "Wikipedia perplexity (log)", False))
    figure, axes = interval_panels(table, points, columns, "removed", (13, 4.4))
    plain_log(axes[3].xaxis)
    return figure


def ratio_scan(table: pd.DataFrame, chosen: dict[str, float], met: dict[str, bool]):
    """Refusal and perplexity on `select` against the removed share, a column a kind; dotted: the chosen share."""
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 5.6), sharey="row")
    intact = table[table["label"] == "none"].iloc[0]
    for column, kind in enumerate(("SCU", "UCU", "RU")):
        part = table[table["label"] == kind].sort_values("share")
        for row, (name, factor) in enumerate((("refusing", 100), ("perplexity", 1))):
            axis = axes[row, column]
            axis.axhline(intact[name] * factor, color=COLOURS["none"], linestyle="--", linewidth=1.2,
                         label="nothing removed")
            axis.plot(part["share"] * 100, part[name] * factor, marker=MARKERS[kind], color=COLOURS[kind],
                      label="units of the panel's kind removed")
            axis.axvline(chosen[kind.lower()] * 100, color="black", linestyle=":", linewidth=1.4,
                         label="share taken")
            plain_log(axis.xaxis)
        missed = "" if met[kind] else " (no share meets the rule)"
        axes[0, column].set_title(f"{kind}: {chosen[kind.lower()]:.2%}{missed}")
        axes[1, column].set_xlabel("units removed (%)")
    axes[0, 0].set_ylabel("requests refused (%)")
    axes[1, 0].set_ylabel("perplexity of\nbenign answers (log)")
    for axis in axes[1]:
        plain_log(axis.yaxis)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def unit_map(labels: np.ndarray, index):
    """Share (%) of every module's units with each label: a panel a label, rows attention and MLP, columns blocks."""
    table = index.table.assign(label=labels, block=index.table["block"] + 1)
    figure, axes = plt.subplots(3, 1, figsize=(11, 1.35 * 3 + 0.9), sharex=True)
    for axis, kind in zip(axes, ("SCU", "UCU", "RU")):
        share = table.assign(hit=table["label"] == kind).pivot_table(
            index="kind", columns="block", values="hit", aggfunc="mean") * 100
        sns.heatmap(share, ax=axis, cmap="cividis", vmin=0, cbar_kws={"label": "% of module", "pad": 0.01},
                    linewidths=0.4)
        axis.set(title=f"{kind} ({(labels == kind).mean():.2%} of all units)", xlabel="", ylabel="")
        axis.tick_params(axis="y", rotation=0)
    axes[-1].set_xlabel("block")
    return figure


def transplant(table: pd.DataFrame, points: pd.DataFrame):
    """Refusals and refusal log-odds of the unaligned model with some units' weights taken from the aligned one."""
    columns = (("refused", "refused", "refuses (%)", True), ("log-odds", "log_odds", "refusal log-odds (nats)", False))
    figure, axes = interval_panels(table, points, columns, "taken from aligned", (9.5, 2.9))
    axes[0].set_xlim(-4, 104)
    axes[1].axvline(0, color="#444444", linewidth=1)
    return figure


def variations(table: pd.DataFrame):
    """One choice changed at a time: what removing the SCU does, and how much of the set stays the same."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 0.36 * len(table) + 1.4), sharey=True)
    rows = np.arange(len(table))
    axes[0].barh(rows - 0.19, table["keyword_asr"] * 100, height=0.36, color="#bdbdbd", label="keyword ASR")
    axes[0].barh(rows + 0.19, table["strict_asr"] * 100, height=0.36, color=COLOURS["SCU"], hatch="//",
                 edgecolor="white", label="strict ASR")
    axes[0].set(xlabel="attack success (%)", xlim=(0, 100))
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axes[1].plot(table["perplexity"], rows, "o", color=COLOURS["UCU"], markersize=8)
    axes[1].set(xlabel="perplexity of benign answers")
    axes[2].plot(table["iou"], rows, "D", color=COLOURS["RU"], markersize=8)
    axes[2].axvline(table["chance"].iloc[0], color="black", linestyle=":", label="by chance")
    axes[2].set(xlabel="overlap with Table 1's SCU (IoU)", xlim=(-0.03, 1.03))
    axes[2].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    axes[0].set_yticks(rows, table.index)
    axes[0].set_ylim(len(table) - 0.4, -0.6)
    return figure


def babble_threshold(table: pd.DataFrame, threshold: float):
    """Mean NLL under the base model of coherent and of shuffled answers, and where the judge cuts."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3), sharey=True)
    bins = np.linspace(0, table["nll"].max(), 40)
    for axis, (split, title) in zip(axes, (("select", "select: the threshold is set here"),
                                           ("evaluate", "evaluate: and checked here"))):
        part = table[table["split"] == split]
        axis.hist([part.loc[~part["corrupted"], "nll"], part.loc[part["corrupted"], "nll"]], bins, stacked=True,
                  color=[LABEL_STYLES["refuse"][0], "#d9d9d9"], label=["coherent", "words shuffled"], hatch=None,
                  edgecolor="#333333", linewidth=0.4)
        axis.axvline(threshold, color="black", linestyle=":", label=f"threshold {threshold:.2f}")
        axis.set(title=title, xlabel="mean NLL (nats a token)")
    axes[0].set_ylabel("answers")
    axes[1].legend()
    return figure


def toy_units(safety: np.ndarray, utility: np.ndarray, labels: np.ndarray):
    """The plane in which units are classified: scaled utility against scaled safety importance."""
    figure, axis = plt.subplots(figsize=(5.6, 4.6))
    for kind, marker in (("CU", "."), ("RU", "^"), ("UCU", "D"), ("SCU", "s")):
        chosen = labels == kind
        axis.plot(utility[chosen], safety[chosen], marker, color=COLOURS[kind], label=f"{kind} ({chosen.sum()})",
                  markersize=7, alpha=0.85)
    axis.set(xlabel="utility importance (scaled)", ylabel="safety importance (scaled)")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
