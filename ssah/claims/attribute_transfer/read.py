"""C3: how units change their label (Fig. 5 and 6), beside how much of that other texts would do.

See `ssah.claims.shared.flows` for what a flow and a comparison are. A table of flows (`moves`) has
a row a comparison, run, label before and label after.
"""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from ...classification import LABELS, SCALES, Units
from ...lab import Lab, Need, Result
from ...lab.words import say
from ..claim import Check, Deviation, Facts, Verdict, clear, conclude, points, pp
from ..shared.flows import (
    Comparison,
    changes,
    first_seed,
    flows,
    labels_of,
    labels_of_both,
    mean_and_range,
    mean_and_range_text,
    mean_flow,
    two_seeds,
)
from ..shared.measuring import classify_scores, paper_kinds
from ..shared.runs import harmful_answers, tuned
from ..shared.tables import found, number_of_seeds
from .run import CATEGORIES

WORDS = Path(__file__).with_name("words.md.j2")

#: The flows that Fig. 5 (Dolly fine-tuning of Llama2-7B-Chat) and Fig. 6 (Llama2-7B to Chat) print,
#: % of all units.
PAPER_FLOWS = pd.DataFrame(
    [("Fig. 5", "SCU", "CU", 0.85),
     ("Fig. 5", "CU", "UCU", 1.32),
     ("Fig. 5", "RU", "CU", 7.44),
     ("Fig. 5", "CU", "CU", 69.19),
     ("Fig. 6", "UCU", "CU", 67.88),
     ("Fig. 6", "UCU", "SCU", 1.14),
     ("Fig. 6", "UCU", "RU", 2.8),
     ("Fig. 6", "RU", "CU", 2.68),
     ("Fig. 6", "RU", "RU", 12.06)],
    columns=["figure", "from", "to", "paper %"])
#: The sizes of the four kinds in the same figures, % of all units; in Fig. 5 SCU after is what is
#: left, not printed.
PAPER_SIZES = pd.DataFrame(
    [("Fig. 5", "before", 1.3, 13.27, 70.57, 14.85),
     ("Fig. 5", "after", None, 13.51, 78.60, 7.44),
     ("Fig. 6", "before", None, 85.1, None, 14.9),
     ("Fig. 6", "after", 1.3, 13.27, 70.57, 14.85)],
    columns=["figure", "", *LABELS])

# Margins of the rule, written before any result was looked at (the git history shows it).
#: Part of the SCU that leave their label in full fine-tuning, at least.
LEAVING = 0.50
#: Of which more than between disjoint halves of the calibration texts, at least.
OVER_NOISE = 0.10
#: Part of the SCU that freezing SCU + all CU keeps, over full fine-tuning, at least.
OVER_FULL = 0.10
#: The same, over freezing as many random units, at least.
OVER_RANDOM = 0.05
#: Overlap (IoU) of the SCU of the two halves, at least.
OVERLAP = 0.50
#: Pairs of runs in which more attacks succeed where more SCU left, at least.
IN_ORDER = 0.80


# ---- what is compared ------------------------------------------------------------------------

#: The aligned model on all of its calibration texts.
ALIGNED = Need("attribution")


def rescored(model: str) -> Need:
    """Another model on the same texts."""
    return Need("reattribution", {"model": model})


def part(name: str) -> Need:
    """The aligned model on part of the texts."""
    return Need("subsample", {"part": name})


#: Nothing changes but the texts: what a flow has to be more than.
NOISE = Comparison("halves", "noise: two halves of the texts",
                   part("first half"), part("last half"))
SEEDS = Comparison("seeds", "two seeds' aligned models", ALIGNED, ALIGNED, two_seeds)
FULL = Comparison("full", "nothing frozen", ALIGNED, rescored("full"))
ALL_CU = Comparison("SCU + all CU", "SCU + all CU frozen", ALIGNED, rescored("SCU + all CU"))
RANDOM = Comparison("random large without SCU", "as many random units frozen",
                    ALIGNED, rescored("random large without SCU"))
BASE = Comparison("base", "base to aligned", rescored("base"), ALIGNED)
TWO_KINDS = replace(BASE, name="base of two kinds",
                    title="base (UCU and RU alone, as in Fig. 6) to aligned")

#: Fine-tuning (Fig. 5).
TUNED = (FULL, ALL_CU, RANDOM)
#: Fig. 5 and 6 and the noise beside them, all with the same shares of the four kinds.
COMPARISONS = (NOISE, SEEDS, *TUNED, BASE)

#: The same question asked of other texts, positions or models: is the classification stable?
#: *Disjoint* and *nested* parts of one seed's texts; *other* models, positions or kinds of harm.
OTHER_CHOICES = (
    Comparison("sixths", "a sixth and another sixth",
               part("first sixth"), part("last sixth"), group="disjoint"),
    Comparison("thirds", "a third and another third",
               part("first third"), part("last third"), group="disjoint"),
    Comparison("halves", "a half and another half",
               part("first half"), part("last half"), group="disjoint"),
    Comparison("sixth", "a sixth and all", part("first sixth"), ALIGNED, group="nested"),
    Comparison("third", "a third and all", part("first third"), ALIGNED, group="nested"),
    Comparison("half", "a half and all", part("first half"), ALIGNED, group="nested"),
    Comparison("two thirds", "two thirds and all",
               part("first two thirds"), ALIGNED, group="nested"),
    replace(SEEDS, title="two seeds: other model, other texts", group="other"),
    Comparison("positions", "where an answer is predicted, where it stands",
               ALIGNED, Need("attribution", {"positions": "response"}), first_seed, "other"),
    Comparison("categories", "a sixth of one kind of harm, of another",
               part(f"category {CATEGORIES[0]}"), part(f"category {CATEGORIES[1]}"),
               first_seed, "other"),
)


@cache      # asked for several times a notebook
def transfers(lab: Lab) -> pd.DataFrame:
    """`flows` of all `COMPARISONS`."""
    return flows(COMPARISONS, lab)


def base_of_two_kinds(lab: Lab) -> pd.DataFrame:
    """`flows` from the base model as Fig. 6 has it: its units are RU or UCU, nothing else."""
    return flows([TWO_KINDS], lab, two_kinds_before)


def two_kinds_before(profile, base: Result, aligned: Result) -> tuple[np.ndarray, np.ndarray]:
    """Labels before: RU (as many as the paper's) and UCU alone; after: all four kinds."""
    _, _, ru = profile.freezing.shares
    before = classify_scores(base, profile.classification.scale, scu=0.0, ucu=1 - ru, ru=ru)
    return before.labels, labels_of(profile, aligned)


def beside_paper(moves: pd.DataFrame, two_kinds: pd.DataFrame) -> pd.DataFrame:
    """The flows that the paper prints beside ours, % of all units (mean over seeds)."""
    shares = pd.concat({"Fig. 5": mean_flow(moves, FULL.name).stack(),
                        "Fig. 6": mean_flow(two_kinds, TWO_KINDS.name).stack()})
    table = PAPER_FLOWS.set_index(["figure", "from", "to"])
    table["ours %"] = [shares[flow] * 100 for flow in table.index]
    return table


def left_by_kind(moves: pd.DataFrame) -> pd.DataFrame:
    """The part of every kind that leaves its label, %: a row a comparison, mean [range of runs]."""
    left = changes(moves).groupby(["title", "label"], sort=False)["left"]
    table = left.apply(mean_and_range_text, unit="").unstack("label")
    return table.reindex(columns=LABELS).rename_axis("comparison")


def harm(lab: Lab, moves: pd.DataFrame) -> pd.DataFrame:
    """Do labels change where safety is lost? A row a tuned model and run.

    Columns condition, title, run, left (the part of the SCU), keyword_asr.
    """
    conditions = [comparison.name for comparison in TUNED]
    answers = harmful_answers(tuned(lab, conditions)).query("condition != 'start'")
    answers = answers.assign(run="seed " + answers["seed"].astype(str))
    attacks = answers.groupby(["condition", "run"], as_index=False)["keyword_asr"].mean()
    left = changes(moves).query("label == 'SCU'").rename(columns={"comparison": "condition"})
    return left[["condition", "title", "run", "left"]].merge(attacks, on=["condition", "run"])


def in_order(table: pd.DataFrame) -> pd.Series:
    """For every two tuned models of a seed: 1.0 if more attacks succeed where more SCU left.

    `table`: that of `harm`.
    """
    pairs = table.merge(table, on="run", suffixes=("", " of the other"))
    pairs = pairs[pairs["condition"] < pairs["condition of the other"]]
    left = pairs["left"] - pairs["left of the other"]
    attacks = pairs["keyword_asr"] - pairs["keyword_asr of the other"]
    return (left * attacks > 0).astype(float)


@cache      # asked for several times a notebook
def c3_facts(lab: Lab) -> Facts:
    """What `judge_c3` asks for, as fractions with the lowest and the highest seed."""
    moves = transfers(lab)
    scu = changes(moves).query("label == 'SCU' and comparison != 'seeds'")
    left = scu.pivot(index="run", columns="comparison", values="left")
    halves = scu[scu["comparison"] == NOISE.name]
    by_seed = {
        "left: full": left["full"],
        "left: full - halves": left["full"] - left["halves"],
        "left: full - SCU + all CU": left["full"] - left["SCU + all CU"],
        "left: random - SCU + all CU": left["random large without SCU"] - left["SCU + all CU"],
        "iou: halves": halves["iou"],
        "iou: chance": scu["chance"],
        "ordered": in_order(harm(lab, moves)),
    }
    return {name: mean_and_range(values) for name, values in by_seed.items()}


# ---- what if we had chosen otherwise? --------------------------------------------------------

def stability(lab: Lab) -> pd.DataFrame:
    """`changes` by `OTHER_CHOICES` of texts, positions or model: the overlap of every kind.

    Positions and kinds of harm: first seed. Kinds of harm that the prompts do not have are missing.
    """
    return changes(flows(OTHER_CHOICES, lab))


def by_scale(lab: Lab) -> pd.DataFrame:
    """`changes` of the SCU on every scale (`SCALES`), by other texts and by full fine-tuning."""
    tables = []
    for scale in SCALES:
        moves = flows([NOISE, FULL], lab, partial(labels_of_both, scale=scale))
        tables.append(changes(moves).query("label == 'SCU'").assign(scale=scale))
    return pd.concat(tables, ignore_index=True)


def scale_table(table: pd.DataFrame) -> pd.DataFrame:
    """`by_scale` for display: a row a scale."""
    full = table[table["comparison"] == FULL.name].groupby("scale", sort=False)
    halves = table[table["comparison"] == NOISE.name].groupby("scale", sort=False)
    return pd.DataFrame({
        "left after full fine-tuning": full["left"].apply(mean_and_range_text),
        "left between halves": halves["left"].apply(mean_and_range_text),
        "IoU of the halves": halves["iou"].apply(overlap_text)})


def overlap_text(overlaps: pd.Series) -> str:
    """Overlaps of several runs as text: ``0.61 [0.58, 0.63]``."""
    return mean_and_range_text(overlaps, factor=1, digits=2, unit="")


def at_cutoffs(before: Units, after: Units) -> np.ndarray:
    """Labels (len(index),) of `after` by the cut-offs that made the labels of `before`.

    The kinds may grow or shrink. In the order of `classify`: RU, then SCU, then UCU; the rest is
    CU.
    """
    total = before.safety + before.utility
    difference = before.safety - before.utility
    highest_redundant = total[before.mask("RU")].max()
    lowest_safe = difference[before.mask("SCU")].min()
    highest_useful = difference[before.mask("UCU")].max()
    total = after.safety + after.utility
    difference = after.safety - after.utility
    conditions = [total <= highest_redundant, difference >= lowest_safe,
                  difference <= highest_useful]
    return np.select(conditions, ["RU", "SCU", "UCU"], "CU")


def labels_at_cutoffs(profile, before: Result, after: Result) -> tuple[np.ndarray, np.ndarray]:
    """Labels before as always, and after `at_cutoffs`."""
    units_before = paper_kinds(profile, before)
    units_after = paper_kinds(profile, after)
    return units_before.labels, at_cutoffs(units_before, units_after)


def with_cutoffs(lab: Lab) -> pd.DataFrame:
    """`flows` of Fig. 5 with the cut-offs of before."""
    return flows(TUNED, lab, labels_at_cutoffs)


def cutoff_table(moves: pd.DataFrame) -> pd.DataFrame:
    """`with_cutoffs` for display, %: sizes of the kinds after, the part of the SCU that left."""
    sizes = moves.groupby(["title", "run", "after"], sort=False)["share"].sum()
    of_runs = sizes.groupby(["title", "after"], sort=False)
    texts = of_runs.apply(mean_and_range_text, digits=1, unit="")
    table = texts.unstack("after").reindex(columns=LABELS).add_suffix(" after")
    table["SCU that left"] = left_by_kind(moves)["SCU"]
    return table.rename_axis(index="frozen", columns=None)


# ---- sentences -------------------------------------------------------------------------------

def summary(lab: Lab, verdict: Verdict) -> str:
    """The first paragraph of notebook 03, also in README: what was found, in numbers."""
    moves = transfers(lab)
    scu = changes(moves).query("label == 'SCU'")
    halves = scu[scu["comparison"] == NOISE.name]
    harms = harm(lab, moves)
    return say(
        WORDS, "summary",
        model=lab.profile.model.label,
        seeds=number_of_seeds(lab),
        found=found(verdict),
        left=scu.groupby("comparison")["left"].apply(mean_and_range_text),
        scu_to_cu=mean_flow(moves, FULL.name).loc["SCU", "CU"],
        overlap=overlap_text(halves["iou"]),
        chance=scu["chance"].mean(),
        in_order=in_order(harms),
        ties=harms.duplicated(["run", "keyword_asr"]).sum())


def alignment_summary(moves: pd.DataFrame) -> str:
    """What base -> aligned shows, in numbers."""
    base = mean_flow(moves, BASE.name)
    full = mean_flow(moves, FULL.name)
    return say(
        WORDS, "alignment",
        came_from=base["SCU"] / base["SCU"].sum(),
        by_alignment=1 - np.trace(base),
        by_fine_tuning=1 - np.trace(full))


def stability_summary(table: pd.DataFrame) -> str:
    """How stable the SCU are, in numbers."""
    scu = table[table["label"] == "SCU"]
    overlaps = scu.groupby(["group", "title"], sort=False)["iou"].apply(overlap_text).reset_index()
    texts = overlaps["title"] + " " + overlaps["iou"]
    return say(
        WORDS, "stability",
        chance=scu["chance"].mean(),
        overlaps=texts.groupby(overlaps["group"]).apply(list))


def scale_summary(table: pd.DataFrame) -> str:
    """On which scales fine-tuning moves fewer SCU than other texts do, in numbers."""
    means = table.groupby(["scale", "comparison"], sort=False)[["left", "iou"]].mean().unstack()
    scales = pd.DataFrame({
        "overlap": means["iou", "halves"],
        "more": means["left", "full"] - means["left", "halves"]})
    return say(
        WORDS, "scales",
        fewer=scales[scales["more"] < 0],
        others=scales[scales["more"] >= 0],
        chosen=scales.index[0])


# ---- the rule ---------------------------------------------------------------------------------

def judge_c3(facts: Facts) -> Verdict:
    """Verdict on Fig. 5, from `c3_facts`.

    *met*: all six checks hold; *partly met*: the first two (labels change, and more than other
    texts alone would change them); else *not met*. The last check is there since the claim
    says *because*: it may be that labels change in every run alike, whatever becomes of safety.
    """
    left = facts["left: full"]
    overlap = facts["iou: halves"].mean
    chance = facts["iou: chance"].mean
    ordered = facts["ordered"].mean
    checks = (
        Check(f"units change: {LEAVING:.0%} or more of the SCU leave their label in full "
              "fine-tuning",
              f"{left.mean:.0%} [{left.low:.0%}, {left.high:.0%}]",
              left.mean >= LEAVING),
        Check(f"it is not noise: at least {pp(OVER_NOISE)} more than between two halves of the "
              "calibration texts, and more in every seed",
              points(facts, "left: full - halves"),
              clear(facts, "left: full - halves", OVER_NOISE)),
        Check(f"freezing SCU + all CU keeps at least {pp(OVER_FULL)} more of the SCU than full "
              "fine-tuning does",
              points(facts, "left: full - SCU + all CU"),
              clear(facts, "left: full - SCU + all CU", OVER_FULL)),
        Check(f"and at least {pp(OVER_RANDOM)} more than freezing as many random units",
              points(facts, "left: random - SCU + all CU"),
              clear(facts, "left: random - SCU + all CU", OVER_RANDOM)),
        Check("the labels are stable: the SCU of the two halves overlap by an IoU of at least "
              f"{OVERLAP}",
              f"{overlap:.2f} (by chance {chance:.3f})",
              overlap >= OVERLAP),
        Check(f"it goes with the harm: in {IN_ORDER:.0%} or more of the pairs of runs of a seed, "
              "more attacks succeed where more SCU left",
              f"{ordered:.0%} of the pairs",
              ordered >= IN_ORDER),
    )
    return conclude("C3", checks, partly=checks[0].holds and checks[1].holds)


def ours(lab: Lab, facts: Facts) -> str:
    """Our number for the ledger."""
    left = facts["left: full"].mean
    more = facts["left: full - halves"].mean
    return say(WORDS, "ours", left=left, by_texts=left - more,
               more=points(facts, "left: full - halves"))


def deviations(lab: Lab) -> list[Deviation]:
    """Where the comparison of labels chooses or differs."""
    left = changes(flows([FULL], lab)).query("label == 'SCU'")["left"]
    by_cutoffs = cutoff_table(with_cutoffs(lab)).loc[FULL.title, "SCU that left"]
    return [Deviation(
        name="Kinds after fine-tuning",
        paper="sizes change (Fig. 5)",
        here="the same shares before and after",
        why="the paper does not say by which cut-offs",
        otherwise=say(WORDS, "by_cutoffs", by_shares=left.mean(), by_cutoffs=by_cutoffs))]
