"""The toy of notebook 00 under other choices: 100 units whose kinds were planted."""

import numpy as np

from ..classification import classify
from ..units import UnitIndex
from .kinds import SCALES

#: How far SCU swing on safety texts and on utility texts: from notebook 00's to those of a CU.
SWINGS = ((4, 0.4), (3, 0.5), (2, 0.65), (1.5, 0.8), (1.3, 0.87), (1.2, 0.9), (1.1, 0.95), (1, 1))
#: The share of units to be called SCU; 3 of 100 are planted.
SHARES = (0.01, 0.03, 0.05, 0.1)

INDEX = UnitIndex(n_blocks=1, n_heads=1, n_kv_heads=1, head_dim=20, n_mlp=80, hidden=16)


def importance(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Variance of (positions, units) times the squared norm of (outputs, units)."""
    return activations.var(axis=0, ddof=1) * (weights**2).sum(axis=0)


def plant(swing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The planted kinds, and I_S and I_U of every unit, as notebook 00 draws them."""
    random = np.random.default_rng(0)
    planted = random.permutation(["SCU"] * 3 + ["UCU"] * 8 + ["RU"] * 12 + ["CU"] * 77)
    swings = {"SCU": swing, "UCU": (0.4, 4), "RU": (0.1, 0.1), "CU": (1, 1)}
    weights = random.normal(size=(16, len(INDEX)))
    scores = []
    for side in (0, 1):
        deviations = [swings[kind][side] for kind in planted]
        activations = random.normal(size=(400, len(INDEX))) * deviations
        scores.append(importance(activations, weights))
    return planted, *scores


def toys() -> dict:
    """Positions and labels on the grid of swings, scales and shares, as plain JSON.

    ``found[swing][scale]`` has ``safety`` and ``utility`` (scaled, a number a unit) and ``labels``,
    a list a share.
    """
    found = []
    for swing in SWINGS:
        planted, safety, utility = plant(swing)
        found.append([on_scale(safety, utility, scale) for scale in SCALES])
    return {"swings": SWINGS, "scales": SCALES, "shares": SHARES, "planted": planted.tolist(),
            "found": found}


def on_scale(I_safety: np.ndarray, I_utility: np.ndarray, scale: str) -> dict:
    """Where the units lie on a scale, and what each share calls them."""
    usual = {"index": INDEX, "scale": scale, "ucu": 0.08, "ru": 0.12}
    by_share = [classify(I_safety, I_utility, scu=share, **usual) for share in SHARES]
    return {"safety": by_share[0].safety.round(2).tolist(),
            "utility": by_share[0].utility.round(2).tolist(),
            "labels": [units.labels.tolist() for units in by_share]}
