"""Three of the reviewers' questions that no other notebook answers. From the store; no torch.

Is each kind of units *exclusive*? Where are the SCU, and do they come in whole heads? Do prompts
leak from what identifies units to what evaluates them?
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ...classification import Units
from ...lab import Lab
from ...lab.statistics import Estimate, difference
from ...lab.words import say
from ..shared.measuring import classify_scores
from ..shared.tables import with_system

WORDS = Path(__file__).with_name("words.md.j2")

#: The kinds that Table 1 removes.
REMOVED = ("SCU", "UCU", "RU")
#: What a removal is compared with: the title, and the condition for a kind.
BESIDE_RANDOM = "against as many random units"
REFERENCES = {"against nothing removed": lambda kind: "none",
              BESIDE_RANDOM: lambda kind: f"random {kind}"}

#: Scales of the scores whose labels are placed: ours, even by construction, and as printed.
SCALES = ("log-z", "raw")
#: Thirds of a model's depth.
THIRDS = ("first third", "middle third", "last third")

#: How often units are labelled anew at random within their block.
DRAWS = 1000


# ---- exclusive? ------------------------------------------------------------------------------

def exclusive(lab: Lab) -> pd.DataFrame:
    """What removing each kind costs in refusals and in accuracy, points: mean, low, high.

    A row a kind and reference, with 95 % intervals paired by seed and prompt (or question). A kind
    that is *exclusive* moves one of both alone.
    """
    answers = with_system(lab, "ablation").assign(measure="refusals")
    questions = lab.frame("ablation", "choice").assign(measure="accuracy")
    measured = ((answers, "refused", "refusals"), (questions, "correct", "accuracy"))
    rows = []
    for kind in REMOVED:
        for title, reference in REFERENCES.items():
            for table, column, measure in measured:
                change = _change(table, kind, reference(kind), column)
                rows.append({"kind": kind, "compared": title, "measure": measure,
                             **change._asdict()})
    return pd.DataFrame(rows)


def _change(table: pd.DataFrame, condition: str, reference: str, column: str) -> Estimate:
    """A rate under a condition minus that under another, in points."""
    first = table[table["condition"] == condition]
    second = table[table["condition"] == reference]
    return Estimate(*(100 * end for end in difference(first, second, column)))


def shown_exclusive(table: pd.DataFrame) -> pd.DataFrame:
    """`exclusive` for display: points with their intervals, a row a kind and reference."""
    text = [f"{row.mean:+.1f} [{row.low:.1f}, {row.high:.1f}]" for row in _rows(table)]
    named = table.assign(change=text)
    wide = named.pivot(index=["kind", "compared"], columns="measure", values="change")
    return wide.loc[list(REMOVED), ["refusals", "accuracy"]]


def _rows(table: pd.DataFrame) -> list[Estimate]:
    return [Estimate(*ends) for ends in table[["mean", "low", "high"]].to_numpy()]


def exclusive_seen(table: pd.DataFrame) -> str:
    """Which kinds move what, beyond as many random units, and what is too wide to say."""
    beyond = table[table["compared"] == BESIDE_RANDOM]
    is_clear = (beyond["low"] > 0) | (beyond["high"] < 0)
    moved = {kind: beyond.loc[is_clear & (beyond["kind"] == kind), "measure"].tolist()
             for kind in REMOVED}
    unclear = beyond[~is_clear]
    rest = [f"{row['kind']} on {row['measure']} [{row['low']:.0f}, {row['high']:.0f}]"
            for _, row in unclear.iterrows()]
    return say(WORDS, "exclusive", moved=moved, rest=rest)


def instead_of_refusals(lab: Lab) -> str:
    """What the answers are with nothing removed and without the SCU, in words."""
    answers = with_system(lab, "ablation").groupby("condition")
    rates = answers[["refused", "evasive", "incoherent", "strict_asr", "keyword_asr"]].mean()
    return say(WORDS, "instead_of_refusals", before=rates.loc["none"], without=rates.loc["SCU"])


# ---- where? ----------------------------------------------------------------------------------

def places(lab: Lab) -> pd.DataFrame:
    """Where the SCU are, as parts of all SCU: a row a scale, means over seeds; and all units.

    Columns ``in attention`` and the `THIRDS` of the depth.
    """
    rows = {}
    for scale in SCALES:
        parts = [_parts(units, units.mask("SCU")) for units in labels_of_seeds(lab, scale)]
        rows[f"SCU, {scale}"] = pd.DataFrame(parts).mean()
    everything, *_ = labels_of_seeds(lab, SCALES[0])
    rows["all units"] = pd.Series(_parts(everything, np.ones(len(everything.index), bool)))
    return pd.DataFrame(rows).T


def labels_of_seeds(lab: Lab, scale: str) -> list[Units]:
    """The labels of every seed's aligned model by a scale, at the shares of Table 1."""
    shares = lab.get("shares").values
    return [classify_scores(lab.get("attribution", seed=seed), scale, **shares)
            for seed in lab.seeds]


def _parts(units: Units, mask: np.ndarray) -> dict[str, float]:
    """Which part of some units is in attention, and in every third of the depth."""
    chosen = units.index.table[mask]
    depth = chosen["block"] * len(THIRDS) // units.index.n_blocks
    found = {"in attention": float((chosen["kind"] == "attn").mean())}
    for number, third in enumerate(THIRDS):
        found[third] = float((depth == number).mean())
    return found


def places_seen(table: pd.DataFrame) -> str:
    """Where the SCU are, by both scales, beside all units."""
    return say(WORDS, "places", rows=table)


def heads(lab: Lab) -> pd.DataFrame:
    """Do SCU come in whole heads? A row a seed, by our scale.

    ``unevenness``: mean squared distance of a head's number of SCU from its block's mean; ``by
    chance``: the same with the block's SCU dealt anew at random (mean of `DRAWS`); ``p``: how
    likely chance is as uneven or more; ``fullest``: the largest part of a head that is SCU.
    """
    rows = {}
    for seed, units in zip(lab.seeds, labels_of_seeds(lab, SCALES[0])):
        counts = per_head(units, units.mask("SCU"))
        found = unevenness(counts)
        drawn = dealt(counts, units.index.head_dim, np.random.default_rng(seed))
        by_chance = np.array([unevenness(of_draw) for of_draw in drawn])
        rows[seed] = {"unevenness": found, "by chance": by_chance.mean(),
                      "p": (1 + (by_chance >= found).sum()) / (1 + DRAWS),
                      "fullest": counts.max() / units.index.head_dim}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


def per_head(units: Units, mask: np.ndarray) -> np.ndarray:
    """How many units of every attention head a mask has; (block, head)."""
    index = units.index
    in_attention = (index.table["kind"] == "attn").to_numpy()
    of_attention = mask[in_attention].reshape(index.n_blocks, -1, index.head_dim)
    return of_attention.sum(axis=2)


def unevenness(counts: np.ndarray) -> float:
    """Mean squared distance of a head's count from the mean of its block."""
    return float(counts.var(axis=1).mean())


def dealt(counts: np.ndarray, head_dim: int, random: np.random.Generator) -> np.ndarray:
    """The counts of every block dealt anew to its heads, `DRAWS` times; (draw, block, head)."""
    room = np.full(counts.shape[1], head_dim)
    blocks = [random.multivariate_hypergeometric(room, total, size=DRAWS)
              for total in counts.sum(axis=1)]
    return np.stack(blocks, axis=1)


def heads_seen(table: pd.DataFrame) -> str:
    """Whether heads hold the SCU more unevenly than by chance."""
    ratio = table["unevenness"] / table["by chance"]
    return say(WORDS, "heads", rows=table, ratio=ratio, draws=DRAWS)


# ---- leakage? --------------------------------------------------------------------------------

def shared_prompts(lab: Lab) -> pd.DataFrame:
    """Prompts that two splits share, as texts and as clusters of near-copies; a row a pair."""
    table = lab.get("splits").tables["splits"].query("split != 'spare'")
    rows = []
    for kind, prompts in table.groupby("kind"):
        splits = list(dict.fromkeys(prompts["split"]))
        for number, first in enumerate(splits):
            for second in splits[number + 1:]:
                rows.append({"prompts": kind, "splits": f"{first} and {second}",
                             "same text": _common(prompts, first, second, "hash"),
                             "near-copies": _common(prompts, first, second, "cluster")})
    return pd.DataFrame(rows).set_index(["prompts", "splits"])


def _common(prompts: pd.DataFrame, first: str, second: str, column: str) -> int:
    """How many values of a column two splits have in common."""
    of_first = set(prompts.loc[prompts["split"] == first, column])
    of_second = set(prompts.loc[prompts["split"] == second, column])
    return len(of_first & of_second)


def leakage_seen(table: pd.DataFrame) -> str:
    """Whether any prompt is in two splits."""
    return say(WORDS, "leakage", pairs=len(table), texts=table["same text"].sum(),
               copies=table["near-copies"].sum())
