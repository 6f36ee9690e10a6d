"""What exercises start from, so that a blank in one does not stop the next.

Two of them are read from files in git (the stored results, the organism's activations); torch is
needed only to make the latter anew.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SsahError
from ..inputs import archives
from ..units import UnitIndex

#: What the last block of the organism computes with, made by `make_activations`.
ACTIVATIONS = archives.DATA / "course" / "organism_activations.npz"

#: Requests of each kind whose answers' positions are in `ACTIVATIONS`, and rows that are kept.
N_REQUESTS = 60
N_ROWS = 150


@dataclass(frozen=True)
class Activations:
    """What the units of the organism's last block do while it answers; its units are known."""

    #: activations (positions, units) on refusals of harmful requests
    safety: np.ndarray
    #: activations (positions, units) on answers to benign requests
    utility: np.ndarray
    #: outgoing weights (hidden, units) of each kind of module
    weights: dict[str, np.ndarray]
    #: which units were planted, Boolean (units,)
    planted: np.ndarray
    #: of this one block
    index: UnitIndex


@dataclass(frozen=True)
class Scores:
    """Importance of every unit of the real model (seed 0), from the store; all (units,)."""

    safety: np.ndarray
    utility: np.ndarray
    #: the same on the scale log-z
    scaled_safety: np.ndarray
    scaled_utility: np.ndarray
    index: UnitIndex
    #: the shares scu, ucu and ru of Table 1
    shares: dict[str, float]
    #: the labels that they lead to
    labels: np.ndarray


def given(name: str):
    """What an exercise starts from: one of `GIVEN`, by its name.

    - ``"activations"``: `Activations`, of the organism;
    - ``"scores"``: `Scores`, of the real model;
    - ``"outcomes"``: a table of its answers with and without units (a row an answer: seed,
      condition, system, id, attack succeeded by keyword and strictly, log-odds of a refusal);
    - ``"differences"``: of the same with system prompt by keyword, arrays (seeds, prompts) by name:
      attack success without the SCU minus that with nothing removed (``"effect"``), minus that
      without as many random units (``"contrast"``), and one minus that with nothing removed
      (``"headroom"``).

    Each call hands out a copy, so that nobody's edits reach another exercise. Raises `SsahError`
    for another name.
    """
    if name not in GIVEN:
        raise SsahError(f"nothing is given under {name!r}; known: {', '.join(GIVEN)}")
    return copy.deepcopy(GIVEN[name]())


# ---- from the store --------------------------------------------------------------------------


@cache
def _scores() -> Scores:
    from ..claims import open_lab
    from ..claims.shared.measuring import classified

    lab = open_lab()
    arrays = lab.get("attribution", seed=0).arrays
    units = classified(lab, 0)
    return Scores(
        safety=arrays["safety"].astype(float),
        utility=arrays["utility"].astype(float),
        scaled_safety=units.safety,
        scaled_utility=units.utility,
        index=units.index,
        shares=dict(lab.get("shares").values),
        labels=units.labels,
    )


@cache
def _outcomes() -> pd.DataFrame:
    from ..claims import open_lab

    answers = open_lab().frame("ablation", "answers")
    return pd.DataFrame({
        "seed": answers["seed"],
        "condition": answers["condition"],
        "system": answers["system"],
        "id": answers["id"],
        "keyword": ~answers["keyword"].astype(bool),
        "strict": answers["label"] == "comply",
        "log_odds": answers["log_odds"],
    })


def _differences() -> dict[str, np.ndarray]:
    outcomes = _outcomes()
    with_system = outcomes[outcomes["system"] == "default"]
    tables = {}
    for condition, rows in with_system.groupby("condition"):
        tables[condition] = rows.pivot(index="seed", columns="id", values="keyword").astype(float)
    nothing = tables["none"]
    return {
        "effect": (tables["SCU"] - nothing).to_numpy(),
        "contrast": (tables["SCU"] - tables["random SCU"]).to_numpy(),
        "headroom": (1 - nothing).to_numpy(),
    }


# ---- from the organism -----------------------------------------------------------------------


@cache
def _activations() -> Activations:
    with np.load(ACTIVATIONS, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    sizes = dict(zip(UnitIndex.__dataclass_fields__, arrays["index"].tolist()))
    return Activations(
        safety=arrays["safety"].astype(float),
        utility=arrays["utility"].astype(float),
        weights={"attn": arrays["attn"].astype(float), "mlp": arrays["mlp"].astype(float)},
        planted=arrays["planted"],
        index=UnitIndex.from_dict(sizes),
    )


def make_activations(path: Path = ACTIVATIONS) -> None:
    """Write the activations of the organism's last block (seed 0) to `path`; needs torch."""
    from ..attribution import outgoing_weights, scoring_batches, unit_outputs
    from ..evaluation import generate
    from ..inputs.prompts import load_prompts
    from ..organism import load_organism

    chat, planted = load_organism(0, progress=None)
    whole = UnitIndex.of(chat)
    last = UnitIndex.from_dict({**whole.to_dict(), "n_blocks": 1})
    arrays = {}
    for name, kind in (("safety", "harmful"), ("utility", "benign")):
        requests = load_prompts(f"organism-{kind}")["text"].tolist()[:N_REQUESTS]
        tokens = generate(chat, requests, max_new_tokens=16).tokens
        batches = scoring_batches(chat, requests, tokens)
        rows = _scored_inputs(chat.model, unit_outputs(chat.model)[-2:], batches)
        arrays[name] = rows[:N_ROWS].astype(np.float16)
    attn, mlp = outgoing_weights(chat.model)[-2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        **arrays,
        attn=attn.numpy().astype(np.float16),
        mlp=mlp.numpy().astype(np.float16),
        planted=planted[-len(last):],
        index=np.array(list(last.to_dict().values())),
    )


def _scored_inputs(model, outputs: list, batches: list[dict]) -> np.ndarray:
    """What enters these linear maps at the scored positions, side by side: (positions, units)."""
    import torch

    from ..attribution import score_mask

    caught = []
    rows = []
    hooks = []
    for linear in outputs:
        hooks.append(linear.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0])))
    try:
        with torch.no_grad():
            for batch in batches:
                model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                side_by_side = torch.cat(caught, dim=-1)
                rows.append(side_by_side[score_mask(batch)])
                caught.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(rows).numpy()


#: Names and what reads them.
GIVEN: dict[str, Callable] = {
    "activations": _activations,
    "scores": _scores,
    "outcomes": _outcomes,
    "differences": _differences,
}
