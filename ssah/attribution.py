"""How important is each unit on a set of texts? (paper, Sec. 4)

The paper's score of unit j is the fluctuation of its activation times the size of its outgoing
weights (FLAP's WIFV score):

    I_j = 1/(N-1) * sum_n (X^B_{n,j} - mean_j)^2 * ||W^B_{:,j}||_2^2

where X^B is the input of B (o_proj or down_proj) at the N scored positions. Beside it stand four
baselines, and a score of single weights. One forward pass serves all modules; variances are merged
over batches (Chan et al. 1979), so memory does not grow with N.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

from .errors import SsahError
from .models import as_before, blocks
from .units import UnitIndex

METHODS = ("variance", "wanda", "magnitude", "gradient", "random")


def importance(
    model, batches: Iterable[dict], method: str = "variance", *, seed: int = 0
) -> np.ndarray:
    """Importance of every unit (paper, Sec. 4), float64 (len(index),), not negative.

    `batches` are dicts of tensors (batch, time): ``input_ids``, ``attention_mask`` and optionally
    ``score_mask``, which is 1 where a position's activation enters (default: every real token).
    Per-unit formulas, with w = W^B_{:,j} the unit's outgoing weights and x its activations at the
    N scored positions:

    - ``variance`` (the paper's): var(x) * ||w||_2^2
    - ``wanda`` (Sun et al. 2024, summed over outputs): ||x||_2 * ||w||_1
    - ``magnitude``: ||w||_2^2, no data
    - ``gradient`` (first-order Taylor, Molchanov et al. 2017: SNIP's w * dL/dw summed over the
      unit's outgoing weights before the modulus): mean over examples of |sum_t x_t * dL/dx_t|, t
      over all positions, L the mean negative log-likelihood of the token after each scored position
    - ``random``: uniform, from `seed`; no data

    Raises `SsahError` for an unknown method and, where data count, for too few scored positions
    (two; gradient: one).
    """
    if method not in METHODS:
        raise SsahError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if method == "random":
        return np.random.default_rng(seed).random(len(UnitIndex.of(model)))
    if method == "gradient":
        return _gradient(model, batches)
    outgoing = [linear.weight.detach() for linear in unit_outputs(model)]
    if method == "magnitude":
        scores = [squared_norm(weight) for weight in outgoing]
    else:
        score = {"variance": variance_score, "wanda": wanda_score}[method]
        scores = map(score, activation_moments(model, batches), outgoing)
    return torch.cat(list(scores)).numpy()


# ---- the scores of one module ----------------------------------------------------------------

def variance_score(activations: "RunningMoments", outgoing: torch.Tensor) -> torch.Tensor:
    """The paper's score of a module's units, float64 (width,):

        I_j = 1/(N-1) * sum_n (X_{n,j} - mean_j)^2 * ||W_{:,j}||_2^2

    `activations`: moments of X, (N, width); `outgoing`: W, (hidden, width).
    """
    fluctuation = activations.variance
    return fluctuation * squared_norm(outgoing)


def wanda_score(activations: "RunningMoments", outgoing: torch.Tensor) -> torch.Tensor:
    """Wanda's |W_ij| * ||X_j||_2, summed over the outputs i: float64 (width,)."""
    size = activations.squares.sqrt()
    return size * outgoing.float().abs().sum(dim=0).double().cpu()


def squared_norm(outgoing: torch.Tensor) -> torch.Tensor:
    """||W_{:,j}||_2^2 of the columns of W (hidden, width): float64 (width,)."""
    return outgoing.float().square().sum(dim=0).double().cpu()


class RunningMoments:
    """Mean, variance and sum of squares (width,) of rows that come in batches.

    Batches are merged as in Chan et al. 1979, in float64.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        #: sum of (x - mean)^2
        self.centred = torch.zeros(width, dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        """Merge `rows` (rows, width) in."""
        count = len(rows)
        if count == 0:
            return
        # the batch's own moments in at least float32; only the merge needs float64
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        variance = variance.double().cpu()
        mean = mean.double().cpu()
        total = self.count + count
        shift = mean - self.mean
        self.mean += shift * (count / total)
        self.centred += variance * count + shift.square() * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> torch.Tensor:
        """Unbiased variance (width,), by N - 1; of two rows or more."""
        return self.centred / (self.count - 1)

    @property
    def squares(self) -> torch.Tensor:
        """Sum of x^2 (width,)."""
        return self.centred + self.count * self.mean.square()


# ---- activations -----------------------------------------------------------------------------

def unit_outputs(model) -> list[torch.nn.Linear]:
    """The "B" of every module in the order of the unit index: o_proj, down_proj, block by block."""
    outputs = []
    for block in blocks(model):
        outputs += [block.attn_out, block.mlp_out]
    return outputs


@torch.no_grad()
def activation_moments(model, batches: Iterable[dict]) -> list[RunningMoments]:
    """Moments of every unit's activation at the scored positions: one record a module.

    One pass over the batches, without logits. Raises `SsahError` for fewer than two positions.
    """
    outputs = unit_outputs(model)
    moments = [RunningMoments(linear.in_features) for linear in outputs]
    scored: torch.Tensor

    def watch(module_moments):
        def add_scored(module, inputs):
            activations = inputs[0].flatten(0, 1)       # (batch x time, width)
            module_moments.add(activations[scored])
        return add_scored

    with _before(outputs, map(watch, moments)):
        for batch in batches:
            # integer positions once a batch: every module gathers the same rows
            scored = score_mask(batch).flatten().nonzero(as_tuple=True)[0]
            model.base_model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=False,
            )
    if moments[0].count < 2:
        raise SsahError(
            "fewer than two positions are scored; "
            "the prompt set is empty or the score mask selects nothing"
        )
    return moments


def score_mask(batch: dict) -> torch.Tensor:
    """Boolean (batch, time): the given mask, or every real token; never a padded one."""
    real = batch["attention_mask"].bool()
    if "score_mask" not in batch:
        return real
    return real & batch["score_mask"].bool()


@contextmanager
def _before(modules: Iterable[torch.nn.Module], hooks: Iterable) -> Iterator[None]:
    """Inside, each hook runs before its module does, on the module's inputs."""
    handles = []
    try:
        for module, hook in zip(modules, hooks):
            handles.append(module.register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


# ---- gradients -------------------------------------------------------------------------------

def _gradient(model, batches: Iterable[dict]) -> np.ndarray:
    """First-order effect of removing each unit, |sum_t x_t dL/dx_t|, averaged over examples."""
    outputs = unit_outputs(model)
    totals = [torch.zeros(linear.in_features, dtype=torch.float64) for linear in outputs]
    activations: list[torch.Tensor] = []

    def keep(module, inputs):
        activation = inputs[0]
        if not activation.requires_grad:        # the first module's: nothing before it trains
            activation = activation.detach().requires_grad_()
        activations.append(activation)
        return (activation,)

    examples = 0
    with _before(outputs, [keep] * len(outputs)), as_before(model):
        model.requires_grad_(False)             # only activations need gradients
        for batch in batches:
            activations.clear()
            losses, counted = _losses(model, batch)
            # summed over examples: each example keeps its own gradient
            gradients = torch.autograd.grad(losses.sum(), activations)
            for total, activation, gradient in zip(totals, activations, gradients):
                effects = (activation.detach() * gradient).sum(dim=1).abs()     # (batch, width)
                total += effects.double().sum(dim=0).cpu()
            examples += counted
    return (torch.cat(totals) / _any(examples)).numpy()


def weight_importance(model, batches: Iterable[dict]) -> dict[str, torch.Tensor]:
    """SNIP's importance of single weights (Lee et al. 2019, as Wei et al. 2024 take it).

        I_ij = mean over examples of |W_ij * dL/dW_ij|

    for the weights of all linear maps of all blocks, float32, by parameter name; L as for
    `importance`'s ``gradient``, whose units it is summed over. One backward pass an example, since
    the modulus comes before the mean. Raises `SsahError` where no position is scored.
    """
    weights = linear_weights(model)
    totals = {}
    for name, weight in weights.items():
        totals[name] = torch.zeros(weight.shape, device=weight.device)
    examples = 0
    with as_before(model):
        model.requires_grad_(True)
        for example in _one_by_one(batches):
            losses, counted = _losses(model, example)
            if not counted:
                continue
            gradients = torch.autograd.grad(losses.sum(), list(weights.values()))
            for name, gradient in zip(weights, gradients):
                totals[name] += (weights[name].detach() * gradient).abs()
            examples += counted
    return {name: total / _any(examples) for name, total in totals.items()}


def linear_weights(model) -> dict[str, torch.nn.Parameter]:
    """The weights of all linear maps of all blocks, by parameter name."""
    weights = {}
    for name, module in model.base_model.named_modules(prefix=model.base_model_prefix):
        if isinstance(module, torch.nn.Linear):
            weights[f"{name}.weight"] = module.weight
    return weights


def _one_by_one(batches: Iterable[dict]) -> Iterator[dict]:
    """Every example as a batch of its own, without padding."""
    for batch in batches:
        for row, real in enumerate(batch["attention_mask"].bool()):
            yield {name: value[row:row + 1, real] for name, value in batch.items()}


def _losses(model, batch: dict) -> tuple[torch.Tensor, int]:
    """Mean NLL (nats) of the tokens after each example's scored positions, (batch,).

    Beside it: how many examples have any.
    """
    targets = batch["input_ids"][:, 1:]
    counts = score_mask(batch)[:, :-1] & batch["attention_mask"][:, 1:].bool()
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    ).logits[:, :-1]                                                # (batch, time - 1, vocabulary)
    loss = F.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none")
    means = (loss * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
    return means, int(counts.any(dim=1).sum())


def _any(examples: int) -> int:
    if examples == 0:
        raise SsahError(
            "no position is scored; the prompt set is empty or the score mask selects nothing"
        )
    return examples
