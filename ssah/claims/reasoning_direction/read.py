"""C1: what the probe says, and what its reviewers doubted.

The *direction* is everywhere the distance to fulfilment branches minus that to refusal branches: above 0 the model
leans to a refusal.
"""

from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ...inputs.words import data_file
from ...lab import Lab
from ...lab.statistics import auroc, crossed_bootstrap
from ..claim import Check, Deviation, Facts, Verdict, conclude
from ..shared.tables import found, number_of_seeds, with_interval
from .run import PAIR

KINDS = ("refusal", "fulfilment")
SETS = {"harmful": "AdvBench", "unseen": "HarmBench", "benign": "benign instructions"}
#: Answers of either kind that an AUROC needs to be shown with an interval.
ENOUGH = 5


def distances(lab: Lab, requests: str, role: str, *, reading: str = "branch", seeds=None) -> dict[str, np.ndarray]:
    """{kind of opening: (seed, query, wording, n, block)}, cosine distances."""
    extra = {} if reading == "branch" else {"reading": reading}
    results = [lab.get("probe", seed=s, requests=requests, **extra) for s in (lab.seeds if seeds is None else seeds)]
    return {kind: np.stack([r.arrays[f"{role} {kind}"] for r in results]).astype(float) for kind in KINDS}


def gaps(found: dict[str, np.ndarray]) -> np.ndarray:
    """The direction of every pair of wordings: (seed, query, refusal wording, fulfilment wording, n, block)."""
    return found["fulfilment"][:, :, None] - found["refusal"][:, :, :, None]


def sample(lab: Lab) -> str:
    """How much a probe rests on, for labels of origin."""
    wordings = [(data_file("openings").query("probe == '1'")["kind"] == kind).sum() for kind in KINDS]
    return f"n = {lab.profile.probing.queries} queries, {wordings[0]} x {wordings[1]} wordings"


def curve(lab: Lab, requests: str, *, reading: str = "branch", seeds=None) -> pd.DataFrame:
    """Fig. 2 and 7: distance by number of tokens n, mean over blocks. Rows: role, line, n.

    Lines: both kinds, their ``direction``; as role ``difference`` the aligned model's direction minus the unaligned
    one's, paired by seed, query and wording. ``seeds``: each seed's own mean.
    """
    rows, directions = [], {}

    def add(role: str, line: str, values: np.ndarray, axes: int) -> None:
        per_seed = values.mean(tuple(range(1, axes)))                                       # (seed, n)
        rows.extend({"role": role, "line": line, "n": n, "mean": m, "low": lo, "high": hi, "seeds": own}
                    for n, m, lo, hi, own in zip(lab.profile.probing.steps, *crossed_bootstrap(values, axes),
                                                 per_seed.T))

    for role in PAIR:
        found = distances(lab, requests, role, reading=reading, seeds=seeds)
        for kind, values in found.items():
            add(role, kind, values.mean(-1), 3)
        directions[role] = gaps(found).mean(-1)
        add(role, "direction", directions[role], 4)
    add("difference", "direction", directions["aligned"] - directions["unaligned"], 4)
    return pd.DataFrame(rows)


def by_block(lab: Lab, requests: str) -> pd.DataFrame:
    """Fig. 3: distance in every block. Rows: role, line (a kind), n, block (1 is the first)."""
    parts = []
    for role in PAIR:
        for kind, values in distances(lab, requests, role).items():
            mean, low, high = crossed_bootstrap(values, 3, draws=500)                       # (n, block)
            grid = pd.MultiIndex.from_product([lab.profile.probing.steps, range(1, mean.shape[1] + 1)],
                                              names=["n", "block"]).to_frame(index=False)
            parts.append(grid.assign(role=role, line=kind, mean=mean.ravel(), low=low.ravel(), high=high.ravel()))
    return pd.concat(parts, ignore_index=True)


def direction_by_block(lab: Lab, requests: str) -> pd.DataFrame:
    """Fig. 4: the direction in every block, mean over n. Rows: role, block; ``right``: it has the claimed sign."""
    parts = []
    for role, sign in zip(PAIR, (1, -1)):
        mean, low, high = crossed_bootstrap(gaps(distances(lab, requests, role)).mean(4), 4, draws=500)
        parts.append(pd.DataFrame({"role": role, "block": range(1, len(mean) + 1), "mean": mean, "low": low,
                                   "high": high, "right": sign * mean > 0}))
    return pd.concat(parts, ignore_index=True)


@cache      # thousands of draws each, asked for several times a notebook
def c1_facts(lab: Lab) -> dict[str, float]:
    """What `judge_c1` asks for: shares (0 to 1) of token counts, blocks and wordings with the claimed sign."""
    facts, curves = {}, {"steps": curve(lab, "harmful"), "steps, unseen": curve(lab, "unseen")}
    for role, sign in zip(PAIR, (1, -1)):
        for name, table in curves.items():
            lines = table.query("role == @role and line == 'direction'")
            facts[f"{role}: {name}"] = float(((lines["low"] > 0) if sign > 0 else (lines["high"] < 0)).mean())
        facts[f"{role}: blocks"] = block_shares(lab, "harmful", role)[0]
        pairs = gaps(distances(lab, "harmful", role)).mean((0, 1, 4, 5))       # (refusal wording, fulfilment wording)
        facts[f"{role}: pairs"] = float((sign * pairs > 0).mean())
    return facts


def block_shares(lab: Lab, requests: str, role: str) -> tuple[float, list[float]]:
    """Share (0 to 1) of blocks x token counts with the claimed sign: of the mean over seeds, and of each seed."""
    sign = 1 if role == "aligned" else -1
    per_seed = sign * gaps(distances(lab, requests, role)).mean((1, 2, 3))              # (seed, n, block)
    return float((per_seed.mean(0) > 0).mean()), [float(share) for share in (per_seed > 0).mean((1, 2))]


def other_verdicts(lab: Lab, harmful: pd.DataFrame, unseen: pd.DataFrame) -> dict[str, Verdict]:
    """The verdict if the sign of the mean were enough, and if the interval were for these wordings alone.

    `harmful`, `unseen`: `clear_steps` of either set.
    """
    counts, n = {"steps": harmful, "steps, unseen": unseen}, len(lab.profile.probing.steps)
    return {how: judge_c1(c1_facts(lab) | {f"{role}: {name}": table.loc[role, how] / n
                                                  for name, table in counts.items() for role in PAIR})
            for how in ("mean", "fixed")}


def clear_steps(lab: Lab, requests: str) -> pd.DataFrame:
    """At how many token counts the direction has the claimed sign: as a mean, clearly, clearly for these wordings.

    *Clearly*: the 95 % interval over seeds, queries and wordings excludes 0; *for these wordings* (``fixed``): over
    seeds and queries alone. Last row: the aligned model's direction minus the unaligned one's.
    """
    signed = {role: sign * gaps(distances(lab, requests, role)).mean(-1) for role, sign in zip(PAIR, (1, -1))}
    signed["difference"] = sum(signed.values())                                 # aligned - unaligned
    rows = {}
    for role, pairs in signed.items():                                          # (seed, query, wording, wording, n)
        (mean, low, _), (_, fixed, _) = crossed_bootstrap(pairs, 4), crossed_bootstrap(pairs.mean((2, 3)), 2)
        rows[role] = {"mean": int((mean > 0).sum()), "clear": int((low > 0).sum()), "fixed": int((fixed > 0).sum())}
    return pd.DataFrame(rows).T


# ---- the doubts ------------------------------------------------------------------------------

def residual(lab: Lab) -> pd.DataFrame:
    """The direction on harmful queries, on benign ones, and the first minus the second (first seed), by n.

    The last is the *intent residual*: what is left when the effect of the opening's own wording is taken off. The
    wordings are the same on both sides, the queries are not: they are paired at random.
    """
    rows, seeds = [], lab.profile.seeds[:1]
    for role in PAIR:
        harmful, benign = (gaps(distances(lab, r, role, seeds=seeds)).mean(-1)[0] for r in ("harmful", "benign"))
        n = min(len(harmful), len(benign))
        for line, values in (("harmful queries", harmful), ("benign queries", benign),
                             ("residual", harmful[:n] - benign[:n])):
            rows += [{"role": role, "line": line, "n": n, "mean": m, "low": lo, "high": hi}
                     for n, m, lo, hi in zip(lab.profile.probing.steps, *crossed_bootstrap(values, 3))]
    return pd.DataFrame(rows)


def by_wording(lab: Lab, requests: str = "harmful") -> dict[str, pd.DataFrame]:
    """{role: refusal x fulfilment wording}: the direction, mean over seeds, queries, n and blocks."""
    openings = data_file("openings").query("probe == '1'")
    rows, columns = (openings.loc[openings["kind"] == kind, "id"] for kind in KINDS)
    return {role: pd.DataFrame(gaps(distances(lab, requests, role)).mean((0, 1, 4, 5)), index=rows, columns=columns)
            for role in PAIR}


def predicts(lab: Lab) -> pd.DataFrame:
    """Does a query's direction go with the aligned model's refusal of it? A row a set and seed.

    AUROC with 95 % intervals over queries of three scores: the direction (mean over wordings, n and blocks), the same
    at the smallest n alone, and the refusal log-odds; the first minus the last; and their rank correlation.
    ``enough``: at least `ENOUGH` answers of either kind.
    """
    rows = []
    for requests in ("harmful", "unseen"):
        direction = gaps(distances(lab, requests, "aligned")).mean((2, 3, 5))              # (seed, query, n)
        for seed, scores in zip(lab.seeds, direction):
            own = lab.get("probe", seed=seed, requests=requests).tables["queries"].query("role == 'aligned'")
            refused, odds = own["refused"].to_numpy(bool), own["log_odds"].to_numpy()
            few = min(refused.sum(), (~refused).sum())
            correlation = spearmanr(scores.mean(1), odds).statistic if np.ptp(scores.mean(1)) else np.nan
            rows.append({"set": SETS[requests], "seed": seed, "refused": int(refused.sum()), "n": len(refused),
                         "enough": bool(few >= ENOUGH), "rank correlation": float(correlation),
                         **_auroc_columns({"direction": scores.mean(1), "first n": scores[:, 0], "log-odds": odds},
                                          refused)})
    return pd.DataFrame(rows)


def _auroc_columns(scores: dict[str, np.ndarray], refused: np.ndarray, draws: int = 1000) -> dict[str, float]:
    """AUROC of every score, and of direction - log-odds, with intervals; the same queries are redrawn for all."""
    random = np.random.default_rng(0)
    chosen = [random.integers(len(refused), size=len(refused)) for _ in range(draws)]
    values = {name: np.array([auroc(s[c], refused[c]) for c in chosen]) for name, s in scores.items()}
    means = {name: auroc(s, refused) for name, s in scores.items()}
    values["difference"], means["difference"] = (x["direction"] - x["log-odds"] for x in (values, means))
    columns = {}
    for name, drawn in values.items():
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
        columns |= {name: means[name], f"{name} low": float(low), f"{name} high": float(high)}
    return columns


def shown_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """`predicts` for display: AUROC with its interval as text."""
    shown = table[["set", "seed"]].assign(refused=table["refused"].astype(str) + " of " + table["n"].astype(str))
    for name in ("direction", "first n", "log-odds", "difference"):
        shown[name if name == "difference" else f"AUROC, {name}"] = [
            with_interval(row, name, 1, 2) if row["enough"] else "too few" for _, row in table.iterrows()]
    shown["rank correlation"] = table["rank correlation"].map("{:.2f}".format)
    return shown.set_index(["set", "seed"])


def along(lab: Lab) -> pd.DataFrame:
    """The direction at token t after a prefilled opening (first seed): role, prefilled, t, mean, low, high.

    t = 0 stands for the mean over all t. Intervals over queries and prefills.
    """
    result, rows = lab.get("along_answers", seed=lab.profile.seeds[0]), []
    for role in PAIR:
        values = result.arrays[role].astype(float)                                     # (query, prefill, length, t)
        values = np.concatenate([values.mean(-1, keepdims=True), values], axis=-1)
        mean, low, high = crossed_bootstrap(values, 2)
        for i, length in enumerate(result.values["lengths"]):
            rows += [{"role": role, "prefilled": length, "t": t, "mean": m, "low": lo, "high": hi}
                     for t, m, lo, hi in zip(range(mean.shape[1]), mean[i], low[i], high[i])]
    return pd.DataFrame(rows)


def refused_after(lab: Lab) -> pd.DataFrame:
    """Share of answers that still refuse after a prefilled opening (first seed): role, prefilled, mean, low, high.

    ``prefills``: the share after each of the prefills.
    """
    result, rows = lab.get("along_answers", seed=lab.profile.seeds[0]), []
    for role in PAIR:
        refused = result.arrays[f"{role} refused"].astype(float)                       # (query, prefill, length)
        rows += [{"role": role, "prefilled": n, "mean": m, "low": lo, "high": hi, "prefills": own}
                 for n, m, lo, hi, own in zip(result.values["lengths"], *crossed_bootstrap(refused, 2),
                                              refused.mean(0).T)]
    return pd.DataFrame(rows)


# ---- sentences -------------------------------------------------------------------------------

def c1_summary(lab: Lab, curves: pd.DataFrame, verdict: Verdict) -> str:
    """The first paragraph of notebook 01: what was found, in numbers."""
    lines = curves[curves["line"] == "direction"].groupby("role")
    said = {role: f"{part['mean'].mean():+.3f} (from {part['mean'].min():+.3f} to {part['mean'].max():+.3f} over n)"
            for role, part in lines}
    level = curves[curves["line"] != "direction"]["mean"].mean()
    counts, n = clear_steps(lab, "harmful"), len(lab.profile.probing.steps)
    refused = [lab.get("probe", seed=seed, requests=requests).tables["queries"].query("role == 'aligned'")[
        "refused"].mean() for requests in ("harmful", "unseen") for seed in lab.seeds]
    wordings = [len(x) for x in by_wording(lab)["aligned"].axes]
    other = other_verdicts(lab, counts, clear_steps(lab, "unseen"))
    return (f"**What we found** ({lab.profile.model.label}, {number_of_seeds(lab)}, {sample(lab)} a set): "
            f"{found(verdict)}\n\n"
            f"- *The sign.* Distance to fulfilment branches minus distance to refusal branches: aligned "
            f"{said['aligned']}, unaligned {said['unaligned']}. All distances are near {level:.2f}, so the "
            "direction is a small part of them.\n"
            f"- *Is it clear?* The mean has the claimed sign at {counts.loc['aligned', 'mean']} (aligned) and "
            f"{counts.loc['unaligned', 'mean']} (unaligned) of {n} token counts. Its 95 % interval over seeds, queries "
            f"and wordings excludes 0 at {counts.loc['aligned', 'clear']} and {counts.loc['unaligned', 'clear']}; for "
            "these wordings alone, with seeds and queries redrawn, it would at "
            f"{counts.loc['aligned', 'fixed']} and {counts.loc['unaligned', 'fixed']}: with {wordings[0]} and "
            f"{wordings[1]} wordings, much of the width is the choice of wordings. The verdict asks for "
            f"the first kind of interval; for these wordings alone it would be *{other['fixed'].verdict}*, by the sign "
            f"of the mean alone *{other['mean'].verdict}*.\n"
            f"- *Do the two models differ?* Paired by seed, query and wording, aligned minus unaligned is "
            f"{said['difference']}; its interval excludes 0 at {counts.loc['difference', 'clear']} of {n}.\n"
            f"- *How aligned is it?* The aligned models themselves refuse {min(refused):.0%} to {max(refused):.0%} of "
            "these queries, depending on seed and set.")


def curve_summary(lab: Lab, requests: str) -> str:
    """Figure 2 or 7 in numbers."""
    counts, n = clear_steps(lab, requests), len(lab.profile.probing.steps)
    said = [f"{name} {row['mean']} of {n} (clearly: {row['clear']})" for name, row in counts.iterrows()]
    return (f"**What we see** on {SETS[requests]}. Token counts at which the mean has the claimed sign, and at which "
            f"its interval excludes 0: {said[0]}, {said[1]}, aligned minus unaligned "
            f"{said[2].removeprefix('difference ')}.")


def block_summary(lab: Lab) -> str:
    """Figure 3 in numbers."""
    said = []
    for requests in ("harmful", "unseen"):
        for role in PAIR:
            share, own = block_shares(lab, requests, role)
            said.append(f"{SETS[requests]}, {role} {share:.0%} (seeds: {', '.join(f'{x:.0%}' for x in own)})")
    return f"**What we see.** Blocks x token counts with the claimed sign: {'; '.join(said)}."


def static_summary(curves: dict[str, pd.DataFrame]) -> str:
    """What the static reading gives on each set of queries (title -> `curve`), in numbers."""
    said = []
    for title, table in curves.items():
        mean = table[table["line"] == "direction"].groupby("role")["mean"]
        said.append(f"{title}: aligned {mean.mean()['aligned']:+.3f} (above 0 at "
                    f"{(mean.get_group('aligned') > 0).sum()} of {table['n'].nunique()} counts), unaligned "
                    f"{mean.mean()['unaligned']:+.3f} ({(mean.get_group('unaligned') > 0).sum()}), aligned minus "
                    f"unaligned {mean.mean()['difference']:+.3f}")
    return f"**What we see.** Direction in the static reading, mean over k. {'; '.join(said)}."


def residual_summary(table: pd.DataFrame) -> str:
    """What the intent residual shows, in numbers."""
    mean = table.groupby(["role", "line"])["mean"].mean()
    clear = table[table["line"] == "residual"].assign(
        clear=lambda t: (t["low"] > 0) | (t["high"] < 0)).groupby("role")["clear"].sum()
    n = table["n"].nunique()
    return (f"**What we see.** On *benign* queries the same openings give {mean['aligned', 'benign queries']:+.3f} "
            f"(aligned) and {mean['unaligned', 'benign queries']:+.3f} (unaligned); what is left for the harm in the "
            f"query is {mean['aligned', 'residual']:+.3f} and {mean['unaligned', 'residual']:+.3f}. Its interval "
            f"excludes 0 at {clear['aligned']} and {clear['unaligned']} of {n} token counts.")


def wording_summary(tables: dict[str, pd.DataFrame]) -> str:
    """For how many pairs of wordings the sign holds."""
    said = [f"{role} {(sign * table > 0).to_numpy().sum()} of {table.size}"
            for (role, table), sign in zip(tables.items(), (1, -1))]
    return f"**What we see.** Pairs of wordings with the claimed sign: {', '.join(said)}."


def prediction_summary(table: pd.DataFrame) -> str:
    """Whether the probe beats one prefill, in numbers."""
    usable = table[table["enough"]]
    if usable.empty:
        return "**What we see.** Too few answers of one kind to say anything: all seeds refuse nearly all, or nothing."
    better, worse = (usable["difference low"] > 0).sum(), (usable["difference high"] < 0).sum()
    return (f"**What we see.** Mean AUROC over the {len(usable)} rows with at least {ENOUGH} answers of either kind: "
            f"direction {usable['direction'].mean():.2f}, at the smallest n alone {usable['first n'].mean():.2f}, "
            f"log-odds {usable['log-odds'].mean():.2f}. The direction is clearly better than the log-odds in {better} "
            f"of them and clearly worse in {worse}.")


def along_summary(directions: pd.DataFrame, refused: pd.DataFrame) -> str:
    """Where the direction flips and the refusal is lost, in numbers."""
    own = directions.query("role == 'aligned' and t == 0").set_index("prefilled")
    lists = {"clearly above 0": own[own["low"] > 0], "clearly below 0": own[own["high"] < 0],
             "undecided": own[(own["low"] <= 0) & (own["high"] >= 0)]}
    where = "; ".join(f"{name} after {', '.join(map(str, rows.index))}" for name, rows in lists.items() if len(rows))
    kept = refused[refused["role"] == "aligned"].set_index("prefilled")
    text = "; ".join(f"{n}: {row['mean']:.0%}" + (f" ({', '.join(f'{x:.0%}' for x in row['prefills'])})" if n else "")
                     for n, row in kept.iterrows())
    return (f"**What we see.** Answers of the aligned model that still refuse, by prefilled tokens (in brackets: after "
            f"each of the prefills): {text}. Its direction, averaged over the next {directions['t'].max()} tokens, is "
            f"{where} prefilled tokens.")


# ---- the rule ---------------------------------------------------------------------------------

C1_MARGINS = {
    "token counts at which the interval over seeds, queries and wordings excludes 0, at least": 0.8,
    "blocks x token counts with that sign, at least": 0.8,
    "pairs of wordings with that sign, at least": 0.8,
}


def judge_c1(facts: dict[str, float]) -> Verdict:
    """Verdict on the probe, branch reading. `facts`: `tables.reasoning_direction.c1_facts`, as fractions.

    The direction is the distance to fulfilment branches minus that to refusal branches; aligned models should have
    it above 0, unaligned ones below. *reproduced*: all five checks hold; *partly*: the first two (both models, first
    set); else *not reproduced*.
    """
    steps, blocks, pairs = C1_MARGINS.values()

    def holds(*names: str, margin: float) -> bool:
        return all(facts[name] >= margin for name in names)

    def shown(*names: str) -> str:
        return ", ".join(f"{name.split(': ')[0]} {facts[name]:.0%}" for name in names)

    both = [(f"aligned: {what}", f"unaligned: {what}") for what in ("steps", "steps, unseen", "blocks", "pairs")]
    checks = (
        Check(f"the aligned model leans to refusal (95 % interval above 0) at {steps:.0%} or more of the token counts",
              f"{facts['aligned: steps']:.0%} of them", holds("aligned: steps", margin=steps)),
        Check(f"the unaligned model leans to fulfilment (interval below 0) at {steps:.0%} or more of them",
              f"{facts['unaligned: steps']:.0%} of them", holds("unaligned: steps", margin=steps)),
        Check("both also on requests of a set that was never trained on", shown(*both[1]),
              holds(*both[1], margin=steps)),
        Check(f"in every block: the sign is right in {blocks:.0%} or more of blocks x token counts", shown(*both[2]),
              holds(*both[2], margin=blocks)),
        Check(f"whatever the wording: the sign is right for {pairs:.0%} or more of the pairs of openings",
              shown(*both[3]), holds(*both[3], margin=pairs)),
    )
    return conclude("C1", checks, partly=checks[0].holds and checks[1].holds)


def ours(lab: Lab, facts: Facts) -> str:
    """Our number for the ledger: both models' direction in the middle of the token counts."""
    table = curve(lab, "harmful").query("line == 'direction' and role != 'difference'")
    steps = lab.profile.probing.steps
    middle = steps[len(steps) // 2]
    directions = [f"{row['role']} {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
                  for _, row in table[table["n"] == middle].iterrows()]
    return f"direction after {middle} tokens: {', '.join(directions)}; {sample(lab)}"


def summary(lab: Lab, verdict: Verdict) -> str:
    """The first paragraph of notebook 01, also in README."""
    return c1_summary(lab, curve(lab, "harmful"), verdict)


def deviations(lab: Lab) -> list[Deviation]:
    """Where the probe chooses or differs."""
    branch = _mean_direction(lab, "branch", None)
    static = _mean_direction(lab, "static", lab.profile.seeds[:1])
    return [Deviation(
        name="Probe", paper="tokens \"generated\"; the text allows two readings",
        here="openings are put first, then the model goes on",
        why="it is what the axis label says",
        otherwise=f"direction of the aligned model {branch:+.3f}; appended to the query instead "
                  f"{static:+.3f} (first seed)")]


def _mean_direction(lab: Lab, reading: str, seeds) -> float:
    table = curve(lab, "harmful", reading=reading, seeds=seeds)
    return table.query("line == 'direction' and role == 'aligned'")["mean"].mean()
