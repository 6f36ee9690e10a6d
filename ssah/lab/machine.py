"""What is noted with a result of the machine, the packages and the commit that made it."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path


def device() -> str:
    """Where models run: a GPU if there is one (``SSAH_DEVICE`` overrides)."""
    import torch

    return os.environ.get("SSAH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def description(peak_memory) -> dict:
    """Packages aside: Python, platform, device, and the most memory so far in GiB.

    `peak_memory(device)`: GiB, of a torch device.
    """
    import torch

    where = torch.device(device())
    name = (torch.cuda.get_device_name(where) if where.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads")
    return {"python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "device": name,
            "peak_memory_gib": round(peak_memory(where), 2)}


@functools.cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of some packages."""
    return {name: importlib.metadata.version(name) for name in packages}


@functools.cache
def commit(repository: Path, watched: tuple[str, ...]) -> dict:
    """The commit, and whether any of the `watched` paths (as git takes them) differs from it.

    Of the moment when it is first asked: what runs is the code that was imported then.
    """
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=repository, capture_output=True,
                              text=True).stdout.strip()

    with contextlib.suppress(OSError):
        head = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--", *watched)
        return {"commit": head or None, "clean": bool(head) and not changes}
    return {"commit": None, "clean": False}


def in_short(commit: dict) -> str:
    """A commit as `commit` tells it, in a word or two: ``1234567``, ``1234567 + changes``.

    Without git: ``unknown``.
    """
    if not commit["commit"]:
        return "unknown"
    changes = "" if commit["clean"] else " + changes"
    return commit["commit"][:7] + changes
