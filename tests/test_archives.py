"""Pinned archives: read, damaged, missing, downloaded; with made-up archives and no network."""

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ssah import cli
from ssah.errors import SsahError
from ssah.inputs import archives

CONTENT = "".join(
    np.random.default_rng(0).choice(list("abcdefgh"), 6000)
).encode()  # about 2,300 bytes when compressed
FILES = {"other.txt": b"something else", "folder/data.txt": CONTENT, "last.txt": b"the end"}


def make_archive(suffix: str) -> bytes:
    """A wheel (zip) or a source distribution (tar.gz) with three files."""
    buffer = io.BytesIO()
    if suffix == ".whl":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(params=(".whl", ".tar.gz"))
def made_up(request, monkeypatch):
    """One archive of one pinned member ("mine"), not in the cache yet.

    Returns its bytes and where it belongs.
    """
    content = make_archive(request.param)
    filename = f"mine-1.0{request.param}"
    monkeypatch.setattr(
        archives,
        "ARCHIVES",
        {"archive": archives.Archive("mine==1.0", filename, sha256(content), 0.1)},
    )
    monkeypatch.setattr(
        archives,
        "MEMBERS",
        {"mine": archives.Member("archive", "folder/data.txt", sha256(CONTENT))},
    )
    return content, archives.cache_dir() / "archives" / filename


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# ---- reading ---------------------------------------------------------------------------------


def test_a_pinned_member_is_read(made_up):
    content, path = made_up
    put(path, content)
    assert archives.read_member("mine") == CONTENT


def test_another_file_under_the_members_name_is_refused(made_up, monkeypatch):
    """The archive is whole, the member is not the pinned one."""
    content, path = made_up
    monkeypatch.setitem(FILES, "folder/data.txt", CONTENT[:-1] + b"!")
    put(path, make_archive(path.name[len("mine-1.0") :]))
    with pytest.raises(
        SsahError, match="not the pinned file; delete the archive and run `ssah fetch`"
    ):
        archives.read_member("mine")


def test_an_archive_without_the_member_is_refused(made_up, monkeypatch):
    content, path = made_up
    monkeypatch.delitem(FILES, "folder/data.txt")
    put(path, make_archive(path.name[len("mine-1.0") :]))
    with pytest.raises(SsahError, match="run `ssah fetch`"):
        archives.read_member("mine")


@pytest.mark.parametrize("keep", (0, 10, 100, 1000, 2000))
def test_a_truncated_archive_is_refused(made_up, keep):
    content, path = made_up
    put(path, content[:keep])
    with pytest.raises(SsahError, match="run `ssah fetch`"):
        archives.read_member("mine")


def test_damage_anywhere_gives_the_content_or_an_error_that_names_the_remedy(made_up):
    """Eight bytes are flipped: in a header, in compressed data, in a checksum, in the list of
    files.
    """
    content, path = made_up
    refused = 0
    for position in range(0, len(content), 60):
        damaged = bytearray(content)
        damaged[position : position + 8] = bytes(
            255 - byte for byte in damaged[position : position + 8]
        )
        put(path, bytes(damaged))
        try:
            assert archives.read_member("mine") == CONTENT
        except SsahError as error:
            assert "run `ssah fetch`" in str(error)
            refused += 1
    assert refused > 20


def test_a_missing_archive_while_offline_names_the_remedy(made_up, monkeypatch):
    _, path = made_up
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **options: pytest.fail("the network was tried")
    )
    with pytest.raises(
        SsahError, match="mine==1.0 is not in .* and the network is off; run `ssah fetch`"
    ):
        archives.read_member("mine")
    assert not path.exists()


def test_an_unknown_member_is_refused_with_the_known_ones(made_up):
    with pytest.raises(SsahError, match="unknown source 'yours'; known: mine"):
        archives.read_member("yours")


# ---- downloading -----------------------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch):
    """A stand-in for `pip download`: writes `pip.served` into the --dest folder.

    Its calls are kept.
    """

    class Pip:
        calls: list[list[str]] = []
        served = b""
        returncode = 0
        interrupted = False
        name = None

        def run(self, command, **options):
            self.calls.append(command)
            folder = Path(command[command.index("--dest") + 1])
            if self.served:
                (
                    folder / (self.name or next(iter(archives.ARCHIVES.values())).filename)
                ).write_bytes(self.served)
            if self.interrupted:
                raise KeyboardInterrupt
            self.pins = (folder / "pins.txt").read_text()
            return subprocess.CompletedProcess(
                command, self.returncode, "", "some text\nERROR: No matching distribution found\n"
            )

    pip = Pip()
    pip.calls = []
    monkeypatch.setattr(subprocess, "run", pip.run)
    for name in ("SSAH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return pip


def kept() -> list[str]:
    """All that lies in the archive folder, hidden files too."""
    return sorted(path.name for path in (archives.cache_dir() / "archives").rglob("*"))


def test_an_archive_is_downloaded_once_and_by_hash(made_up, pip):
    pip.served, path = made_up
    assert archives.read_member("mine") == archives.read_member("mine") == CONTENT
    assert len(pip.calls) == 1
    assert kept() == [path.name]
    command = pip.calls[0]
    assert (
        command[1:4] == ["-m", "pip", "download"]
        and "--require-hashes" in command
        and "--no-deps" in command
    )
    assert pip.pins == f"mine==1.0 --hash=sha256:{sha256(pip.served)}\n"


def test_a_failed_download_leaves_nothing_behind(made_up, pip):
    pip.returncode = 1
    with pytest.raises(
        SsahError,
        match="could not download mine==1.0: ERROR: No matching distribution found "
        ".*run `ssah fetch`",
    ):
        archives.read_member("mine")
    assert kept() == []


@pytest.mark.parametrize("returncode", (0, 1))
def test_a_half_written_download_is_not_kept(made_up, pip, returncode):
    pip.served, pip.returncode = made_up[0][:100], returncode
    with pytest.raises(SsahError):
        archives.read_member("mine")
    assert kept() == []


def test_an_interrupted_download_is_not_kept(made_up, pip):
    pip.served, pip.interrupted = made_up[0], True
    with pytest.raises(KeyboardInterrupt):
        archives.read_member("mine")
    assert kept() == []


def test_a_download_with_another_hash_is_not_kept(made_up, pip):
    pip.served = made_up[0] + b"\0"
    with pytest.raises(SsahError, match="does not have the pinned sha256; .* nothing was kept"):
        archives.read_member("mine")
    assert kept() == []


def test_a_download_under_another_name_is_not_kept(made_up, pip):
    pip.served, pip.name = made_up[0], "mine-2.0.whl"
    with pytest.raises(SsahError, match="could not download"):
        archives.read_member("mine")
    assert kept() == []


def test_after_a_failure_the_next_try_starts_afresh(made_up, pip):
    pip.served = made_up[0][:100]
    with pytest.raises(SsahError):
        archives.read_member("mine")
    pip.served = made_up[0]
    assert archives.read_member("mine") == CONTENT


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, expected",
    [
        ("advbench", ("pip", "advbench")),
        ("pip:advbench", ("pip", "advbench")),
        ("hub:owner/name", ("hub", "owner/name")),
        ("hub:owner/name@v1", ("hub", "owner/name@v1")),
        ("owner/name", ("hub", "owner/name")),
        ("owner/name@main", ("hub", "owner/name@main")),
        ("mine.csv", ("path", "mine.csv")),
        ("./mine.csv", ("path", "./mine.csv")),
        ("folder", ("path", "folder")),
        ("owner/there", ("path", "owner/there")),
        ("~/mine.csv", ("path", "~/mine.csv")),
    ],
)
def test_a_source_name_says_where_to_look(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.csv").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "owner" / "there").mkdir(parents=True)
    assert archives.split_name(name) == expected


@pytest.mark.parametrize(
    "name",
    (
        "advbanch",
        "missing.csv",
        "/no/such/model",
        "./missing.csv",
        "../missing",
        "~/missing",
        "a/b/c",
    ),
)
def test_a_name_that_leads_nowhere_is_refused(name, tmp_path, monkeypatch):
    """A path that does not exist is no hub id (hub ids have one slash, and do not begin with .

    Or ~).
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SsahError, match="unknown source"):
        archives.split_name(name)


def test_the_pinned_table_is_consistent():
    assert {member.archive for member in archives.MEMBERS.values()} == set(archives.ARCHIVES)
    for pinned in (*archives.ARCHIVES.values(), *archives.MEMBERS.values()):
        assert len(pinned.sha256) == 64 and set(pinned.sha256) <= set("0123456789abcdef")
    for archive in archives.ARCHIVES.values():
        project, version = archive.requirement.split("==")
        assert archive.filename.startswith(f"{project.replace('-', '_')}-{version}")


# ---- fingerprints ----------------------------------------------------------------------------


def test_fingerprints_change_with_what_a_source_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        archives.fingerprint("advbench")
        == archives.fingerprint("pip:advbench")
        == archives.MEMBERS["advbench"].sha256
    )
    assert archives.fingerprint("hub:owner/name@v1") != archives.fingerprint("hub:owner/name@v2")
    assert archives.fingerprint("data:excluded.csv") == sha256(
        (archives.PACKAGED / "excluded.csv").read_bytes()
    )
    assert archives.fingerprint("tiny:0") != archives.fingerprint("tiny:1")


@pytest.mark.parametrize("name", ("mine.csv", "./tiny.csv", "tiny.csv"))
def test_the_fingerprint_of_a_file_is_its_content(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (b"a", b"b"):
        (tmp_path / name).write_bytes(content)
        assert archives.fingerprint(name) == sha256(content)


def test_the_fingerprint_of_a_folder_sees_names_sizes_and_times(tmp_path):
    (tmp_path / "model").mkdir()
    seen = set()
    for when, (name, content) in enumerate((("a", b"x"), ("a", b"xy"), ("b", b"x"), ("b", b"y"))):
        (tmp_path / "model" / name).write_bytes(content)
        # a model saved anew is as large as before
        os.utime(
            tmp_path / "model" / name, (when, when)
        )
        seen.add(archives.fingerprint(str(tmp_path / "model")))
    assert len(seen) == 4


# ---- the cache folder ------------------------------------------------------------------------


def test_the_cache_folder_is_private(tmp_path):
    folder = archives.cache_dir()
    assert folder == tmp_path / "cache"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ("SSAH_OFFLINE", "HF_HUB_OFFLINE"))
@pytest.mark.parametrize(
    "value, expected", [("1", True), ("true", True), ("YES", True), ("0", False), ("", False)]
)
def test_offline_is_said_by_either_variable(monkeypatch, name, value, expected):
    for other in ("SSAH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    assert archives.offline() == expected


def test_removing_the_cache_leaves_other_files_alone():
    """The folder may have been named by the user (SSAH_CACHE), and hold more than ours."""
    put(archives.cache_dir() / "archives" / "a", b"12345")
    put(archives.cache_dir() / "models" / "b" / "c", b"123")
    put(archives.cache_dir() / "mine" / "thesis.txt", b"years of work")
    for _ in range(2):
        assert cli.main(["clean", "--yes"]) == 0
        assert [path.name for path in archives.cache_dir().iterdir()] == ["mine"]


def test_a_missing_file_of_the_repository_names_the_remedy():
    with pytest.raises(
        SsahError,
        match="openings2.csv is missing; restore it with "
        "`git checkout ssah.inputs.data.openings2.csv`",
    ):
        archives.fingerprint("data:openings2.csv")


def test_a_damaged_archive_is_discarded_and_a_sound_one_kept(made_up):
    content, path = made_up
    put(path, content)
    archives.discard_damaged("archive")
    assert path.read_bytes() == content
    put(path, content[:-1])
    archives.discard_damaged("archive")
    assert not path.exists()


@pytest.fixture
def homeless(monkeypatch):
    """No home folder is known: neither by HOME nor by the system's list of users."""
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)


def test_the_cache_folder_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSAH_CACHE", "~/x")
    assert archives.cache_dir() == tmp_path / "home" / "x"
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("named", (None, "~/x"))
def test_without_a_home_folder_the_remedy_is_named(homeless, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSAH_CACHE")
    if named:
        monkeypatch.setenv("SSAH_CACHE", named)
    with pytest.raises(SsahError, match="there is no home folder .*set SSAH_CACHE to a folder"):
        archives.cache_dir()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("SSAH_CACHE", str(tmp_path / "cache"))
    assert archives.cache_dir().is_dir()


def test_a_source_in_the_home_folder_needs_one(homeless):
    with pytest.raises(SsahError, match="there is no home folder; write the whole path"):
        archives.split_name("~/mine.csv")


def test_a_cache_folder_that_cannot_be_made_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSAH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SsahError, match="cannot be made .*set SSAH_CACHE to a folder"):
        archives.cache_dir()


def test_a_python_without_pip_names_the_remedy(made_up, monkeypatch):
    """As in the environments that uv makes."""
    def run(command, **options):
        message = f"{command[0]}: No module named pip\n"
        return subprocess.CompletedProcess(command, 1, "", message)

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("SSAH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SsahError, match="has no pip.* -m ensurepip` or `uv pip install pip`, then"):
        archives.read_member("mine")


def test_a_hand_made_file_is_known_by_its_bytes(tmp_path, monkeypatch):
    """In the package or else in the repository: the name alone is in the profile."""
    for folder in ("PACKAGED", "DATA"):
        monkeypatch.setattr(archives, folder, tmp_path / folder)
        put(tmp_path / folder / f"{folder}.csv", folder.encode())
    assert archives.fingerprint("data:PACKAGED.csv") == sha256(b"PACKAGED")
    assert archives.fingerprint("data:DATA.csv") == sha256(b"DATA")
