"""Temporary edits of a model: remove units, remove the refusal direction, borrow another model's units.

Every edit is a context manager that puts the model back bit for bit, also after an exception. Saving
the edited model is refused: this package publishes no degraded weights.
"""

from contextlib import contextmanager

import numpy as np
import torch

from .attribution import unit_outputs
from .errors import SsahError
from .models import blocks
from .units import UnitIndex


@contextmanager
def ablated(model, index: UnitIndex, mask, value: str = "zero", means=None):
    """Remove whole channels: the masked columns of o_proj and down_proj (paper, Table 1).

    `mask`: Boolean (len(index),). `value="zero"` takes the channels out; `value="mean"` holds each at its
    mean activation `means` (len(index),), added as a constant to the module's output. Raises
    `SsahError` for a mask, index or means of another model, and an unknown value.
    """
    mask = _checked(model, index, mask)
    if value not in ("zero", "mean"):
        raise SsahError(f"unknown value {value!r}; known: zero, mean")
    if value == "mean" and np.shape(means) != (len(index),):
        raise SsahError(f'value="mean" needs means, an array of length {len(index)} '
                        "(the `means` of an attribution result)")
    saved, handles = [], []
    try:
        with torch.no_grad():
            for linear, (_, _, where) in zip(unit_outputs(model), index.modules()):
                columns = _positions(mask[where], linear.weight)
                if len(columns) == 0:
                    continue
                saved.append((linear.weight, columns, linear.weight[:, columns].clone()))
                if value == "mean":
                    held = torch.as_tensor(np.asarray(means)[where], dtype=linear.weight.dtype,
                                           device=linear.weight.device)
                    handles.append(linear.register_forward_hook(_add(linear.weight[:, columns] @ held[columns])))
                linear.weight[:, columns] = 0
        with _unsaveable(model, "ablated"):
            yield model
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for weight, columns, original in saved:
                weight[:, columns] = original


@contextmanager
def transplanted(model, donor, index: UnitIndex, mask):
    """Copy the masked units' weights from `donor` into `model`: o and down columns, gate and up rows, v rows.

    A shared v row moves only if all the columns it feeds are in the mask (len(index),). Biases of moved rows come
    along. Raises `SsahError` for a mask, index or donor of another shape.
    """
    mask = _checked(model, index, mask)
    if UnitIndex.of(donor) != index:
        raise SsahError("the donor has another unit index; a transplant needs two models of the same architecture")
    saved = []

    def copy(target: torch.nn.Linear, source: torch.nn.Linear, positions, dim: int) -> None:
        for name in ("weight", "bias") if dim == 0 and target.bias is not None else ("weight",):
            into, out_of = getattr(target, name), getattr(source, name)
            saved.append((into, dim, positions, into.index_select(dim, positions).clone()))
            into.index_copy_(dim, positions, out_of.index_select(dim, positions).to(into.dtype))

    slices = [where for _, _, where in index.modules()]
    try:
        with torch.no_grad():
            for i, (own, other) in enumerate(zip(blocks(model), blocks(donor))):
                attn, mlp = mask[slices[2 * i]], mask[slices[2 * i + 1]]
                copy(own.attn_out, other.attn_out, _positions(attn, own.attn_out.weight), 1)
                copy(own.value, other.value, _positions(index.value_rows(attn), own.value.weight), 0)
                channels = _positions(mlp, own.mlp_out.weight)
                copy(own.mlp_out, other.mlp_out, channels, 1)
                copy(own.gate, other.gate, channels, 0)
                copy(own.up, other.up, channels, 0)
        with _unsaveable(model, "transplanted"):
            yield model
    finally:
        with torch.no_grad():
            for tensor, dim, positions, original in reversed(saved):
                tensor.index_copy_(dim, positions, original)


@contextmanager
def without_direction(model, direction):
    """Project a direction (hidden,) out of all that is written to the residual stream (Arditi et al. 2024)."""
    weight = model.get_input_embeddings().weight
    r = torch.as_tensor(np.asarray(direction), dtype=torch.float32, device=weight.device)
    if r.shape != (weight.shape[1],):
        raise SsahError(f"the direction has shape {tuple(r.shape)}, the residual stream is {weight.shape[1]} wide")
    if not (torch.isfinite(r).all() and r.any()):
        raise SsahError("the direction is zero or not finite")
    r = r / r.norm()

    def project(module, inputs, output):
        return (output - (output.float() @ r).unsqueeze(-1) * r).to(output.dtype)   # (batch, time, hidden)

    writers = [model.get_input_embeddings(), *unit_outputs(model)]
    handles = [writer.register_forward_hook(project) for writer in writers]
    try:
        with _unsaveable(model, "without its refusal direction"):
            yield model
    finally:
        for handle in handles:
            handle.remove()


def _checked(model, index: UnitIndex, mask) -> np.ndarray:
    if UnitIndex.of(model) != index:
        raise SsahError("the unit index belongs to a model of another shape; use UnitIndex.of(model)")
    return index.check_mask(mask)


def _positions(mask: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.flatnonzero(mask), device=like.device)


def _add(constant: torch.Tensor):
    return lambda module, inputs, output: output + constant


@contextmanager
def _unsaveable(model, state: str):
    """Inside, `model.save_pretrained` raises: an edited model must not reach the disk by accident."""
    def refuse(*args, **kwargs):
        raise SsahError(f"the model is {state}; leave the `with` block before saving it")

    outer = vars(model).get("save_pretrained")      # set where edits are nested
    model.save_pretrained = refuse                  # shadows the method on this instance
    try:
        yield
    finally:
        del model.save_pretrained
        if outer is not None:
            model.save_pretrained = outer
