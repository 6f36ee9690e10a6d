"""C1: the reasoning direction (Fig. 2, 3, 4, 7)."""

from ..claim import Claim
from . import decide, leaning, read, run

CLAIM = Claim(
    id="C1",
    text="Aligned models lean towards refusal at every generated token and in every block; "
         "unaligned ones the other way",
    where="Fig. 2, 3, 4, 7",
    paper="benign opening closer than the malicious one at 2-10 tokens",
    notebook="01_reasoning_direction",
    core=run.core,
    extended=run.extended,
    facts=read.c1_facts,
    rule=read.judge_c1,
    ours=read.ours,
    step="probe",
    figures={"01_distance_by_token": ("probe",),
             "01_along_the_answer": ("along_answers",),
             "01_by_wording": ("probe",),
             "01_difference_by_block": ("probe",),
             "01_distance_by_block": ("probe",),
             "01_distance_by_token_harmbench": ("probe",),
             "01_intent_residual": ("probe",),
             "01_predicts_refusal": ("probe",),
             "01_static_reading": ("probe",)},
    parts={"summary-c1": read.summary},
    deviations=read.deviations,
    bench=leaning.bench,
    rows={"C1-aligned": decide.aligned_verdict, "C1-unaligned": decide.unaligned_verdict},
)
