"""What others do in the same place, written anew in a few lines and not copied.

They are here to be timed. Where a peer computes something else than ours, its docstring says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import peft
import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ..attribution import unit_outputs
from ..masking import moving
from ..units import UnitIndex
from .timing import now, seconds


class FlapFluctuation:
    """A running fluctuation of a module's inputs, as FLAP's hook keeps one (An et al. 2024).

    Inexact by design: the first batch adds no fluctuation, the mean that is subtracted is the
    newest one, a batch counts by its number of texts and not of tokens, padding counts, and all of
    it is single precision.
    """

    def __init__(self):
        self.texts = 0
        self.mean: torch.Tensor | float = 0.0           # (width,) after the first batch
        self.fluctuation: torch.Tensor | float = 0.0

    def __call__(self, module, inputs, output) -> None:
        """Take up a batch (text, time, width)."""
        activations = inputs[0]
        n_new = len(activations)
        total = self.texts + n_new
        rows = activations.flatten(0, 1).float()
        self.mean = (self.mean * self.texts + rows.mean(dim=0) * n_new) / total
        if self.texts:
            centred = (rows - self.mean).square().sum(dim=0)
            self.fluctuation = (self.fluctuation * (self.texts - 1) + centred) / (total - 1)
        self.texts = total


class WandaNorm:
    """A running squared norm of a module's inputs, as wanda's hook keeps one (Sun et al. 2024).

    It says how large activations are and not how much they vary, and padding counts.
    """

    def __init__(self):
        self.texts = 0
        self.squares: torch.Tensor | float = 0.0        # (width,) after the first batch

    def __call__(self, module, inputs, output) -> None:
        """Take up a batch (text, time, width)."""
        activations = inputs[0]
        total = self.texts + len(activations)
        rows = activations.flatten(0, 1).float()
        squares = rows.square().sum(dim=0)
        self.squares = (self.squares * self.texts + squares) / total
        self.texts = total


@contextmanager
def hooked(model, make: Callable[[], Callable]) -> Iterator[list[Callable]]:
    """Inside, every module's activations go through a hook of its own, which `make()` gives."""
    hooks = []
    handles = []
    for linear in unit_outputs(model):
        hook = make()
        hooks.append(hook)
        handles.append(linear.register_forward_hook(hook))
    try:
        yield hooks
    finally:
        for handle in handles:
            handle.remove()


# ---- training --------------------------------------------------------------------------------


def gradient_mask(model, index: UnitIndex, moved: np.ndarray) -> Callable[[], None]:
    """A function that zeroes dense gradients outside of what moves: the plain way to such a step.

    `moved`: Boolean (len(index),). The optimizer still has all of the model's state.
    """
    masks = {weight: torch.zeros_like(weight) for weight in model.parameters()}
    with moving(model, index, moved) as state:
        for weight in state.parameters:
            if weight in masks:                 # all of it moves
                masks[weight].fill_(1.0)
        for cut in state.cuts:
            masks[cut.weight].index_fill_(cut.dim, cut.positions, 1.0)

    def mask_gradients() -> None:
        for weight, mask in masks.items():
            if weight.grad is not None:
                weight.grad.mul_(mask)

    return mask_gradients


def with_lora(model, rank: int) -> list[torch.nn.Parameter]:
    """Put LoRA adapters by `peft` on all linear maps; what trains then."""
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, target_modules="all-linear"), model)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class AsLists(Dataset):
    """Encoded examples as transformers' `Trainer` takes them."""

    def __init__(self, examples: list[tuple[list[int], list[int]]]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        prompt, answer = self.examples[number]
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


class BetweenSteps(TrainerCallback):
    """Zeroes gradients, times the steps of a `Trainer`, and another call after each of them."""

    def __init__(self, mask_gradients: Callable, other: Callable):
        self.mask_gradients = mask_gradients
        self.other = other
        self.own_times: list[float] = []
        self.other_times: list[float] = []
        self.started = 0.0

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """A step begins."""
        self.started = now()

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        """The gradient is whole."""
        self.mask_gradients()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """The step is done."""
        self.own_times.append(now() - self.started)
        self.other_times.append(seconds(self.other))


def run_trainer(
    model, examples: list, between: BetweenSteps, n_steps: int, folder: str, bf16: bool
) -> None:
    """Steps of transformers' `Trainer`, timed by a callback; `examples` are one batch."""
    settings = TrainingArguments(
        folder,
        per_device_train_batch_size=len(examples),
        max_steps=n_steps,
        learning_rate=1e-6,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, train_dataset=AsLists(examples), callbacks=[between])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
