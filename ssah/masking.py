"""Training some units of a model and leaving the others as they are, paying only for what moves.

A linear map of which only some rows or columns move keeps its full weight, which gets no gradient.
The moving slice is a tensor of its own, the one that the optimizer sees. The forward pass is the
usual dense product with the full weight, in which the slice stands too; the backward pass forms the
gradient of the slice alone. So what is frozen is never written to, and gradients and optimizer
state exist only for what moves (paper, Table 2).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from .errors import SsahError
from .families import Rows, blocks, check_same_index
from .models import as_before
from .units import UnitIndex

RESTS = ("train", "freeze")


@dataclass(frozen=True)
class Moving:
    """What trains."""

    #: a weight's name -> the parameter, or the slice of it that moves
    named: dict[str, torch.nn.Parameter]

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What an optimizer takes, in the order of ``model.named_parameters()``."""
        return list(self.named.values())

    def sync(self) -> None:
        """Bring the model up to date; due after every optimizer step.

        Whole parameters already are.
        """


@dataclass(frozen=True)
class Cut:
    """A part of a weight that trains, in a tensor of its own."""

    weight: torch.nn.Parameter
    #: contiguous; float32 where the weight is of half precision
    part: torch.nn.Parameter
    #: 0: rows, 1: columns
    dim: int
    #: where the part stands in the weight, int64
    positions: torch.Tensor


@dataclass(frozen=True)
class Slices(Moving):
    """What trains where some of it are slices of weights."""

    cuts: list[Cut]

    @torch.no_grad()
    def sync(self) -> None:
        """Write the slices into the full weights, rounded to the model's dtype."""
        for cut in self.cuts:
            cut.weight.index_copy_(cut.dim, cut.positions, cut.part.to(cut.weight.dtype))


@contextmanager
def moving(model, index: UnitIndex, moved, rest: str = "freeze") -> Iterator[Slices]:
    """Inside, only the units in `moved` train, and the rest if `rest` is ``"train"``.

    `moved`: Boolean (len(index),). With a unit move its column of o_proj or down_proj, its rows of
    gate_proj and up_proj, their biases, and the row of v_proj if all the columns that this row
    feeds move; of fused projections (qkv_proj, gate_up_proj) these are some of the rows. All else
    (queries, keys, norms, embeddings, biases of o_proj and down_proj) is the rest. Whatever trains
    is float32 if the model is of half precision (then run under autocast). On leaving, by an
    exception too, the model is an ordinary one in its own dtype, with the weights last synced.
    Raises `SsahError` for a mask or index of another model, an unknown `rest`, a model whose layers
    are not understood, and where nothing would move.
    """
    moved = _checked(model, index, moved, rest)
    linears = list(unit_linears(model, index, moved, rest))
    with as_before(model):
        slices = _cut_out(model, linears, rest)
        with _sliced(linears, slices.cuts):
            yield slices


@contextmanager
def _sliced(linears: list, cuts: list[Cut]) -> Iterator[None]:
    """Inside, the maps with a cut form the gradient of the cut alone; on these instances only."""
    cut_of = {cut.weight: cut for cut in cuts}
    # an instance has a forward of its own where a model is spread over several devices
    before = {linear: vars(linear).get("forward") for linear, _, _ in linears}
    try:
        for linear in before:
            if linear.weight in cut_of:
                weight_cut = cut_of[linear.weight]
                linear.forward = partial(_forward, linear, weight_cut, cut_of.get(linear.bias))
        yield
    finally:
        for linear, forward in before.items():
            vars(linear).pop("forward", None)
            if forward is not None:
                linear.forward = forward


def _checked(model, index: UnitIndex, moved, rest: str) -> np.ndarray:
    check_same_index(model, index)
    if rest not in RESTS:
        raise SsahError(f"unknown rest {rest!r}; known: {', '.join(RESTS)}")
    moved = index.check_mask(moved)
    if not moved.any() and rest == "freeze":
        raise SsahError("nothing would move: the mask has no unit and the rest is frozen")
    return moved


def unit_linears(
    model, index: UnitIndex, moved: np.ndarray, rest: str = "train"
) -> Iterator[tuple[torch.nn.Linear, int, np.ndarray]]:
    """Every linear map made of units: the dimension of its units (0: rows), and what moves of it.

    `moved`: Boolean (len(index),). Of v_proj a row moves if all the columns that it feeds do. Rows
    of a fused projection that belong to no unit (queries and keys) move if the `rest` trains.
    """
    masks = [moved[where] for _, _, where in index.modules()]
    for block, attn, mlp in zip(blocks(model), masks[::2], masks[1::2]):
        yield from _row_maps(rest, (block.value, index.value_rows(attn)))
        yield block.attn_out, 1, attn
        yield from _row_maps(rest, (block.gate, mlp), (block.up, mlp))
        yield block.mlp_out, 1, mlp


def _row_maps(
    rest: str, *parts: tuple[Rows, np.ndarray]
) -> Iterator[tuple[torch.nn.Linear, int, np.ndarray]]:
    """The linear maps that some rows belong to, each once, with all its rows that move."""
    chosen_of = {}
    for rows, moved in parts:
        if rows.linear not in chosen_of:
            chosen_of[rows.linear] = np.full(rows.linear.out_features, rest == "train")
        chosen_of[rows.linear][rows.start:rows.stop] = moved
    for linear, chosen in chosen_of.items():
        yield linear, 0, chosen


def _cut_out(model, linears: list, rest: str) -> Slices:
    """Let whole parameters train or not, and cut out those of which only a part moves."""
    chosen_of = {}
    for linear, dim, chosen in linears:
        chosen_of[linear.weight] = (dim, chosen)
        if dim == 0 and linear.bias is not None:
            chosen_of[linear.bias] = (0, chosen)
    of_the_rest = (0, np.array([rest == "train"]))
    named = {}
    cuts = []
    for name, weight in model.named_parameters():
        dim, chosen = chosen_of.get(weight, of_the_rest)
        # whatever trains is float32 at least
        master = torch.promote_types(weight.dtype, torch.float32)
        weight.grad = None
        weight.requires_grad_(bool(chosen.all()))
        if chosen.all():
            weight.data = weight.data.to(master)
            named[name] = weight
        elif chosen.any():
            positions = torch.as_tensor(np.flatnonzero(chosen), device=weight.device)
            part = weight.detach().index_select(dim, positions).to(master)
            named[name] = torch.nn.Parameter(part)
            cuts.append(Cut(weight, named[name], dim, positions))
    return Slices(named, cuts)


# ---- the gradient of a slice -----------------------------------------------------------------

def _forward(linear: torch.nn.Linear, cut: Cut, bias_cut: Cut | None, x: torch.Tensor):
    """What stands in for ``linear(x)`` where a part of its weight trains."""
    moving_bias = linear.bias if bias_cut is None else bias_cut.part
    return _SlicedLinear.apply(
        x, cut.part, moving_bias, linear.weight, linear.bias, cut.dim, cut.positions
    )


class _SlicedLinear(torch.autograd.Function):
    """y = x W^T + b, with gradients for x and for the moving part of W and b.

    With G = dL/dy (tokens, outputs) and x (tokens, inputs), the dense gradient is dL/dW = G^T x.
    Of some rows of W it is G[:, rows]^T x, of some columns G^T x[:, columns]: only those products
    are formed.
    """

    @staticmethod
    def forward(ctx, x, part, moving_bias, weight, bias, dim, positions):
        y = F.linear(x, weight, bias)           # in autocast's dtype, if it is on
        ctx.rows = positions if dim == 0 else None
        if dim == 1:
            x = x.index_select(-1, positions)   # only the columns that move are kept
        kept_weight = weight if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(x.to(y.dtype), kept_weight)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        towards_x = None
        if ctx.needs_input_grad[0]:
            towards_x = grad @ weight.to(grad.dtype)
        if ctx.rows is not None:
            grad = grad.index_select(-1, ctx.rows)
        grad = grad.flatten(0, -2)              # (tokens, outputs that move)
        towards_bias = None
        if ctx.needs_input_grad[2]:
            towards_bias = grad.sum(0)
        towards_part = grad.T @ x.flatten(0, -2)
        return towards_x, towards_part, towards_bias, None, None, None, None
