"""Supervised fine-tuning of a chat model on prompt-response pairs.

All of it trains, or chosen units, chosen weights or an adapter; the loss is on the answer and its
end token only, or another objective of `ssah.objectives`. Here is what is asked for; the steps are
taken in `ssah.training`. Not here: several devices, sequence packing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .alternatives import adapted, check_weights, holding
from .errors import SsahError
from .inputs.columns import examples_of
from .masking import RESTS, Moving, moving
from .models import Chat, check_chat
from .resuming import Resume, fingerprint
from .training import (  # noqa: F401  (the parts of a run have this module's name too)
    SCHEDULES,
    SFT,
    Encoded,
    Options,
    Run,
    answer_loss,
    bytes_in_use,
    gradient,
    length_buckets,
    mean_loss,
    peak_memory,
    training_mode,
)
from .units import UnitIndex

ADAMW = partial(torch.optim.AdamW, fused=True)


@dataclass(frozen=True)
class FineTuning:
    """What happened.

    `history` has a row an optimizer step: step, epoch, loss (nats), lr, grad_norm (before clipping,
    of what moves), tokens, seconds (so far) and peak_gib (memory so far, of the model's first GPU
    if one is used, else of the process). `checkpoints` has a row a checkpoint: step (how many were
    made), epoch (with its fraction), probe_loss (nats) and the callbacks' columns. `bytes` were in use at the
    last step: ``parameters`` that move, their ``gradients``, and the ``optimizer`` state.
    """

    history: pd.DataFrame
    checkpoints: pd.DataFrame
    cut: int  # examples whose answer was cut to fit the context
    bytes: dict[str, int]


def finetune(
    chat: Chat,
    examples: Sequence[dict] | pd.DataFrame,
    *,
    frozen=None,
    trainable=None,
    rest: str | None = None,
    adapter=None,
    epochs: int = 2,
    lr: float = 5e-5,
    batch_size: int = 16,
    micro_batch: int | None = None,
    weight_decay: float = 0.0,
    warmup_steps: int = 10,
    schedule: str = "constant",
    max_norm: float = 1.0,
    optimizer: Callable = ADAMW,
    objective=SFT,
    seed: int = 0,
    system: str = "default",
    autocast: bool = True,
    checkpointing: bool = False,
    probe: Sequence[dict] | None = None,
    probe_every: float = 0.25,
    callbacks: Sequence[Callable] = (),
    resume=None,
    max_steps: int | None = None,
    progress: str | None = "fine-tuning",
) -> FineTuning:
    """Train `chat.model` in place: all of it, all but some units, or only some (paper, Table 2).

    `examples`: records ``prompt``, ``response`` and optionally ``ended`` (default True: the
    response is whole, so its end is trained on too), ``system`` (a system mode or text of its own,
    in place of the argument `system`) and ``given`` (token ids between prompt and response, which
    are read and not trained on: `ssah.deepening`), or a table of them; those of `load_prompts`, of
    Alpaca and of Dolly will do (`ssah.inputs.columns`). A mask is Boolean (len(index),), see
    `ssah.masking.moving` for what moves with a unit:

    - ``frozen=mask``: these units stay, bit for bit, and the rest trains unless ``rest="freeze"``;
    - ``trainable=mask``: only these units move, and the rest stays unless ``rest="train"``.

    To compare units with: ``frozen={parameter name: Boolean tensor of its shape}`` freezes single
    weights and trains all else (`ssah.alternatives.holding`); `adapter`, a ``peft`` configuration,
    trains an adapter in place of the model's own weights, merged into them at the end where it can
    be (`ssah.alternatives.adapted`).

    The arithmetic is bf16 autocast, or with `autocast=False` the model's own. What moves and its
    optimizer state are float32 or wider meanwhile; the model ends in its own dtype.
    ``optimizer(parameters, lr=, weight_decay=)`` makes any torch optimizer; `objective` is one of
    `ssah.objectives` (DPO, constrained SFT) in place of the loss on answers. `schedule`
    (``constant``, ``linear``, ``cosine``) is that of the rate after its warm-up, over the steps of
    all epochs; `max_steps` ends the run early. `micro_batch` examples are computed at once
    (default: the batch), and `checkpointing` recomputes activations: the same steps in less memory.

    Before the first step and every `probe_every` epochs is a checkpoint: the mean loss on the
    examples `probe` is measured, and each ``callback(chat, row)`` is called in eval mode without
    gradients, under the run's autocast. It may add columns (numbers, text) to the row; a true
    answer ends the run. With a folder `resume` an interrupted run, called again with the same
    starting model, goes on after its last finished epoch; the folder goes at the end.

    Raises `SsahError` for masks that cannot be meant, an unknown option, no examples, an empty
    response, a prompt longer than the context, and a loss, gradient or weight that is not finite;
    where it is a loss or gradient, the model stays as it was after the step before.
    """
    check_chat(chat)
    examples = examples_of(examples)
    model = chat.model
    part = what_trains(model, frozen, trainable, rest, adapter, seed)
    _check_arithmetic(model, schedule, autocast)
    options = Options(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        micro_batch=micro_batch or batch_size,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        schedule=schedule,
        max_norm=max_norm,
        seed=seed,
        autocast=autocast,
        checkpointing=checkpointing,
        probe_every=probe_every,
        max_steps=max_steps,
    )
    encoded, cut = encode_examples(chat, examples, system)
    probes = None if probe is None else encode_examples(chat, probe, system)[0]
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        objective.begin(
            chat,
            examples,
            encoded,
            encode=lambda rows: encode_examples(chat, rows, system)[0],
            batch_size=options.micro_batch,
        )
    kept = None
    if resume is not None:
        facts = {
            **asdict(options),
            **part.facts(),
            **objective.facts(),
            "optimizer": _description(_make(optimizer, [_NOTHING], lr, weight_decay)),
            "examples": encoded,
            "probe": probes,
        }
        kept = Resume(resume, fingerprint(model, facts))
    with part.moving as state, training_mode(model, checkpointing):
        run = Run(
            chat,
            encoded,
            probes,
            state,
            _make(optimizer, state.parameters, lr, weight_decay),
            callbacks,
            options,
            np.random.default_rng(seed),
            objective,
        )
        silent = progress is None
        with tqdm(total=run.n_steps, desc=progress, disable=silent, leave=False) as bar:
            run.to_the_end(kept, bar)
        run.check_weights()
        used = bytes_in_use(model, state.parameters, run.optimizer)
    if kept:
        kept.remove()
    return FineTuning(pd.DataFrame(run.history), pd.DataFrame(run.checkpoints), cut, used)


def _check_arithmetic(model, schedule: str, autocast: bool) -> None:
    if schedule not in SCHEDULES:
        raise SsahError(f"unknown schedule {schedule!r}; known: {', '.join(SCHEDULES)}")
    if not autocast and model.dtype.itemsize < 4:
        raise SsahError(
            f"a {model.dtype} model trains under autocast only; "
            "leave autocast on or load it as float32"
        )


# ---- what trains -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What trains: a context in which it does, and the facts that tell it from another part."""

    moving: AbstractContextManager[Moving]
    facts: Callable[[], dict]


def what_trains(model, frozen, trainable, rest: str | None, adapter, seed: int) -> Part:
    """What `finetune` is asked to train; `SsahError` for what excludes each other."""
    if adapter is None and not isinstance(frozen, Mapping):
        return _units(model, frozen, trainable, rest)
    together = adapter is not None and frozen is not None
    if rest is not None or trainable is not None or together:
        raise SsahError(
            "give one of: a mask of units (with rest), frozen weights by name, an adapter"
        )
    if adapter is not None:
        return _adapter(model, adapter, seed)
    return _single_weights(model, frozen)


def _units(model, frozen, trainable, rest: str | None) -> Part:
    index = UnitIndex.of(model)
    moved, rest = what_moves(index, frozen, trainable, rest)

    def facts() -> dict:
        return {"moved": moved.tolist(), "rest": rest}

    return Part(moving(model, index, moved, rest), facts)


def _single_weights(model, frozen: Mapping) -> Part:
    masks = check_weights(model, frozen)

    def facts() -> dict:
        digests = {}
        for name, mask in masks.items():
            digests[name] = hashlib.sha256(mask.cpu().numpy().tobytes()).hexdigest()
        return {"frozen": digests}

    return Part(holding(model, masks), facts)


def _adapter(model, adapter, seed: int) -> Part:
    def facts() -> dict:
        settings = {}
        for name, value in adapter.to_dict().items():
            settings[name] = sorted(value) if isinstance(value, set) else str(value)
        return {"adapter": settings}

    return Part(adapted(model, adapter, seed), facts)


def what_moves(
    index: UnitIndex, frozen=None, trainable=None, rest: str | None = None
) -> tuple[np.ndarray, str]:
    """The units that move, Boolean (len(index),), and what the rest does (`RESTS`).

    Raises `SsahError` for both masks, a mask of another shape, one that has no unit or all, and an
    unknown `rest`.
    """
    if frozen is not None and trainable is not None:
        raise SsahError(
            "both frozen and trainable are given; give one, the other is all that it leaves out"
        )
    if rest not in (None, *RESTS):
        raise SsahError(f"unknown rest {rest!r}; known: {', '.join(RESTS)}")
    if frozen is None and trainable is None:
        return np.ones(len(index), bool), rest or "train"
    mask = index.check_mask(frozen if trainable is None else trainable)
    if mask.all() or not mask.any():
        raise SsahError(
            f"the mask has {'all' if mask.all() else 'none'} of the {len(index)} units; "
            'leave it out to train them all (rest="freeze" keeps what belongs to no unit)'
        )
    if trainable is None:
        return ~mask, rest or "train"
    return mask, rest or "freeze"


# ---- examples and optimizer ------------------------------------------------------------------


def encode_examples(
    chat: Chat, examples: Sequence[dict], system: str = "default"
) -> tuple[list[Encoded], int]:
    """Token ids of every example, what is read and what is trained on; how many answers were cut.

    What is read: the prompt, and what is given of the answer. An answer is cut where the context
    ends. `system`: the system mode of the examples that name none of their own.
    """
    examples = examples_of(examples)
    if not examples:
        raise SsahError("no training examples")
    limit = chat.model.config.max_position_embeddings
    encoded = []
    cut = 0
    for number, example in enumerate(examples):
        head, tail = _encoded(chat, example, example.get("system", system))
        if len(head) >= limit:
            what = "with what is given" if example.get("given") else "alone"
            raise SsahError(
                f"example {number}: the prompt {what} ({len(head)} tokens) "
                f"exceeds the context of {limit}"
            )
        cut += len(head) + len(tail) > limit
        encoded.append((head, tail[: limit - len(head)]))
    return encoded, cut


def _encoded(chat: Chat, example: dict, system: str) -> Encoded:
    """Token ids of what is read and of the answer, with its end if the answer is whole."""
    prompt, response = example["prompt"], example["response"]
    given = example.get("given", [])
    goes_on = bool(given)
    if goes_on:     # words of an answer stand apart
        response = f" {response}"
    if example["ended"]:
        head, tail = chat.encode(prompt, response, system, goes_on=goes_on)
    else:
        head, (tail,) = chat.continuations(prompt, [response], system, goes_on=goes_on)
    return head + given, tail


def _make(
    optimizer: Callable, parameters: list, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    try:
        return optimizer(parameters, lr=lr, weight_decay=weight_decay)
    except TypeError as error:
        raise SsahError(
            f"the optimizer does not take (parameters, lr=, weight_decay=): {error}; "
            "give a function that takes them and returns a torch optimizer"
        ) from error


#: What an optimizer is made for where nothing but its settings matters.
_NOTHING = torch.nn.Parameter(torch.zeros(1))


def _description(optimizer: torch.optim.Optimizer) -> str:
    """The same text for the same kind of optimizer with the same settings, in any process."""
    settings = [{name: value for name, value in group.items() if name != "params"}
                for group in optimizer.param_groups]
    kind = type(optimizer)
    return f"{kind.__module__}.{kind.__qualname__} {settings}"
