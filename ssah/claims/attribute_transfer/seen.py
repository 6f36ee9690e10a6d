"""What one sees in the figures of notebook 03, in numbers."""

import numpy as np
import pandas as pd

from ...lab.words import say
from ..shared.flows import changes, mean_and_range_text, panels
from .read import WORDS, in_order


def toy_seen(counts: pd.DataFrame) -> str:
    """A flow of a few units. `counts`: of `flows.flow`."""
    return say(WORDS, "toy_seen", before=counts.loc["SCU"].sum(), left=counts.loc["SCU", "CU"])


def flows_seen(moves: pd.DataFrame) -> str:
    """The part of the SCU that leaves, a panel after the other. `moves`: of `flows.flows`."""
    scu = changes(moves).query("label == 'SCU'")
    left = scu.groupby("title", sort=False)["left"].apply(mean_and_range_text)
    return say(WORDS, "flows_seen", left=left)


def matrices_seen(moves: pd.DataFrame) -> str:
    """What lies on the diagonals. `moves`: of `flows.flows`."""
    stay = {title: np.trace(shares) for title, shares in panels(moves).items()}
    return say(WORDS, "matrices_seen", stay=stay)


def harm_seen(harms: pd.DataFrame, noise: pd.DataFrame) -> str:
    """Whether more attacks succeed where more SCU left. Both as `draw.harm` takes them."""
    beyond = harms["left"] > noise["left"].mean()
    return say(WORDS, "harm_seen", in_order=in_order(harms), beyond=beyond.sum(),
               models=len(harms))
