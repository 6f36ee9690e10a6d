"""How fast is it, and against what limit? Ratios from one run, printed with the machine's description.

Each pair is timed in turn (A B A B ...) and the median of the ratios is shown, because a shared machine drifts.
"""

import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from . import evaluation, finetuning
from .attribution import importance
from .experiments.engine import device
from .experiments.foundation import scoring_batches
from .models import Chat, load_chat_model
from .prompts import load_prompts
from .profiles import load_profile


def main(profile: str = "default", repeats: int = 5) -> int:
    """Print the table; returns an exit code."""
    chosen = load_profile(profile)
    chat = load_chat_model(chosen.model.name, dtype=chosen.model.dtype, device=device())
    prompts = load_prompts(chosen.data.benign[0]).query(f"text.str.len() < {chosen.data.longest_prompt}").iloc[:32]
    rows = [*attribution_rows(chat, prompts, repeats), evaluation_row(chat, prompts["text"].tolist()),
            *training_rows(chosen, prompts, repeats)]
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"{chosen.model.label}, {chosen.model.dtype}\n")
    print(pd.DataFrame(rows, columns=["what", "measured", "against", "ratio", "aim"]).to_string(index=False))
    return 0


def seconds(run: Callable) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def paired(first: Callable, second: Callable, repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios, run in turn after one warm-up."""
    first(), second()
    times = [(seconds(first), seconds(second)) for _ in range(repeats)]
    return (statistics.median(a for a, _ in times), statistics.median(b for _, b in times),
            statistics.median(a / b for a, b in times))


def attribution_rows(chat: Chat, prompts: pd.DataFrame, repeats: int):
    """Attribution against the bare forward pass of the same batches (no logits), and its time on four times as many."""
    pairs = [(text, chat.tokenizer(response, add_special_tokens=False)["input_ids"][:32])
             for text, response in zip(prompts["text"], prompts["response"])]
    batches = scoring_batches(chat, pairs, "default", "predicting")

    @torch.no_grad()
    def bare():
        for batch in batches:
            chat.model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)

    scored, forward, ratio = paired(lambda: importance(chat.model, batches), bare, repeats)
    tokens = sum(int(b["attention_mask"].sum()) for b in batches)
    yield ("attribution", f"{tokens / scored:.0f} tokens/s", f"bare forward {tokens / forward:.0f} tokens/s",
           f"{ratio:.2f} x its time", "<= 1.15")
    many = statistics.median(seconds(lambda: importance(chat.model, batches * 4)) for _ in range(max(repeats // 2, 1)))
    yield ("attribution, 4 x the samples", f"{many:.1f} s", f"{scored:.1f} s", f"{many / scored:.2f} x its time",
           "4 (linear)")


def evaluation_row(chat: Chat, prompts: list[str]):
    """Batched answers against one `generate` call a prompt."""
    batched, single, _ = paired(lambda: evaluation.generate(chat, prompts),
                                  lambda: [evaluation.generate(chat, [p], batch_size=1) for p in prompts[:4]], 1)
    return ("evaluation", f"{len(prompts) / batched:.2f} answers/s", f"one by one {4 / single:.2f} answers/s",
            f"{len(prompts) / batched / (4 / single):.1f} x as many", ">= 5")


def training_rows(chosen, prompts: pd.DataFrame, repeats: int):
    """Training tokens a second, and its matrix products as a share of the measured matmul peak."""
    chat = load_chat_model(chosen.model.name, device=device())
    examples = [{"prompt": t, "response": " ".join(r.split()[:32])}
                for t, r in zip(prompts["text"], prompts["response"])]
    bf16 = chosen.model.dtype == "bfloat16"
    history = finetuning.finetune(chat, examples, epochs=2, autocast=bf16, progress=None).history
    speed = history["tokens"].iloc[1:].sum() / (history["seconds"].iloc[-1] - history["seconds"].iloc[0])
    weights = sum(p.numel() for p in chat.model.base_model.layers.parameters())
    peak = matmul_peak(torch.bfloat16 if bf16 else torch.float32, chat.model.device, repeats)
    yield ("training", f"{speed:.0f} tokens/s", f"matmul peak {peak / 1e9:.0f} GFLOP/s",
           f"{6 * weights * speed / peak:.0%} of peak", "-")


def matmul_peak(dtype: torch.dtype, where, repeats: int, size: int = 2048) -> float:
    """Best FLOP/s of a square matrix product (`size` x `size`) on the device `where`."""
    a, b = (torch.randn(size, size, dtype=dtype, device=where) for _ in range(2))
    a @ b
    return 2 * size**3 / float(np.min([seconds(lambda: a @ b) for _ in range(max(repeats, 3))]))
