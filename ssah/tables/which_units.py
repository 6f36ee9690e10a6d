"""C5 and C7: adapters (Table 3) and single weights beside frozen units, at equal loss and at equal epochs."""

from functools import cache

import pandas as pd

from .. import claims
from ..experiments import Lab
from ..experiments.which_units import ADAPTERS, REGIONS
from .freezing import CONTRASTS, NAMES, Runs, facts, gap, harmful_answers, reached, runs_of, tuned
from .shared import found, learned, number_of_seeds

#: Table 3 of the paper, Llama2-7B-Chat on HEx-PHI: harmfulness rate % (project page; PEFT on Alpaca from Qi et al.).
PAPER_TABLE_3 = pd.DataFrame(
    [("before fine-tuning", 0.3, 0.3), ("SCU + CU frozen", 4.5, 9.0), ("full", 16.1, 18.78), ("LoRA", 25.2, 27.2),
     ("LLaMA-Adapter", 26.4, 27.9), ("prefix", 24.8, 26.5)], columns=["", "Alpaca", "Dolly"]).set_index("")

UNITS = ("full", "random large without SCU", "SCU + all CU")        # of C4's runs
C5_CONTRASTS = (*((name, other) for name in ADAPTERS for other in ("full", "SCU + all CU")), *CONTRASTS[-1:])
C7_CONTRASTS = (("SNIP difference", "SCU + all CU"), ("random weights", "SNIP difference"), *CONTRASTS[-1:],
                ("random weights", "random large"))


def adapters(lab: Lab) -> Runs:
    """The rows of Table 3: nothing frozen, an adapter alone trained, units frozen."""
    units = tuned(lab, UNITS)
    return {"full": units.pop("full"),
            **runs_of(lab, "adapter_tuning", "method", ADAPTERS), **units}


def weights(lab: Lab) -> Runs:
    """Units frozen, and as many single weights."""
    return {**tuned(lab, (*UNITS, "random large")),
            **runs_of(lab, "weight_tuning", "region", REGIONS)}


@cache      # thousands of draws each, asked for several times a notebook
def c5_facts(lab: Lab, rate: str = "keyword_asr") -> claims.Facts:
    """What `claims.judge_c5` asks for: differences of a rate, shares of parameters that move."""
    runs = adapters(lab)
    said, known = harmful_answers(runs), facts(runs)
    early = harmful_answers({name: runs[name] for name in ("full", *ADAPTERS)}, "equal epochs")
    share = known.groupby("condition")["trained"].agg(["mean", "min", "max"])
    return {**{f"{name} - full": gap(said, name, "full", rate) for name in ADAPTERS},
            "LoRA - full, equal epochs": gap(early, "LoRA", "full", rate),
            "LoRA - SCU + all CU": gap(said, "LoRA", "SCU + all CU", rate),
            "random large without SCU - SCU + all CU": gap(said, "random large without SCU", "SCU + all CU", rate),
            **reached(known, (*ADAPTERS, "SCU + all CU", "random large without SCU")),
            **{f"trained: {name}": tuple(share.loc[name]) for name in (*ADAPTERS, "SCU + all CU")}}


@cache      # thousands of draws each, asked for several times a notebook
def c7_facts(lab: Lab, rate: str = "keyword_asr") -> claims.Facts:
    """What `claims.judge_c7` asks for: differences of a rate at equal loss, paired by prompt and seed."""
    runs = weights(lab)
    said = harmful_answers(runs)
    return {**reached(facts(runs), (*UNITS[1:], *REGIONS)),
            **{f"{a} - {b}": gap(said, a, b, rate) for a, b in C7_CONTRASTS[:3]}}


def c5_summary(lab: Lab, runs: Runs, table: pd.DataFrame, verdict: claims.Verdict) -> str:
    """The first paragraph of notebook 05: what was found about adapters, in numbers."""
    keyword, strict = c5_facts(lab), c5_facts(lab, "strict_asr")
    said = {name: f"{row['ASR']:.0%} (strict {row['strict ASR']:.0%}, trained {row['trained']:.1%})"
            for name, row in table.iterrows()}
    return (f"**Adapters** ({lab.profile.model.label}, {number_of_seeds(lab)}): {found(verdict)} Keyword ASR at equal "
            f"training loss (*trained*: numbers, in per cent of the model's): nothing frozen {said['full']}; "
            + "; ".join(f"{name} {said[name]}" for name in ADAPTERS)
            + f"; SCU + all CU frozen {said['SCU + all CU']}; as many random units {said['random large without SCU']}. "
            + f"By strict ASR, on which the verdict does not stand, LoRA minus nothing frozen is "
            f"{claims.points(strict, 'LoRA - full')}, and LoRA minus SCU + all CU frozen "
            f"{claims.points(strict, 'LoRA - SCU + all CU')}. After equal *epochs* LoRA minus nothing frozen is "
            f"{claims.points(keyword, 'LoRA - full, equal epochs')} by keywords and "
            f"{claims.points(strict, 'LoRA - full, equal epochs')} by strict ASR. " + learned(table, NAMES))


def c7_summary(lab: Lab, table: pd.DataFrame, verdict: claims.Verdict) -> str:
    """The second paragraph of notebook 05: single weights beside units, in numbers."""
    rate = {name: f"{row['ASR']:.0%} (strict {row['strict ASR']:.0%})" for name, row in table.iterrows()}
    return (f"**Single weights**: {found(verdict)} Keyword ASR at equal training loss with as many parameters frozen: "
            f"units (SCU + all CU) {rate['SCU + all CU']}, random units {rate['random large without SCU']}; single "
            f"weights by SNIP {rate['SNIP difference']}, random weights {rate['random weights']}. Random weights minus "
            f"those by SNIP: {claims.points(c7_facts(lab), 'random weights - SNIP difference')}.")
