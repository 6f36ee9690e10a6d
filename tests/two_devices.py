"""A second device where there is one CPU alone, for models whose blocks are spread.

A tensor that lies `ELSEWHERE` has its numbers in the memory of the CPU, and says that its device is
another one. As between two GPUs, an operation on tensors of both devices is an error, unless it
copies from one to the other.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HERE = torch.device("cpu")
#: A kind of device that autograd treats like a CPU and that no build of torch computes on.
ELSEWHERE = torch.device("lazy", 0)

#: What may take tensors of both devices.
COPIES = (torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.to)


class Elsewhere(torch.Tensor):
    """A tensor on the second device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _computed(operation, args, kwargs or {})


class TwoDevices(TorchDispatchMode):
    """Inside, tensors can be made on the second device and moved there."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _computed(operation, args, kwargs or {})


class Lists(TorchFunctionMode):
    """Inside, torch makes tensors elsewhere from lists, and lists of them, of which it asks none
    of the other modes.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and _is_elsewhere(kwargs.get("device")):
            return torch.tensor(*args, **{**kwargs, "device": HERE}).to(ELSEWHERE)
        if function is torch.Tensor.__getitem__ and isinstance(args[1], list):
            return args[0][torch.tensor(args[1]).to(args[0].device)]
        if function is torch.Tensor.tolist:
            return function(args[0].to(HERE))
        return function(*args, **kwargs)


def _is_elsewhere(device) -> bool:
    return device is not None and torch.device(device).type == ELSEWHERE.type


def _device(value):
    """The CPU in place of any device."""
    return HERE if isinstance(value, torch.device) else value


def _computed(operation, args: tuple, kwargs: dict):
    """An operation on the CPU whose result lies where it would lie."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    some_elsewhere = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    # numbers, which torch takes for tensors without dimensions, lie anywhere
    some_here = any(tensor.dim() and not isinstance(tensor, Elsewhere) for tensor in tensors)
    if some_elsewhere and some_here and operation.overloadpacket not in COPIES:
        raise RuntimeError(f"{operation} on tensors of two devices")
    lies_elsewhere = any(map(_is_elsewhere, devices)) if devices else some_elsewhere
    args, kwargs = tree_map(_device, (args, kwargs))
    result = operation(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if operation._schema.is_mutable:
        return args[0] if operation._schema.returns else None       # changed in place
    return tree_map(_wrapped, result) if lies_elsewhere else result


def _inner(value):
    return value.inner if isinstance(value, Elsewhere) else value


def _wrapped(value):
    return Elsewhere(value) if isinstance(value, torch.Tensor) else value


@contextmanager
def spread(model, n_here: int):
    """Inside, all blocks after the first `n_here` lie elsewhere, with the norm and the output map.

    What a part is given is moved to it before each call, and the logits back, as accelerate's hooks
    do for a model with ``device_map="auto"``. Not for a model whose output map is its embeddings.
    """
    torch.lazy = torch.cpu      # checkpointing asks each kind of device for its module
    base = model.base_model
    parts_here = [base.embed_tokens, *base.layers[:n_here]]
    parts_elsewhere = [*base.layers[n_here:], base.norm, model.lm_head]
    with TwoDevices(), Lists():
        for part in parts_here:
            part.register_forward_pre_hook(_inputs_on(HERE), with_kwargs=True)
        for part in parts_elsewhere:
            _move_weights(part)
            part.register_forward_pre_hook(_inputs_on(ELSEWHERE), with_kwargs=True)
        model.register_forward_hook(_logits_here)
        yield model
    del torch.lazy


def _move_weights(part: torch.nn.Module) -> None:
    for module in part.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                away = weight.detach().to(ELSEWHERE)
                module._parameters[name] = torch.nn.Parameter(away)


def _inputs_on(device: torch.device):
    """A hook that moves what a module is given to a device."""
    def moved(value):
        return value.to(device) if isinstance(value, torch.Tensor) else value

    def move(module, args, kwargs):
        return tree_map(moved, args), tree_map(moved, kwargs)

    return move


def _logits_here(module, args, output):
    output.logits = output.logits.to(HERE)
    return output
