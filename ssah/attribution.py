"""How important is each unit on a set of texts? (paper, Sec. 4)

The paper's score of unit j is the fluctuation of its activation times the size of its outgoing
weights (FLAP's WIFV score):

    I_j = 1/(N-1) * sum_n (X^B_{n,j} - mean_j)^2 * ||W^B_{:,j}||_2^2

where X^B is the input of B (o_proj or down_proj) at the N scored positions. Beside it stand four
baselines, and a score of single weights. One forward pass serves all modules; variances are merged
over batches (Chan et al. 1979), so memory does not grow with N.

Some families put a norm between B and the residual stream (Gemma 3, OLMo 2; `ssah.families`). What
unit j adds to the stream at position n is then X_{n,j} / rms_n * (g * W_{:,j}), with g the norm's
gain and rms_n the size of B's whole output there. So X_{n,j} / rms_n stands for the activation and
g * W_{:,j} for the outgoing weights, and the score means what it means without a norm.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .errors import SsahError
from .families import StreamNorm, blocks
from .models import Chat, as_before, check_chat, pad
from .units import UnitIndex

METHODS = ("variance", "wanda", "magnitude", "gradient", "random")

#: Where an answer's activations are scored; see `scoring_batches`.
POSITIONS = ("predicting", "response")


def importance(
    model,
    batches: Iterable[dict] | dict,
    method: str = "variance",
    *,
    seed: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Importance of every unit (paper, Sec. 4), float64 (len(index),), not negative.

    `batches`, as from `scoring_batches`, are dicts of tensors (batch, time): ``input_ids``,
    ``attention_mask`` and optionally ``score_mask``, which is 1 where a position's activation
    enters (default: every real token). One dict is taken for a list of one. Per-unit formulas, with
    w = W^B_{:,j} the unit's outgoing weights and x its activations at the N scored positions (where
    a norm follows B: g * w and x / rms, see above):

    - ``variance`` (the paper's): var(x) * ||w||_2^2
    - ``wanda`` (Sun et al. 2024, summed over outputs): ||x||_2 * ||w||_1
    - ``magnitude``: ||w||_2^2, no data
    - ``gradient`` (first-order Taylor, Molchanov et al. 2017: SNIP's w * dL/dw summed over the
      unit's outgoing weights before the modulus): mean over examples of |sum_t x_t * dL/dx_t|, t
      over all positions, L the mean negative log-likelihood of the token after each scored position
    - ``random``: uniform, from `seed`; no data

    `progress` labels a bar over the batches. Raises `SsahError` for an unknown method, for batches
    that are none, where data count for too few scored positions (two; gradient: one), and for
    scores that are not finite.
    """
    if method not in METHODS:
        raise SsahError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    index = UnitIndex.of(model)
    if method == "random":
        return np.random.default_rng(seed).random(len(index))
    if method == "gradient":
        scores = _gradient(model, batches, progress)
    elif method == "magnitude":
        scores = [squared_norm(weight) for weight in outgoing_weights(model)]
    else:
        score = {"variance": variance_score, "wanda": wanda_score}[method]
        moments = _moments(model, batches, in_stream=True, progress=progress)
        scores = map(score, moments, outgoing_weights(model))
    importances = torch.cat(list(scores)).numpy()
    for block, kind, where in index.modules():
        _check_finite(f"the scores of block {block} {kind}", importances[where])
    return importances


def scoring_batches(
    chat: Chat,
    prompts: Sequence[str],
    answers: Sequence[str] | Sequence[list[int]],
    *,
    system: str = "default",
    positions: str = "predicting",
    batch_size: int = 32,
) -> list[dict]:
    """Prompts and answers as `importance` takes them: a list of batches, in the order given.

    `answers`: a text or token ids for every prompt; a text's end token is left out. A batch is a
    dict of tensors (batch, time), padded on the right: ``input_ids``, ``attention_mask`` and
    ``score_mask``, which is 1 at the `positions` that are scored:

    - ``predicting``: where each of the answer's tokens is chosen, from the last token of the prompt
      to the last but one of the answer;
    - ``response``: the answer's own tokens (as Wei et al. 2024).

    `system` as in `Chat.render`. Raises `SsahError` for other positions, for prompts and answers
    that are not as many, and for an answer without tokens.
    """
    if positions not in POSITIONS:
        raise SsahError(f"unknown positions {positions!r}; known: {', '.join(POSITIONS)}")
    if batch_size < 1:
        raise SsahError(f"batch_size is at least 1; got {batch_size}")
    check_chat(chat)
    encoded = _encoded_pairs(chat, prompts, answers, system)
    shift = 1 if positions == "predicting" else 0
    batches = []
    for start in range(0, len(encoded), batch_size):
        part = encoded[start:start + batch_size]
        pad_id = chat.tokenizer.pad_token_id
        batch = pad([head + tail for head, tail in part], pad_id, device=chat.model.device)
        mask = torch.zeros_like(batch["attention_mask"])
        for row, (head, tail) in enumerate(part):
            first = len(head) - shift
            mask[row, first:first + len(tail)] = 1
        batches.append({**batch, "score_mask": mask})
    return batches


def _encoded_pairs(chat: Chat, prompts, answers, system: str) -> list[tuple[list[int], list[int]]]:
    """Token ids (prompt, answer) of every pair."""
    for name, values in (("prompts", prompts), ("answers", answers)):
        is_table = isinstance(values, Mapping) or hasattr(values, "columns")
        if is_table or isinstance(values, str) or not isinstance(values, Iterable):
            raise SsahError(f"{name} are a list, one a prompt; got a {type(values).__name__}")
    prompts = list(prompts)
    answers = list(answers)
    if not prompts:
        raise SsahError("no prompts to score")
    if len(prompts) != len(answers):
        raise SsahError(
            f"every prompt needs one answer; got {len(prompts)} prompts, {len(answers)} answers"
        )
    encoded = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers)):
        if isinstance(answer, str):
            head, (tail,) = chat.continuations(prompt, [answer], system)
        else:
            head = chat.encode(prompt, system=system)[0]
            tail = [int(token) for token in answer]
        if not tail:
            raise SsahError(f"answer {number} has no tokens; leave its prompt out")
        encoded.append((head, tail))
    return encoded


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
    return size * outgoing.float().abs().sum(dim=0).cpu().double()


def squared_norm(outgoing: torch.Tensor) -> torch.Tensor:
    """||W_{:,j}||_2^2 of the columns of W (hidden, width): float64 (width,)."""
    return outgoing.float().square().sum(dim=0).cpu().double()


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
        variance = variance.cpu().double()      # some accelerators have no float64
        mean = mean.cpu().double()
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
    return [linear for linear, _ in _outputs(model)]


def outgoing_weights(model) -> list[torch.Tensor]:
    """W^B of every module, (hidden, width); times the norm's gain where a norm follows."""
    weights = []
    for linear, norm in _outputs(model):
        weight = linear.weight.detach()
        if norm is not None:
            weight = weight.float() * norm.gain().detach()[:, None]
        weights.append(weight)
    return weights


def activation_moments(model, batches: Iterable[dict] | dict) -> list[RunningMoments]:
    """Moments of every unit's activation at the scored positions: one record a module.

    The activation is the input of B itself, whether a norm follows or not: what `ablated` holds at
    its mean. One pass over the batches, without logits. Raises `SsahError` for fewer than two
    positions, and for activations that are not finite.
    """
    return _moments(model, batches, in_stream=False)


def _outputs(model) -> list[tuple[torch.nn.Linear, StreamNorm | None]]:
    outputs = []
    for block in blocks(model):
        outputs += block.outputs
    return outputs


@torch.no_grad()
def _moments(
    model, batches, in_stream: bool, progress: str | None = None
) -> list[RunningMoments]:
    """Moments of the activations; over rms, where a norm follows and `in_stream` is asked for."""
    outputs = _outputs(model)
    moments = [RunningMoments(linear.in_features) for linear, _ in outputs]
    scored: torch.Tensor

    def watch(norm, module_moments):
        def add_scored(module, inputs, output):
            activations = inputs[0].flatten(0, 1)       # (batch x time, width)
            rows = activations[scored.to(activations.device)]
            if in_stream and norm is not None:
                rows = rows.float() * norm.scale(output.flatten(0, 1)[scored.to(output.device)])
            module_moments.add(rows)
        return add_scored

    handles = []
    try:
        for (linear, norm), module_moments in zip(outputs, moments):
            handles.append(linear.register_forward_hook(watch(norm, module_moments)))
        for batch in _checked_batches(model, batches, progress):
            # integer positions once a batch: every module gathers the same rows
            scored = score_mask(batch).flatten().nonzero(as_tuple=True)[0]
            model.base_model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=False,
            )
    finally:
        for handle in handles:
            handle.remove()
    if moments[0].count < 2:
        raise SsahError(
            "fewer than two positions are scored; "
            "the prompt set is empty or the score mask selects nothing"
        )
    for number, module_moments in enumerate(moments):
        kind = "attention" if number % 2 == 0 else "MLP"
        _check_finite(f"activations of block {number // 2}'s {kind}", module_moments.centred)
    return moments


def score_mask(batch: dict) -> torch.Tensor:
    """Boolean (batch, time): the given mask, or every real token; never a padded one."""
    real = batch["attention_mask"].bool()
    if "score_mask" not in batch:
        return real
    return real & batch["score_mask"].bool()


# ---- gradients -------------------------------------------------------------------------------

def _gradient(model, batches: Iterable[dict], progress: str | None) -> list[torch.Tensor]:
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

    handles = [linear.register_forward_pre_hook(keep) for linear in outputs]
    examples = 0
    try:
        with as_before(model), torch.enable_grad():
            model.requires_grad_(False)         # only activations need gradients
            for batch in _checked_batches(model, batches, progress):
                activations.clear()
                losses, counted = _losses(model, batch)
                # summed over examples: each example keeps its own gradient
                gradients = torch.autograd.grad(losses.sum(), activations)
                for total, activation, gradient in zip(totals, activations, gradients):
                    effects = (activation.detach() * gradient).sum(dim=1).abs()     # (batch, width)
                    total += effects.cpu().double().sum(dim=0)
                examples += counted
    finally:
        for handle in handles:
            handle.remove()
    return [total / _any(examples) for total in totals]


def weight_importance(
    model, batches: Iterable[dict], *, progress: str | None = None
) -> dict[str, torch.Tensor]:
    """SNIP's importance of single weights (Lee et al. 2019, as Wei et al. 2024 take it).

        I_ij = mean over examples of |W_ij * dL/dW_ij|

    for the weights of all linear maps of all blocks, float32, by parameter name; L as for
    `importance`'s ``gradient``, whose units it is summed over. One backward pass an example, since
    the modulus comes before the mean. In float16 small gradients become 0: load the model in
    bfloat16 or float32. `progress` labels a bar over the batches. Raises `SsahError` where no
    position is scored, and for scores that are not finite.
    """
    weights = linear_weights(model)
    totals = {}
    for name, weight in weights.items():
        totals[name] = torch.zeros(weight.shape, device=weight.device)
    examples = 0
    with as_before(model), torch.enable_grad():
        model.requires_grad_(True)
        for example in _one_by_one(_checked_batches(model, batches, progress)):
            losses, counted = _losses(model, example)
            if not counted:
                continue
            gradients = torch.autograd.grad(losses.sum(), list(weights.values()))
            for name, gradient in zip(weights, gradients):
                totals[name] += (weights[name].detach().float() * gradient.float()).abs()
            examples += counted
    scores = {}
    for name, total in totals.items():
        scores[name] = total / _any(examples)
        _check_finite(f"the scores of {name}", scores[name])
    return scores


def linear_weights(model) -> dict[str, torch.nn.Parameter]:
    """The weights of all linear maps of all blocks, by parameter name; errors as in `blocks`."""
    blocks(model)       # refuses maps that are not plain ones
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


def _checked_batches(
    model, batches: Iterable[dict] | dict, progress: str | None = None
) -> Iterator[dict]:
    """The batches on the model's device; `SsahError` for what is none. `progress` labels a bar."""
    if isinstance(batches, Mapping):
        batches = [batches]
    for batch in tqdm(batches, desc=progress, disable=progress is None, leave=False):
        fits = isinstance(batch, Mapping) and {"input_ids", "attention_mask"} <= set(batch)
        if not fits or not all(torch.is_tensor(value) for value in batch.values()):
            raise SsahError(
                "a batch is a dict of tensors (batch, time) with input_ids and attention_mask; "
                "ssah.scoring_batches(chat, prompts, answers) makes a list of them"
            )
        yield {name: value.to(model.device) for name, value in batch.items()}


def _check_finite(what: str, values) -> None:
    """Raise `SsahError` for numbers that are not finite, with the cure."""
    if not torch.isfinite(torch.as_tensor(values)).all():
        raise SsahError(
            f"{what} are not finite: the weights are damaged, or their number format is too "
            'narrow; load the model with dtype="bfloat16" or "float32"'
        )


def _any(examples: int) -> int:
    if examples == 0:
        raise SsahError(
            "no position is scored; the prompt set is empty or the score mask selects nothing"
        )
    return examples
