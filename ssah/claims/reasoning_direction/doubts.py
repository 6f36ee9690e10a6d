"""C1: what its reviewers doubted: the opening, the wording, the model's own answers, their end."""

import numpy as np
import pandas as pd
import xarray as xr

from ...inputs.words import data_file
from ...lab import Lab
from ...lab.statistics import aurocs
from ...lab.words import say
from ..shared.tables import with_interval
from .read import (
    HARMFUL,
    KINDS,
    SETS,
    SIGNS,
    WORDINGS,
    WORDS,
    direction,
    direction_by_wording,
    distances,
    each,
    interval,
    table_of,
)
from .run import PAIR

#: Answers of either kind that an AUROC needs to be shown with an interval.
ENOUGH = 5
#: Draws of queries behind the interval of an AUROC.
AUROC_DRAWS = 1000


# ---- (a) the harm in the query, or the opening -----------------------------------------------

def residual(lab: Lab) -> pd.DataFrame:
    """The direction on harmful and on benign queries, and the first minus the second, by n.

    The last is the *intent residual*: what is left when the effect of the opening's own wording is
    taken off. The wordings are the same on both sides, the queries are not: they are paired at
    random. First seed; rows: line, role, n (see `read.table_of`).
    """
    harmful = first_directions(lab, "harmful")
    benign = first_directions(lab, "benign")
    pairs = slice(min(harmful.sizes["query"], benign.sizes["query"]))
    return table_of({
        "harmful queries": harmful,
        "benign queries": benign,
        "residual": harmful.isel(query=pairs) - benign.isel(query=pairs)})


def first_directions(lab: Lab, requests: str) -> xr.DataArray:
    """The first seed's direction of every query and pair of wordings, by n; mean over blocks."""
    measured = distances(lab, requests, seeds=lab.profile.seeds[:1])
    return direction(measured.mean("block", skipna=False))


def residual_summary(table: pd.DataFrame) -> str:
    """What the intent residual shows, in numbers."""
    clearly = (table["low"] > 0) | (table["high"] < 0)
    lines = table.assign(clearly=clearly).groupby(["line", "role"])
    numbers = lines.agg({"mean": "mean", "clearly": "sum", "n": "size"})
    benign = numbers.loc["benign queries"].to_dict("index")
    left = numbers.loc["residual"].to_dict("index")
    return say(WORDS, "residual", benign=benign, residual=left)


# ---- (b) every wording -----------------------------------------------------------------------

def by_wording(lab: Lab, requests: str = "harmful") -> dict[str, pd.DataFrame]:
    """{role: refusal x fulfilment wording}: the direction, mean over seeds, queries, n, blocks."""
    means = direction_by_wording(lab, requests)
    openings = data_file("openings").query("probe == '1'")
    for kind in KINDS:
        names = openings.loc[openings["kind"] == kind, "id"]
        means = means.assign_coords({f"{kind}_wording": list(names)})
    return {role: means.sel(role=role).to_pandas() for role in PAIR}


def wording_summary(tables: dict[str, pd.DataFrame]) -> str:
    """For how many pairs of wordings the sign holds."""
    right = {}
    for role, table in tables.items():
        signed = SIGNS[role] * table.to_numpy()
        right[role] = {"number": (signed > 0).sum(), "pairs": signed.size}
    return say(WORDS, "wordings", right=right)


# ---- (c) what the model does -----------------------------------------------------------------

def predicts(lab: Lab) -> pd.DataFrame:
    """Does a query's direction go with the aligned model's refusal of it? A row a set and seed.

    AUROC with 95 % intervals over queries of three scores: the direction (mean over wordings, n and
    blocks), the same at the smallest n alone, and the refusal log-odds; the first minus the last;
    and their rank correlation. ``enough``: at least `ENOUGH` answers of either kind.
    """
    answers = lab.frame("probe", "queries").query("role == 'aligned' and requests in @HARMFUL")
    directions = {requests: query_directions(lab, requests) for requests in HARMFUL}
    rows = []
    for (requests, seed), asked in answers.groupby(["requests", "seed"]):
        by_step = directions[requests].sel(seed=seed)
        scores = pd.DataFrame({
            "direction": by_step.mean("n", skipna=False).to_numpy(),
            "first n": by_step.isel(n=0).to_numpy(),
            "log-odds": asked["log_odds"].to_numpy()})
        refused = asked["refused"].to_numpy(bool)
        row = prediction(scores, refused)
        rows.append({"set": SETS[requests], "seed": seed, **row})
    return pd.DataFrame(rows)


def query_directions(lab: Lab, requests: str) -> xr.DataArray:
    """The aligned model's direction (seed, query, n), mean over wordings and blocks."""
    measured = distances(lab, requests).sel(role="aligned")
    return direction(measured.mean("block", skipna=False)).mean(WORDINGS, skipna=False)


def prediction(scores: pd.DataFrame, refused: np.ndarray) -> dict:
    """How well each column of `scores` (a row a query) goes with what was refused."""
    correlation = np.nan
    if np.ptp(scores["direction"]) > 0:
        ranks = scores[["direction", "log-odds"]].corr(method="spearman")
        correlation = ranks.loc["direction", "log-odds"]
    few = min(refused.sum(), (~refused).sum())
    return {
        "refused": int(refused.sum()),
        "n": len(refused),
        "enough": bool(few >= ENOUGH),
        "rank correlation": float(correlation),
        **auroc_intervals(scores, refused)}


def auroc_intervals(scores: pd.DataFrame, refused: np.ndarray) -> dict[str, float]:
    """AUROC of every score, and of direction - log-odds: ``NAME``, ``NAME low``, ``NAME high``.

    A draw takes the same queries for all scores; one without answers of both kinds is left out.
    """
    n = len(refused)
    whole = drawn_aurocs(scores, refused, np.arange(n)[None]).loc[0]
    draws = np.random.default_rng(0).integers(n, size=(AUROC_DRAWS, n))
    ends = drawn_aurocs(scores, refused, draws).quantile([0.025, 0.975])
    columns = {}
    for name, value in whole.items():
        columns[name] = value
        columns[f"{name} low"] = ends.loc[0.025, name]
        columns[f"{name} high"] = ends.loc[0.975, name]
    return columns


def drawn_aurocs(scores: pd.DataFrame, refused: np.ndarray, draws: np.ndarray) -> pd.DataFrame:
    """AUROC of every score, a row a draw, and as ``difference`` of the direction less the log-odds.

    `draws` (draws, queries): the places of the queries that each draw takes.
    """
    table = pd.DataFrame({name: aurocs(scores[name].to_numpy()[draws], refused[draws])
                          for name in scores})
    table["difference"] = table["direction"] - table["log-odds"]
    return table


def shown_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """`predicts` for display: AUROC with its interval as text."""
    titles = {
        "direction": "AUROC, direction",
        "first n": "AUROC, first n",
        "log-odds": "AUROC, log-odds",
        "difference": "difference"}
    cells = {title: [] for title in titles.values()}
    for _, row in table.iterrows():
        for name, title in titles.items():
            text = with_interval(row, name, 1, 2) if row["enough"] else "too few"
            cells[title].append(text)
    refused = table["refused"].astype(str) + " of " + table["n"].astype(str)
    shown = table[["set", "seed"]].assign(refused=refused, **cells)
    shown["rank correlation"] = table["rank correlation"].map("{:.2f}".format)
    return shown.set_index(["set", "seed"])


def prediction_summary(table: pd.DataFrame) -> str:
    """Whether the probe beats one prefill, in numbers."""
    usable = table[table["enough"]]
    return say(
        WORDS, "predictions",
        rows=len(usable),
        enough=ENOUGH,
        means=usable[["direction", "first n", "log-odds"]].mean(),
        better=(usable["difference low"] > 0).sum(),
        worse=(usable["difference high"] < 0).sum())


# ---- (d) along the answer --------------------------------------------------------------------

def prefilled_answers(lab: Lab) -> xr.Dataset:
    """What follows prefilled openings (first seed).

    Variables ``direction``: (role, query, prefill, prefilled, t), and ``refused``, as 0 or 1,
    without t. Axes: ``prefilled``: how many tokens were put first; t: the token after them, from 1.
    """
    result = lab.get("along_answers", seed=lab.profile.seeds[0])
    directions = np.array([result.arrays[role] for role in PAIR], dtype=float)
    refused = np.array([result.arrays[f"{role} refused"] for role in PAIR], dtype=float)
    axes = ("role", "query", "prefill", "prefilled")
    dataset = xr.Dataset({
        "direction": ((*axes, "t"), directions),
        "refused": (axes, refused)})
    return dataset.assign_coords(
        role=list(PAIR),
        prefilled=result.values["lengths"],
        t=np.arange(1, dataset.sizes["t"] + 1))


def along(lab: Lab) -> pd.DataFrame:
    """The direction at token t after a prefilled opening: role, prefilled, t, mean, low, high.

    t = 0 stands for the mean over all t. First seed; intervals over queries and prefills.
    """
    directions = prefilled_answers(lab)["direction"]
    overall = directions.mean("t", skipna=False).assign_coords(t=0)
    everything = xr.concat([overall, directions], "t").transpose(..., "t")
    return interval(everything).to_dataframe().reset_index()


def refused_after(lab: Lab) -> pd.DataFrame:
    """Share of answers that still refuse after a prefilled opening, with intervals.

    Rows: role, prefilled; ``prefills``: the share after each of the prefills. First seed.
    """
    refused = prefilled_answers(lab)["refused"]
    table = interval(refused).to_dataframe()
    table["prefills"] = each(refused, "prefill")
    return table.reset_index()


def along_summary(directions: pd.DataFrame, refused: pd.DataFrame) -> str:
    """Where the direction flips and the refusal is lost, in numbers."""
    overall = directions.query("role == 'aligned' and t == 0").set_index("prefilled")
    above = overall["low"] > 0
    below = overall["high"] < 0
    rows = refused.query("role == 'aligned'").to_dict("records")
    return say(
        WORDS, "along",
        tokens=directions["t"].max(),
        refused=rows,
        above=list(overall.index[above]),
        below=list(overall.index[below]),
        undecided=list(overall.index[~above & ~below]))
