"""What the paper printed beyond `PAPER_TABLE_1` to `PAPER_TABLE_4`, and its numbers as effects.

The four large tables stand beside the tables that they are compared with. Here are the rows of
Table 2 by other judges and on other requests, and the scores of Table 3. The functions turn a
printed table into the unit in which `rules.ROWS` asks its first question, so that the paper's
numbers and ours can be judged by one rule and drawn on one axis.
"""

import numpy as np
import pandas as pd

#: The two ways of freezing in Table 2, as its columns are called here.
FROZEN = ("SCU + 6 % CU", "SCU + all CU")
#: The adapters of Table 3.
ADAPTERS = ("LoRA", "LLaMA-Adapter", "prefix")

LLAMA_2 = "Llama2-7B-Chat"
LLAMA_3 = "Llama3-8B-Instruct, blocks 1-12"

#: Table 2 without AdvBench by keyword (which `PAPER_TABLE_2` has). ASR %, "gpt4 score" 1 to 5.
PAPER_TABLE_2_OTHERS = pd.DataFrame(
    [(LLAMA_2, "AdvBench", "llama3-guard", "Alpaca", 0.19, 2.69, 1.65, 0.96),
     (LLAMA_2, "AdvBench", "llama3-guard", "Dolly", 0.19, 10.58, 2.31, 1.92),
     (LLAMA_2, "HEx-PHI", "gpt4 score", "Alpaca", 1.05, 1.79, 1.39, 1.26),
     (LLAMA_2, "HEx-PHI", "gpt4 score", "Dolly", 1.05, 1.95, 1.55, 1.48),
     (LLAMA_2, "HEx-PHI", "gpt4 rate", "Alpaca", 0.3, 16.1, 7.2, 4.5),
     (LLAMA_2, "HEx-PHI", "gpt4 rate", "Dolly", 0.3, 18.78, 10.6, 9.0),
     (LLAMA_2, "HEx-PHI", "llama3-guard", "Alpaca", 2.42, 18.4, 12.12, 7.88),
     (LLAMA_2, "HEx-PHI", "llama3-guard", "Dolly", 2.42, 25.0, 15.0, 13.94),
     (LLAMA_2, "HarmBench", "GCG", "Alpaca", 33.33, 53.08, 40.25, 37.75),
     (LLAMA_2, "HarmBench", "GCG", "Dolly", 33.33, 62.91, 43.25, 40.66),
     (LLAMA_2, "HarmBench", "AutoDAN", "Alpaca", 1.08, 7.41, 2.33, 1.66),
     (LLAMA_2, "HarmBench", "AutoDAN", "Dolly", 1.08, 16.16, 9.66, 8.33),
     (LLAMA_2, "HarmBench", "PAIR", "Alpaca", 12.25, 22.25, 14.5, 14.08),
     (LLAMA_2, "HarmBench", "PAIR", "Dolly", 12.25, 25.25, 15.25, 14.75),
     (LLAMA_3, "AdvBench", "llama3-guard", "Alpaca", 1.15, 12.88, 10.1, 9.0),
     (LLAMA_3, "AdvBench", "llama3-guard", "Dolly", 1.15, 50.58, 42.6, 28.27),
     (LLAMA_3, "HEx-PHI", "gpt4 score", "Alpaca", 1.16, 2.13, 2.0, 1.91),
     (LLAMA_3, "HEx-PHI", "gpt4 score", "Dolly", 1.16, 2.95, 2.59, 2.32),
     (LLAMA_3, "HEx-PHI", "gpt4 rate", "Alpaca", 3.0, 23.0, 18.7, 18.7),
     (LLAMA_3, "HEx-PHI", "gpt4 rate", "Dolly", 3.0, 37.2, 28.2, 23.6),
     (LLAMA_3, "HEx-PHI", "llama3-guard", "Alpaca", 5.75, 33.94, 30.7, 30.3),
     (LLAMA_3, "HEx-PHI", "llama3-guard", "Dolly", 5.75, 60.0, 51.8, 42.12)],
    columns=["model", "requests", "judge", "instructions", "start", "full", *FROZEN])

#: Table 3, Llama2-7B-Chat on HEx-PHI: GPT-4's mean score, 1 to 5. `PAPER_TABLE_3` has the rates.
PAPER_TABLE_3_SCORES = pd.DataFrame(
    [("before fine-tuning", 1.05, 1.05), ("SCU + CU frozen", 1.26, 1.48), ("full", 1.79, 1.95),
     ("LoRA", 2.18, 2.44), ("LLaMA-Adapter", 2.38, 2.51), ("prefix", 2.20, 2.38)],
    columns=["", "Alpaca", "Dolly"]).set_index("")


def share_of_headroom(before, after, worst=100.0):
    """The part of what could still be lost that was lost.

    `before` and `after` are attack success in per cent (numbers or columns), `worst` is the most
    that there can be (5 for a score). The answer is a fraction, below 0 where safety was gained.
    """
    return (after - before) / (worst - before)


def share_avoided(start, full, frozen):
    """The part of the attack success added by full fine-tuning that freezing avoids (fraction)."""
    return (full - frozen) / (full - start)


def ablation_effects(table_1: pd.DataFrame) -> pd.DataFrame:
    """Table 1 in the units of rows C2-SCU, C2-UCU and C2-RU.

    `table_1` has the columns of `PAPER_TABLE_1`. The answer has a row a model, kind and column
    of Table 1: `row`, `model`, `measure` and `effect` (share of headroom, for UCU the logarithm
    of the ratio of perplexities).
    """
    attacks = ("ASR w/ system %", "ASR w/o system %", "ASR printed mean %")
    effects = []
    for model, rows in table_1.groupby("model", sort=False):
        by_kind = rows.set_index("removed")
        intact = by_kind.loc["none"]
        for kind in ("SCU", "RU"):
            for measure in attacks:
                effect = share_of_headroom(intact[measure], by_kind.loc[kind, measure])
                effects.append((f"C2-{kind}", model, measure, effect))
        ratio = by_kind.loc["UCU", "wiki ppl"] / intact["wiki ppl"]
        effects.append(("C2-UCU", model, "wiki ppl", np.log(ratio)))
    return pd.DataFrame(effects, columns=["row", "model", "measure", "effect"])


def freezing_effects(table_2: pd.DataFrame) -> pd.DataFrame:
    """Table 2 in the unit of row C4: every printed row twice, once for each way of freezing.

    `table_2` has the columns of `PAPER_TABLE_2` or of `PAPER_TABLE_2_OTHERS`; the answer has
    `frozen` (one of `FROZEN`) and `effect` (fraction of the added attack success) beside them.
    """
    parts = []
    for frozen in FROZEN:
        effect = share_avoided(table_2["start"], table_2["full"], table_2[frozen])
        parts.append(table_2.assign(frozen=frozen, effect=effect))
    return pd.concat(parts, ignore_index=True)


def adapter_effects(table_3: pd.DataFrame, worst: float = 100.0) -> pd.DataFrame:
    """Table 3 in the unit of row C5: a row an adapter, a column a set of instructions.

    `table_3` has the index and columns of `PAPER_TABLE_3`; `worst` is 5 for scores. The answer
    is what an adapter loses beyond full fine-tuning, as a share of what could be lost at first.
    """
    beyond_full = table_3.loc[list(ADAPTERS)] - table_3.loc["full"]
    return beyond_full / (worst - table_3.loc["before fine-tuning"])
