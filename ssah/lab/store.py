"""Cached intermediate results: small files with their provenance, keyed by everything that made them.

A result is one JSON file (facts, key, provenance, hashes) with Parquet tables and one npz of arrays
beside it. The JSON is written last, so a result without it is no result. A result is used only if
its key is the expected one and all its files have the recorded hashes.
"""

import glob
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from ..errors import SsahError


@dataclass(frozen=True)
class Result:
    """What a step returned: `values` (JSON facts), `tables`, `arrays`; and where it came from."""

    values: dict = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    key: str = ""
    provenance: dict = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Hash of what the result says (not of its files or provenance); downstream keys contain it."""
        digest = hashlib.sha256(canonical(self.values).encode())
        for name, table in sorted(self.tables.items()):
            types = [str(column_type) for column_type in table.dtypes]
            digest.update(f"{name} {list(table.columns)} {types}".encode())
            # lists hold every digit of a float
            digest.update(canonical([table[column].tolist() for column in table]).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


class StoredResult(Result):
    """A result as it was read: hashed once, since every result downstream asks for its content."""

    @cached_property
    def content(self) -> str:
        return super().content


def sha256_of(path: Path) -> str:
    """Hex digest (64 characters) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value) -> str:
    """JSON with sorted keys, the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Store:
    """A folder of results: ``root/step/slug.json`` with ``slug.TABLE.parquet`` and ``slug.npz``."""

    root: Path

    def load(self, step: str, slug: str) -> Result | None:
        """The result, or None if there is none; raises `SsahError` if it is damaged."""
        facts_file = self.root / step / f"{slug}.json"
        while True:
            facts = _bytes_of(facts_file)
            if facts is None:
                return None
            try:
                return _read(facts_file, facts, slug)
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                if _bytes_of(facts_file) != facts:
                    continue        # another process writes it just now
                raise SsahError(f"the result {facts_file} is damaged: {error}; "
                                "restore it (git checkout), or delete this file and compute it "
                                "again") from error

    def prepare(self, step: str) -> None:
        """Make the folder of a step's results; `SsahError` where nothing can be written to it."""
        folder = self.root / step
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=folder, prefix=".writing-").cleanup()
        except OSError as error:
            raise SsahError(f"results cannot be written to {folder}: {error}; give another folder, "
                            "or make room in this one") from error

    def save(self, step: str, slug: str, result: Result) -> Result:
        """Write a result whole or not at all; what it reads like afterwards.

        It is read back, so that the first use equals every later one.
        """
        for name, array in result.arrays.items():
            if array.dtype == object:
                raise SsahError(f"the array {name!r} holds Python objects; store numbers, "
                                "Booleans or text")
        self.prepare(step)
        folder = self.root / step
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            written = _write(Path(scratch), slug, result)
            files = sorted(path.name for path in Path(scratch).iterdir())
            facts_file = f"{slug}.json"
            # from here to the last line: no result rather than a mixed one
            (folder / facts_file).unlink(missing_ok=True)
            for old in self._files_beside(folder, slug):
                old.unlink(missing_ok=True)
            for name in sorted(files, key=lambda name: name == facts_file):     # that one last
                os.replace(Path(scratch) / name, folder / name)
        return written

    def _files_beside(self, folder: Path, slug: str) -> list[Path]:
        """The tables and arrays of a result; none of another one whose slug goes on with a dot."""
        tables = [path for path in folder.glob(f"{glob.escape(slug)}.*.parquet")
                  if "." not in path.name.removeprefix(f"{slug}.").removesuffix(".parquet")]
        return [*tables, folder / f"{slug}.npz"]

    def slugs(self) -> list[tuple[str, str]]:
        """All ``(step, slug)`` in the folder, sorted; whether they are damaged is not looked at."""
        return sorted((path.parent.name, path.stem) for path in self.root.glob("*/*.json"))


def _bytes_of(file: Path) -> bytes | None:
    """What a file holds; None where there is none."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(facts_file: Path, content: bytes, slug: str) -> Result:
    """A result from its files; ValueError and others where one is not what it should be."""
    folder = facts_file.parent
    facts = json.loads(content)
    for name, expected in facts["files"].items():
        if sha256_of(folder / name) != expected:
            raise ValueError(f"{name} does not have its recorded hash")
    tables = {name.split(".")[-2]: _read_table(folder / name)
              for name in facts["files"] if name.endswith(".parquet")}
    arrays = {}
    if f"{slug}.npz" in facts["files"]:
        with np.load(folder / f"{slug}.npz", allow_pickle=False) as loaded:
            arrays = dict(loaded)
    result = StoredResult(facts["values"], tables, arrays, facts["key"], facts["provenance"])
    if result.content != facts["content"]:
        raise ValueError("its content does not have its recorded hash")
    return result


def _read_table(path: Path) -> pd.DataFrame:
    """One Parquet file; what `pandas.read_parquet` gives, which takes twice as long to open one."""
    with parquet.ParquetFile(path) as file:
        return file.read().to_pandas()


def _write(folder: Path, slug: str, result: Result) -> Result:
    """All files of a result into an empty folder; the result as it is read back."""
    tables = {}
    for name, table in result.tables.items():
        path = folder / f"{slug}.{name}.parquet"
        table.to_parquet(path, index=False)
        tables[name] = _read_table(path)
    if result.arrays:
        np.savez_compressed(folder / f"{slug}.npz", **result.arrays)
    values = json.loads(canonical(result.values))
    written = StoredResult(values, tables, result.arrays, result.key, result.provenance)
    facts = {"key": result.key, "content": written.content, "values": result.values,
             "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
             "provenance": result.provenance}
    text = json.dumps(facts, indent=1, sort_keys=True)
    (folder / f"{slug}.json").write_text(text + "\n")
    return written
