"""Attribution against the bare forward pass, beside the hooks of FLAP and of wanda."""

from collections.abc import Callable, Iterator

import torch

from ..attribution import importance
from ..models import Chat, pad
from .peers import FlapFluctuation, WandaNorm, hooked
from .table import Row
from .timing import in_turn, ratio

#: Texts that are scored, and how many at once.
TEXTS = 48
BATCH = 16
AIM = "<= 1.08"


def rows(chat: Chat, texts: list[str], repeats: int) -> Iterator[Row]:
    """Every token of the texts is scored; every batch is run by each in turn."""
    batches = batches_of(chat, texts[:TEXTS])
    times: dict[str, list[float]] = {}
    for number, batch in enumerate(batches):
        taken_by = in_turn(ways(chat.model, batch), repeats, warm=number > 0)
        for name, taken in taken_by.items():
            times.setdefault(name, []).extend(taken)
    tokens = repeats * sum(int(batch["attention_mask"].sum()) for batch in batches)
    bare = times["bare"]
    against = f"bare forward pass {tokens / sum(bare):.0f} tokens/s"
    for name in ("attribution", "FLAP's hook (inexact)", "wanda's hook (no variance)"):
        speed = f"{tokens / sum(times[name]):.0f} tokens/s"
        aim = AIM if name == "attribution" else ""
        yield Row(name, speed, against, f"{ratio(times[name], bare):.2f} x its time", aim)


def batches_of(chat: Chat, texts: list[str]) -> list[dict]:
    """Rendered prompts, similar lengths together, as `importance` takes them; all is scored."""
    encoded = sorted((chat.encode(text)[0] for text in texts), key=len)
    batches = []
    for start in range(0, len(encoded), BATCH):
        part = encoded[start:start + BATCH]
        batches.append(pad(part, chat.tokenizer.pad_token_id, device=chat.model.device))
    return batches


def ways(model, batch: dict) -> dict[str, Callable]:
    """Name -> a call that runs the batch, bare or with hooks."""

    @torch.no_grad()
    def bare() -> None:
        model.base_model(**batch, use_cache=False)

    def watched_by(make: Callable) -> Callable:
        def run() -> None:
            with hooked(model, make):
                bare()
        return run

    return {
        "bare": bare,
        "attribution": lambda: importance(model, batch),
        "FLAP's hook (inexact)": watched_by(FlapFluctuation),
        "wanda's hook (no variance)": watched_by(WandaNorm),
    }
