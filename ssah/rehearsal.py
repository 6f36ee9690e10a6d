"""What a training run would take, found without weights: for models too large to try.

A model is built on torch's ``meta`` device, where tensors have sizes and no contents. There the
units are set moving and the optimizer takes a step, by the code that does so in earnest; then bytes
are counted as `ssah.finetune` counts them (paper, Table 2, for models of any size).

Not here: activations inside a block, logits, buffers of the framework, several GPUs' copies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from .errors import SsahError
from .finetuning import what_moves
from .loading import parsed_dtype
from .masking import Slices, moving
from .training import bytes_in_use
from .units import UnitIndex


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes while a model trains, and the operations of a token."""

    #: all weights, those that train in float32
    weights: int
    #: what moves: as `FineTuning.bytes` counts it, and part of `weights`
    parameters: int
    gradients: int
    optimizer: int
    #: of every token that is computed at once: the inputs of all blocks, kept by checkpointing
    token: int
    #: products with weights, forward and backward, of a token (FLOP); attention is not counted
    flops: int
    #: the same with checkpointing, which computes every block twice
    flops_checkpointing: int

    def total(self, tokens: int) -> int:
        """Bytes of all of it with so many tokens at once, under checkpointing."""
        return self.weights + self.gradients + self.optimizer + tokens * self.token


def plan_memory(
    config,
    *,
    frozen=None,
    trainable=None,
    rest: str | None = None,
    dtype: str | torch.dtype = "bfloat16",
    optimizer: Callable = torch.optim.AdamW,
) -> MemoryPlan:
    """Bytes and operations of `ssah.finetune` with these masks on a model of this `config`.

    `config`: a transformers config (``AutoConfig.from_pretrained(...)``) or a model, of which only
    the config is taken. `frozen`, `trainable` and `rest` as in `ssah.finetune`; `dtype` is that of
    the weights that stay. ``optimizer(parameters, lr=, weight_decay=)`` makes a torch optimizer
    that can step on the meta device. Where the output map is shared with the embeddings its
    products count, the embeddings' look-up does not.

    Raises `SsahError` for masks and layouts as `ssah.finetune` does, and for a `dtype` of files.
    """
    wanted = parsed_dtype(dtype)
    if wanted == "auto":
        raise SsahError('no files are read here; give dtype="bfloat16" or "float32"')
    index = UnitIndex.of(config)
    moved, rest = what_moves(index, frozen, trainable, rest)
    model = skeleton(getattr(config, "config", config), wanted)
    with moving(model, index, moved, rest) as state:
        stepped = _one_step(state, optimizer)
        used = bytes_in_use(model, state.parameters, stepped)
        # where the rest trains, the embeddings are float32, and so is what runs between blocks
        stream = model.get_input_embeddings().weight.dtype
        forward, backward = _products(model, state)
        return MemoryPlan(
            weights=_bytes_of_weights(model, state),
            **used,
            token=index.n_blocks * index.hidden * stream.itemsize,
            flops=forward + backward,
            flops_checkpointing=forward + backward + _forward_of_blocks(model),
        )


def skeleton(config, dtype: torch.dtype) -> torch.nn.Module:
    """A model without contents: it has shapes, and takes no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def _one_step(state: Slices, optimizer: Callable) -> torch.optim.Optimizer:
    """The optimizer after a step, with the state that it keeps."""
    made = optimizer(state.parameters, lr=1e-5, weight_decay=0.0)
    for parameter in state.parameters:
        parameter.grad = torch.empty_like(parameter)
    made.step()
    return made


def _bytes_of_weights(model, state: Slices) -> int:
    """All weights, and the slices beside them."""
    whole = sum(weight.nbytes for weight in model.parameters())
    return whole + sum(cut.part.nbytes for cut in state.cuts)


def _products(model, state: Slices) -> tuple[int, int]:
    """FLOP of a token: forward; and backward, towards inputs and towards the weights that move.

    Two for each weight of a linear map forward, two backward, and two more if it moves.
    """
    moving_of = {id(parameter): parameter.numel() for parameter in state.parameters}
    moving_of |= {id(cut.weight): cut.part.numel() for cut in state.cuts}
    forward = 0
    towards_weights = 0
    for linear in _linear_maps(model):
        forward += 2 * linear.weight.numel()
        towards_weights += 2 * moving_of.get(id(linear.weight), 0)
    return forward, forward + towards_weights


def _forward_of_blocks(model) -> int:
    """FLOP of a token through all blocks."""
    return sum(2 * linear.weight.numel() for linear in _linear_maps(model.base_model))


def _linear_maps(model) -> list[torch.nn.Linear]:
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
