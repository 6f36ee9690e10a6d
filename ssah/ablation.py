"""Temporary edits of a model: units or the refusal direction removed, units borrowed, rounding.

Every edit is a context manager that puts the model back bit for bit, also after an exception.
Saving the edited model is refused: this package publishes no degraded weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .attribution import linear_weights, unit_outputs
from .errors import SsahError
from .families import Rows, blocks, check_same_index, stream_writers
from .units import UnitIndex


@contextmanager
def ablated(model, index: UnitIndex, mask, value: str = "zero", means=None):
    """Remove whole channels: the masked columns of o_proj and down_proj (paper, Table 1).

    `mask`: Boolean (len(index),). `value="zero"` takes the channels out; `value="mean"` holds each
    at its mean activation `means` (len(index),), added as a constant to the module's output. Raises
    `SsahError` for a mask, index or means of another model, and an unknown value.
    """
    mask = _checked(model, index, mask)
    if value not in ("zero", "mean"):
        raise SsahError(f"unknown value {value!r}; known: zero, mean")
    if value == "mean" and np.shape(means) != (len(index),):
        raise SsahError(
            f'value="mean" needs means, an array of length {len(index)} '
            "(the `means` of an attribution result)"
        )
    if value == "mean" and not np.isfinite(means).all():
        raise SsahError("means are not finite; compute them with dtype=\"bfloat16\" or \"float32\"")
    with _edited(model, "ablated") as edit:
        for linear, (_, _, where) in zip(unit_outputs(model), index.modules()):
            columns = _positions(mask[where], linear.weight)
            if len(columns) == 0:
                continue
            if value == "mean":
                held = torch.as_tensor(np.asarray(means)[where]).to(linear.weight)[columns]
                constant = linear.weight.detach()[:, columns] @ held        # (hidden,)
                edit.output(linear, lambda output, constant=constant: output + constant)
            edit.replace(linear.weight, 1, columns, torch.zeros(()))
        yield model


@contextmanager
def transplanted(model, donor, index: UnitIndex, mask):
    """Copy the masked units' weights from `donor` into `model`.

    With a unit come its o or down column, its gate and up rows, and its v row, with the biases of
    rows. A shared v row comes only if all the columns it feeds are in the mask (len(index),).
    Raises `SsahError` for a mask, index or donor of another shape.
    """
    mask = _checked(model, index, mask)
    if UnitIndex.of(donor) != index:
        raise SsahError(
            "the donor has another unit index; "
            "a transplant needs two models of the same architecture"
        )
    masks = [mask[where] for _, _, where in index.modules()]
    with _edited(model, "transplanted") as edit:
        own_and_other = zip(blocks(model), blocks(donor), masks[::2], masks[1::2])
        for own, other, attn, mlp in own_and_other:
            edit.copy_columns(own.attn_out, other.attn_out, attn)
            edit.copy_rows(own.value, other.value, index.value_rows(attn))
            edit.copy_columns(own.mlp_out, other.mlp_out, mlp)
            edit.copy_rows(own.gate, other.gate, mlp)
            edit.copy_rows(own.up, other.up, mlp)
        yield model


@contextmanager
def without_direction(model, direction):
    """Project a direction (hidden,) out of all that is written to the residual stream.

    What Arditi et al. (2024) do with the refusal direction. What is written: the embeddings and the
    outputs of all modules; where a norm stands between a module and the stream (Gemma 3, OLMo 2),
    the norm's output. Raises `SsahError` for a direction of another length, of zeros, or with
    numbers that are not finite.
    """
    writers = stream_writers(model)
    unit = _unit_vector(direction, model.get_input_embeddings().weight)

    def project(output):                            # (batch, time, hidden)
        here = unit.to(output.device)
        along = (output.float() @ here).unsqueeze(-1)
        return (output - along * here).to(output.dtype)

    with _edited(model, "without its refusal direction") as edit:
        for writer in writers:
            edit.output(writer, project)
        yield model


@contextmanager
def rounded(model, bits: int):
    """Round the weights of all linear maps of all blocks to `bits` bits, and back again.

    To the nearest of evenly spaced values around 0, which end at the largest weight of a row (an
    output channel): what weight-only quantization does without calibration. Raises `SsahError` for
    less than 2 bits or more than 16.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
        raise SsahError(f"bits is a whole number from 2 to 16; got {bits!r}")
    most = 2 ** (bits - 1) - 1
    with _edited(model, f"rounded to {bits} bits") as edit:
        for weight in linear_weights(model).values():
            full = weight.detach().float()
            steps = full.abs().amax(dim=1, keepdim=True) / most     # (outputs, 1)
            steps[steps == 0] = 1       # a row of zeros stays
            whole = torch.arange(len(weight), device=weight.device)
            edit.replace(weight, 0, whole, (full / steps).round() * steps)
        yield model


def _unit_vector(direction, like: torch.Tensor) -> torch.Tensor:
    """The direction at length 1, float32 (hidden,)."""
    vector = torch.as_tensor(direction).detach().to(like.device, torch.float32)
    width = like.shape[1]
    if vector.shape != (width,):
        raise SsahError(
            f"the direction has shape {tuple(vector.shape)}, "
            f"the residual stream is {width} wide"
        )
    if not (torch.isfinite(vector).all() and vector.any()):
        raise SsahError("the direction is zero or not finite")
    return vector / vector.norm()


# ---- edits that are undone -------------------------------------------------------------------

class _Edit:
    """What was changed in a model, so that it can be put back."""

    def __init__(self):
        self.saved: list[tuple] = []
        self.handles: list = []

    @torch.no_grad()
    def replace(self, tensor, dim: int, positions: torch.Tensor, values: torch.Tensor) -> None:
        """Put `values` at the positions along `dim`; one number stands for all of them."""
        before = tensor.index_select(dim, positions).clone()
        self.saved.append((tensor, dim, positions, before))
        tensor.index_copy_(dim, positions, values.to(tensor).expand_as(before))

    def copy_columns(self, target, source, mask: np.ndarray) -> None:
        """The masked columns of a linear map, from those of another."""
        columns = _positions(mask, target.weight)
        values = source.weight.index_select(1, columns.to(source.weight.device))
        self.replace(target.weight, 1, columns, values)

    def copy_rows(self, target: Rows, source: Rows, mask: np.ndarray) -> None:
        """The masked rows of a linear map, and their biases, from those of another."""
        chosen = _positions(mask, target.linear.weight)
        for name in ("weight", "bias"):
            mine = getattr(target.linear, name)
            theirs = getattr(source.linear, name)
            if (mine is None) != (theirs is None):
                raise SsahError("one of the two models has biases where the other has none; a "
                                "transplant needs two models of the same architecture")
            if mine is not None:
                # in a fused map the rows of one kind stand behind those of another
                rows = (source.start + chosen).to(theirs.device)
                self.replace(mine, 0, target.start + chosen, theirs.index_select(0, rows))

    def output(self, module: torch.nn.Module, change) -> None:
        """Change what a module gives out."""
        self.handles.append(module.register_forward_hook(lambda _, inputs, output: change(output)))

    @torch.no_grad()
    def undo(self) -> None:
        """Put everything back, the last change first."""
        for handle in self.handles:
            handle.remove()
        for tensor, dim, positions, before in reversed(self.saved):
            tensor.index_copy_(dim, positions, before)


@contextmanager
def _edited(model, state: str) -> Iterator[_Edit]:
    """Yield an edit that is undone on leaving; inside, the model refuses to be saved.

    An edited model must not reach the disk by accident.
    """
    def refuse(*args, **kwargs):
        raise SsahError(f"the model is {state}; leave the `with` block before saving it")

    edit = _Edit()
    outer = vars(model).get("save_pretrained")      # set where edits are nested
    model.save_pretrained = refuse                  # shadows the method on this instance
    try:
        yield edit
    finally:
        edit.undo()
        del model.save_pretrained
        if outer is not None:
            model.save_pretrained = outer


def _checked(model, index: UnitIndex, mask) -> np.ndarray:
    check_same_index(model, index)
    return index.check_mask(mask)


def _positions(mask: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.flatnonzero(mask), device=like.device)
