"""The steps of a fine-tuning run: the loss on answers, batches, the rate, checkpoints.

Logits are computed only where a label needs them. `ssah.finetuning` says what trains and starts a
run.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from .errors import SsahError
from .masking import Moving
from .models import Chat, pad
from .resuming import Resume

#: Token ids of a rendered prompt and of its answer.
Encoded = tuple[list[int], list[int]]


def _constant(left: float) -> float:
    return 1.0


def _linear(left: float) -> float:
    return left


def _cosine(left: float) -> float:
    return (1 - math.cos(math.pi * left)) / 2


#: Factor of the learning rate after warm-up, where a share `left` (from 1 down to 0) of the steps
#: is still to come.
SCHEDULES = {"constant": _constant, "linear": _linear, "cosine": _cosine}

#: Batches' worth of examples within which `length_buckets` sorts.
SORTED_TOGETHER = 8


@dataclass(frozen=True)
class Options:
    """The numbers of a run (see `ssah.finetune`)."""

    epochs: int
    lr: float
    batch_size: int
    micro_batch: int  # examples that are computed at once
    weight_decay: float
    warmup_steps: int
    schedule: str  # one of `SCHEDULES`
    max_norm: float  # to which the gradient is clipped
    seed: int
    autocast: bool
    checkpointing: bool
    probe_every: float  # epochs
    max_steps: int | None

    def __post_init__(self):
        for name in ("epochs", "batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise SsahError(f"{name} is 1 or more; got {getattr(self, name)}")
        if not self.probe_every > 0:
            raise SsahError(f"probe_every is a number of epochs above 0; got {self.probe_every}")
        if self.max_steps is not None and self.max_steps < 1:
            raise SsahError(f"max_steps is 1 or more (None: all of them); got {self.max_steps}")


def rate_factor(schedule: str, step: int, warmup_steps: int, n_steps: int) -> float:
    """Rate of a step (from 0) as a share of the full one: a linear warm-up, then the schedule."""
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    left = min(1.0, (n_steps - step) / max(n_steps - warmup_steps, 1))
    return warm * SCHEDULES[schedule](left)


# ---- the loss --------------------------------------------------------------------------------


def answer_loss(chat: Chat, encoded: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """Mean NLL (nats, scalar) of the answers' tokens, and all tokens of the batch, prompts too."""
    logits, targets, n_tokens = _predicted(chat, encoded)
    return F.cross_entropy(logits, targets), n_tokens


def answer_log_probs(chat: Chat, encoded: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """Log-probabilities (nats) of the answers' tokens, one answer behind the other, (tokens,).

    And all tokens of the batch, prompts too.
    """
    logits, targets, n_tokens = _predicted(chat, encoded)
    return -F.cross_entropy(logits, targets, reduction="none"), n_tokens


def _predicted(chat: Chat, encoded: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Logits (answer tokens, vocabulary), the answers' tokens, and all tokens of the batch."""
    whole = [head + tail for head, tail in encoded]
    batch = pad(whole, chat.tokenizer.pad_token_id, device=chat.model.device)
    predicting = torch.zeros_like(batch["attention_mask"], dtype=torch.bool)  # (batch, time)
    for row, (head, tail) in enumerate(encoded):
        first = len(head) - 1  # the prompt's last token predicts the answer's first
        predicting[row, first : first + len(tail)] = True
    hidden = chat.model.base_model(**batch, use_cache=False).last_hidden_state
    # of a model that is spread over devices the last states lie on another than the first
    logits = chat.model.lm_head(hidden[predicting.to(hidden.device)])  # (answer tokens, vocabulary)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch["input_ids"].roll(-1, dims=1)[predicting].to(logits.device)
    return logits, targets, int(batch["attention_mask"].sum())


def answer_tokens(encoded: Iterable[Encoded]) -> int:
    """How many tokens all answers have together."""
    return sum(len(tail) for _, tail in encoded)


def mean_loss(chat: Chat, encoded: Sequence[Encoded], batch_size: int) -> float:
    """Mean NLL (nats) of all answer tokens of encoded examples, in batches of similar length."""
    by_length = sorted(encoded, key=lambda example: len(example[0]) + len(example[1]))
    total = 0.0
    for start in range(0, len(by_length), batch_size):
        part = by_length[start : start + batch_size]
        loss, _ = answer_loss(chat, part)
        total += loss.item() * answer_tokens(part)
    return total / answer_tokens(encoded)


class Likelihood:
    """Supervised fine-tuning: `answer_loss`. Other objectives are in `ssah.objectives`."""

    def begin(self, chat: Chat, examples, encoded: Sequence[Encoded], *, encode, batch_size: int):
        """It needs nothing of the model with which the run begins."""

    def size(self, batch: Sequence[Encoded]) -> int:
        """Over how many things the loss of a batch is the mean: the answers' tokens."""
        return answer_tokens(batch)

    def loss(self, chat: Chat, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
        """`answer_loss`."""
        return answer_loss(chat, batch)

    def facts(self) -> dict:
        """What tells it from another objective, for a run that is resumed: nothing more."""
        return {}


SFT = Likelihood()


def gradient(
    chat: Chat, batch: Sequence[Encoded], micro_batch: int, autocast: bool, objective=SFT
) -> tuple[float, int]:
    """Add up the gradient of a batch's loss, `micro_batch` examples at a time.

    Returns the loss and the number of tokens, prompts too.
    """
    size = objective.size(batch)
    total_loss = 0.0
    total_tokens = 0
    for start in range(0, len(batch), micro_batch):
        part = batch[start : start + micro_batch]
        with torch.autocast(chat.model.device.type, torch.bfloat16, enabled=autocast):
            loss, tokens = objective.loss(chat, part)
        loss = loss * (objective.size(part) / size)  # its share of the batch's mean
        loss.backward()
        total_loss += loss.item()
        total_tokens += tokens
    return total_loss, total_tokens


def length_buckets(
    lengths: Sequence[int], batch_size: int, draw: np.random.Generator
) -> list[np.ndarray]:
    """One epoch's batches (of row numbers) in random order, examples of similar length together."""
    lengths = np.asarray(lengths)
    order = draw.permutation(len(lengths))
    stretch = SORTED_TOGETHER * batch_size
    batches = []
    for start in range(0, len(order), stretch):
        part = order[start : start + stretch]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


# ---- the run ---------------------------------------------------------------------------------


@dataclass
class Run:
    """One fine-tuning between two of its steps."""

    chat: Chat
    encoded: list[Encoded]
    probes: list[Encoded] | None
    moving: Moving
    optimizer: torch.optim.Optimizer
    callbacks: Sequence[Callable]
    options: Options
    draw: np.random.Generator
    objective: Likelihood = SFT
    history: list[dict] = field(default_factory=list)  # a row a step
    checkpoints: list[dict] = field(default_factory=list)  # a row a checkpoint
    started: float = field(default_factory=time.perf_counter)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.encoded) / self.options.batch_size)

    @property
    def n_steps(self) -> int:
        """Steps of all epochs."""
        return self.options.epochs * self.epoch_steps

    def to_the_end(self, kept: Resume | None, bar) -> None:
        """All steps, or those that are left; ends early by `max_steps` or a callback."""
        resumed = self.resumed(kept)
        bar.update(len(self.history))
        if not resumed and self.checkpoint():
            return
        finished = len(self.history) // self.epoch_steps
        for epoch in range(finished, self.options.epochs):
            if self.ends_in(epoch, bar):
                return
            if kept:
                progress = {"history": self.history, "checkpoints": self.checkpoints}
                kept.save(self.moving, self.optimizer, self.draw, progress)

    def resumed(self, kept: Resume | None) -> bool:
        """Go back to where an interrupted run was, if one was kept."""
        progress = kept.load(self.moving, self.optimizer, self.draw) if kept else None
        if not progress:
            return False
        self.history = progress["history"]
        self.checkpoints = progress["checkpoints"]
        self.started -= self.history[-1]["seconds"]
        return True

    def ends_in(self, epoch: int, bar) -> bool:
        """The steps of an epoch; whether the run ends in it."""
        lengths = [len(head) + len(tail) for head, tail in self.encoded]
        for rows in length_buckets(lengths, self.options.batch_size, self.draw):
            if len(self.history) == self.options.max_steps:
                return True
            self.step(epoch, [self.encoded[row] for row in rows])
            bar.update()
            bar.set_postfix(loss=f"{self.history[-1]['loss']:.3f}")
            if self.checkpoint_is_due() and self.checkpoint():
                return True
        return False

    def step(self, epoch: int, batch: list[Encoded]) -> None:
        """One optimizer step; `SsahError` before it if the loss or the gradient is not finite."""
        options = self.options
        number = len(self.history)
        factor = rate_factor(options.schedule, number, options.warmup_steps, self.n_steps)
        rate = options.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss, tokens = gradient(
            self.chat, batch, options.micro_batch, options.autocast, self.objective
        )
        parameters = self.moving.parameters
        norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_norm).item()
        self.check("loss", loss)
        self.check("gradient's norm", norm)
        self.optimizer.step()
        self.moving.sync()
        self.history.append(
            {
                "step": number,
                "epoch": epoch,
                "loss": loss,
                "lr": rate,
                "grad_norm": norm,
                "tokens": tokens,
                "seconds": time.perf_counter() - self.started,
                "peak_gib": peak_memory(self.chat.model.device),
            }
        )

    def check(self, name: str, value: float) -> None:
        """`SsahError` unless what the next step stands on is finite."""
        if math.isfinite(value):
            return
        cure = f"lower the learning rate (now {self.options.lr:g})"
        if not self.history:
            cure += "; before any step, the model itself may be damaged: load it again in float32"
        raise SsahError(f"the {name} is {value} at step {len(self.history)}; {cure}")

    def check_weights(self) -> None:
        """`SsahError` unless all weights are finite: no loss has seen the last step."""
        for parameter in self.chat.model.parameters():
            if not torch.isfinite(parameter).all():
                raise SsahError(
                    f"weights are not finite after step {len(self.history) - 1}; "
                    f"lower the learning rate (now {self.options.lr:g})"
                )

    def checkpoint_is_due(self) -> bool:
        """Whether the last step completed another `probe_every` of an epoch."""
        done = len(self.history)
        return self.probes_due(done) > self.probes_due(done - 1)

    def probes_due(self, n_steps: int) -> int:
        """How many times `probe_every` epochs so many steps hold (with some room for rounding)."""
        return int(n_steps / self.epoch_steps / self.options.probe_every + 1e-9)

    def checkpoint(self) -> bool:
        """Measure the probe's loss and call the callbacks; whether one of them ends the run."""
        if self.probes is None and not self.callbacks:
            return False
        model = self.chat.model
        done = len(self.history)
        row = {"step": done, "epoch": done / self.epoch_steps}
        self.checkpoints.append(row)
        model.eval()
        with torch.no_grad(), self.arithmetic():
            if self.probes is not None:
                row["probe_loss"] = mean_loss(self.chat, self.probes, self.options.micro_batch)
                self.check("probe loss", row["probe_loss"])
            answers = [callback(self.chat, row) for callback in self.callbacks]  # each is called
        model.train()
        return any(answers)

    def arithmetic(self) -> torch.autocast:
        """The run's autocast for a checkpoint.

        A callback may edit weights for a while (`ssah.ablation`); casts that autocast keeps would
        not show that.
        """
        return torch.autocast(
            self.chat.model.device.type,
            torch.bfloat16,
            enabled=self.options.autocast,
            cache_enabled=False,
        )


@contextmanager
def training_mode(model, checkpointing: bool):
    """Training mode, with activation checkpointing if asked for; eval mode afterwards."""
    if checkpointing:
        model.activation_checkpointing_enable()
        # a hook on the embeddings that only reentrant checkpointing needs
        model.disable_input_require_grads()
    try:
        yield model.train()
    finally:
        model.eval()
        if checkpointing:
            model.activation_checkpointing_disable()


# ---- memory ----------------------------------------------------------------------------------


def bytes_in_use(
    model, parameters: list[torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, int]:
    """Bytes of the ``parameters`` that move, all ``gradients`` and the ``optimizer`` state."""
    everything = {id(parameter): parameter for parameter in [*parameters, *model.parameters()]}
    gradients = [parameter.grad for parameter in everything.values()]
    state = []
    for values in optimizer.state.values():
        state += [value for value in values.values() if torch.is_tensor(value)]
    return {
        "parameters": _bytes(parameters),
        "gradients": _bytes(gradients),
        "optimizer": _bytes(state),
    }


def _bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def peak_memory(device: torch.device) -> float:
    """Most memory so far, GiB: of one CUDA device, else of the process (on Windows unknown: nan)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return float("nan")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    per_gib = 2**20 if sys.platform == "linux" else 2**30  # Linux counts kilobytes
    return most / per_gib
