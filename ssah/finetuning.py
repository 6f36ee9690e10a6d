"""Supervised fine-tuning of a chat model on prompt-response pairs: all of it, chosen units, weights or an adapter.

The loss is on the answer and its end token only, and logits are computed only where a label needs
them. Not here: other objectives (DPO), several devices, sequence packing.
"""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .alternatives import adapted, check_weights, holding
from .errors import SsahError
from .masking import RESTS, Moving, moving
from .models import Chat, pad
from .resuming import Resume, fingerprint
from .units import UnitIndex

#: Factor of the learning rate after warm-up, where a share `left` (from 1 down to 0) of the steps is still to come.
SCHEDULES = {"constant": lambda left: 1.0,
             "linear": lambda left: left,
             "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2}

ADAMW = partial(torch.optim.AdamW, fused=True)


@dataclass(frozen=True)
class FineTuning:
    """What happened.

    `history` has a row an optimizer step: step, epoch, loss (nats), lr, grad_norm (before clipping, of what moves),
    tokens, seconds (so far) and peak_gib (memory so far, of the GPU if one is used, else of the process).
    `checkpoints` has a row a checkpoint: step (how many were made), epoch (with its fraction), probe_loss (nats) and
    the callbacks' columns. `bytes` were in use at the last step: ``parameters`` that move, their ``gradients``, and
    the ``optimizer`` state.
    """

    history: pd.DataFrame
    checkpoints: pd.DataFrame
    cut: int                    # examples whose answer was cut to fit the context
    bytes: dict[str, int]


def finetune(chat: Chat, examples: Sequence[dict], *, frozen=None, trainable=None, rest: str | None = None,
             adapter=None, epochs: int = 2, lr: float = 5e-5, batch_size: int = 16, micro_batch: int | None = None,
             weight_decay: float = 0.0, warmup_steps: int = 10, schedule: str = "constant", max_norm: float = 1.0,
             optimizer: Callable = ADAMW, seed: int = 0, system: str = "default", autocast: bool = True,
             checkpointing: bool = False, probe: Sequence[dict] | None = None, probe_every: float = 0.25,
             callbacks: Sequence[Callable] = (), resume=None, max_steps: int | None = None,
             progress: str | None = "fine-tuning") -> FineTuning:
    """Train `chat.model` in place: all of it, or with a mask all but some units, or only some (paper, Table 2).

    `examples`: dicts ``prompt``, ``response`` and optionally ``ended`` (default True: the response is whole, so its
    end token is trained on too). A mask is Boolean (len(index),), see `ssah.masking.moving` for what moves with a unit:

    - ``frozen=mask``: these units stay, bit for bit, and the rest trains unless ``rest="freeze"``;
    - ``trainable=mask``: only these units move, and the rest stays unless ``rest="train"``.

    To compare units with: ``frozen={parameter name: Boolean tensor of its shape}`` freezes single weights and trains
    all else (`ssah.alternatives.holding`); `adapter`, a ``peft`` configuration, trains an adapter in place of the
    model's own weights, merged into them at the end where it can be (`ssah.alternatives.adapted`).

    The arithmetic is bf16 autocast, or with `autocast=False` the model's own. What moves and its optimizer state are
    float32 or wider meanwhile; the model ends in its own dtype. ``optimizer(parameters, lr=, weight_decay=)`` makes
    any torch optimizer. `schedule` (``constant``, ``linear``, ``cosine``) is that of the rate after its warm-up, over
    the steps of all epochs; `max_steps` ends the run early. `micro_batch` examples are computed at once (default: the
    batch), and `checkpointing` recomputes activations: the same steps in less memory.

    Before the first step and every `probe_every` epochs is a checkpoint: the mean loss on the examples `probe` is
    measured, and each ``callback(chat, row)`` is called in eval mode without gradients, under the run's autocast. It
    may add columns (numbers, text) to the row; a true answer ends the run. With a folder `resume` an interrupted run,
    called again with the same starting model, goes on after its last finished epoch; the folder goes at the end.

    Raises `SsahError` for masks that cannot be meant, an unknown option, no examples, an empty response, a prompt
    longer than the context, and a loss, gradient or weight that is not finite; where it is a loss or gradient, the
    model stays as it was after the step before.
    """
    model = chat.model
    trained, facts = _what_trains(model, frozen, trainable, rest, adapter, seed)
    if schedule not in SCHEDULES:
        raise SsahError(f"unknown schedule {schedule!r}; known: {', '.join(SCHEDULES)}")
    if not autocast and model.dtype.itemsize < 4:
        raise SsahError(f"a {model.dtype} model trains under autocast only; leave autocast on or load it as float32")
    encoded, cut = encode_examples(chat, examples, system)
    probes = None if probe is None else encode_examples(chat, probe, system)[0]
    options = dict(epochs=epochs, lr=lr, batch_size=batch_size, micro_batch=micro_batch or batch_size,
                   weight_decay=weight_decay, warmup_steps=warmup_steps, schedule=schedule, max_norm=max_norm,
                   seed=seed, autocast=autocast, checkpointing=checkpointing, probe_every=probe_every,
                   max_steps=max_steps)
    kept = None if resume is None else Resume(resume, fingerprint(model, {
        **options, "optimizer": _description(optimizer), **facts(), "examples": encoded, "probe": probes}))
    with trained as state, _training(model, checkpointing):
        run = _Run(chat, encoded, probes, state, _make(optimizer, state, lr, weight_decay), callbacks,
                   SimpleNamespace(**options), np.random.default_rng(seed))
        with tqdm(total=run.n_steps, desc=progress, disable=progress is None, leave=False) as bar:
            run.to_the_end(kept, bar)
        if not all(torch.isfinite(p).all() for p in model.parameters()):    # the last step is not seen by any loss
            raise SsahError(f"weights are not finite after step {len(run.rows) - 1}; "
                            f"lower the learning rate (now {lr:g})")
        used = bytes_in_use(model, state.parameters, run.optimizer)
    if kept:
        kept.remove()
    return FineTuning(pd.DataFrame(run.rows), pd.DataFrame(run.looks), cut, used)


def _what_trains(model, frozen, trainable, rest: str | None, adapter, seed: int):
    """The context manager of what trains, and a function of the facts that tell it from others."""
    if adapter is not None or isinstance(frozen, Mapping):
        if rest is not None or trainable is not None or (adapter is not None and frozen is not None):
            raise SsahError("give one of: a mask of units (with rest), frozen weights by name, an adapter")
        if adapter is not None:
            return adapted(model, adapter, seed), lambda: {"adapter": {
                name: sorted(value) if isinstance(value, set) else str(value)
                for name, value in adapter.to_dict().items()}}
        masks = check_weights(model, frozen)
        return holding(model, masks), lambda: {"frozen": {
            name: hashlib.sha256(mask.cpu().numpy().tobytes()).hexdigest() for name, mask in masks.items()}}
    index = UnitIndex.of(model)
    moved, rest = what_moves(index, frozen, trainable, rest)
    return moving(model, index, moved, rest), lambda: {"moved": moved.tolist(), "rest": rest}


def what_moves(index: UnitIndex, frozen=None, trainable=None, rest: str | None = None) -> tuple[np.ndarray, str]:
    """The units that move, Boolean (len(index),), and whether the rest does (``"train"`` | ``"freeze"``).

    Raises `SsahError` for both masks, a mask of another shape, one that has no unit or all, and an unknown `rest`.
    """
    if frozen is not None and trainable is not None:
        raise SsahError("both frozen and trainable are given; give one, the other is all that it leaves out")
    if rest not in (None, *RESTS):
        raise SsahError(f"unknown rest {rest!r}; known: {', '.join(RESTS)}")
    if frozen is None and trainable is None:
        return np.ones(len(index), bool), rest or "train"
    mask = index.check_mask(frozen if trainable is None else trainable)
    if mask.all() or not mask.any():
        raise SsahError(f"the mask has {'all' if mask.all() else 'none'} of the {len(index)} units; leave it out to "
                        'train them all (rest="freeze" keeps what belongs to no unit)')
    return (~mask, rest or "train") if trainable is None else (mask, rest or "freeze")


def rate_factor(schedule: str, step: int, warmup_steps: int, n_steps: int) -> float:
    """Learning rate of a step (from 0) as a share of the full rate: a linear warm-up, then the schedule."""
    left = min(1.0, (n_steps - step) / max(n_steps - warmup_steps, 1))
    return min(1.0, (step + 1) / max(warmup_steps, 1)) * SCHEDULES[schedule](left)


@dataclass
class _Run:
    """One fine-tuning between two of its steps."""

    chat: Chat
    encoded: list[tuple]
    probes: list[tuple] | None
    moving: Moving
    optimizer: torch.optim.Optimizer
    callbacks: Sequence[Callable]
    options: SimpleNamespace
    draw: np.random.Generator
    rows: list[dict] = field(default_factory=list)          # a step
    looks: list[dict] = field(default_factory=list)         # a checkpoint
    started: float = field(default_factory=time.perf_counter)

    @property
    def epoch_steps(self) -> int:
        return -(-len(self.encoded) // self.options.batch_size)

    @property
    def n_steps(self) -> int:
        return self.options.epochs * self.epoch_steps

    def to_the_end(self, kept: Resume | None, bar) -> None:
        """All steps, or those that are left; ends early by `max_steps` or a callback."""
        if kept and (progress := kept.load(self.moving, self.optimizer, self.draw)):
            self.rows, self.looks = progress["rows"], progress["looks"]
            self.started -= self.rows[-1]["seconds"]
            bar.update(len(self.rows))
        elif self.look():
            return
        lengths = [len(head) + len(tail) for head, tail in self.encoded]
        for epoch in range(len(self.rows) // self.epoch_steps, self.options.epochs):
            for picked in length_buckets(lengths, self.options.batch_size, self.draw):
                if len(self.rows) == self.options.max_steps:
                    return
                self.step(epoch, [self.encoded[i] for i in picked])
                bar.update()
                bar.set_postfix(loss=f"{self.rows[-1]['loss']:.3f}")
                if self.is_due() and self.look():
                    return
            if kept:
                kept.save(self.moving, self.optimizer, self.draw, {"rows": self.rows, "looks": self.looks})

    def step(self, epoch: int, batch: list[tuple]) -> None:
        """One optimizer step, unless the loss or the gradient is not finite."""
        at, o = len(self.rows), self.options
        rate = o.lr * rate_factor(o.schedule, at, o.warmup_steps, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss, tokens = gradient(self.chat, batch, o.micro_batch, o.autocast)
        norm = torch.nn.utils.clip_grad_norm_(self.moving.parameters, o.max_norm).item()
        for name, value in (("loss", loss), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise SsahError(f"the {name} is {value} at step {at}; lower the learning rate (now {o.lr:g})")
        self.optimizer.step()
        self.moving.sync()
        self.rows.append({"step": at, "epoch": epoch, "loss": loss, "lr": rate, "grad_norm": norm, "tokens": tokens,
                          "seconds": time.perf_counter() - self.started,
                          "peak_gib": peak_memory(self.chat.model.device)})

    def is_due(self) -> bool:
        """Whether the last step completed another `probe_every` of an epoch (with some room for rounding)."""
        before, now = (int(n / self.epoch_steps / self.options.probe_every + 1e-9)
                       for n in (len(self.rows) - 1, len(self.rows)))
        return now > before

    def look(self) -> bool:
        """A checkpoint; whether a callback ends the run."""
        if self.probes is None and not self.callbacks:
            return False
        model, row = self.chat.model, {"step": len(self.rows), "epoch": len(self.rows) / self.epoch_steps}
        self.looks.append(row)
        model.eval()
        # a callback may edit weights for a while (`ssah.ablation`), which casts kept by autocast would not show
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=self.options.autocast,
                                             cache_enabled=False):
            if self.probes is not None:
                row["probe_loss"] = mean_loss(self.chat, self.probes, self.options.micro_batch)
            ends = any([callback(self.chat, row) for callback in self.callbacks])       # a list: each is called
        model.train()
        return ends


def gradient(chat: Chat, batch: list[tuple], micro_batch: int, autocast: bool) -> tuple[float, int]:
    """Add up the gradient of the batch's `answer_loss`, `micro_batch` encoded examples at a time; the loss, tokens."""
    answers, total, all_tokens = sum(len(tail) for _, tail in batch), 0.0, 0
    for start in range(0, len(batch), micro_batch):
        part = batch[start:start + micro_batch]
        with torch.autocast(chat.model.device.type, torch.bfloat16, enabled=autocast):
            loss, tokens = answer_loss(chat, part)
        loss = loss * (sum(len(tail) for _, tail in part) / answers)
        loss.backward()
        total, all_tokens = total + loss.item(), all_tokens + tokens
    return total, all_tokens


def mean_loss(chat: Chat, encoded: list[tuple], batch_size: int) -> float:
    """Mean negative log-likelihood (nats) of all answer tokens of encoded examples, in batches of similar length."""
    encoded = sorted(encoded, key=lambda example: len(example[0]) + len(example[1]))
    total = 0.0
    for start in range(0, len(encoded), batch_size):
        part = encoded[start:start + batch_size]
        total += answer_loss(chat, part)[0].item() * sum(len(tail) for _, tail in part)
    return total / sum(len(tail) for _, tail in encoded)


def encode_examples(chat: Chat, examples: Sequence[dict], system: str = "default") -> tuple[list[tuple], int]:
    """Token ids (prompt, answer) of every example, and how many answers were cut to the context; errors: `finetune`."""
    if not examples:
        raise SsahError("no training examples")
    limit, encoded, cut = chat.model.config.max_position_embeddings, [], 0
    for number, example in enumerate(examples):
        if not example["response"].strip():
            raise SsahError(f"example {number} has no answer")
        head, tail = chat.encode(example["prompt"], example["response"], system)
        tail = tail if example.get("ended", True) else tail[:-1]
        if len(head) >= limit:
            raise SsahError(f"example {number}: the prompt alone ({len(head)} tokens) exceeds the context of {limit}")
        cut += len(head) + len(tail) > limit
        encoded.append((head, tail[:limit - len(head)]))
    return encoded, cut


def answer_loss(chat: Chat, encoded: list[tuple]) -> tuple[torch.Tensor, int]:
    """Mean negative log-likelihood (nats, scalar) of the answers' tokens, and all tokens of the batch, prompts too."""
    batch = pad([head + tail for head, tail in encoded], chat.tokenizer.pad_token_id, device=chat.model.device)
    predicting = torch.zeros_like(batch["attention_mask"], dtype=torch.bool)
    for row, (head, tail) in enumerate(encoded):
        predicting[row, len(head) - 1:len(head) + len(tail) - 1] = True
    hidden = chat.model.base_model(**batch, use_cache=False).last_hidden_state      # (batch, time, hidden)
    logits = chat.model.lm_head(hidden[predicting])                                 # (answer tokens, vocabulary)
    targets = batch["input_ids"].roll(-1, dims=1)[predicting]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, targets), int(batch["attention_mask"].sum())


def length_buckets(lengths: Sequence[int], batch_size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """One epoch's batches in random order, examples of similar length together (sorted within 8 batches' worth)."""
    order, stretch = draw.permutation(len(lengths)), 8 * batch_size
    batches = []
    for start in range(0, len(order), stretch):
        part = order[start:start + stretch]
        part = part[np.argsort(np.asarray(lengths)[part], kind="stable")]
        batches += [part[i:i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def bytes_in_use(model, parameters: list[torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of the ``parameters`` that move, of all ``gradients`` that there are, and of the ``optimizer`` state."""
    everything = {id(p): p for p in [*parameters, *model.parameters()]}.values()
    state = [value for values in optimizer.state.values() for value in values.values()]
    return {"parameters": _bytes(parameters), "gradients": _bytes(p.grad for p in everything),
            "optimizer": _bytes(value for value in state if torch.is_tensor(value))}


def peak_memory(device: torch.device) -> float:
    """Most memory so far, GiB: allocated on a CUDA device, else held by the process (on Windows unknown: nan)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return float("nan")     # not known there
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)


@contextmanager
def _training(model, checkpointing: bool):
    """Training mode, with transformers' activation checkpointing if asked for; eval mode and none of it afterwards."""
    if checkpointing:
        model.activation_checkpointing_enable()
        model.disable_input_require_grads()     # a hook on the embeddings that only reentrant checkpointing needs
    try:
        yield model.train()
    finally:
        model.eval()
        if checkpointing:
            model.activation_checkpointing_disable()


def _make(optimizer: Callable, state: Moving, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    try:
        return optimizer(state.parameters, lr=lr, weight_decay=weight_decay)
    except TypeError as error:
        raise SsahError(f"the optimizer does not take (parameters, lr=, weight_decay=): {error}; "
                        "give a function that takes them and returns a torch optimizer") from error


def _description(optimizer: Callable) -> str:
    """The same text for the same optimizer in another process, where `repr` may hold an address."""
    inner = getattr(optimizer, "func", optimizer)
    return f"{inner.__module__}.{inner.__qualname__} {getattr(optimizer, 'keywords', {})}"


def _bytes(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
