"""C5: attack success against how much of the model trains."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..shared.pictures import style_of
from ..shared.runs import NAMES
from ..shared.style import marked, plain_log


def how_few(table: pd.DataFrame):
    """Keyword and strict ASR at equal loss against the part of the parameters that trains (logarithmic)."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.6), sharex=True, sharey=True)
    names, star = marked(table, NAMES)
    for axis, column, title in zip(axes, ("ASR", "strict ASR"), ("keyword ASR (%)", "strict ASR: comply (%)")):
        for condition, row in table.drop(index="start").iterrows():
            x, y = row["trained"] * 100, row[column] * 100
            around = np.abs([[row[f"{column} low"] * 100 - y], [row[f"{column} high"] * 100 - y]])
            style = style_of(condition)
            axis.errorbar(x, y, yerr=around, linestyle="", markersize=10, markeredgecolor=style["color"],
                          label=names[condition], capsize=3, **style)
        axis.axhline(table.loc["start", column] * 100, color="#444444", linestyle=":", linewidth=1.4,
                     label=NAMES["start"])
        axis.set(xlabel="parameters that train (%)", ylabel=title, ylim=(-4, 104))
    plain_log(axes[0].xaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False,
                  fontsize=9, title="frozen" + star)
    return figure
