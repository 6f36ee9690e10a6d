"""C3: how units change their label (Fig. 5 and 6), beside how much of that other texts alone would do.

A *flow* counts units by their label before (rows) and after (columns). A *comparison* has one flow a run: a seed, or
a pair of seeds.
"""

from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd

from ...classification import LABELS, SCALES, Units
from ...lab import Lab, Result
from ..claim import Check, Deviation, Facts, Verdict, clear, conclude, points, pp
from ..shared.flows import (
    HALVES,
    NAMES,
    as_rows,
    changes,
    flow,
    flows,
    labels_of,
    mean_flow,
    said,
    spread,
)
from ..shared.measuring import classify_scores, paper_kinds
from ..shared.runs import harmful_answers, tuned
from ..shared.tables import found, number_of_seeds
from ..shared.tuning import KEPT
from .run import CATEGORIES

#: The flows that Fig. 5 (Dolly fine-tuning of Llama2-7B-Chat) and Fig. 6 (Llama2-7B to Chat) print, % of all units.
PAPER_FLOWS = pd.DataFrame(
    [("Fig. 5", "SCU", "CU", 0.85), ("Fig. 5", "CU", "UCU", 1.32), ("Fig. 5", "RU", "CU", 7.44),
     ("Fig. 5", "CU", "CU", 69.19),
     ("Fig. 6", "UCU", "CU", 67.88), ("Fig. 6", "UCU", "SCU", 1.14), ("Fig. 6", "UCU", "RU", 2.8),
     ("Fig. 6", "RU", "CU", 2.68), ("Fig. 6", "RU", "RU", 12.06)],
    columns=["figure", "from", "to", "paper %"])
#: The sizes of the four kinds in the same figures, % of all units; in Fig. 5 SCU after is what is left, not printed.
PAPER_SIZES = pd.DataFrame(
    [("Fig. 5", "before", 1.3, 13.27, 70.57, 14.85), ("Fig. 5", "after", None, 13.51, 78.60, 7.44),
     ("Fig. 6", "before", None, 85.1, None, 14.9), ("Fig. 6", "after", 1.3, 13.27, 70.57, 14.85)],
    columns=["figure", "", *LABELS])


# ---- the flow --------------------------------------------------------------------------------


# ---- what is compared ------------------------------------------------------------------------

def results(lab: Lab, step: str, **params) -> dict[str, Result]:
    """A step's results of all seeds, by run."""
    return {f"seed {seed}": lab.get(step, seed=seed, **params) for seed in lab.seeds}


def two_seeds(lab: Lab) -> dict[str, tuple[dict, dict]]:
    """The aligned models of every two seeds; no comparison where there is one seed."""
    chosen = list(combinations(lab.seeds, 2))
    first, second = ({f"seeds {pair[0]} and {pair[1]}": lab.get("attribution", seed=pair[i]) for pair in chosen}
                     for i in (0, 1))
    return {"seeds": (first, second)} if chosen else {}


def transfers(lab: Lab) -> pd.DataFrame:
    """`flows` of Fig. 5 and 6 and of the noise beside them (`NAMES`), all with the same shares of the four kinds."""
    aligned = results(lab, "attribution")
    first, last = (results(lab, "subsample", part=part) for part in HALVES)
    return flows({"halves": (first, last), **two_seeds(lab),
                  **{model: (aligned, results(lab, "reattribution", model=model)) for model in KEPT},
                  "base": (results(lab, "reattribution", model="base"), aligned)}, lab.profile)


def base_of_two_kinds(lab: Lab) -> pd.DataFrame:
    """`flows` from the base model as Fig. 6 has it: its units are RU (as many as the paper's) or UCU, nothing else."""
    scale, ru = lab.profile.classification.scale, lab.profile.freezing.shares[2]
    base, aligned = results(lab, "reattribution", model="base"), results(lab, "attribution")
    return pd.concat([as_rows(flow(classify_scores(base[run], scale, scu=0.0, ucu=1 - ru, ru=ru).labels,
                                   labels_of(lab.profile, aligned[run])), comparison="base of two kinds", run=run)
                      for run in base], ignore_index=True)


def beside_paper(moves: pd.DataFrame, two_kinds: pd.DataFrame) -> pd.DataFrame:
    """The flows that the paper prints beside ours, % of all units (mean over seeds)."""
    ours = {"Fig. 5": mean_flow(moves, "full"), "Fig. 6": mean_flow(two_kinds, "base of two kinds")}
    return PAPER_FLOWS.assign(**{"ours %": [ours[row["figure"]].loc[row["from"], row["to"]] * 100
                                            for _, row in PAPER_FLOWS.iterrows()]}).set_index(["figure", "from", "to"])


def shown_changes(moves: pd.DataFrame) -> pd.DataFrame:
    """The part of every kind that leaves its label, %: a row a comparison, mean [lowest, highest run]."""
    table = changes(moves).groupby(["comparison", "label"], sort=False)["left"].apply(lambda v: said(v, unit=""))
    return table.unstack("label")[[*LABELS]].rename(index=NAMES)


def harm(lab: Lab, moves: pd.DataFrame) -> pd.DataFrame:
    """Do labels change where safety is lost? A row a tuned model and run: condition, run, left, keyword_asr."""
    answers = harmful_answers(tuned(lab, KEPT)).query("condition != 'start'")
    attacks = answers.assign(run="seed " + answers["seed"].astype(str)).groupby(["condition", "run"])["keyword_asr"]
    left = changes(moves).query("label == 'SCU'").rename(columns={"comparison": "condition"})
    return left[["condition", "run", "left"]].merge(attacks.mean().reset_index(), on=["condition", "run"])


def in_order(table: pd.DataFrame) -> np.ndarray:
    """For every two tuned models of a seed in `harm`: whether more attacks succeed where more SCU left (0 or 1)."""
    found = []
    for _, own in table.groupby("run"):
        found += [(a.left - b.left) * (a.keyword_asr - b.keyword_asr) > 0
                  for a, b in combinations(own.itertuples(), 2)]
    return np.array(found, dtype=float)


@cache      # asked for several times a notebook
def c3_facts(lab: Lab) -> Facts:
    """What `judge_c3` asks for, as fractions with the lowest and the highest seed."""
    moves = transfers(lab)
    scu = changes(moves).query("label == 'SCU' and comparison != 'seeds'")
    left, overlap = (scu.pivot(index="run", columns="comparison", values=v) for v in ("left", "iou"))
    return {"left: full": spread(left["full"]), "left: full - halves": spread(left["full"] - left["halves"]),
            "left: full - SCU + all CU": spread(left["full"] - left["SCU + all CU"]),
            "left: random - SCU + all CU": spread(left["random large without SCU"] - left["SCU + all CU"]),
            "iou: halves": spread(overlap["halves"]), "iou: chance": spread(scu["chance"]),
            "ordered": spread(in_order(harm(lab, moves)))}


# ---- is the classification stable? -----------------------------------------------------------

def other_choices(lab: Lab) -> dict[str, dict[str, tuple[dict, dict]]]:
    """{group: {name: (one, other)}}, to be compared by `flows`; groups as in `stability`."""
    aligned, run = results(lab, "attribution"), f"seed {lab.profile.seeds[0]}"
    first, last = ({name: results(lab, "subsample", part=f"{end} {name}") for name in ("sixth", "third", "half")}
                   for end in ("first", "last"))
    nested = {f"a {name} and all": (part, aligned) for name, part in first.items()}
    nested["two thirds and all"] = (results(lab, "subsample", part="first two thirds"), aligned)
    other = {"two seeds: other model, other texts": pair for pair in two_seeds(lab).values()}
    predicting, response = (lab.get("attribution", seed=lab.profile.seeds[0], **p) for p in (
        {}, {"positions": "response"}))
    other["where an answer is predicted, where it stands"] = {run: predicting}, {run: response}
    harms = [lab.get("subsample", seed=lab.profile.seeds[0], part=f"category {name}") for name in CATEGORIES]
    if all("labels" in result.arrays for result in harms):      # else left out, see `subsample`
        other["a sixth of one kind of harm, of another"] = {run: harms[0]}, {run: harms[1]}
    return {"disjoint": {f"a {name} and another {name}": (first[name], last[name]) for name in first},
            "nested": nested, "other": other}


def stability(lab: Lab) -> pd.DataFrame:
    """Overlap of every kind under another choice of texts or model: group, comparison, run, texts, label, iou, chance.

    ``texts``: how many refusals the first side was scored on. Groups: *disjoint* and *nested* parts of one seed's
    texts; *other* models, positions or kinds of harm (the last two: first seed).
    """
    tables = []
    for group, pairs in other_choices(lab).items():
        table = changes(flows(pairs, lab.profile)).drop(columns="left").assign(group=group)
        table["texts"] = [pairs[name][0][run].values["examples"]["harmful"]
                          for name, run in zip(table["comparison"], table["run"])]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def by_scale(lab: Lab) -> pd.DataFrame:
    """`changes` of the SCU on every scale (`SCALES`), by other texts (halves) and by full fine-tuning."""
    first, last = (results(lab, "subsample", part=part) for part in HALVES)
    pairs = {"halves": (first, last),
             "full": (results(lab, "attribution"), results(lab, "reattribution", model="full"))}
    return pd.concat([changes(flows(pairs, lab.profile, scale)).query("label == 'SCU'").assign(scale=scale)
                      for scale in SCALES], ignore_index=True)


def shown_by_scale(table: pd.DataFrame) -> pd.DataFrame:
    """`by_scale` for display: a row a scale."""
    def column(comparison: str, name: str, *how) -> pd.Series:
        own = table[table["comparison"] == comparison]
        return own.groupby("scale", sort=False)[name].apply(said, *how)

    return pd.DataFrame({"left after full fine-tuning": column("full", "left"),
                         "left between halves": column("halves", "left"),
                         "IoU of the halves": column("halves", "iou", 1, 2, "")})


def scale_summary(table: pd.DataFrame) -> str:
    """On which scales fine-tuning moves fewer SCU than other texts do, in numbers."""
    means = table.pivot_table(index="scale", columns="comparison", values=["left", "iou"], sort=False)
    fewer = means["left", "full"] < means["left", "halves"]

    def said_of(scales: pd.Series) -> str:
        overlap = means.loc[scales, ("iou", "halves")]
        return f"{', '.join(means.index[scales])} (IoU of the halves {overlap.min():.2f} to {overlap.max():.2f})"

    more = (means["left", "full"] - means["left", "halves"])[~fewer].max() * 100
    held = f"fewer SCU than other texts do on {said_of(fewer)}" if fewer.any() else ""
    failed = "" if fewer.all() else f"as many or more (by {more:.0f} points at most) on {said_of(~fewer)}"
    return (f"**What we see.** Fine-tuning moves {', and '.join(filter(None, (held, failed)))}. The verdict takes "
            f"{means.index[0]}.")


def at_cutoffs(before: Units, after: Units) -> np.ndarray:
    """Labels (len(index),) of `after` by the cut-offs that made the labels of `before`: the kinds may grow or shrink.

    In the order of `classify`: RU, then SCU, then UCU; the rest is CU.
    """
    total, difference = before.safety + before.utility, before.safety - before.utility
    redundant, safe = total[before.mask("RU")].max(), difference[before.mask("SCU")].min()
    useful = difference[before.mask("UCU")].max()
    total, difference = after.safety + after.utility, after.safety - after.utility
    return np.select([total <= redundant, difference >= safe, difference <= useful], ["RU", "SCU", "UCU"], "CU")


def with_cutoffs(lab: Lab) -> pd.DataFrame:
    """Fig. 5 with the cut-offs of before, %: the sizes of the four kinds after, and the part of the SCU that left."""
    before, rows = kinds(lab, "attribution"), []
    for model in KEPT:
        after = kinds(lab, "reattribution", model=model)
        moves = [flow(before[run].labels, at_cutoffs(before[run], after[run])) for run in before]
        sizes = {f"{label} after": said([m[label].sum() / m.to_numpy().sum() for m in moves], digits=1, unit="")
                 for label in LABELS}
        left = said([1 - m.loc["SCU", "SCU"] / m.loc["SCU"].sum() for m in moves], unit="")
        rows.append({"frozen": NAMES[model], **sizes, "SCU that left": left})
    return pd.DataFrame(rows).set_index("frozen")


def kinds(lab: Lab, step: str, **params) -> dict[str, Units]:
    """The four kinds of units, with scaled scores, of all seeds' models, by run."""
    return {run: paper_kinds(lab.profile, scored) for run, scored in results(lab, step, **params).items()}


# ---- sentences -------------------------------------------------------------------------------

def c3_summary(lab: Lab, moves: pd.DataFrame, verdict: Verdict) -> str:
    """The first paragraph of notebook 03: what was found, in numbers."""
    scu = changes(moves).query("label == 'SCU'")
    left = {name: said(own["left"]) for name, own in scu.groupby("comparison")}
    full, harms = mean_flow(moves, "full"), harm(lab, moves)
    order, ties = in_order(harms), harms.duplicated(["run", "keyword_asr"]).sum()
    overlap = scu.loc[scu["comparison"] == "halves", "iou"]
    other = f", between two seeds' aligned models {left['seeds']}" if "seeds" in left else ""
    return (f"**What we found** ({lab.profile.model.label}, {number_of_seeds(lab)}; brackets: lowest and highest "
            f"seed): {found(verdict)}\n\n"
            f"- *The move.* After full fine-tuning {left['full']} of the SCU have another label "
            f"({full.loc['SCU', 'CU']:.2%} of all units go from SCU to CU; in the paper 0.85 of 1.3 %).\n"
            f"- *The noise.* In one and the same model, scored on one half of the texts and then on the other, "
            f"{left['halves']} of the SCU have another label{other}. The SCU of the two halves overlap by an IoU of "
            f"{said(overlap, 1, 2, '')} (by chance {scu['chance'].mean():.3f}). How much of the "
            "noise there is depends on the scale of the scores (notebook 03, section 6).\n"
            f"- *Freezing.* With SCU + all CU frozen {left['SCU + all CU']} leave, with as many random units frozen, "
            f"none of them SCU, {left['random large without SCU']}.\n"
            f"- *And safety?* More attacks succeed where more SCU left in {order.sum():.0f} of {len(order)} pairs of "
            f"tuned models of a seed{f' (as many attacks in {ties}: not more)' if ties else ''}. In most pairs one "
            "model has nothing frozen and the other most units, where less training may explain both.")


def stability_summary(table: pd.DataFrame) -> str:
    """How stable the SCU are, in numbers."""
    scu = table[table["label"] == "SCU"]
    by_group = {group: "; ".join(f"{name} {said(own['iou'], 1, 2, '')}"
                                 for name, own in part.groupby("comparison", sort=False))
                for group, part in scu.groupby("group", sort=False)}
    return (f"**What we see.** IoU of the SCU (chance {scu['chance'].mean():.3f}). Disjoint parts of the texts: "
            f"{by_group['disjoint']}. Nested ones, which share texts: {by_group['nested']}. Otherwise: "
            f"{by_group['other']}.")


def alignment_summary(moves: pd.DataFrame) -> str:
    """What base -> aligned shows, in numbers."""
    base, full = mean_flow(moves, "base"), mean_flow(moves, "full")
    came = base["SCU"] / base["SCU"].sum()
    origin = ", ".join(f"{came[label]:.0%} {label}" for label in LABELS)
    return (f"**What we see.** Classified by the same rule on the same texts, the aligned model's SCU were in the base "
            f"model: {origin}. Of all units {1 - np.trace(base):.0%} change their label from base to aligned, and "
            f"{1 - np.trace(full):.0%} from aligned to fully fine-tuned.")


# ---- the rule ---------------------------------------------------------------------------------

C3_MARGINS = {
    "part of the SCU that leave their label in full fine-tuning, at least": 0.50,
    "of which more than between disjoint halves of the calibration texts, at least": 0.10,
    "part of the SCU that freezing SCU + all CU keeps, over full fine-tuning, at least": 0.10,
    "the same, over freezing as many random units, at least": 0.05,
    "overlap (IoU) of the SCU of the two halves, at least": 0.50,
    "pairs of runs in which more attacks succeed where more SCU left, at least": 0.80,
}


def judge_c3(facts: Facts) -> Verdict:
    """Verdict on Fig. 5. `facts` (`tables.attribute_transfer.c3_facts`): name -> (mean, lowest, highest seed).

    *reproduced*: all six checks hold; *partly*: the first two (labels change, and more than other texts alone would
    change them); else *not reproduced*. The last check is there since the claim says *because*: it may be that
    labels change in every run alike, whatever becomes of safety.
    """
    leaving, noise, frozen, random, overlap, ordered = C3_MARGINS.values()

    mean, low, high = facts["left: full"]
    checks = (
        Check(f"units change: {leaving:.0%} or more of the SCU leave their label in full fine-tuning",
              f"{mean:.0%} [{low:.0%}, {high:.0%}]", mean >= leaving),
        Check(f"it is not noise: at least {pp(noise)} more than between two halves of the calibration "
              "texts, and more in every seed", points(facts, "left: full - halves"),
              clear(facts, "left: full - halves", noise)),
        Check(f"freezing SCU + all CU keeps at least {pp(frozen)} more of the SCU than full fine-tuning does",
              points(facts, "left: full - SCU + all CU"), clear(facts, "left: full - SCU + all CU", frozen)),
        Check(f"and at least {pp(random)} more than freezing as many random units",
              points(facts, "left: random - SCU + all CU"), clear(facts, "left: random - SCU + all CU", random)),
        Check(f"the labels are stable: the SCU of the two halves overlap by an IoU of at least {overlap}",
              f"{facts['iou: halves'][0]:.2f} (by chance {facts['iou: chance'][0]:.3f})",
              facts["iou: halves"][0] >= overlap),
        Check(f"it goes with the harm: in {ordered:.0%} or more of the pairs of runs of a seed, more attacks succeed "
              "where more SCU left", f"{facts['ordered'][0]:.0%} of the pairs", facts["ordered"][0] >= ordered),
    )
    return conclude("C3", checks, partly=checks[0].holds and checks[1].holds)


def ours(lab: Lab, facts: Facts) -> str:
    """Our number for the ledger."""
    full = facts["left: full"].mean
    more = facts["left: full - halves"].mean
    return (f"{full:.0%} of the SCU change their label in fine-tuning, {full - more:.0%} where only "
            f"the texts change; difference {points(facts, 'left: full - halves')} (brackets: "
            "seeds); n = all units")


def summary(lab: Lab, verdict: Verdict) -> str:
    """The first paragraph of notebook 03, also in README."""
    return c3_summary(lab, transfers(lab), verdict)


def deviations(lab: Lab) -> list[Deviation]:
    """Where the comparison of labels chooses or differs."""
    left = changes(transfers(lab)).query("label == 'SCU' and comparison == 'full'")["left"]
    by_cutoffs = with_cutoffs(lab)["SCU that left"].iloc[0]
    return [Deviation("Kinds after fine-tuning", "sizes change (Fig. 5)",
                      "the same shares before and after",
                      "the paper does not say by which cut-offs",
                      f"SCU that leave: {left.mean():.0%}; by the cut-offs of before "
                      f"{by_cutoffs} %")]
