"""Other ways to train part of a model, to put beside units.

Single weights frozen (C7), and adapters of `peft` (C5). Freezing weights one by one saves nothing:
gradients and optimizer state are those of full fine-tuning. Not here: prompt tuning and prefix
tuning, which feed a model from outside instead of becoming part of it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .errors import SsahError
from .loading import touches_tied_embeddings
from .masking import Moving
from .models import as_before

# ---- which weights ---------------------------------------------------------------------------


def set_difference(
    safety: Mapping[str, torch.Tensor],
    utility: Mapping[str, torch.Tensor],
    shares: Mapping[str, float],
    utility_share: float,
) -> dict[str, torch.Tensor]:
    """Weights that matter for safety and not for utility, as masks by parameter name.

    The set difference of Wei et al. 2024. In every matrix in `shares`: without the `utility_share`
    of highest utility score (less where more is wanted than that leaves), its share of highest
    safety score. So the size is given, and not where the safety ranking is cut. Scores are those of
    `attribution.weight_importance`. Raises `SsahError` for shares outside 0 to 1, and for scores
    that are not finite.
    """
    if not all(0 <= share <= 1 for share in (*shares.values(), utility_share)):
        raise SsahError("shares are from 0 to 1, of the weights of a matrix")
    masks = {}
    for name, share in shares.items():
        if not (torch.isfinite(safety[name]).all() and torch.isfinite(utility[name]).all()):
            raise SsahError(
                f"the scores of {name} are not finite; compute them again with the model loaded "
                'with dtype="bfloat16" or "float32"'
            )
        scores = safety[name].flatten()
        wanted = round(share * scores.numel())
        spared = min(int(utility_share * scores.numel()), scores.numel() - wanted)
        of_utility = utility[name].flatten().topk(spared).indices
        left = scores.index_fill(0, of_utility, -1.0)       # below every score
        masks[name] = _mask_of(left.topk(wanted).indices, safety[name].shape)
    return masks


def random_weights(
    like: Mapping[str, torch.Tensor], shares: Mapping[str, float], seed: int
) -> dict[str, torch.Tensor]:
    """As many random weights of every matrix: the control of `set_difference`."""
    draw = torch.Generator().manual_seed(seed)
    masks = {}
    for name, share in shares.items():
        count = like[name].numel()
        order = torch.randperm(count, generator=draw)
        masks[name] = _mask_of(order[:round(share * count)], like[name].shape)
    return masks


def _mask_of(positions: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    mask = torch.zeros(shape.numel(), dtype=torch.bool, device=positions.device)
    mask[positions] = True
    return mask.reshape(shape)


# ---- single weights frozen -------------------------------------------------------------------

@dataclass(frozen=True)
class Holding(Moving):
    """What trains, and in it single weights that do not."""

    #: (parameter, mask of its shape, the values kept)
    kept: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor]]

    @torch.no_grad()
    def sync(self) -> None:
        """Put the frozen weights back: decay and momentum move weights without a gradient too."""
        for parameter, mask, values in self.kept:
            parameter.masked_scatter_(mask, values)


@contextmanager
def holding(model, frozen: Mapping[str, torch.Tensor]) -> Iterator[Holding]:
    """Inside, all of the model trains but the weights in `frozen`.

    `frozen`: parameter name -> Boolean mask of its shape. Whatever trains is float32 if the model
    is of half precision (then run under autocast); frozen weights are bit-identical afterwards, and
    their gradient is 0, so that a clipped norm is that of what moves. Raises `SsahError` for names
    that the model does not have, masks of another shape or dtype, and masks that have all weights
    or none.
    """
    frozen = check_weights(model, frozen)
    parameters = dict(model.named_parameters())
    with as_before(model):
        for parameter in parameters.values():
            parameter.data = _at_least_float32(parameter.data)
            parameter.requires_grad_(True)
        kept = []
        hooks = []
        for name, mask in frozen.items():
            parameter = parameters[name]
            mask = mask.to(parameter.device)
            kept.append((parameter, mask, parameter.detach()[mask]))
            hooks.append(parameter.register_hook(_zero_where(mask)))
        try:
            yield Holding(parameters, kept)
        finally:
            for hook in hooks:
                hook.remove()


def check_weights(model, frozen: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The masks as tensors (NumPy arrays may be given); errors as in `holding`."""
    parameters = dict(model.named_parameters())
    frozen = {name: torch.as_tensor(mask) for name, mask in frozen.items()}
    for name, mask in frozen.items():
        if name not in parameters:
            raise SsahError(
                f"the model has no parameter {name!r}; names are those of model.named_parameters()"
            )
        if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
            raise SsahError(
                f"the mask of {name} is {mask.dtype} {tuple(mask.shape)}; "
                f"it must be torch.bool {tuple(parameters[name].shape)}"
            )
    chosen = sum(int(mask.sum()) for mask in frozen.values())
    everything = sum(parameter.numel() for parameter in parameters.values())
    if chosen in (0, everything):
        how_many = "all" if chosen else "none"
        raise SsahError(
            f"the masks have {how_many} of the weights; leave them out to train all"
        )
    return frozen


def _zero_where(mask: torch.Tensor):
    return lambda gradient: gradient.masked_fill(mask, 0)


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


# ---- adapters --------------------------------------------------------------------------------

@contextmanager
def adapted(model, config, seed: int = 0) -> Iterator[Moving]:
    """Inside, only the adapter that `config` describes trains, and it is part of the model.

    `config` is a ``peft`` configuration; the adapter is float32. On leaving it is merged into the
    weights where the method can be (LoRA, IA³), and the model is an ordinary one again; others
    (LLaMA-Adapter) stay in it, and its units can then be neither scored nor frozen. `seed`: of the
    adapter's first weights. Raises `SsahError` for what feeds the model from outside (prompt and
    prefix tuning), for output maps that are tied to the embeddings, and for a method that the model
    does not support.
    """
    with as_before(model):
        wrapped = inject(model, config, seed)
        named = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data = _at_least_float32(parameter.data)
                named[name] = parameter
        try:
            yield Moving(named)
        finally:
            for parameter in named.values():
                parameter.grad = None
            if hasattr(wrapped.base_model, "merge_and_unload"):
                wrapped.base_model.merge_and_unload()


def inject(model, config, seed: int = 0):
    """Put an adapter into the model, in place; ``peft``'s wrapper of it. Errors as in `adapted`."""
    import peft

    if not isinstance(config, peft.PeftConfig):
        raise SsahError(
            f"an adapter is a peft configuration, such as peft.LoraConfig(...); got {config!r}"
        )
    name = type(config).__name__.removesuffix("Config")
    if config.is_prompt_learning:
        raise SsahError(
            f"{name} feeds the model from outside, so it cannot be measured like the others; "
            "take a method that becomes part of the model, such as LoRA"
        )
    if touches_tied_embeddings(model, config):
        raise SsahError(
            f"{name} would change the output map, which is the embeddings at the same time "
            "(tie_word_embeddings), and the merged model would be another one than the trained; "
            "leave lm_head and embed_tokens out of target_modules and modules_to_save"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            # a copy, since peft fills the configuration in
            return peft.get_peft_model(model, copy.deepcopy(config))
        except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
            raise SsahError(f"{name} does not work on this model: {error}") from error


def is_merged(config) -> bool:
    """Whether such an adapter becomes part of the weights when its training ends."""
    import peft

    return not isinstance(config, peft.AdaptionPromptConfig)


@torch.no_grad()
def merged_state(model) -> dict[str, torch.Tensor]:
    """The state dict that the model will have when its adapter is merged.

    Its own, if there is none that can be.
    """
    layers = _adapter_layers(model)
    before = {}
    of_adapters = []
    for name, layer in layers.items():
        of_adapters += [f"{name}.{part}." for part in layer.adapter_layer_names]
        before[name] = layer.get_base_layer().weight.detach().clone()
        layer.merge()
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(tuple(of_adapters)):
            state[name.replace(".base_layer", "")] = tensor.clone() if layers else tensor
    for name, layer in layers.items():
        layer.unmerge()
        # subtracting again would leave a rounding error
        layer.get_base_layer().weight.copy_(before[name])
    return state


def _adapter_layers(model) -> dict[str, torch.nn.Module]:
    """The layers that ``peft`` put into the model, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            layers[name] = module
    return layers
