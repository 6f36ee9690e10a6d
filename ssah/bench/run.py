"""All measurements in order; printed, and saved or drawn if asked for."""

import datetime
from pathlib import Path

import torch

from ..catalog import load_chat_model
from ..claims.profiles import load_profile
from ..inputs.archives import REPOSITORY
from ..inputs.prompts import load_prompts
from ..lab import machine
from ..lab.machine import device
from . import attribution, decoding, growth, table, timing, training


def main(
    profile: str = "default",
    *,
    repeats: int = 3,
    save: bool = False,
    figure: Path | None = None,
) -> int:
    """Print the table of a profile's model; `save` it too, and draw how time grows into `figure`.

    Returns an exit code.
    """
    measured = measure(profile, repeats)
    print(table.markdown(measured))
    if save:
        measured.save()
        print(f"\nwritten to {table.SAVED}; `ssah readme` puts it into docs/speed.md")
    if figure is not None:
        growth.draw(measured.growth, figure)
        print(f"\n{figure}")
    return 0


def measure(profile: str, repeats: int) -> table.Measured:
    """All rows, and how time grows; a line to the terminal as each row is there."""
    # of the code that runs, whatever happens to the checkout meanwhile
    commit = machine.in_short(machine.commit(REPOSITORY, ("ssah",)))
    chosen = load_profile(profile)
    bf16 = torch.cuda.is_available()        # on most CPUs it is not a fast format
    dtype = "bfloat16" if bf16 else "float32"
    fewer = max(repeats // 2, 1)
    rows = []

    def take(more) -> None:
        for row in more:
            print(f"{row.what}: {row.ratio}", flush=True)
            rows.append(row)

    chat = load_chat_model(chosen.model.name, dtype=dtype, device=device())
    prompts = load_prompts(chosen.data.benign[0])
    short = prompts["text"].str.len() < chosen.data.longest_prompt
    texts = prompts.loc[short, "text"].tolist()
    take(attribution.rows(chat, texts, fewer))
    take(decoding.rows(chat, texts, fewer))
    del chat                                # its memory is needed
    take(training.rows(training.small_stack, repeats, bf16))
    if torch.cuda.is_available():
        take(training.rows(training.wide_stack, repeats, bf16))
    return table.Measured(
        command=f"ssah bench{chosen.option}" + (" --quick" if repeats == 1 else ""),
        date=datetime.date.today().isoformat(),
        commit=commit,
        machine=timing.machine(),
        model=f"{chosen.model.label}, {dtype}",
        rows=rows,
        growth=list(growth.measured(fewer)),
    )
