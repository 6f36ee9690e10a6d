"""C3: how units change their label (Fig. 5 and 6), beside how much of that other texts alone would do.

A *flow* counts units by their label before (rows) and after (columns). A *comparison* has one flow a run: a seed, or
a pair of seeds.
"""

from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd

from .. import claims
from ..classification import LABELS, SCALES, Units
from ..errors import SsahError
from ..experiments import Lab
from ..experiments.attribute_transfer import CATEGORIES, HALVES, labels_of
from ..experiments.freezing import KEPT
from ..experiments.measuring import classify_scores, paper_kinds
from ..store import Result
from . import freezing
from .shared import found, number_of_seeds

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

#: How a comparison is called where people read it.
NAMES = {"halves": "noise: two halves of the texts", "seeds": "two seeds' aligned models", "full": "nothing frozen",
         "SCU + all CU": "SCU + all CU frozen", "random large without SCU": "as many random units frozen",
         "base": "base to aligned",
         "base of two kinds": "base (UCU and RU alone, as in Fig. 6) to aligned"}


# ---- the flow --------------------------------------------------------------------------------

def flow(before, after) -> pd.DataFrame:
    """Units by label before (rows) and after (columns), in the order of `LABELS`; two arrays of labels (units,).

    Its row sums are the sizes of the kinds before, its column sums those after. Raises `SsahError` for arrays of
    different length, or labels that are none.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape:
        raise SsahError(f"labels of {before.size} and of {after.size} units cannot be compared: two models' labels?")
    if unknown := (set(before) | set(after)) - set(LABELS):
        raise SsahError(f"unknown labels {', '.join(sorted(map(str, unknown)))}; known: {', '.join(LABELS)}")
    counts = [[int(((before == source) & (after == target)).sum()) for target in LABELS] for source in LABELS]
    return pd.DataFrame(counts, index=pd.Index(LABELS, name="before"), columns=pd.Index(LABELS, name="after"))


def flows(pairs: dict[str, tuple[dict, dict]], profile, scale: str | None = None) -> pd.DataFrame:
    """All flows as rows: comparison, run, before, after, units, share (of all units).

    `pairs`: comparison -> (before, after), each run -> scored result; only runs that both have are compared. Raises
    `SsahError` where there is none, or where two results are of different units.
    """
    rows = []
    for name, (before, after) in pairs.items():
        for run in common_runs(name, before, after):
            counts = flow(labels_of(profile, before[run], scale), labels_of(profile, after[run], scale))
            rows.append(as_rows(counts, comparison=name, run=run))
    return pd.concat(rows, ignore_index=True)


def common_runs(name: str, before: dict[str, Result], after: dict[str, Result]) -> list[str]:
    """The runs that both sides of a comparison have, all of one unit index; `SsahError` otherwise."""
    runs = [run for run in before if run in after]
    if not runs:
        raise SsahError(f"{name}: no common run to compare; before: {', '.join(before) or 'none'}; after: "
                        f"{', '.join(after) or 'none'}")
    for run in runs:
        first, second = before[run].values["index"], after[run].values["index"]
        if first != second:
            raise SsahError(f"{name}, {run}: units of different models cannot be compared; index {first} before, "
                            f"{second} after")
    return runs


def as_rows(counts: pd.DataFrame, **named) -> pd.DataFrame:
    """A flow as rows before, after, units, share, with the columns in `named`."""
    table = counts.stack().rename("units").reset_index()
    return table.assign(share=table["units"] / table["units"].sum(), **named)


def mean_flow(table: pd.DataFrame, comparison: str) -> pd.DataFrame:
    """One comparison's flow as shares of all units, mean over its runs; before (rows) x after (columns)."""
    own = table[table["comparison"] == comparison]
    return own.pivot_table(index="before", columns="after", values="share", sort=False).loc[[*LABELS], [*LABELS]]


def panels(table: pd.DataFrame, *comparisons: str) -> dict[str, pd.DataFrame]:
    """Title -> `mean_flow` of some comparisons, as the figures take them."""
    return {NAMES[name]: mean_flow(table, name) for name in comparisons}


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """What every flow says of every kind: comparison, run, label, left, iou, chance (fractions).

    ``left``: the part of its units before that have another label after. ``iou``: overlap of before and after.
    ``chance``: the overlap of two independent sets of these sizes (p / (2 - p) if both are a share p).
    """
    rows = []
    for (comparison, run), own in table.groupby(["comparison", "run"], sort=False):
        counts, n = own.pivot(index="before", columns="after", values="units"), own["units"].sum()
        for label in LABELS:
            stayed, before, after = counts.loc[label, label], counts.loc[label].sum(), counts[label].sum()
            by_chance = before * after / n
            rows.append({"comparison": comparison, "run": run, "label": label,
                         "left": 1 - stayed / before if before else np.nan,
                         "iou": stayed / (before + after - stayed) if before + after else np.nan,
                         "chance": by_chance / (before + after - by_chance) if before + after else np.nan})
    return pd.DataFrame(rows)


def spread(values) -> tuple[float, float, float]:
    """(mean, lowest, highest) over runs. With three seeds that is what a 95 % bootstrap over seeds would give.

    Units are not resampled: they are all that the model has, and not independent of each other.
    """
    values = np.asarray(values, dtype=float)
    return float(values.mean()), float(values.min()), float(values.max())


def said(values, factor: float = 100, digits: int = 0, unit: str = "%") -> str:
    """`spread` as text: ``12% [10, 15]``."""
    mean, low, high = (f"{x * factor:.{digits}f}" for x in spread(values))
    return f"{mean}{unit} [{low}, {high}]" if len(values) > 1 else f"{mean}{unit}"


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
    answers = freezing.harmful_answers(freezing.tuned(lab, KEPT)).query("condition != 'start'")
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
def c3_facts(lab: Lab) -> claims.Facts:
    """What `claims.judge_c3` asks for, as fractions with the lowest and the highest seed."""
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

def c3_summary(lab: Lab, moves: pd.DataFrame, verdict: claims.Verdict) -> str:
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
