"""C5: attack success against how much of the model trains."""

import matplotlib.pyplot as plt
import pandas as pd

from ..shared.conditions import NAMES, START
from ..shared.pictures import style_of
from ..shared.style import PERCENT, WIDTH, legend_above, marked, plain_log

#: Column of the table -> title of its panel.
RATES = {"ASR": "keyword ASR (%)", "strict ASR": "strict ASR: comply (%)"}


def how_few(table: pd.DataFrame):
    """Keyword and strict ASR at equal loss against the part of the parameters that trains.

    `table`: of `runs.table_two`; the horizontal axis is logarithmic.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.2), sharex=True, sharey=True)
    names, star = marked(table, NAMES)
    for axis, (column, title) in zip(axes, RATES.items()):
        for condition, row in table.drop(index=START.name).iterrows():
            _mark(axis, row, column, names[condition], style_of(condition))
        before = table.loc[START.name, column] * 100
        axis.axhline(before, color="#444444", linestyle=":", linewidth=1.4, label=START.title)
        axis.set(xlabel="parameters that train (%)", ylabel=title, ylim=PERCENT)
    plain_log(axes[0].xaxis)
    legend_above(figure, axes[0], title="frozen" + star)
    return figure


def _mark(axis, row: pd.Series, column: str, label: str, style: dict) -> None:
    """One condition: its rate with the interval."""
    rate = row[column] * 100
    below = rate - row[f"{column} low"] * 100
    above = row[f"{column} high"] * 100 - rate
    axis.errorbar(
        row["trained"] * 100,
        rate,
        yerr=[[below], [above]],
        linestyle="",
        markersize=10,
        markeredgecolor=style["color"],
        label=label,
        capsize=3,
        **style)
