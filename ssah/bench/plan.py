"""Bytes and hours of training large models, all of them or a fifth of the units: computed.

Bytes are those of `ssah.plan_memory`; hours follow from operations, the peak of a GPU by its data
sheet, and the share of it that is assumed to be reached. Nothing here is a measurement, except the
last column.
"""

import math

from ..claims import lab_of, load_profile
from ..rehearsal import MemoryPlan, plan_memory
from ..units import UnitIndex
from .shapes import llama, random_units
from .table import Plan, Planned

#: Dense bf16 products of an H100 SXM, FLOP/s: half of the 1,979 TFLOP/s "with sparsity" of NVIDIA's
#: H100 Tensor Core GPU data sheet.
H100_PEAK = 1979e12 / 2
#: Its memory, bytes.
H100_MEMORY = 80e9
#: Of the peak that a step is assumed to reach; no GPU was at hand to measure it.
SHARE_OF_PEAK = 0.4
#: Tokens of a run, about 20,000 instructions with answers, twice.
RUN_TOKENS = 10_000_000
#: Tokens that are computed at once.
STEP_TOKENS = 8192

#: The share of the units that moves, beside all of them.
SHARE = 0.2


#: Shapes by name; the first is that of our first bench.
SHAPES = {
    "SmolLM2-135M": llama(49152, 576, 1536, 30, 9, 3, tied=True),
    "Llama-2-7B": llama(32000, 4096, 11008, 32, 32, 32),
    "Llama-3-8B": llama(128256, 4096, 14336, 32, 32, 8),
    "Llama-3-70B": llama(128256, 8192, 28672, 80, 64, 8),
}

#: Of our stored results: which run of step `budget` moved as much.
MEASURED = {("SmolLM2-135M", 1.0): "full", ("SmolLM2-135M", SHARE): "RU"}


def planned() -> list[Planned]:
    """A row for each shape with all units moving, and with a fifth of them."""
    rows = []
    for name, config in SHAPES.items():
        rows.append(_row(name, 1.0, plan_memory(config)))
        fifth = random_units(UnitIndex.of(config), SHARE)
        rows.append(_row(name, SHARE, plan_memory(config, trainable=fifth)))
    return rows


def _row(name: str, share: float, plan: MemoryPlan) -> Planned:
    total = plan.total(STEP_TOKENS)
    seconds = RUN_TOKENS * plan.flops_checkpointing / (H100_PEAK * SHARE_OF_PEAK)
    return Planned(
        model=name,
        share=share,
        weights=_gib(plan.weights),
        gradients=_gib(plan.gradients),
        optimizer=_gib(plan.optimizer),
        activations=_gib(STEP_TOKENS * plan.token),
        total=_gib(total),
        moving=_gib(plan.parameters),
        gpus=math.ceil(total / H100_MEMORY),
        gpu_hours=round(seconds / 3600, 3),
        moving_stored=_stored(name, share),
    )


def _stored(name: str, share: float) -> float | None:
    """GiB that moved in the stored run of this shape, first seed."""
    if (name, share) not in MEASURED:
        return None
    lab = lab_of(load_profile("default"), compute=False)
    run = lab.get("budget", seed=0, trained=MEASURED[name, share])
    return _gib(run.values["moved_bytes"])


def _gib(n_bytes: float) -> float:
    return round(n_bytes / 2**30, 3)


def computed() -> Plan:
    """All rows, with what they assume."""
    return Plan(H100_PEAK, H100_MEMORY, SHARE_OF_PEAK, RUN_TOKENS, STEP_TOKENS, planned())
