"""C8: should the direction be chosen anew at every step? The paper's future work."""

from ..claim import Claim
from . import decide, run

CLAIM = Claim(
    id="C8",
    text="The direction should be chosen anew at every step (future work)",
    where="discussion",
    paper="no number",
    notebook="07_every_step",
    step="deep",
    figures={"07_after_prefill": ("deep",),
             "07_recovery": ("deep",)},
    bench=run.bench,
    rows={"C8": decide.verdict})
