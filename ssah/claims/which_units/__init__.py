"""C5 and C7: which units, not how few; and whether the unit is the atom (Table 3)."""

from ..claim import Claim, attacks
from . import decide, read, run

C5 = Claim(
    id="C5",
    text="Parameter-efficient tuning loses more safety than full tuning: which units, not how few",
    where="Table 3",
    paper="HEx-PHI rate 16 % (full) vs 25 % (LoRA)",
    notebook="05_which_units_not_how_few",
    core=run.adapter_core,
    facts=read.c5_facts,
    rule=read.judge_c5,
    by_rate=True,
    least_seeds=3,
    ours=attacks("LoRA minus full fine-tuning {}", "LoRA - full"),
    step="adapter_tuning",
    figures={"05_table_3": ("adapter_tuning", "tuning"),
             "05_paper_and_ours": ("adapter_tuning", "tuning"),
             "05_how_few": ("adapter_tuning", "tuning"),
             "05_along_training": ("adapter_tuning", "tuning")},
    parts={"summary-c5": read.adapter_summary},
    deviations=read.deviations,
    tunings=run.adapter_tunings,
    rows={"C5": decide.adapter_verdict})

C7 = Claim(
    id="C7",
    text="The atomic unit of safety is the neuron",
    where="whole paper",
    paper="no number",
    notebook="05_which_units_not_how_few",
    core=run.weight_core,
    facts=read.c7_facts,
    rule=read.judge_c7,
    by_rate=True,
    least_seeds=3,
    ours=attacks("single weights frozen minus units frozen {}", "SNIP difference - SCU + all CU"),
    step="weight_tuning",
    figures={"05_units_or_weights": ("weight_tuning", "tuning"),
             "05_grain": ("milder_weight_tuning", "milder_tuning")},
    parts={"summary-c7": read.weight_summary},
    milder=run.weight_milder,
    rows={"C7": decide.weight_verdict})
