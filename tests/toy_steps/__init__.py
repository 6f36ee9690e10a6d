"""Toy steps for tests of workers, which import this package in processes of their own.

    numbers -> doubled (leaves a file) -> total          gated, large, small: wait to be let go
    numbers -> broken (fails) -> after_broken

With `GATES` set to a folder, what happens is written to its pipe ``events``, and a gated step reads
a letter from its pipe ``permits`` before it goes on: so a test knows when to act, without a clock.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssah.lab import Lab, Need, Place, Result, code, step

#: Names the folder of the pipes.
GATES = "TOY_GATES"


def tell(event: str) -> None:
    """Write a line to the pipe of events, with the process that it comes from."""
    if GATES in os.environ:
        with open(Path(os.environ[GATES]) / "events", "w") as pipe:
            pipe.write(f"{os.getpid()} {event}\n")


def wait_for_permit() -> None:
    """Go on when somebody writes a letter into the pipe of permits."""
    if GATES in os.environ:
        with open(Path(os.environ[GATES]) / "permits", "rb", buffering=0) as pipe:
            pipe.read(1)


@dataclass(frozen=True)
class Toy:
    """A profile without sections."""

    name: str = "toy"
    seeds: tuple[int, ...] = (0, 1)
    option: str = " --profile toy"


class ToyLab(Lab):
    """A lab that tells when it waits for its turn, and notes nothing that would need torch."""

    def _turn(self, name: str, params: dict, reason: str):
        tell(f"turn {name}")
        return super()._turn(name, params, reason)

    def _provenance(self, step, params: dict, seconds: float) -> dict:
        return {"step": step.name, "sections": {}, "code": code.fingerprint(step.run)}


def lab_at(folder: Path, recompute=()) -> ToyLab:
    """A lab whose results and cache are in a folder."""
    place = Place(repository=folder, watched=(), committed=folder / "committed",
                  accepted=folder / "accepted.json", results=lambda profile: folder / "results",
                  cache=lambda: folder / "cache", fingerprint=str, plan=lambda *_: [],
                  packages=(), peak_memory=lambda device: 0.0)
    return ToyLab(Toy(), place, recompute=recompute)


# ---- steps -----------------------------------------------------------------------------------

@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Tell when a step begins and when it ends."""
    tell(f"begin {name}")
    yield
    tell(f"end {name}")


@step(version=1)
def numbers(context, seed: int) -> Result:
    """Five random numbers."""
    tell(f"begin numbers {seed}")
    return Result(arrays={"x": np.random.default_rng(seed).normal(size=5)})


@step(version=1, needs=lambda profile, seed: [Need("numbers", {"seed": seed})])
def doubled(context, seed: int) -> Result:
    """Them twice as large, in a file."""
    np.save(context.folder / "x.npy", 2 * context.get("numbers", seed=seed).arrays["x"])
    return Result({"seed": seed})


def _needs_of_total(profile) -> list[Need]:
    return [Need("doubled", {"seed": seed}, artifact=True) for seed in profile.seeds]


@step(version=1, needs=_needs_of_total)
def total(context) -> Result:
    """The sum of all files."""
    arrays = [np.load(folder / "x.npy") for folder in context.artifacts.values()]
    return Result({"total": float(np.sum(arrays))})


@step(version=1, needs=lambda profile: [Need("numbers", {"seed": 0})])
def broken(context) -> Result:
    """Fails."""
    raise ValueError("no such unit\nand a second line")


@step(version=1, needs=lambda profile: [Need("broken")])
def after_broken(context) -> Result:
    """Stands on what fails."""
    return Result()


@step(version=1, needs=lambda profile: [Need("numbers", {"seed": 0})])
def gated(context) -> Result:
    """Waits in the middle."""
    with told("gated"):
        wait_for_permit()
    return Result({"first": float(context.get("numbers", seed=0).arrays["x"][0])})


@step(version=1, memory=lambda profile: 3.0, minutes=2)
def large(context, number: int) -> Result:
    """Takes 3 GiB, and time."""
    with told(f"large {number}"):
        wait_for_permit()
    return Result({"number": number})


@step(version=1, minutes=1)
def small(context) -> Result:
    """Takes little of both."""
    with told("small"):
        return Result()


@step(version=1)
def deadly(context) -> Result:
    """Ends its own process, as the system does where memory is short."""
    os.kill(os.getpid(), 9)
