"""How important is each unit on a set of texts? (paper, Sec. 4; FLAP's WIFV score, four baselines, single weights)

The paper's score of unit j is the fluctuation of its activation times the size of its outgoing weights:

    I_j = 1/(N-1) * sum_n (X^B_{n,j} - mean_j)^2 * ||W^B_{:,j}||_2^2

where X^B is the input of B (o_proj or down_proj) at the N scored positions. One forward pass serves
all modules; variances are merged over batches (Chan et al. 1979) so memory does not grow with N.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F

from .errors import SsahError
from .models import as_before, blocks
from .units import UnitIndex

METHODS = ("variance", "wanda", "magnitude", "gradient", "random")


class RunningMoments:
    """Moments (width,) of rows that come in batches: mean, variance, sum of squares (Chan's merge, float64)."""

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.centred = torch.zeros(width, dtype=torch.float64)   # sum of (x - mean)^2

    def add(self, x: torch.Tensor) -> None:
        """Merge `x` (rows, width) in."""
        if len(x) == 0:
            return
        # the batch's own moments in at least float32; only the merge needs float64
        variance, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), dim=0, correction=0)
        variance, mean = variance.double().cpu(), mean.double().cpu()
        total = self.count + len(x)
        shift = mean - self.mean
        self.mean += shift * (len(x) / total)
        self.centred += variance * len(x) + shift.square() * (self.count * len(x) / total)
        self.count = total

    @property
    def variance(self) -> torch.Tensor:
        """Unbiased variance (width,), by N - 1; of two rows or more."""
        return self.centred / (self.count - 1)

    @property
    def squares(self) -> torch.Tensor:
        """Sum of x^2 (width,)."""
        return self.centred + self.count * self.mean.square()


def importance(model, batches: Iterable[dict], method: str = "variance", *, seed: int = 0) -> np.ndarray:
    """Importance of every unit (paper, Sec. 4), float64 (len(index),), not negative; larger matters more.

    `batches` are dicts of tensors (batch, time): ``input_ids``, ``attention_mask`` and optionally
    ``score_mask``, which is 1 where a position's activation enters (default: every real token).
    Per-unit formulas, with w = W^B_{:,j} the unit's outgoing weights and x its activations at the N scored positions:

    - ``variance`` (the paper's): var(x) * ||w||_2^2
    - ``wanda`` (Sun et al. 2024, summed over outputs): ||x||_2 * ||w||_1
    - ``magnitude``: ||w||_2^2, no data
    - ``gradient`` (first-order Taylor, Molchanov et al. 2017: SNIP's w * dL/dw summed over the unit's outgoing
      weights before the modulus): mean over examples of |sum_t x_t * dL/dx_t|, t over all positions, L the mean
      negative log-likelihood of the token after each scored position
    - ``random``: uniform, from `seed`; no data

    Raises `SsahError` for an unknown method and, where data count, for too few scored positions (two; gradient: one).
    """
    index = UnitIndex.of(model)
    if method not in METHODS:
        raise SsahError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if method == "random":
        return np.random.default_rng(seed).random(len(index))
    norms = {1: [], 2: []}
    for linear in unit_outputs(model):
        weight = linear.weight.detach().float()
        norms[1].append(weight.abs().sum(0).double().cpu())
        norms[2].append(weight.square().sum(0).double().cpu())
    if method == "magnitude":
        return torch.cat(norms[2]).numpy()
    if method == "gradient":
        return _gradient(model, batches)
    moments = activation_moments(model, batches)
    per_module = [m.variance * w2 if method == "variance" else m.squares.sqrt() * w1
                  for m, w1, w2 in zip(moments, norms[1], norms[2])]
    return torch.cat(per_module).numpy()


def unit_outputs(model) -> list[torch.nn.Linear]:
    """The "B" of every module, in the order of the unit index: o_proj, down_proj, block after block."""
    return [linear for block in blocks(model) for linear in (block.attn_out, block.mlp_out)]


@torch.no_grad()
def activation_moments(model, batches: Iterable[dict]) -> list[RunningMoments]:
    """Moments of every unit's activation at the scored positions: one record a module, one pass without logits."""
    outputs = unit_outputs(model)
    moments = [RunningMoments(linear.in_features) for linear in outputs]
    scored: torch.Tensor

    def watch(moment):
        return lambda module, inputs: moment.add(inputs[0].flatten(0, 1)[scored])       # (scored, channel)

    handles = [linear.register_forward_pre_hook(watch(m)) for linear, m in zip(outputs, moments)]
    try:
        for batch in batches:
            # integer positions once a batch: every module gathers the same rows
            scored = score_mask(batch).flatten().nonzero(as_tuple=True)[0]
            model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if moments[0].count < 2:
        raise SsahError("fewer than two positions are scored; "
                        "the prompt set is empty or the score mask selects nothing")
    return moments


def score_mask(batch: dict) -> torch.Tensor:
    """Boolean (batch, time): the given mask, or every real token; never a padded one."""
    real = batch["attention_mask"].bool()
    return real & batch["score_mask"].bool() if "score_mask" in batch else real


def _gradient(model, batches: Iterable[dict]) -> np.ndarray:
    """First-order effect of removing each unit, |sum_t x_t dL/dx_t|, averaged over examples."""
    outputs = unit_outputs(model)
    totals = [torch.zeros(linear.in_features, dtype=torch.float64) for linear in outputs]
    inputs: list[torch.Tensor] = []

    def keep(module, args):
        x = args[0].detach().requires_grad_() if not args[0].requires_grad else args[0]
        inputs.append(x)
        return (x,)

    handles = [linear.register_forward_pre_hook(keep) for linear in outputs]
    examples = 0
    try:
        with as_before(model):
            model.requires_grad_(False)      # only activations need gradients
            for batch in batches:
                inputs.clear()
                losses, counted = _losses(model, batch)
                # summed over examples: each example keeps its own gradient
                for total, x, g in zip(totals, inputs, torch.autograd.grad(losses.sum(), inputs)):
                    total += (x.detach() * g).sum(1).abs().double().sum(0).cpu()   # (batch, time, channel), (channel,)
                examples += counted
    finally:
        for handle in handles:
            handle.remove()
    return (torch.cat(totals) / _any(examples)).numpy()


def weight_importance(model, batches: Iterable[dict]) -> dict[str, torch.Tensor]:
    """SNIP's importance of single weights (Lee et al. 2019, as Wei et al. 2024 take it), float32, by parameter name.

        I_ij = mean over examples of |W_ij * dL/dW_ij|

    for the weights of all linear maps of all blocks; L as for `importance`'s ``gradient``, whose units it is summed
    over. One backward pass an example, since the modulus comes before the mean. Raises `SsahError` where no position
    is scored.
    """
    named = linear_weights(model)
    totals = {name: torch.zeros(weight.shape, device=weight.device) for name, weight in named.items()}
    examples = 0
    with as_before(model):
        model.requires_grad_(True)
        for batch in batches:
            for row in range(len(batch["input_ids"])):
                real = batch["attention_mask"][row].bool()
                losses, counted = _losses(model, {name: value[row:row + 1, real] for name, value in batch.items()})
                if not counted:
                    continue
                for name, gradient in zip(named, torch.autograd.grad(losses.sum(), list(named.values()))):
                    totals[name] += (named[name].detach() * gradient).abs()
                examples += counted
    return {name: total / _any(examples) for name, total in totals.items()}


def linear_weights(model) -> dict[str, torch.nn.Parameter]:
    """The weights of all linear maps of all blocks, by parameter name."""
    modules = model.base_model.named_modules(prefix=model.base_model_prefix)
    return {f"{name}.weight": module.weight for name, module in modules if isinstance(module, torch.nn.Linear)}


def _losses(model, batch: dict) -> tuple[torch.Tensor, int]:
    """Mean NLL (nats) of the tokens after each example's scored positions (batch,), and how many examples have any."""
    wanted = score_mask(batch)[:, :-1] & batch["attention_mask"][:, 1:].bool()
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].transpose(1, 2).float(), batch["input_ids"][:, 1:], reduction="none")
    return (loss * wanted).sum(1) / wanted.sum(1).clamp(min=1), int(wanted.any(1).sum())


def _any(examples: int) -> int:
    if examples == 0:
        raise SsahError("no position is scored; the prompt set is empty or the score mask selects nothing")
    return examples
