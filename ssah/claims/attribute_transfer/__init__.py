"""C3: do units change their attribute in fine-tuning? (Fig. 5 and 6)"""

from ..claim import Claim
from . import decide, read, run

CLAIM = Claim(
    id="C3",
    text="Fine-tuning breaks safety because units change their attribute",
    where="Fig. 5, 6",
    paper="SCU 1.3 % -> CU 0.85 % of all units",
    notebook="03_attribute_transfer",
    core=run.core,
    extended=run.extended,
    facts=read.c3_facts,
    rule=read.judge_c3,
    least_seeds=3,
    ours=read.ours,
    step="reattribution",
    figures={"03_flows": ("reattribution", "attribution", "subsample"),
             "03_base_to_aligned": ("reattribution", "attribution"),
             "03_harm": ("reattribution", "tuning"),
             "03_matrices": ("reattribution", "attribution", "subsample"),
             "03_stability": ("subsample", "attribution"),
             "03_toy_flow": (),
             "03_turnover": ("turnover", "milder_tuning", "placebo_tuning")},
    parts={"summary-c3": read.summary},
    deviations=read.deviations,
    milder=run.milder,
    rows={"C3": decide.verdict})
