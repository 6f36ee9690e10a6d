"""C2: what notebook 02 would cost with another model."""

import pandas as pd

from ...lab import Lab, with_upstream
from .run import core, extended

#: Parameters of the models for which costs are told.
SIZES = (0.5e9, 1.1e9, 7e9)

#: Bytes a parameter in training: float32 weights, gradients, AdamW's two moments; a bf16 copy.
TRAINING_BYTES = 18


def costs(lab: Lab, sizes=SIZES) -> pd.DataFrame:
    """Notebook 02 for one seed: measured here, and in proportion for models of other `sizes`.

    Minutes on two CPU cores. GiB: for ours the most that the process had held by the end of the
    alignment; for others `TRAINING_BYTES` a parameter, without activations.
    """
    seed = lab.profile.seeds[0]
    n_parameters = (
        lab.get("tuning", seed=seed, condition="full").values["moved_bytes"] / 4
    )
    runs = _provenance(lab, seed)
    minutes = runs["seconds"].sum() / 60
    gib = runs.loc[runs["step"] == "checkpoint", "peak_memory_gib"].max()
    rows = [_row(f"{lab.profile.model.label} (measured)", n_parameters, minutes, gib)]
    for size in sizes:
        name = f"a model of {size / 1e9:g}B (in proportion)"
        in_proportion = minutes * size / n_parameters
        rows.append(_row(name, size, in_proportion, TRAINING_BYTES * size / 2**30))
    return pd.DataFrame(rows).set_index("model")


def _provenance(lab: Lab, seed: int) -> pd.DataFrame:
    """A row a result that notebook 02 needs: step, seconds, peak_memory_gib, ..."""
    needs = with_upstream(lab.profile, [*core(seed), *extended(seed)])
    return pd.DataFrame(
        [lab.get(need.step, **need.params).provenance for need in needs]
    )


def _row(name: str, n_parameters: float, minutes: float, gib: float) -> dict[str, str]:
    return {
        "model": name,
        "parameters": f"{n_parameters / 1e6:,.0f} M",
        "minutes": f"{minutes:,.0f}",
        "GiB": f"{gib:,.0f}",
    }
