"""How fast is it, and against what limit? Ratios from one run, printed with the machine's description.

Each pair is timed in turn (A B A B ...) and the median of the ratios is shown, because a shared machine drifts.
"""

import platform
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import peft
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from . import evaluation, finetuning, masking, probing
from .attribution import importance
from .catalog import load_chat_model
from .claims.profiles import load_profile
from .claims.shared.foundation import sorted_batches
from .inputs.prompts import load_prompts
from .lab.machine import device
from .models import Chat, pad
from .units import UnitIndex

SHARES = (1.0, 0.72, 0.28, 0.20, 0.073)     # of the units: all; all but the SCU and CU, the other way round; RU; SCU


def main(profile: str = "default", repeats: int = 5) -> int:
    """Print the table; returns an exit code."""
    chosen = load_profile(profile)
    chat = load_chat_model(chosen.model.name, dtype=chosen.model.dtype, device=device())
    prompts = load_prompts(chosen.data.benign[0]).query(f"text.str.len() < {chosen.data.longest_prompt}").iloc[:32]
    rows = [*attribution_rows(chat, prompts, repeats), evaluation_row(chat, prompts["text"].tolist()),
            probing_row(chat, prompts["text"].tolist()[:8], max(repeats // 2, 1)),
            *training_rows(chosen, prompts, repeats),
            *masked_rows(lambda: load_chat_model(chosen.model.name, device=device()).model, chosen, (16, 64), repeats)]
    if chosen.name != "smoke":
        rows += masked_rows(wide_stack, chosen, (4, 64), max(repeats // 2, 1))
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
    answers = evaluation.response_tokens(chat, prompts["text"], prompts["response"])
    pairs = [(text, answer[:32]) for text, answer in zip(prompts["text"], answers)]
    batches = sorted_batches(chat, pairs, "default")

    @torch.no_grad()
    def bare():
        for batch in batches:
            chat.model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)

    scored, forward, ratio = paired(lambda: importance(chat.model, batches), bare, repeats)
    tokens = sum(int(b["attention_mask"].sum()) for b in batches)
    yield ("attribution", f"{tokens / scored:.0f} tokens/s", f"bare forward {tokens / forward:.0f} tokens/s",
           f"{ratio:.2f} x its time", "<= 1.15")
    peak = finetuning.peak_memory(chat.model.device)
    many = statistics.median(seconds(lambda: importance(chat.model, batches * 4)) for _ in range(max(repeats // 2, 1)))
    new_peak = finetuning.peak_memory(chat.model.device)
    yield ("attribution, 4 x the samples", f"{many:.1f} s", f"{scored:.1f} s", f"{many / scored:.2f} x its time",
           "4 (linear)")
    yield ("attribution, 4 x the samples", f"peak {new_peak:.2f} GiB", f"peak {peak:.2f} GiB",
           f"{new_peak / peak:.2f} x its memory", "1 (independent)")


def evaluation_row(chat: Chat, prompts: list[str]):
    """Batched answers against one `generate` call a prompt."""
    batched, single, _ = paired(lambda: evaluation.generate(chat, prompts),
                                  lambda: [evaluation.generate(chat, [p], batch_size=1) for p in prompts[:4]], 1)
    return ("evaluation", f"{len(prompts) / batched:.2f} answers/s", f"one by one {4 / single:.2f} answers/s",
            f"{len(prompts) / batched / (4 / single):.1f} x as many", ">= 5")


def probing_row(chat: Chat, prompts: list[str], repeats: int):
    """The probe (branch reading) against one bare `generate` call over the same prefixes."""
    openings, steps = probing.probe_openings(chat), (2, 4, 6, 8, 10)
    prefixes = [[], *(tokens for kind in openings for tokens in openings[kind])]
    batch = pad([chat.encode(prompt)[0] + opening for prompt in prompts for opening in prefixes],
                chat.tokenizer.pad_token_id, "left", chat.model.device)
    settings = evaluation.greedy(chat, max(steps) + 1, least=max(steps) + 1)
    probed, bare, ratio = paired(lambda: probing.branch(chat, prompts, openings, steps),
                                 lambda: chat.model.generate(**batch, generation_config=settings), repeats)
    return ("probe", f"{len(prompts) / probed:.2f} queries/s", f"bare generate {len(prompts) / bare:.2f} queries/s",
            f"{1 / ratio:.2f} x as many", ">= 0.8")


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


def masked_rows(make: Callable, chosen, size: tuple[int, int], repeats: int):
    """Steps and bytes with random units moving and the rest frozen, and of what else trains a part, against full steps.

    `make()` gives a model; `size` is examples and tokens of each (random ids, a third of them the answer).
    """
    full, other = make(), make()
    index, draw, (n, length) = UnitIndex.of(full), np.random.default_rng(0), size
    ids = draw.integers(0, full.config.vocab_size, (n, length)).tolist()
    batch, bf16 = [(row[:-length // 3], row[-length // 3:]) for row in ids], chosen.model.dtype == "bfloat16"
    with masking.moving(full, index, np.ones(len(index), bool), "train") as everything:
        reference = Stepper(full, everything.parameters, batch, bf16)

        def row(name: str, stepper: Stepper, aim: str = "-"):
            taken, whole, ratio = paired(stepper.step, reference.step, repeats)
            return (f"{name}, width {index.hidden}", f"{taken:.2f} s, {stepper.state_gib():.3f} GiB",
                    f"full step {whole:.2f} s, {reference.state_gib():.3f} GiB", f"{ratio:.2f} x its time", aim)

        for share in SHARES:
            with masking.moving(other, index, some(index, share, draw)) as state:
                yield row(f"{share:.1%} of the units move", Stepper(other, state.parameters, batch, bf16, state.sync),
                          "<= 0.80" if share == 0.2 else "-")
        yield row("20.0% by masked dense gradients",
                  Stepper(other, list(other.parameters()), batch, bf16,
                          before=gradient_masked(other, index, some(index, 0.2, draw))))
        other.zero_grad()
        peft.inject_adapter_in_model(peft.LoraConfig(r=16, target_modules="all-linear"), other)
        adapters = [parameter for parameter in other.parameters() if parameter.requires_grad]
        yield row("LoRA, rank 16 on all linear maps", Stepper(other, adapters, batch, bf16))


class Stepper:
    """One training step on one batch, again and again; `before` comes before clipping, `after` after the update."""

    def __init__(self, model, parameters: list, batch: list[tuple], bf16: bool,
                 after: Callable = lambda: None, before: Callable = lambda: None):
        self.chat = Chat(model.train(), SimpleNamespace(pad_token_id=0), "bench")      # all of one length: no padding
        self.parameters, self.batch, self.bf16 = parameters, batch, bf16
        self.optimizer, self.after, self.before = finetuning.ADAMW(parameters, lr=1e-6, weight_decay=0.0), after, before

    def step(self) -> None:
        """Forward, backward, clip, update."""
        self.optimizer.zero_grad()
        finetuning.gradient(self.chat, self.batch, len(self.batch), self.bf16)
        self.before()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0).item()     # read, as in fine-tuning: it waits for a GPU
        self.optimizer.step()
        self.after()

    def state_gib(self) -> float:
        """GiB of gradients and optimizer state."""
        used = finetuning.bytes_in_use(self.chat.model, self.parameters, self.optimizer)
        return (used["gradients"] + used["optimizer"]) / 2**30


def some(index: UnitIndex, share: float, draw: np.random.Generator) -> np.ndarray:
    """Random units, Boolean (len(index),)."""
    return draw.permutation(len(index)) < round(share * len(index))


def gradient_masked(model, index: UnitIndex, moved: np.ndarray) -> Callable:
    """A function that zeroes the dense gradients outside what moves: the plain way to the same steps."""
    masks = {id(weight): torch.zeros_like(weight) for weight in model.parameters()}
    with masking.moving(model, index, moved) as state:
        for cut in state.cuts:
            masks[id(cut.weight)].index_fill_(cut.dim, cut.positions, 1.0)

    def mask_gradients() -> None:
        for weight in model.parameters():
            weight.grad.mul_(masks[id(weight)])

    return mask_gradients


def wide_stack() -> torch.nn.Module:
    """A few random blocks of Llama-3-8B's shape (218 million weights each) with a small vocabulary, in float32."""
    where = torch.device(device())
    config = LlamaConfig(vocab_size=1024, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
                         num_key_value_heads=8, num_hidden_layers=8 if where.type == "cuda" else 2, pad_token_id=0)
    with where:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def matmul_peak(dtype: torch.dtype, where, repeats: int, size: int = 2048) -> float:
    """Best FLOP/s of a square matrix product (`size` x `size`) on the device `where`."""
    a, b = (torch.randn(size, size, dtype=dtype, device=where) for _ in range(2))
    a @ b
    return 2 * size**3 / float(np.min([seconds(lambda: a @ b) for _ in range(max(repeats, 3))]))
