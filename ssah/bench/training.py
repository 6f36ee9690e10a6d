"""Steps with a part of the units moving, against full steps and what else trains a part."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from .. import finetuning, masking
from ..models import Chat
from ..units import UnitIndex
from . import peers
from .shapes import llama, random_units
from .table import Row
from .timing import in_turn, ratio, seconds

#: Shares of the units that move, and what is aimed at.
AIMS = {0.2: "<= 0.75", 0.72: "<= 0.95"}
#: The share that peers move.
PEERS_SHARE = 0.2
#: Words of the random models.
VOCABULARY = 2048
#: Of LoRA.
RANK = 16
#: Examples of a batch, and tokens of each, a third of them the answer.
EXAMPLES = 8
LENGTH = 64
#: Rows and columns of the matrices whose product is taken for the peak.
PEAK_SIZE = 1024
SHARE_AIM = ">= 0.55"

FULL = "full step"


def stack(width: int, inner: int, heads: int, kv_heads: int, blocks: int) -> torch.nn.Module:
    """A random Llama of float32 with few blocks and words, on the GPU if there is one."""
    config = llama(VOCABULARY, width, inner, blocks, heads, kv_heads, tied=True)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(where):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def small_stack() -> torch.nn.Module:
    """Four blocks of SmolLM2-135M's shape (3.5 million weights each)."""
    return stack(576, 1536, 9, 3, blocks=4)


def wide_stack() -> torch.nn.Module:
    """Four blocks of Llama-3-8B's shape (218 million weights each)."""
    return stack(4096, 14336, 32, 8, blocks=4)


def random_batch(model, seed: int = 0) -> list[finetuning.Encoded]:
    """Random token ids: prompts and answers of one length, so that nothing is padded."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, model.config.vocab_size, (EXAMPLES, LENGTH)).tolist()
    start = LENGTH - LENGTH // 3
    return [(row[:start], row[start:]) for row in ids]


class Stepper:
    """One training step on one batch, again and again, as `ssah.finetune` takes it."""

    def __init__(
        self,
        model,
        parameters: list[torch.nn.Parameter],
        bf16: bool,
        *,
        before_update: Callable = lambda: None,
        after_update: Callable = lambda: None,
    ):
        # nothing is padded, so that any number stands for the padding token
        tokenizer = SimpleNamespace(pad_token_id=0)
        self.chat = Chat(model.train(), tokenizer, "bench")
        self.batch = random_batch(model)
        self.parameters = parameters
        self.bf16 = bf16
        self.optimizer = finetuning.ADAMW(parameters, lr=1e-6, weight_decay=0.0)
        self.before_update = before_update
        self.after_update = after_update

    def step(self) -> None:
        """Forward, backward, clip, update."""
        self.optimizer.zero_grad()
        finetuning.gradient(self.chat, self.batch, len(self.batch), self.bf16)
        self.before_update()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0).item()
        self.optimizer.step()
        self.after_update()

    def state(self) -> str:
        """MiB of gradients and optimizer state."""
        used = finetuning.bytes_in_use(self.chat.model, self.parameters, self.optimizer)
        return f"{(used['gradients'] + used['optimizer']) / 2**20:.0f} MiB"


@dataclass(frozen=True)
class Way:
    """A way to train a part of a model."""

    name: str
    stepper: Stepper
    aim: str = ""


def rows(make: Callable[[], torch.nn.Module], repeats: int, bf16: bool) -> Iterator[Row]:
    """A row for each way to train a part, on copies of the model that `make` gives."""
    model = make()
    index = UnitIndex.of(model)
    with ExitStack() as stacked:
        ways = []
        for share, aim in AIMS.items():
            stepper = part(copy.deepcopy(model), index, share, bf16, stacked)
            ways.append(Way(f"{share:.0%} of the units move", stepper, aim))
        masked = dense(copy.deepcopy(model), index, PEERS_SHARE, bf16)
        ways.append(Way(f"{PEERS_SHARE:.0%} by masked dense gradients", masked))
        ways.append(Way(f"LoRA by peft, rank {RANK}", lora(copy.deepcopy(model), bf16)))
        trained_by_others = copy.deepcopy(model)
        reference = full(model, index, bf16, stacked)
        calls = {way.name: way.stepper.step for way in ways}
        times = in_turn({FULL: reference.step, **calls}, repeats)
        for way in ways:
            yield _row(way, index, times[way.name], times[FULL], reference)
        yield trainer_row(trained_by_others, index, reference, repeats)
        yield share_of_peak(reference, times[FULL], repeats)


def _row(way: Way, index: UnitIndex, times: list, full_times: list, reference: Stepper) -> Row:
    return Row(
        f"{way.name}, width {index.hidden}",
        f"{np.median(times):.2f} s, {way.stepper.state()}",
        f"{FULL} {np.median(full_times):.2f} s, {reference.state()}",
        f"{ratio(times, full_times):.2f} x its time",
        way.aim,
    )


def full(model, index: UnitIndex, bf16: bool, stacked: ExitStack) -> Stepper:
    """All of the model trains; until `stacked` ends."""
    moved = np.ones(len(index), bool)
    state = stacked.enter_context(masking.moving(model, index, moved, "train"))
    return Stepper(model, state.parameters, bf16)


def part(model, index: UnitIndex, share: float, bf16: bool, stacked: ExitStack) -> Stepper:
    """Random units train and the rest is frozen; until `stacked` ends."""
    state = stacked.enter_context(masking.moving(model, index, random_units(index, share)))
    return Stepper(model, state.parameters, bf16, after_update=state.sync)


def dense(model, index: UnitIndex, share: float, bf16: bool) -> Stepper:
    """The same units train by gradients of the whole model, masked."""
    mask_gradients = peers.gradient_mask(model, index, random_units(index, share))
    return Stepper(model, list(model.parameters()), bf16, before_update=mask_gradients)


def lora(model, bf16: bool) -> Stepper:
    """Adapters train."""
    return Stepper(model, peers.with_lora(model, RANK), bf16)


def trainer_row(model, index: UnitIndex, reference: Stepper, repeats: int) -> Row:
    """Transformers' `Trainer` with gradients masked by a callback.

    Inexact: its rate falls from step to step, and it computes logits of the prompts too.
    """
    mask_gradients = peers.gradient_mask(model, index, random_units(index, PEERS_SHARE))
    between = peers.BetweenSteps(mask_gradients, reference.step)
    with tempfile.TemporaryDirectory() as folder:
        peers.run_trainer(model, reference.batch, between, repeats + 1, folder, reference.bf16)
    times = between.own_times[1:]           # the first step is a warm-up
    full_times = between.other_times[1:]
    return Row(
        f"{PEERS_SHARE:.0%} by transformers' Trainer, gradients masked, width {index.hidden}",
        f"{np.median(times):.2f} s, state as of a full step",
        f"{FULL} {np.median(full_times):.2f} s, {reference.state()}",
        f"{ratio(times, full_times):.2f} x its time",
    )


def share_of_peak(stepper: Stepper, times: list[float], repeats: int) -> Row:
    """What the step's products with weights take of the speed of one large product.

    Attention between tokens, norms, loss and optimizer are not counted as useful.
    """
    model = stepper.chat.model
    tokens = len(stepper.batch) * LENGTH
    weights = sum(weight.numel() for weight in model.base_model.layers.parameters())
    speed = tokens / float(np.median(times))
    dtype = torch.bfloat16 if stepper.bf16 else torch.float32
    peak = matmul_peak(dtype, model.device, repeats)
    return Row(
        f"training, width {model.config.hidden_size}",
        f"{speed:.0f} tokens/s",
        f"matmul peak {peak / 1e9:.0f} GFLOP/s",
        f"{6 * weights * speed / peak:.2f} of the peak",
        SHARE_AIM,
    )


def matmul_peak(dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """Best FLOP/s of a square matrix product on the device."""
    left = torch.randn(PEAK_SIZE, PEAK_SIZE, dtype=dtype, device=device)
    right = torch.randn(PEAK_SIZE, PEAK_SIZE, dtype=dtype, device=device)
    left @ right
    best = min(seconds(lambda: left @ right) for _ in range(max(repeats, 5)))
    return 2 * PEAK_SIZE**3 / best
