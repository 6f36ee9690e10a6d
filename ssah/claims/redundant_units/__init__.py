"""C6: redundant units as a budget for alignment (Table 4)."""

from ..claim import Claim, attacks
from . import decide, read, run

CLAIM = Claim(
    id="C6",
    text="Training only the redundant units aligns without an alignment tax",
    where="Table 4",
    paper="MMLU 32.2 -> 33.7, GSM8K 9.2 -> 13.4",
    notebook="06_redundant_units_as_budget",
    core=run.core,
    extended=run.extended,
    facts=read.c6_facts,
    rule=read.judge_c6,
    by_rate=True,
    least_seeds=3,
    ours=attacks("base model minus RU trained alone {}", "base - RU"),
    step="budget",
    figures={"06_table_4": ("budget",),
             "06_paper_and_ours": ("budget",),
             "06_after_prefill": ("budget",),
             "06_by_share": ("budget",),
             "06_flows": ("budget", "base_attribution")},
    parts={"summary-c6": read.summary},
    deviations=read.deviations,
    bench=run.bench,
    rows={"C6-aligns": decide.aligns_verdict, "C6-tax": decide.tax_verdict})
