"""C8: should the direction be chosen anew at every step? The paper's future work."""

from ..claim import Claim

CLAIM = Claim(
    id="C8",
    text="The direction should be chosen anew at every step (future work)",
    where="discussion",
    paper="no number")
