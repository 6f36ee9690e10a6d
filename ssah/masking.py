"""Training some units of a model and leaving the others as they are, paying only for what moves.

A linear map of which only some rows or columns move keeps its full weight, which gets no gradient. The moving
slice is a tensor of its own, the one that the optimizer sees. The forward pass is the usual dense product with
the full weight, in which the slice stands too; the backward pass forms the gradient of the slice alone. So
what is frozen is never written to, and gradients and optimizer state exist only for what moves (paper, Table 2).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from .errors import SsahError
from .models import as_before, blocks
from .units import UnitIndex

RESTS = ("train", "freeze")


@dataclass(frozen=True)
class Cut:
    """A part of a weight that trains: `weight`, at the `positions` (int64) along `dim`, is a copy of `part`."""

    weight: torch.nn.Parameter
    part: torch.nn.Parameter        # contiguous; float32 where the weight is of half precision
    dim: int                        # 0: rows, 1: columns
    positions: torch.Tensor


@dataclass(frozen=True)
class Moving:
    """What trains: `named` maps a weight's name to the parameter, or to the slice of it that moves."""

    named: dict[str, torch.nn.Parameter]

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The trainable tensors, in the order of ``model.named_parameters()``: what an optimizer takes."""
        return list(self.named.values())

    def sync(self) -> None:
        """Bring the model up to date; due after every optimizer step. Whole parameters are already."""


@dataclass(frozen=True)
class Slices(Moving):
    """What trains where some of it are slices of weights."""

    cuts: list[Cut]

    @torch.no_grad()
    def sync(self) -> None:
        """Write the slices into the full weights, rounded to the model's dtype; due after every optimizer step."""
        for cut in self.cuts:
            cut.weight.index_copy_(cut.dim, cut.positions, cut.part.to(cut.weight.dtype))


@contextmanager
def moving(model, index: UnitIndex, moved, rest: str = "freeze") -> Iterator[Slices]:
    """Inside, only the units in `moved` train, a Boolean array (len(index),), and the rest if `rest` is ``"train"``.

    With a unit move its column of o_proj or down_proj, its rows of gate_proj and up_proj, their biases, and the row
    of v_proj if all the columns that this row feeds move. All else (queries, keys, norms, embeddings, biases of o_proj
    and down_proj) is the rest. Whatever trains is float32 if the model is of half precision (then run under autocast).
    On leaving, by an exception too, the model is an ordinary one in its own dtype, with the weights last synced.
    Raises `SsahError` for a mask or index of another model, an unknown `rest`, a model whose layers are not
    understood, and where nothing would move.
    """
    if UnitIndex.of(model) != index:
        raise SsahError("the unit index belongs to a model of another shape; use UnitIndex.of(model)")
    if rest not in RESTS:
        raise SsahError(f"unknown rest {rest!r}; known: {', '.join(RESTS)}")
    moved = index.check_mask(moved)
    if not moved.any() and rest == "freeze":
        raise SsahError("nothing would move: the mask has no unit and the rest is frozen")
    linears = list(unit_linears(model, index, moved))
    with as_before(model):
        state = _set_up(model, linears, rest)
        cut_of = {cut.weight: cut for cut in state.cuts}
        try:
            for linear, _, _ in linears:
                if linear.weight in cut_of:
                    bias = cut_of[linear.bias].part if linear.bias in cut_of else linear.bias
                    linear.forward = partial(_forward, linear, cut_of[linear.weight], bias)     # on this instance only
            yield state
        finally:
            for linear, _, _ in linears:
                vars(linear).pop("forward", None)


def unit_linears(model, index: UnitIndex, moved: np.ndarray) -> Iterator[tuple[torch.nn.Linear, int, np.ndarray]]:
    """Every linear map made of units: the dimension along which units lie (0: rows), and which of them move.

    `moved`: Boolean (len(index),). Of v_proj a row moves if all the columns that it feeds do.
    """
    masks = [moved[where] for _, _, where in index.modules()]
    for number, (block, attn, mlp) in enumerate(zip(blocks(model), masks[::2], masks[1::2])):
        for linear, dim, chosen in ((block.value, 0, index.value_rows(attn)), (block.attn_out, 1, attn),
                                    (block.gate, 0, mlp), (block.up, 0, mlp), (block.mlp_out, 1, mlp)):
            if type(linear) is not torch.nn.Linear:
                raise SsahError(f"block {number} has a {type(linear).__name__} where a plain Linear is understood; "
                                "load the model without quantization or adapters")
            yield linear, dim, chosen


def _set_up(model, linears: list, rest: str) -> Slices:
    """Let whole parameters train or not, and cut out those of which only a part moves."""
    chosen_of = {linear.weight: (dim, chosen) for linear, dim, chosen in linears}
    chosen_of |= {linear.bias: (0, chosen) for linear, dim, chosen in linears if dim == 0 and linear.bias is not None}
    of_the_rest = (0, np.array([rest == "train"]))
    named, cuts = {}, []
    for name, weight in model.named_parameters():
        dim, chosen = chosen_of.get(weight, of_the_rest)
        master = torch.promote_types(weight.dtype, torch.float32)
        weight.grad = None
        weight.requires_grad_(bool(chosen.all()))
        if chosen.all():
            weight.data = weight.data.to(master)
            named[name] = weight
        elif chosen.any():
            positions = torch.as_tensor(np.flatnonzero(chosen), device=weight.device)
            part = torch.nn.Parameter(weight.detach().index_select(dim, positions).to(master))
            named[name] = part
            cuts.append(Cut(weight, part, dim, positions))
    return Slices(named, cuts)


def _forward(linear: torch.nn.Linear, cut: Cut, bias, x: torch.Tensor) -> torch.Tensor:
    return _SlicedLinear.apply(x, cut.part, bias, linear.weight, linear.bias, cut.dim, cut.positions)


class _SlicedLinear(torch.autograd.Function):
    """``F.linear(x, weight, bias)`` with a gradient for x, and for `part` and `part_bias` in place of both."""

    @staticmethod
    def forward(ctx, x, part, part_bias, weight, bias, dim, positions):
        out = F.linear(x, weight, bias)                                     # in autocast's dtype, if it is on
        ctx.rows = positions if dim == 0 else None
        seen = x.index_select(-1, positions) if dim == 1 else x             # only the columns that move are kept
        ctx.save_for_backward(seen.to(out.dtype), weight if ctx.needs_input_grad[0] else None)
        return out

    @staticmethod
    def backward(ctx, grad):
        seen, weight = ctx.saved_tensors
        towards_x = grad @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
        grad = (grad if ctx.rows is None else grad.index_select(-1, ctx.rows)).flatten(0, -2)   # (tokens, rows)
        towards_bias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return towards_x, grad.T @ seen.flatten(0, -2), towards_bias, None, None, None, None
