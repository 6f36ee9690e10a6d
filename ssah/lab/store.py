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
from pathlib import Path

import numpy as np
import pandas as pd

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
            digest.update(f"{name} {list(table.columns)} {[str(t) for t in table.dtypes]}".encode())
            digest.update(canonical([table[column].tolist() for column in table]).encode())     # exact floats
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


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
        if not facts_file.exists():
            return None
        try:
            facts = json.loads(facts_file.read_text())
            for name, expected in facts["files"].items():
                if sha256_of(facts_file.parent / name) != expected:
                    raise ValueError(f"{name} does not have its recorded hash")
            tables = {name.split(".")[-2]: pd.read_parquet(facts_file.parent / name)
                      for name in facts["files"] if name.endswith(".parquet")}
            arrays = {}
            if f"{slug}.npz" in facts["files"]:
                with np.load(facts_file.parent / f"{slug}.npz", allow_pickle=False) as loaded:
                    arrays = dict(loaded)
            result = Result(facts["values"], tables, arrays, facts["key"], facts["provenance"])
            if result.content != facts["content"]:
                raise ValueError("its content does not have its recorded hash")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise SsahError(f"the result {facts_file} is damaged: {error}; "
                            "restore it (git checkout), or delete this file and compute it again") from error
        return result

    def save(self, step: str, slug: str, result: Result) -> Result:
        """Write a result whole or not at all, and read it back (so that the first use equals every later one)."""
        for name, array in result.arrays.items():
            if array.dtype == object:
                raise SsahError(f"the array {name!r} holds Python objects; store numbers, Booleans or text")
        folder = self.root / step
        folder.mkdir(parents=True, exist_ok=True)
        facts_file = folder / f"{slug}.json"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            for name, table in result.tables.items():
                table.to_parquet(Path(scratch) / f"{slug}.{name}.parquet", index=False)
            if result.arrays:
                np.savez_compressed(Path(scratch) / f"{slug}.npz", **result.arrays)
            files = {path.name: sha256_of(path) for path in sorted(Path(scratch).iterdir())}
            facts = {"key": result.key, "content": "", "values": result.values, "files": files,
                     "provenance": result.provenance}
            written = Result(json.loads(canonical(result.values)),
                             {n: pd.read_parquet(Path(scratch) / f"{slug}.{n}.parquet") for n in result.tables},
                             result.arrays, result.key, result.provenance)
            facts["content"] = written.content
            (Path(scratch) / facts_file.name).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
            facts_file.unlink(missing_ok=True)      # from here to the last line: no result rather than a mixed one
            for old in folder.glob(f"{glob.escape(slug)}.*.parquet"):
                old.unlink()
            for name in [*files, facts_file.name]:
                os.replace(Path(scratch) / name, folder / name)
        return written

    def slugs(self) -> list[tuple[str, str]]:
        """All ``(step, slug)`` in the folder, sorted; whether they are damaged is not looked at."""
        return sorted((path.parent.name, path.stem) for path in self.root.glob("*/*.json"))
