"""Calls that are timed in turn, and the ratio of one to another."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

#: Where Linux says which processor it is.
PROCESSOR = Path("/proc/cpuinfo")


def uses_one_cpu_thread() -> bool:
    """Whether all work is done by one thread of this process."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def now() -> float:
    """Seconds on a clock.

    With one thread of a CPU those that the process worked: what other processes do then does not
    count. Else those that passed, once the GPU has done its work.
    """
    if uses_one_cpu_thread():
        return time.process_time()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call: Callable) -> float:
    """Seconds that one call takes."""
    started = now()
    call()
    return now() - started


def in_turn(
    calls: Mapping[str, Callable], repeats: int, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of every call, `repeats` times: each once, and again, so that drift hits all alike.

    Before that each is called untimed, for what a first call does once and for all, unless the
    process is `warm` already.
    """
    if not warm:
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def ratio(times: list[float], others: list[float]) -> float:
    """The median of the ratios of times that were taken in turn."""
    return statistics.median(time / other for time, other in zip(times, others, strict=True))


def machine() -> dict[str, str]:
    """What the numbers belong to."""
    if torch.cuda.is_available():
        processor = torch.cuda.get_device_name()
    else:
        processor = f"{_processor()}, {os.cpu_count()} cores"
    clock = "CPU seconds" if uses_one_cpu_thread() else "seconds"
    return {
        "processor": processor,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "clock": clock,
    }


def _processor() -> str:
    """The name that the processor gives itself, or its kind where it gives none."""
    if PROCESSOR.exists():
        for line in PROCESSOR.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
