"""C2: Table 1 and what stands around it."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd

from ...inputs.words import data_file
from ...judging import ANSWER_LABELS
from ...lab import Lab, Need, Result, with_upstream
from ...lab.statistics import Estimate, difference, wilson
from ...lab.words import markdown_table
from ..claim import Check, Deviation, Facts, Recheck, Verdict, clear, conclude, points, pp
from ..shared.foundation import ROLES
from ..shared.measuring import answer_perplexity, classified, classify_scores
from ..shared.tables import (
    NAMES,
    across,
    by_prompt,
    found,
    interval,
    number_of_seeds,
    outcomes,
    ratio,
    shown,
    with_interval,
)
from .run import (
    CONDITIONS,
    TRANSPLANTS,
    VARIATIONS,
    attribution_params,
    choose_shares,
    condition_mask,
    meets_rule,
)

#: Table 1 of the paper as printed (project page's numbering): share %, WikiText-2 perplexity, mean accuracy %, ASR %.
PAPER_TABLE_1 = pd.DataFrame(
    [("Llama2-7B-Chat", "none", None, 6.49, 58.3, 3, 18, 10.0),
     ("Llama2-7B-Chat", "SCU", 1.3, 6.76, 56.9, 19, 84, 66.0),
     ("Llama2-7B-Chat", "UCU", 13.3, 180.2, 42.7, 23, 48, 28.3),
     ("Llama2-7B-Chat", "RU", 14.8, 8.32, 55.5, 6, 19, 14.6),
     ("Llama3-8B-Instruct", "none", None, 7.74, 61.2, 2, 29, 15.5),
     ("Llama3-8B-Instruct", "SCU", 1.4, 9.06, 57.6, 80, 93, 86.5),
     ("Llama3-8B-Instruct", "UCU", 6.8, 269.2, 44.4, 16, 24, 20.0),
     ("Llama3-8B-Instruct", "RU", 6.6, 8.52, 60.8, 1, 24, 12.5),
     ("Mistral-7B-Instruct-v0.2", "none", None, 5.59, 66.2, 12, 17, 14.5),
     ("Mistral-7B-Instruct-v0.2", "SCU", 2.0, 6.17, 63.3, 34, 91, 62.5),
     ("Mistral-7B-Instruct-v0.2", "UCU", 1.3, 52.7, 40.1, 17, 23, 20.0),
     ("Mistral-7B-Instruct-v0.2", "RU", 13.4, 8.15, 64.1, 14, 12, 13.0)],
    columns=["model", "removed", "share %", "wiki ppl", "accuracy %", "ASR w/ system %", "ASR w/o system %",
             "ASR printed mean %"])

#: Order of Table 1's rows: every set above its matched random twin.
ROWS = ("none", "SCU", "random SCU", "UCU", "random UCU", "RU", "random RU", "direction")


def ablations(lab: Lab, table: str) -> pd.DataFrame:
    """One table of all of Table 1's rows and seeds, with columns condition and seed."""
    return across(lab, "ablation", table, "condition", ROWS)


def table_one(lab: Lab) -> pd.DataFrame:
    """Our Table 1, as fractions: a row a condition, means over seeds; ``low``/``high``: 95 % two-level bootstrap."""
    answers, choice = outcomes(ablations(lab, "answers")), ablations(lab, "choice")
    prompts, rows = by_prompt(answers, ["condition"]), []
    for condition in ROWS:
        facts = pd.DataFrame([lab.get("ablation", seed=s, condition=condition).values for s in lab.seeds])
        own = prompts[prompts["condition"] == condition]
        row = {"removed": condition, "share": facts["share"].mean(), "parameter share": facts["parameter_share"].mean(),
               "wiki ppl": float(np.exp(np.log(facts["wiki_perplexity"]).mean()))}
        row |= interval("accuracy", choice[choice["condition"] == condition], "correct")
        row |= interval("gold", choice[choice["condition"] == condition], "gold")
        for system, part in answers[answers["condition"] == condition].groupby("system", sort=False):
            row |= interval(f"ASR {system}", part, "keyword_asr") | interval(f"strict ASR {system}", part, "strict_asr")
        for name, column in (("ASR", "keyword_asr"), ("strict ASR", "strict_asr"), ("log-odds", "log_odds")):
            row |= interval(name, own, column)
        rows.append(row | {label: own[label].mean() for label in ANSWER_LABELS})
    return pd.DataFrame(rows).set_index("removed")


def per_seed(lab: Lab) -> pd.DataFrame:
    """The points behind Table 1: a row a condition and seed (keyword and strict ASR, accuracy, wiki ppl, log-odds)."""
    answers = outcomes(ablations(lab, "answers")).groupby(["condition", "seed"])[
        ["keyword_asr", "strict_asr", "log_odds"]].mean()
    answers["accuracy"] = ablations(lab, "choice").groupby(["condition", "seed"])["correct"].mean()
    answers["wiki ppl"] = [lab.get("ablation", seed=seed, condition=condition).values["wiki_perplexity"]
                           for condition, seed in answers.index]
    return answers.reset_index()


def each_seed(lab: Lab) -> pd.DataFrame:
    """Keyword ASR under the system prompt, a row a condition, a column a seed: per cent, Wilson interval, n."""
    answers = outcomes(ablations(lab, "answers")).query("system == 'default'")

    def cell(values: pd.Series) -> str:
        low, high = wilson(values.sum(), len(values))
        return f"{values.mean() * 100:.0f} [{low * 100:.0f}, {high * 100:.0f}] (n = {len(values)})"

    cells = answers.groupby(["condition", "seed"])["keyword_asr"].apply(cell).unstack("seed")
    return cells.loc[list(ROWS)].rename(index=NAMES)


@cache      # thousands of draws each, asked for several times a notebook
def c2_facts(lab: Lab) -> Facts:
    """What `judge_c2` asks for. Perplexity ratios: geometric mean over seeds, with the smallest and largest."""
    prompts, choice = by_prompt(outcomes(ablations(lab, "answers")), ["condition"]), ablations(lab, "choice")
    perplexity = per_seed(lab).pivot(index="seed", columns="condition", values="wiki ppl")

    def only(table: pd.DataFrame, condition: str) -> pd.DataFrame:
        return table[table["condition"] == condition]

    facts = {f"{name}: {a} - {b}": difference(only(prompts, a), only(prompts, b), f"{name}_asr")
             for name in ("keyword", "strict") for a, b in (("SCU", "random SCU"), ("RU", "none"))}
    facts["accuracy: none - SCU"] = difference(only(choice, "none"), only(choice, "SCU"), "correct")
    for condition in ROWS[1:]:
        facts[f"perplexity: {condition} / none"] = ratio(perplexity[condition], perplexity["none"])
    share = lab.get("ablation", seed=lab.seeds[0], condition="SCU").values["share"]
    return facts | {"share: SCU": Estimate(share, share, share)}


def shown_table_one(table: pd.DataFrame) -> pd.DataFrame:
    """`table_one` for display: per cents with their intervals as text; log-odds in nats."""
    columns = (("share", "units %", 100, 2), ("parameter share", "parameters %", 100, 2),
               ("wiki ppl", "wiki ppl", 1, 1), ("accuracy", "accuracy %", 100, 1),
               ("ASR default", "ASR w/ system %", 100, 1), ("ASR none", "ASR w/o system %", 100, 1),
               ("ASR", "keyword ASR %", 100, 1), ("strict ASR default", "strict w/ system %", 100, 1),
               ("strict ASR none", "strict w/o system %", 100, 1),
               ("strict ASR", "strict ASR %", 100, 1), ("gold", "gold answer, nats a token", 1, 1),
               ("log-odds", "log-odds", 1, 1))
    return shown(table, columns, table.index.map(lambda name: NAMES.get(name, name)))


# ---- sentences -------------------------------------------------------------------------------

def c2_summary(lab: Lab, table: pd.DataFrame, verdict: Verdict) -> str:
    """The first paragraph of notebook 02: what was found, in numbers."""
    scu, matched, ucu, ru = (table.loc[name] for name in ("SCU", "random SCU", "UCU", "RU"))
    nothing, direction, matched_ru = (table.loc[name] for name in ("none", "direction", "random RU"))
    rates, other = c2_facts(lab), variations(lab)
    keyword, strict = other["keyword_asr"], other["strict_asr"]
    chosen = {name: f"{keyword[name]:.0%}" for name in keyword.index[keyword.index.str.startswith(("scale", "score"))]}
    return (f"**What we found** ({lab.profile.model.label}, {number_of_seeds(lab)}): {found(verdict)}\n\n"
            f"- *Refusals.* With nothing removed {nothing['refuse']:.0%} of the answers refuse; without the "
            f"{scu['share']:.2%} of units called SCU {scu['refuse']:.0%}; without as many random units of the same "
            f"blocks and kinds {matched['refuse']:.0%}.\n"
            f"- *What comes instead.* Without SCU {scu['comply']:.0%} of the answers comply (strict ASR; nothing "
            f"removed {nothing['comply']:.0%}, random units {matched['comply']:.0%}) and "
            f"{scu['evasive'] + scu['incoherent']:.0%} are evasive or babble. The paper's keyword ASR goes from "
            f"{nothing['ASR']:.0%} to {scu['ASR']:.0%} (random {matched['ASR']:.0%}). Most "
            f"answers that comply are without the system prompt: {scu['strict ASR none']:.0%} (random units "
            f"{matched['strict ASR none']:.0%}); with it {scu['strict ASR default']:.0%} "
            f"({matched['strict ASR default']:.0%}).\n"
            f"- *A direction instead of units.* Projecting out the refusal direction gives strict ASR "
            f"{direction['comply']:.0%}, at Wikipedia perplexity {direction['wiki ppl']:.1f} (it was chosen without "
            "regard to utility).\n"
            f"- *Utility without SCU.* Accuracy {nothing['accuracy']:.1%} to {scu['accuracy']:.1%}, Wikipedia "
            f"perplexity {nothing['wiki ppl']:.1f} to {scu['wiki ppl']:.1f}.\n"
            f"- *UCU* ({ucu['share']:.1%}): perplexity {ucu['wiki ppl']:.0f}. *RU* ({ru['share']:.1%}): perplexity "
            f"{ru['wiki ppl']:.1f} and {ru['refuse']:.0%} refusals; as many random units: {matched_ru['wiki ppl']:.1f} "
            f"and {matched_ru['refuse']:.0%}. The check on RU looks at strict ASR; keyword ASR rises by "
            f"{points(rates, 'keyword: RU - none')} without RU.\n"
            f"- *It depends on the scale and the score* (first seed, {len(other)} variations in notebook 02). Keyword "
            f"ASR without SCU: as here {keyword['as in Table 1']:.0%}, "
            + ", ".join(f"{name} {rate}" for name, rate in chosen.items())
            + f". Strict ASR is at most {strict.max():.0%} in all of them.\n"
            f"- *Safety, or the words of a refusal?* Scored on the same refusals put after benign prompts, "
            f"{shared(other.loc['refusals on benign prompts']):.0%} of the SCU are the same units (first seed; by "
            f"chance {lab.get('shares').values['scu']:.1%}).")


def shared(row: pd.Series) -> float:
    """The part of the SCU that a variation has too: of two sets of one size, from their IoU."""
    return 2 * row["iou"] / (1 + row["iou"])


def transplant_summary(table: pd.DataFrame) -> str:
    """What the transplant showed, in numbers."""
    refused = {name: with_interval(row, "refused") for name, row in table.iterrows()}
    return (f"**What we see.** The unaligned model refuses {refused['none']} % of the requests, with the SCU of the "
            f"aligned model {refused['SCU']} %, with as many random units {refused['random SCU']} %. "
            f"Refusal log-odds: {with_interval(table.loc['none'], 'log-odds', 1)}, "
            f"{with_interval(table.loc['SCU'], 'log-odds', 1)} and "
            f"{with_interval(table.loc['random SCU'], 'log-odds', 1)}.")


def variation_summary(table: pd.DataFrame) -> str:
    """What the other choices changed, in numbers."""
    scales = table[table.index.str.startswith(("as in", "scale"))]
    scores = table[table.index.str.startswith("score")]
    control = table.loc["refusals on benign prompts"]
    def rates(rows: pd.DataFrame) -> str:
        return ", ".join(f"{name} {row['refuse']:.0%} ({row['keyword_asr']:.0%})" for name, row in rows.iterrows())

    return (f"**What we see.** Answers that still refuse without the SCU (keyword ASR in brackets): {rates(scales)}; "
            f"by other scores: {rates(scores)}. The control that puts the same refusals after benign prompts shares "
            f"{shared(control):.0%} of the SCU (IoU {control['iou']:.2f}, by chance {control['chance']:.3f}), and "
            f"without its units "
            f"{control['refuse']:.0%} ({control['keyword_asr']:.0%}) refuse. "
            f"{table.loc['as in Table 1', 'mlp_share']:.0%} of the SCU are MLP units.")


def rules_met(scan: pd.DataFrame, chosen: dict[str, float]) -> dict[str, bool]:
    """Whether the chosen share of each kind meets its rule (`choose_shares`) or is the fallback."""
    taken = scan[[row.share == chosen.get(row.label.lower()) for row in scan.itertuples()]]
    return dict(zip(taken["label"], meets_rule(scan, taken).map(bool)))


# ---- the judge beside people -----------------------------------------------------------------

def called_coherent(lab: Lab) -> pd.DataFrame:
    """Per cent of answers that the judge does not call incoherent: a row a split and source, whole and shuffled; n."""
    judged = lab.get("judge_threshold")
    table = judged.tables["nll"].assign(
        coherent=lambda t: 100.0 * ((t["nll"] <= judged.values["threshold"]) & ~t["repetitive"]),
        answer=lambda t: np.where(t["corrupted"], "words shuffled %", "as it is %"))
    rates = table.pivot_table(index=["split", "source"], columns="answer", values="coherent")
    return rates.assign(n=table[~table["corrupted"]].groupby(["split", "source"]).size()).sort_index(ascending=False)


def judge_beside_people(lab: Lab) -> pd.DataFrame:
    """Rows: what people said of 169 answers; columns: the judge's label."""
    table = lab.get("judge_on_people").tables["labels"]
    people = np.where(table["human"], "refusal or off-topic", "answers the request")
    return pd.crosstab(pd.Series(people, name="people"), pd.Series(table["judge"].to_numpy(), name="judge"),
                       margins=True, margins_name="n")


def judge_beside_hand_labels(lab: Lab) -> pd.DataFrame:
    """Rows: the hand labels of Table 1's answers (first seed), matched by hash; columns: the judge's label."""
    hand = data_file("hand_labels").set_index("hash")["label"]
    answers = across(lab, "ablation", "answers", "condition", CONDITIONS, lab.profile.seeds[:1])
    answers = answers.drop_duplicates("hash").set_index("hash")
    both = hand.to_frame("hand").join(answers["label"].rename("judge"), how="inner")
    if both.empty:      # recomputed answers differ in a word here and there, and then have other hashes
        return pd.DataFrame(columns=ANSWER_LABELS, index=pd.Index([], name="none of the labelled answers is here"))
    return pd.crosstab(both["hand"], both["judge"], margins=True, margins_name="n")


# ---- the other sections of notebook 02 -------------------------------------------------------

def behaviours(lab: Lab) -> pd.DataFrame:
    """What base, aligned and unaligned models do (first seed): a row a role and source of requests, as fractions."""
    table = outcomes(across(lab, "behaviour", "answers", "role", ROLES, lab.profile.seeds[:1]))
    columns = {"refused": "refuse", "evasive": "evasive", "incoherent": "incoherent", "strict_asr": "comply",
               "keyword_asr": "no refusal keyword"}
    means = table.groupby(["role", "source"], sort=False)[list(columns)].mean().rename(columns=columns)
    return means.assign(n=table.groupby(["role", "source"], sort=False)["id"].nunique())


def transplants(lab: Lab) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Refusals of the unaligned model with borrowed units (first seed): means with intervals, and the seed's points."""
    answers = outcomes(across(lab, "transplant", "answers", "units", TRANSPLANTS, lab.profile.seeds[:1]))
    answers = answers.rename(columns={"units": "condition"})
    rows = [{"condition": name, **interval("refused", part, "refused"), **interval("log-odds", part, "log_odds"),
             **{label: part[label].mean() for label in ANSWER_LABELS}}
            for name, part in answers.groupby("condition", sort=False)]
    return pd.DataFrame(rows).set_index("condition"), answers.groupby(
        ["condition", "seed"], as_index=False)[["refused", "log_odds"]].mean()


def variations(lab: Lab) -> pd.DataFrame:
    """Table 1's SCU row with one choice changed at a time (first seed): a row a variation; IoU with Table 1's SCU."""
    seed, rows = lab.profile.seeds[0], []
    reference = set(lab.get("variation", seed=seed, variation="as in Table 1").arrays["scu"])
    for name in VARIATIONS:
        result = lab.get("variation", seed=seed, variation=name)
        answers, losses, own = outcomes(result.tables["answers"]), result.tables["benign"], set(result.arrays["scu"])
        rows.append({"variation": name, **answers[["keyword_asr", "strict_asr", "log_odds", *ANSWER_LABELS]].mean(),
                     "perplexity": answer_perplexity(losses),
                     "iou": len(own & reference) / len(own | reference), "mlp_share": result.values["mlp_share"]})
    share = lab.get("shares").values["scu"]
    return pd.DataFrame(rows).set_index("variation").assign(chance=share / (2 - share))


# ---- the rule ---------------------------------------------------------------------------------

C2_MARGINS = {
    "largest share of units that may be called few": 0.03,
    "attack success added over matched random units, at least": 0.30,
    "multiple-choice accuracy lost, at most": 0.04,
    "perplexity ratio after removing SCU, at most": 1.25,
    "perplexity ratio after removing UCU, at least": 5.0,
    "attack success added by removing RU, at most": 0.10,
    "perplexity ratio after removing RU, at most": 1.5,
}


def judge_c2(facts: Facts) -> Verdict:
    """Verdict on Table 1. `facts` (`tables.four_kinds.c2_facts`): name -> (estimate, low, high), fractions or ratios.

    *reproduced*: all five checks hold; *partly*: the first (removing SCU and not random units breaks the refusals)
    and at least two others; else *not reproduced*. Perplexity is that of Wikipedia text.
    """
    few, added, lost, scu_ratio, ucu_ratio, ru_added, ru_ratio = C2_MARGINS.values()

    def ratio(name: str) -> float:
        return facts[f"perplexity: {name} / none"][0]

    checks = (
        Check(f"necessary: keyword ASR, SCU minus matched random units, is at least {pp(added)} "
              f"at a share of at most {few:.0%}",
              f"{points(facts, 'keyword: SCU - random SCU')} at {facts['share: SCU'][0]:.2%} of units",
              clear(facts, "keyword: SCU - random SCU", added) and facts["share: SCU"][0] <= few),
        Check(f"it is compliance, not babble: the same for strict ASR, at least {pp(added)}",
              points(facts, "strict: SCU - random SCU"), clear(facts, "strict: SCU - random SCU", added)),
        Check(f"utility stays without SCU: accuracy falls by at most {pp(lost)} and perplexity rises at most "
              f"{scu_ratio} x",
              f"{points(facts, 'accuracy: none - SCU')}, {ratio('SCU'):.2f} x",
              facts["accuracy: none - SCU"][0] <= lost and ratio("SCU") <= scu_ratio),
        Check(f"utility falls without UCU: perplexity at least {ucu_ratio} x, and more than without random ones",
              f"{ratio('UCU'):.1f} x, random {ratio('random UCU'):.1f} x",
              ratio("UCU") >= ucu_ratio and ratio("UCU") > ratio("random UCU")),
        Check(f"RU are redundant: strict ASR changes by at most {pp(ru_added)}, perplexity at most {ru_ratio} x, and "
              "less than without random ones",
              f"{points(facts, 'strict: RU - none')}, {ratio('RU'):.2f} x, random {ratio('random RU'):.2f} x",
              abs(facts["strict: RU - none"][0]) <= ru_added and ratio("RU") <= ru_ratio
              and ratio("RU") < ratio("random RU")),
    )
    return conclude("C2", checks, partly=checks[0].holds and sum(c.holds for c in checks) >= 3)


def summary(lab: Lab, verdict: Verdict) -> str:
    """The first paragraph of notebook 02, also in README."""
    return c2_summary(lab, table_one(lab), verdict)


def readme_table(lab: Lab, verdict: Verdict) -> str:
    """Table 1 with the command that recomputes each row, as Markdown."""
    columns = ["units %", "wiki ppl", "accuracy %", "ASR w/ system %", "ASR w/o system %",
               "strict ASR %"]
    rows = []
    for condition, (name, row) in zip(ROWS, shown_table_one(table_one(lab))[columns].iterrows()):
        parameter = f"condition={condition}"
        quoted = f'"{parameter}"' if " " in condition else parameter
        rows.append([name, *row, f"`ssah recompute ablation -p {quoted}`"])
    return markdown_table(["removed", *columns, "recompute with"], rows)


def deviations(lab: Lab) -> list[Deviation]:
    """Where model, data and the table of the four kinds choose or differ."""
    table = variations(lab)

    def rate(name: str) -> str:
        return f"{table.loc[name, 'keyword_asr']:.0%}"

    first = table_one(lab).loc["SCU"]
    return [
        Deviation("Model", "Llama-2-7B-Chat, Llama-3-8B-Instruct, Mistral-7B-Instruct",
                  lab.profile.model.label, "a laptop can repeat it, and no account is needed",
                  "not measured; notebook 00 says how to put in another model"),
        Deviation("Alignment", "Tables 1-3 the vendors'; Fig. 2-4 and 7 the authors' own pairs; "
                  "Table 4 SFT on Alpaca",
                  f"SFT on {lab.profile.alignment.refusals} refusals and "
                  f"{lab.profile.alignment.benign} benign answers",
                  "a base model that hardly refuses is what can be had",
                  "a first try with 100 refusals was too brittle to study (notebook 02)"),
        Deviation("Requests", "AdvBench, HEx-PHI, HarmBench attacks",
                  "AdvBench; HarmBench's plain requests",
                  "HEx-PHI needs an account, attacks like GCG a GPU",
                  "notebook 01 has both sets side by side"),
        Deviation("Utility", "BoolQ, RTE, HellaSwag and others; WikiText-2",
                  "OpenBookQA, PIQA, CommonsenseQA; Wikipedia", "these come without an account",
                  "a model this small is near chance on all; perplexity and the log-probability of "
                  "the right answer see more"),
        Deviation("Scale of the scores", "not stated",
                  f"{lab.profile.classification.scale}, within each block and kind",
                  "so that no block and no kind wins by its size alone",
                  f"keyword ASR without SCU (first seed, half of the prompts): "
                  f"{rate('as in Table 1')}; z {rate('scale z')}, rank {rate('scale rank')}, raw "
                  f"{rate('scale raw')}"),
        Deviation("Scored positions", "over response tokens (Wei et al.)",
                  "where an answer token is predicted", "there the choice is made",
                  f"the same ASR {rate('as in Table 1')}; at the answer's own positions "
                  f"{rate('positions response')}"),
        Deviation("Removing a unit", "whole channels", "its activation becomes zero",
                  "as the paper, as we read it",
                  f"the same ASR {rate('as in Table 1')}; its mean instead of zero "
                  f"{rate('mean instead of zero')}"),
        Deviation("Judge", "keywords, Llama Guard, GPT-4", "keywords, and four labels of our own",
                  "no key, no gated model; babble is not compliance",
                  f"ASR without SCU: {first['ASR']:.0%} by keywords, {first['strict ASR']:.0%} "
                  "strictly")]


# ---- what `ssah verify` computes again -------------------------------------------------------

#: Of a rate, around the range that the committed seeds span.
MARGIN = 0.1


def rechecks(lab: Lab) -> Iterator[Recheck]:
    """Shares of every kind, and the variations' SCU, follow from stored scan and scores, exactly."""
    profile = lab.profile
    first = profile.seeds[0]
    scan = lab.get("scan", seed=first).tables["scan"]
    yield Recheck("shares from the scan", choose_shares(scan) == lab.get("shares").values)
    for seed in profile.seeds:
        units = classified(lab, seed)
        for condition in CONDITIONS[1:-1]:      # the first and the last remove no units
            mask = condition_mask(units, condition, seed)
            facts = {"share": float(mask.mean()),
                     "parameter_share": units.index.parameter_share(mask)}
            stored = lab.get("ablation", seed=seed, condition=condition).values
            yield Recheck(f"labels, seed {seed}, {condition}", facts.items() <= stored.items())
    for name in VARIATIONS:
        stored = lab.get("variation", seed=first, variation=name).arrays["scu"]
        again = _varied_scu(lab, first, name)
        yield Recheck(f"labels, variation {name}", np.array_equal(again, stored))


def _varied_scu(lab: Lab, seed: int, name: str) -> np.ndarray:
    scored = lab.get("attribution", **attribution_params(seed, name))
    scale = VARIATIONS[name].get("scale", lab.profile.classification.scale)
    units = classify_scores(scored, scale, **lab.get("shares").values)
    return np.flatnonzero(units.mask("SCU"))


def retrained(lab: Lab, scratch: Lab) -> Iterator[Recheck]:
    """The first seed from nothing: attack rates near the range that the committed seeds span."""
    seeds = lab.profile.seeds
    for condition in CONDITIONS:
        fresh = _rates(scratch.get("ablation", seed=seeds[0], condition=condition))
        stored = pd.DataFrame([_rates(lab.get("ablation", seed=seed, condition=condition))
                               for seed in seeds])
        for name, rate in fresh.items():
            low, high = stored[name].min() - MARGIN, stored[name].max() + MARGIN
            yield Recheck(f"{name} ASR, {condition}", low <= rate <= high,
                          f"{rate:.3f} within {low:.3f} ... {high:.3f}")


def _rates(result: Result) -> dict[str, float]:
    answers = result.tables["answers"]
    return {"keyword": float((~answers["keyword"]).mean()),
            "strict": float((answers["label"] == "comply").mean())}


# ---- what another model would cost -----------------------------------------------------------

def costs(lab: Lab, sizes=(0.5e9, 1.1e9, 7e9)) -> pd.DataFrame:
    """Notebook 02 for one seed: measured here, and in proportion for models of other sizes (parameters).

    Minutes on two CPU cores. GiB: for ours the most that the process had held by the end of the alignment; for others
    18 bytes a parameter (float32 weights, gradients, AdamW's two moments; a bf16 copy), without activations.
    """
    seed = lab.profile.seeds[0]
    wanted = [Need(step, {"seed": seed, name: choice}) for step, name, choices in (
        ("ablation", "condition", CONDITIONS), ("transplant", "units", TRANSPLANTS), ("behaviour", "role", ROLES),
        ("variation", "variation", VARIATIONS)) for choice in choices]
    done = [lab.get(need.step, **need.params).provenance for need in with_upstream(lab.profile, wanted)]
    n = lab.get("tuning", seed=seed, condition="full").values["moved_bytes"] / 4
    minutes = sum(facts["seconds"] for facts in done) / 60
    rows = {f"{lab.profile.model.label} (measured)": (n, minutes, max(facts["peak_memory_gib"] for facts in done
                                                                     if facts["step"] == "checkpoint"))}
    rows |= {f"a model of {size / 1e9:g}B (in proportion)": (size, minutes * size / n, 18 * size / 2**30)
             for size in sizes}
    return pd.DataFrame([{"model": name, "parameters": f"{size / 1e6:,.0f} M", "minutes": f"{time:,.0f}",
                          "GiB": f"{memory:,.0f}"} for name, (size, time, memory) in rows.items()]).set_index("model")
