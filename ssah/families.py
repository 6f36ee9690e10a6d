"""Where a model family keeps the linear maps that units are made of.

A block is understood if it has one attention module and one gated MLP that both write to the
residual stream:

- ``self_attn`` with ``v_proj`` and ``o_proj`` (Llama, Mistral, Qwen, Gemma, OLMo, SmolLM, GLM),
  or with ``qkv_proj``, whose last rows are the values (Phi-3, Phi-4);
- ``mlp`` with ``gate_proj``, ``up_proj`` and ``down_proj``, or with ``gate_up_proj``, whose first
  half are the gates (Phi-3, Phi-4, GLM).

Some families put a norm between a module and the stream (Gemma 3, OLMo 2 and 3, EXAONE 4, GLM 4,
HyperCLOVA X); it is part of the block here. Everything else is refused with the name of what stands
in the way: a mixture of experts, a block without attention, a quantized layer, an adapter, a part
that we do not know. The algorithms of this package take what they need from a `Block` and never ask
for the family.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from .errors import SsahError
from .units import UnitIndex

#: The parts of a block, its attention and its MLP that change nothing about what a unit is.
KNOWN_PARTS = {
    "block": {
        "self_attn", "mlp", "input_layernorm", "post_attention_layernorm",
        "pre_feedforward_layernorm", "post_feedforward_layernorm",
        "post_self_attn_layernorm", "post_mlp_layernorm", "post_norm1", "post_norm2",
        "dropout", "resid_attn_dropout", "resid_mlp_dropout",
    },
    "self_attn": {
        "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "rotary_emb",
        "q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm",
        "attention_dropout",
    },
    "mlp": {"gate_proj", "up_proj", "gate_up_proj", "down_proj", "act_fn", "activation_fn"},
}

#: Names of a norm between attention and stream, and of one between MLP and stream.
NORMS_BEFORE_THE_STREAM = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
    ("post_norm1", "post_norm2"),
)


@dataclass(frozen=True)
class Rows:
    """Some rows of a linear map: all of a ``v_proj``, or the values' part of a ``qkv_proj``."""

    linear: torch.nn.Linear
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def weight(self) -> torch.Tensor:
        """A view (rows, inputs) of the map's weight."""
        return self.linear.weight[self.start:self.stop]

    @property
    def bias(self) -> torch.Tensor | None:
        """A view (rows,) of the map's bias, if it has one."""
        if self.linear.bias is None:
            return None
        return self.linear.bias[self.start:self.stop]


@dataclass(frozen=True)
class StreamNorm:
    """An RMS norm between a module's output h and the residual stream: gain * h / rms(h)."""

    module: torch.nn.Module

    def gain(self) -> torch.Tensor:
        """The factor (hidden,) of each output, float32, however the family writes it."""
        weight = self.module.weight
        # of equal inputs rms is their size, beside which the norm's epsilon vanishes
        equal = torch.full(weight.shape, 1e3, dtype=torch.float32, device=weight.device)
        return self.module(equal).float()

    def scale(self, output: torch.Tensor) -> torch.Tensor:
        """1 / rms of h (..., hidden) at every position, float32 (..., 1)."""
        epsilon = getattr(self.module, "variance_epsilon", None)
        if epsilon is None:
            epsilon = self.module.eps
        mean_square = output.float().square().mean(dim=-1, keepdim=True)
        return torch.rsqrt(mean_square + epsilon)


@dataclass(frozen=True)
class Block:
    """The linear maps of one block that units are made of (paper, Sec. 4: f(X) = B s(A X))."""

    #: the rows of v_proj, which feed the attention units
    value: Rows
    #: o_proj, "B" of the attention module
    attn_out: torch.nn.Linear
    #: the rows of gate_proj and of up_proj, "A" of the MLP module
    gate: Rows
    up: Rows
    #: down_proj, "B" of the MLP module
    mlp_out: torch.nn.Linear
    #: what stands between B and the residual stream, if anything does
    attn_norm: StreamNorm | None
    mlp_norm: StreamNorm | None

    @property
    def outputs(self) -> list[tuple[torch.nn.Linear, StreamNorm | None]]:
        """B of the attention and of the MLP, each with its norm."""
        return [(self.attn_out, self.attn_norm), (self.mlp_out, self.mlp_norm)]


def check_logits(model) -> None:
    """Raise `SsahError` where logits are not just the head's, applied to the last hidden states."""
    for setting in ("logits_scaling", "final_logit_softcapping", "logit_scale"):
        if getattr(model.config, setting, None) not in (None, 1, 1.0):
            raise SsahError(
                f"{type(model).__name__} rescales its logits ({setting}), which this package does "
                "not follow; take a model of another family, such as Llama, Qwen or Gemma 3"
            )


def blocks(model) -> list[Block]:
    """The blocks of a causal LM, in depth order.

    Raises `SsahError` for a layout that is not understood, naming the layer and the remedy.
    """
    if hasattr(model, "tokenizer"):
        raise SsahError("give the model itself, not the chat: chat.model")
    name = type(model).__name__
    if type(model).__module__.startswith("peft."):
        raise SsahError(
            f"the model is wrapped in an adapter ({name}); "
            "merge it first: model = model.merge_and_unload()"
        )
    if not hasattr(model, "base_model"):
        raise SsahError(f"a {name} is no causal LM of transformers; give chat.model")
    check_logits(model)
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise SsahError(
            f"{name} has no `layers`; only text-only decoders that are built like Llama, Mistral, "
            "Qwen, Gemma 3, OLMo or Phi-3 are understood"
        )
    index = UnitIndex.of(model)
    found = []
    for number, layer in enumerate(layers):
        found.append(_block(_Place(number, name), layer, index))
    return found


def stream_writers(model) -> list[torch.nn.Module]:
    """The modules whose outputs are added up to the residual stream, the embeddings first."""
    understood = blocks(model)
    writers = [model.get_input_embeddings()]
    for block in understood:
        for linear, norm in block.outputs:
            writers.append(linear if norm is None else norm.module)
    return writers


class _Place(NamedTuple):
    """Where in a model something stands, for errors."""

    number: int
    model: str

    def __str__(self) -> str:
        return f"block {self.number} of {self.model}"


def _block(place: _Place, layer: torch.nn.Module, index: UnitIndex) -> Block:
    """One layer's block."""
    attention = _part(place, layer, "self_attn")
    value_map = _part(place, attention, "qkv_proj", "v_proj")
    attn_out = _part(place, attention, "o_proj")
    mlp = _part(place, layer, "mlp")
    gate_map = _part(place, mlp, "gate_up_proj", "gate_proj")
    up_map = _part(place, mlp, "gate_up_proj", "up_proj")
    mlp_out = _part(place, mlp, "down_proj")
    _check_parts(place, layer, "block")
    _check_parts(place, attention, "self_attn")
    _check_parts(place, mlp, "mlp")

    n_values = index.n_kv_heads * index.head_dim
    widths = [value_map.out_features, gate_map.out_features]
    expected = [n_values, index.n_mlp]
    if hasattr(attention, "qkv_proj"):
        expected[0] += index.n_attn + n_values
    if hasattr(mlp, "gate_up_proj"):
        expected[1] += index.n_mlp
    widths += [attn_out.in_features, mlp_out.in_features, mlp_out.out_features]
    expected += [index.n_attn, index.n_mlp, index.hidden]
    if widths != expected:
        raise SsahError(
            f"{place} is not understood: its maps are {widths} wide where the config says "
            f"{expected}; take a model whose blocks are all alike"
        )
    attn_norm, mlp_norm = _stream_norms(place, layer)
    return Block(
        value=_last_rows(value_map, n_values),
        attn_out=attn_out,
        gate=Rows(gate_map, 0, index.n_mlp),
        up=_last_rows(up_map, index.n_mlp),
        mlp_out=mlp_out,
        attn_norm=attn_norm,
        mlp_norm=mlp_norm,
    )


def _last_rows(linear: torch.nn.Linear, count: int) -> Rows:
    return Rows(linear, linear.out_features - count, linear.out_features)


def _stream_norms(place: _Place, layer) -> tuple[StreamNorm | None, StreamNorm | None]:
    """The norms between attention, MLP and the stream.

    Where there is no ``post_feedforward_layernorm``, ``post_attention_layernorm`` is the MLP's own
    norm, which stands before it.
    """
    for after_attention, after_mlp in NORMS_BEFORE_THE_STREAM:
        modules = [getattr(layer, after_attention, None), getattr(layer, after_mlp, None)]
        if None not in modules:
            return _stream_norm(place, modules[0]), _stream_norm(place, modules[1])
    return None, None


def _stream_norm(place: _Place, module: torch.nn.Module) -> StreamNorm | None:
    if isinstance(module, torch.nn.Identity):
        return None
    if "RMSNorm" not in type(module).__name__:
        raise SsahError(
            f"{place} is not understood: a {type(module).__name__} stands between a module and the "
            "residual stream, where only an RMS norm is understood; take a model of another family"
        )
    return StreamNorm(module)


# ---- what is refused -------------------------------------------------------------------------

def _part(place: _Place, module: torch.nn.Module, *names: str) -> torch.nn.Module:
    """The first of these parts that a module has; `SsahError` if it has none."""
    for name in names:
        part = getattr(module, name, None)
        if part is not None:
            return part
    missing = names[-1]
    kind = type(module).__name__
    if type(module).__module__.startswith("peft."):
        problem = f"an adapter ({kind}) stands before its {missing}"
        remedy = "load the model without the adapter"
    elif "moe" in kind.lower() or hasattr(module, "experts"):
        problem = f"{kind} is a mixture of experts and has no {missing}"
        remedy = "take a dense model"
    elif missing in ("self_attn", "mlp"):
        problem = f"{kind} has no {missing}"
        remedy = "take a model whose every block has an attention module and an MLP"
    else:
        problem = f"{kind} has no {missing}"
        remedy = "take a model that is built like Llama, Mistral, Qwen, Gemma 3, OLMo or Phi-3"
    raise SsahError(f"{place} is not understood: {problem}; {remedy}")


def _check_parts(place: _Place, module: torch.nn.Module, kind: str) -> None:
    """Refuse linear maps that are not plain ones, and parts that are unknown."""
    names = set()
    for name, part in module.named_children():
        names.add(name)
        if name.endswith("_proj") and type(part) is not torch.nn.Linear:
            raise SsahError(
                f"block {place.number} has a {type(part).__name__} where a plain Linear is "
                f"understood ({name} of {place.model}): {_remedy_for(part)}"
            )
    unknown = names - KNOWN_PARTS[kind]
    if unknown:
        raise SsahError(
            f"{place} is not understood: {type(module).__name__} has {', '.join(sorted(unknown))}, "
            "which may change what a unit is; "
            "take a model that is built like Llama, Mistral, Qwen, Gemma 3, OLMo or Phi-3"
        )


def _remedy_for(part: torch.nn.Module) -> str:
    """What to do about a map that is not a plain one."""
    if type(part).__module__.startswith("peft."):
        return "merge the adapter into the model first (peft: model.merge_and_unload())"
    return (
        "load the model without quantization or adapters, "
        "or dequantize it first (transformers: model.dequantize())"
    )


def check_same_index(model, index: UnitIndex) -> None:
    """Raise `SsahError` if a unit index is that of a model of another shape."""
    if UnitIndex.of(model) != index:
        raise SsahError(
            "the unit index belongs to a model of another shape; use UnitIndex.of(model)"
        )
