"""Supervised fine-tuning of a chat model on prompt-response pairs.

The loss is on the answer and its end token only, and logits are computed only where a label needs
them. Not here: other objectives (DPO), several devices, sequence packing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .errors import SsahError
from .models import Chat, pad


@dataclass(frozen=True)
class FineTuning:
    """What happened: `history` has a row an optimizer step (step, epoch, loss in nats, tokens, seconds so far)."""

    history: pd.DataFrame
    cut: int        # examples whose answer was cut to fit the context


def finetune(chat: Chat, examples: Sequence[dict], *, epochs: int = 2, lr: float = 5e-5, batch_size: int = 16,
             weight_decay: float = 0.0, warmup_steps: int = 10, max_norm: float = 1.0, seed: int = 0,
             system: str = "default", autocast: bool = True, max_steps: int | None = None,
             progress: str | None = "fine-tuning") -> FineTuning:
    """Train all parameters of `chat.model` in place, in float32 with bf16 autocast; AdamW, constant rate after warm-up.

    `examples`: dicts ``prompt``, ``response`` and optionally ``ended`` (default True: the response is whole, so its
    end token is trained on too). `max_steps` ends the run early. The model stays in float32. Raises `SsahError`
    for no examples, an empty response, a prompt longer than the context, or a loss or weight that is not finite.
    """
    encoded, cut = encode_examples(chat, examples, system)
    model, device = chat.model, chat.model.device
    model.float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    rows, draw, started = [], np.random.default_rng(seed), time.perf_counter()
    n_steps = epochs * -(-len(encoded) // batch_size)
    bar = tqdm(total=n_steps, desc=progress, disable=progress is None, leave=False)
    for epoch in range(epochs):
        for picked in length_buckets([len(h) + len(t) for h, t in encoded], batch_size, draw):
            if len(rows) == max_steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (len(rows) + 1) / max(warmup_steps, 1))
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                loss, tokens = answer_loss(chat, [encoded[i] for i in picked])
            if not torch.isfinite(loss):
                raise SsahError(f"the loss is {loss.item()} at step {len(rows)}; lower the learning rate (now {lr:g})")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()
            rows.append({"step": len(rows), "epoch": epoch, "loss": loss.item(), "tokens": tokens,
                         "seconds": time.perf_counter() - started})
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    bar.close()
    model.eval()
    if not all(torch.isfinite(p).all() for p in model.parameters()):      # the last step is not seen by any loss
        raise SsahError(f"weights are not finite after step {len(rows) - 1}; lower the learning rate (now {lr:g})")
    return FineTuning(pd.DataFrame(rows), cut)


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
    return F.cross_entropy(logits.float(), targets), int(batch["attention_mask"].sum())


def length_buckets(lengths: Sequence[int], batch_size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """One epoch's batches in random order, examples of similar length together (sorted within 8 batches' worth)."""
    order, stretch = draw.permutation(len(lengths)), 8 * batch_size
    batches = []
    for start in range(0, len(order), stretch):
        part = order[start:start + stretch]
        part = part[np.argsort(np.asarray(lengths)[part], kind="stable")]
        batches += [part[i:i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]
