"""C1: what the probe says, and what its reviewers doubted.

The *direction* is everywhere the distance to fulfilment branches minus that to refusal branches: above 0 the model
leans to a refusal.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from .. import claims
from ..experiments import PAIR, Lab
from ..statistics import auroc, crossed_bootstrap
from .shared import with_interval

KINDS = ("refusal", "fulfilment")
SETS = {"harmful": "AdvBench", "unseen": "HarmBench", "benign": "benign instructions"}


def distances(lab: Lab, requests: str, role: str, *, reading: str = "branch", seeds=None) -> dict[str, np.ndarray]:
    """{kind of opening: (seed, query, wording, n, block)}, cosine distances."""
    extra = {} if reading == "branch" else {"reading": reading}
    results = [lab.get("probe", seed=s, requests=requests, **extra) for s in (lab.seeds if seeds is None else seeds)]
    return {kind: np.stack([r.arrays[f"{role} {kind}"] for r in results]).astype(float) for kind in KINDS}


def gaps(found: dict[str, np.ndarray]) -> np.ndarray:
    """The direction of every pair of wordings: (seed, query, refusal wording, fulfilment wording, n, block)."""
    return found["fulfilment"][:, :, None] - found["refusal"][:, :, :, None]


def curve(lab: Lab, requests: str, *, reading: str = "branch", seeds=None) -> pd.DataFrame:
    """Fig. 2 and 7: distance by number of tokens n, mean over blocks. Rows: role, line (kind or ``direction``), n."""
    rows = []
    for role in PAIR:
        found = distances(lab, requests, role, reading=reading, seeds=seeds)
        lines = {kind: crossed_bootstrap(values.mean(-1), 3) for kind, values in found.items()}
        lines["direction"] = crossed_bootstrap(gaps(found).mean(-1), 4)
        for line, (mean, low, high) in lines.items():
            rows += [{"role": role, "line": line, "n": n, "mean": m, "low": lo, "high": hi}
                     for n, m, lo, hi in zip(lab.profile.probing.steps, mean, low, high)]
    return pd.DataFrame(rows)


def by_block(lab: Lab, requests: str) -> pd.DataFrame:
    """Fig. 3 and 4: the same for every block. Rows: role, line, n, block (1 is the first)."""
    rows = []
    for role in PAIR:
        found = distances(lab, requests, role)
        lines = {kind: crossed_bootstrap(values, 3, draws=200) for kind, values in found.items()}
        lines["direction"] = crossed_bootstrap(gaps(found).mean((2, 3)), 2, draws=200)
        for line, (mean, low, high) in lines.items():
            grid = pd.MultiIndex.from_product([lab.profile.probing.steps, range(1, mean.shape[1] + 1)],
                                              names=["n", "block"]).to_frame(index=False)
            rows.append(grid.assign(role=role, line=line, mean=mean.ravel(), low=low.ravel(), high=high.ravel()))
    return pd.concat(rows, ignore_index=True)


def c1_facts(lab: Lab) -> dict[str, float]:
    """What `claims.judge_c1` asks for: shares (0 to 1) of token counts, blocks and wordings with the claimed sign."""
    facts = {}
    for role, sign in zip(PAIR, (1, -1)):
        for requests, name in (("harmful", "steps"), ("unseen", "steps, unseen")):
            lines = curve(lab, requests).query("role == @role and line == 'direction'")
            facts[f"{role}: {name}"] = float(((lines["low"] > 0) if sign > 0 else (lines["high"] < 0)).mean())
        mean = sign * gaps(distances(lab, "harmful", role)).mean((0, 1))       # (wording, wording, n, block)
        facts[f"{role}: blocks"] = float((mean.mean((0, 1)) > 0).mean())
        facts[f"{role}: pairs"] = float((mean.mean((2, 3)) > 0).mean())
    return facts


def clear_steps(lab: Lab, requests: str = "harmful") -> pd.DataFrame:
    """At how many token counts the direction has the claimed sign: as a mean, clearly, clearly for these wordings.

    *Clearly*: the 95 % interval over seeds, queries and wordings excludes 0; *for these wordings*: over seeds and
    queries alone.
    """
    rows = {}
    for role, sign in zip(PAIR, (1, -1)):
        pairs = sign * gaps(distances(lab, requests, role)).mean(-1)            # (seed, query, wording, wording, n)
        (mean, low, _), (_, fixed, _) = crossed_bootstrap(pairs, 4), crossed_bootstrap(pairs.mean((2, 3)), 2)
        rows[role] = {"mean": int((mean > 0).sum()), "clear": int((low > 0).sum()), "fixed": int((fixed > 0).sum())}
    return pd.DataFrame(rows).T


# ---- the doubts ------------------------------------------------------------------------------

def residual(lab: Lab) -> pd.DataFrame:
    """The direction on harmful queries, on benign ones, and the first minus the second (first seed), by n.

    The last is the *intent residual*: what is left when the effect of the opening's own wording is taken off.
    """
    rows, seeds = [], lab.profile.seeds[:1]
    for role in PAIR:
        harmful, benign = (gaps(distances(lab, r, role, seeds=seeds)).mean(-1)[0] for r in ("harmful", "benign"))
        lines = {"harmful queries": crossed_bootstrap(harmful, 3), "benign queries": crossed_bootstrap(benign, 3),
                 "residual": crossed_bootstrap(harmful[:, None] - benign[None], 4, draws=200)}   # every pair of queries
        for line, (mean, low, high) in lines.items():
            rows += [{"role": role, "line": line, "n": n, "mean": m, "low": lo, "high": hi}
                     for n, m, lo, hi in zip(lab.profile.probing.steps, mean, low, high)]
    return pd.DataFrame(rows)


def by_wording(lab: Lab, requests: str = "harmful") -> dict[str, np.ndarray]:
    """{role: (refusal wording, fulfilment wording)}: the direction, mean over seeds, queries, n and blocks."""
    return {role: gaps(distances(lab, requests, role)).mean((0, 1, 4, 5)) for role in PAIR}


def predicts(lab: Lab) -> pd.DataFrame:
    """Does a query's direction tell whether the aligned model refuses it? A row a set and seed.

    AUROC of the direction (mean over wordings, n and blocks) and of the refusal log-odds, both with 95 % intervals
    over queries, their difference, and the rank correlation of the two.
    """
    rows = []
    for requests in ("harmful", "unseen"):
        direction = gaps(distances(lab, requests, "aligned")).mean((2, 3, 4, 5))          # (seed, query)
        for seed, scores in zip(lab.seeds, direction):
            own = lab.get("probe", seed=seed, requests=requests).tables["queries"].query("role == 'aligned'")
            refused, odds = own["refused"].to_numpy(bool), own["log_odds"].to_numpy()
            rows.append({"set": SETS[requests], "seed": seed, "refused": int(refused.sum()), "n": len(refused),
                         **_auroc_columns(scores, odds, refused),
                         "rank correlation": float(spearmanr(scores, odds).statistic)})
    return pd.DataFrame(rows)


def _auroc_columns(direction: np.ndarray, odds: np.ndarray, refused: np.ndarray, draws: int = 1000) -> dict[str, float]:
    """AUROC of both scores and their difference with intervals; queries are redrawn, the same for both."""
    random, means = np.random.default_rng(0), []
    for _ in range(draws):
        chosen = random.integers(len(refused), size=len(refused))
        means.append([auroc(s[chosen], refused[chosen]) for s in (direction, odds)])
    means, columns = np.array(means), {}
    for name, estimate, values in (
            ("direction", auroc(direction, refused), means[:, 0]), ("log-odds", auroc(odds, refused), means[:, 1]),
            ("difference", auroc(direction, refused) - auroc(odds, refused), means[:, 0] - means[:, 1])):
        low, high = np.nanquantile(values, [0.025, 0.975]) if np.isfinite(values).any() else (np.nan, np.nan)
        columns |= {name: estimate, f"{name} low": float(low), f"{name} high": float(high)}
    return columns


def shown_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """`predicts` for display: AUROC with its interval as text (— where all queries were refused, or none)."""
    shown = table[["set", "seed"]].assign(refused=table["refused"].astype(str) + " of " + table["n"].astype(str))
    for name in ("direction", "log-odds", "difference"):
        shown[f"AUROC, {name}" if name != "difference" else name] = [
            with_interval(row, name, 1, 2) if np.isfinite(row[name]) else "–" for _, row in table.iterrows()]
    shown["rank correlation"] = table["rank correlation"].map("{:.2f}".format)
    return shown.set_index(["set", "seed"])


def along(lab: Lab) -> pd.DataFrame:
    """The direction at token t after a prefilled opening (first seed): role, prefilled, t, mean, low, high."""
    result, rows = lab.get("along_answers", seed=lab.profile.seeds[0]), []
    for role in PAIR:
        mean, low, high = crossed_bootstrap(result.arrays[role].astype(float), 2)          # (length, t)
        for i, length in enumerate(result.values["lengths"]):
            rows += [{"role": role, "prefilled": length, "t": t, "mean": m, "low": lo, "high": hi}
                     for t, m, lo, hi in zip(range(1, mean.shape[1] + 1), mean[i], low[i], high[i])]
    return pd.DataFrame(rows)


def refused_after(lab: Lab) -> pd.DataFrame:
    """How many answers still refuse after a prefilled opening (first seed): role, prefilled, mean, low, high."""
    result, rows = lab.get("along_answers", seed=lab.profile.seeds[0]), []
    for role in PAIR:
        mean, low, high = crossed_bootstrap(result.arrays[f"{role} refused"].astype(float), 2)
        rows += [{"role": role, "prefilled": n, "mean": m, "low": lo, "high": hi}
                 for n, m, lo, hi in zip(result.values["lengths"], mean, low, high)]
    return pd.DataFrame(rows)


# ---- sentences -------------------------------------------------------------------------------

def c1_summary(lab: Lab, curves: pd.DataFrame, verdict: claims.Verdict) -> str:
    """The first paragraph of notebook 01: what was found, in numbers."""
    lines = curves[curves["line"] == "direction"].groupby("role")
    said = {role: f"{part['mean'].mean():+.3f} (from {part['mean'].min():+.3f} to {part['mean'].max():+.3f} over n)"
            for role, part in lines}
    levels = curves[curves["line"] != "direction"]["mean"]
    counts, n = clear_steps(lab), len(lab.profile.probing.steps)
    facts, seeds = c1_facts(lab), f"{len(lab.seeds)} seed{'s' if len(lab.seeds) > 1 else ''}"
    return (f"**What we found** ({lab.profile.model.label}, {seeds}, {lab.profile.probing.queries} queries a set): "
            f"**{verdict.verdict}**; {sum(c.holds for c in verdict.checks)} of {len(verdict.checks)} checks hold.\n\n"
            f"- *The sign.* Distance to fulfilment branches minus distance to refusal branches: aligned "
            f"{said['aligned']}, unaligned {said['unaligned']}. All distances are near {levels.mean():.2f}, so the "
            "direction is a small part of them.\n"
            f"- *Is it clear?* The mean has the claimed sign at {counts.loc['aligned', 'mean']} (aligned) and "
            f"{counts.loc['unaligned', 'mean']} (unaligned) of {n} token counts. Its 95 % interval over seeds, queries "
            f"and wordings excludes 0 at {counts.loc['aligned', 'clear']} and {counts.loc['unaligned', 'clear']}; for "
            "these wordings alone, with seeds and queries redrawn, it would at "
            f"{counts.loc['aligned', 'fixed']} and {counts.loc['unaligned', 'fixed']}. What the openings say moves the "
            "probe more than which query is asked.\n"
            f"- *In every block?* The sign is the claimed one in {facts['aligned: blocks']:.0%} (aligned) and "
            f"{facts['unaligned: blocks']:.0%} (unaligned) of blocks x token counts; for "
            f"{facts['aligned: pairs']:.0%} and {facts['unaligned: pairs']:.0%} of the pairs of wordings.")


def static_summary(curves: dict[str, pd.DataFrame]) -> str:
    """What the static reading gives on each set of queries (title -> `curve`), in numbers."""
    said = []
    for title, table in curves.items():
        mean = table[table["line"] == "direction"].groupby("role")["mean"]
        said.append(f"{title}: aligned {mean.mean()['aligned']:+.3f} (above 0 at "
                    f"{(mean.get_group('aligned') > 0).sum()} of {table['n'].nunique()} counts), unaligned "
                    f"{mean.mean()['unaligned']:+.3f} ({(mean.get_group('unaligned') > 0).sum()})")
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


def prediction_summary(table: pd.DataFrame) -> str:
    """Whether the probe beats one token, in numbers (sets and seeds in which at least 5 answers are of each kind)."""
    usable = table[(table["refused"] >= 5) & (table["n"] - table["refused"] >= 5)]
    if usable.empty:
        return "**What we see.** Too few answers of one kind to say anything: all seeds refuse nearly all, or nothing."
    better, worse = (usable["difference low"] > 0).sum(), (usable["difference high"] < 0).sum()
    return (f"**What we see.** Mean AUROC over the {len(usable)} rows with at least five answers of either kind: "
            f"direction {usable['direction'].mean():.2f}, log-odds of the first tokens "
            f"{usable['log-odds'].mean():.2f}. "
            f"The direction is clearly better in {better} of them and clearly worse in {worse}.")


def along_summary(directions: pd.DataFrame, refused: pd.DataFrame) -> str:
    """Where the direction flips and the refusal is lost, in numbers."""
    own = directions[directions["role"] == "aligned"].groupby("prefilled")["mean"]
    flipped = [n for n, part in own if part.mean() < 0]
    kept = refused[refused["role"] == "aligned"].set_index("prefilled")["mean"]
    text = ", ".join(f"{n}: {kept[n]:.0%}" for n in kept.index)
    where = f"from {min(flipped)} prefilled tokens on" if flipped else "at no length"
    return (f"**What we see.** Answers of the aligned model that still refuse, by prefilled tokens: {text}. Its "
            f"direction, averaged over the next {directions['t'].max()} tokens, is below 0 {where}.")
