"""The four kinds under other choices: which units, in which block, and how many are Table 1's.

From the stored scores of the first seed of the default profile (notebook 02).
"""

import numpy as np

from ..claims.shared.measuring import classified, classify_scores
from ..classification import LABELS, Units, iou
from ..lab import Lab

#: The scales of notebook 02, section 7.
SCALES = ("log-z", "z", "rank", "raw")
#: The kinds whose share is chosen, and the shares besides Table 1's; CU are the rest.
CHOSEN = ("SCU", "UCU", "RU")
SHARES = (0.002, 0.005, 0.013, 0.03, 0.07, 0.15)


def choices(lab: Lab) -> dict:
    """Counts and overlaps on the grid of scales, kinds and shares, as plain JSON.

    ``found[scale][kind][share]`` is what `counted` says, of one of ``shares[kind]``.
    """
    seed = lab.profile.seeds[0]
    scored = lab.get("attribution", seed=seed)
    table_1 = classified(lab, seed)
    usual = lab.get("shares").values
    shares = [sorted({*SHARES, usual[kind.lower()]}) for kind in CHOSEN]

    def found(scale: str, kind: str, share: float) -> dict:
        units = classify_scores(scored, scale, **{**usual, kind.lower(): share})
        return counted(units, table_1)

    grid = []
    for scale in SCALES:
        of_scale = [[found(scale, kind, share) for share in of_kind]
                    for kind, of_kind in zip(CHOSEN, shares)]
        grid.append(of_scale)
    return {"model": lab.profile.model.label, "scales": SCALES, "kinds": CHOSEN, "shares": shares,
            "usual": [usual[kind.lower()] for kind in CHOSEN], "labels": LABELS, "found": grid,
            "table_1": counted(table_1, table_1)}


def counted(units: Units, table_1: Units) -> dict:
    """Of every label its units in every block, and the overlap with Table 1's."""
    blocks = units.index.table["block"].to_numpy()
    n_blocks = blocks.max() + 1
    found = {}
    for label in LABELS:
        mask = units.mask(label)
        found[label] = {"units": np.bincount(blocks[mask], minlength=n_blocks).tolist(),
                        "iou": round(iou(mask, table_1.mask(label)), 3)}
    return found
