"""C4: freezing safety units while the model adapts (Table 2)."""

from ..claim import Claim, attacks
from . import decide, read, run

CLAIM = Claim(
    id="C4",
    text="Freezing SCU and CU keeps safety while the model adapts",
    where="Table 2",
    paper="AdvBench ASR after Dolly 11.9 -> 2.9 %",
    notebook="04_freezing_safety_units",
    core=run.core,
    extended=run.extended,
    facts=read.c4_facts,
    rule=read.judge_c4,
    by_rate=True,
    least_seeds=3,
    ours=attacks("nothing frozen minus SCU + all CU frozen {}, as many random units minus these {}",
                 "full - SCU + all CU", "random - SCU + all CU"),
    step="tuning",
    figures={"04_table_2": ("tuning",),
             "04_paper_and_ours": ("tuning",),
             "04_along_training": ("tuning",),
             "04_table_2_doubled_epochs": ("tuning",),
             "04_aligned_by_makers": ("tuning", "milder_tuning")},
    parts={"summary-c4": read.summary},
    deviations=read.deviations,
    tunings=run.tunings,
    milder=run.milder,
    rows={"C4": decide.verdict})
