"""Results on disk (whole, damaged, interrupted, compared by content), and the lab that decides what to compute."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssah.errors import SsahError
from ssah.lab import Result, Store
from ssah.lab import store as store_module
from ssah.lab.store import canonical


def example(**changed) -> Result:
    """Facts, two tables, three arrays."""
    return replace(Result(
        values={"n": 3, "share": 0.1, "name": "caf\u00e9", "nested": {"a": [1, 2, None], "yes": True}},
        tables={"rows": pd.DataFrame({"id": ["a", "b", "c"], "x": [0.1, -2.5, np.nan], "n": [1, 2, 3], "yes": [True, False, True]}),
                "other": pd.DataFrame({"y": np.array([1, 2], np.float32)})},
        arrays={"scores": np.linspace(0, 1, 7, dtype=np.float32), "mask": np.array([[True, False], [False, True]]), "one": np.array(3)},
        key="0123456789abcdef", provenance={"seed": 1, "date": "2026-01-01"}), **changed)


def assert_equal(found: Result, expected: Result) -> None:
    assert found.values == expected.values
    assert (found.key, found.provenance) == (expected.key, expected.provenance)
    assert found.tables.keys() == expected.tables.keys() and found.arrays.keys() == expected.arrays.keys()
    for name, table in expected.tables.items():
        pd.testing.assert_frame_equal(found.tables[name], table, check_exact=True)
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype and np.array_equal(found.arrays[name], array)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def files(store: Store) -> dict[str, bytes]:
    """All that lies in the store, hidden files too."""
    return {path.relative_to(store.root).as_posix(): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


# ---- round trip ------------------------------------------------------------------------------

@pytest.mark.parametrize("result", [example(), Result(), example(tables={}), example(arrays={}), example(values={})],
                         ids=["whole", "empty", "no tables", "no arrays", "no values"])
def test_a_result_comes_back_as_it_was(store, result):
    saved = store.save("step", "seed=0", result)
    loaded = store.load("step", "seed=0")
    assert_equal(saved, result)
    assert_equal(loaded, result)
    assert saved.content == loaded.content == result.content


def test_a_stored_result_that_is_changed_has_another_content(store):
    loaded = [store.save("step", "result", example()), store.load("step", "result")]
    for stored in loaded:
        assert stored.content == example().content
        changed = replace(stored, values={"n": 4})
        assert changed.content == example(values={"n": 4}).content


@pytest.mark.parametrize("slug", ("result", "seed=0,condition=random SCU", "share=0.5,x=1.25", "variation=as in Table 1"))
def test_names_may_hold_dots_and_spaces(store, slug):
    store.save("step", slug, example())
    assert_equal(store.load("step", slug), example())
    assert store.slugs() == [("step", slug)]


def test_a_result_leaves_others_alone_whose_names_go_on_with_a_dot(store):
    longer = store.save("step", "share=0.05", example())
    store.save("step", "share=0", example(arrays={}))
    assert_equal(store.load("step", "share=0.05"), longer)


def test_an_old_file_that_the_new_result_lacks_is_removed(store):
    store.save("step", "result", example())
    store.save("step", "result", example(arrays={}, tables={}))
    assert [path.name for path in (store.root / "step").iterdir()] == ["result.json"]


def test_what_another_process_writes_meanwhile_is_not_called_damaged(store, monkeypatch):
    store.save("step", "result", example())
    read = store_module._read

    def overtaken(*arguments):
        monkeypatch.setattr(store_module, "_read", read)
        store.save("step", "result", example(values={"n": 4}))
        raise ValueError("a file does not have its recorded hash")

    monkeypatch.setattr(store_module, "_read", overtaken)
    assert store.load("step", "result").values == {"n": 4}


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SsahError, match="cannot be written to .*file/step"):
        Store(tmp_path / "file").prepare("step")


def test_the_first_use_equals_every_later_one(store):
    """What saving returns has been through the files: tuples are lists, number keys are strings, an index is gone."""
    table = pd.DataFrame({"x": [1, 2, 3]}, index=[5, 6, 7])
    saved = store.save("step", "result", Result(values={"pair": (1, 2), "by": {1: "a"}}, tables={"t": table}))
    assert saved.values == {"pair": [1, 2], "by": {"1": "a"}}
    assert saved.tables["t"].index.tolist() == [0, 1, 2]
    assert_equal(store.load("step", "result"), saved)


def test_what_is_not_there_is_none(store):
    assert store.load("step", "result") is None
    assert store.slugs() == []


def test_a_new_result_replaces_the_old_one_whole(store):
    store.save("step", "result", example())
    store.save("step", "result", Result(values={"n": 4}, tables={"rows": pd.DataFrame({"z": [1]})}))
    assert_equal(store.load("step", "result"), Result(values={"n": 4}, tables={"rows": pd.DataFrame({"z": [1]})}))
    assert not list((store.root / "step").glob("result.other.*"))       # a table that the new one does not have


def test_results_hold_no_pickles(store):
    """An array of Python objects could not be loaded again; it is refused at once."""
    with pytest.raises((SsahError, ValueError, TypeError)):
        store.save("step", "result", Result(arrays={"labels": np.array(["a", None], dtype=object)}))
    assert store.load("step", "result") is None


# ---- damage ----------------------------------------------------------------------------------

def truncated(content: bytes) -> bytes:
    return content[:len(content) // 2]


def flipped(content: bytes) -> bytes:
    """One bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]


@pytest.mark.parametrize("name", ("result.json", "result.rows.parquet", "result.other.parquet", "result.npz"))
@pytest.mark.parametrize("damage", (truncated, flipped, lambda content: b"", lambda content: b"[]", lambda content: b"null"),
                         ids=("truncated", "one bit", "emptied", "a list", "null"))
def test_a_damaged_file_is_noticed_and_the_remedy_named(store, name, damage):
    store.save("step", "result", example())
    path = store.root / "step" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SsahError, match=r"result.json is damaged: .*; restore it \(git checkout\), or delete this file and compute it again"):
        store.load("step", "result")


@pytest.mark.parametrize("name", ("result.rows.parquet", "result.npz"))
def test_a_missing_file_is_noticed(store, name):
    store.save("step", "result", example())
    (store.root / "step" / name).unlink()
    with pytest.raises(SsahError, match="damaged: .*or delete this file and compute it again"):
        store.load("step", "result")


def test_a_file_of_another_result_is_noticed(store):
    """Both are whole, but they do not belong together."""
    store.save("step", "a", example())
    store.save("step", "b", example(arrays={"scores": np.zeros(7, np.float32)}))
    os.replace(store.root / "step" / "b.npz", store.root / "step" / "a.npz")
    with pytest.raises(SsahError, match="a.npz does not have its recorded hash"):
        store.load("step", "a")


@pytest.mark.parametrize("change", [
    lambda facts: facts["values"].update(share=0.2), lambda facts: facts["values"].pop("n"), lambda facts: facts.update(content="0" * 16),
    lambda facts: facts.pop("files"), lambda facts: facts["files"].pop("result.rows.parquet"), lambda facts: facts.pop("values"),
    lambda facts: facts.update(files=[])],
    ids=["number", "fact removed", "content", "no files", "a table dropped", "no values", "files a list"])
def test_an_edited_fact_is_noticed(store, change):
    store.save("step", "result", example())
    path = store.root / "step" / "result.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(SsahError, match="is damaged: .*or delete this file and compute it again"):
        store.load("step", "result")


# ---- interruption ----------------------------------------------------------------------------

def no_space(*args, **options):
    raise OSError(28, "No space left on device")


def failing_after(n: int, function):
    """`function`, but the disk is full after `n` calls."""
    calls = []

    def limited(*args, **options):
        calls.append(1)
        return function(*args, **options) if len(calls) <= n else no_space()
    return limited


def break_replace(n):
    return lambda monkeypatch: monkeypatch.setattr(os, "replace", failing_after(n, os.replace))


INTERRUPTIONS = {
    "first table": lambda monkeypatch: monkeypatch.setattr(pd.DataFrame, "to_parquet", no_space),
    "second table": lambda monkeypatch: monkeypatch.setattr(pd.DataFrame, "to_parquet", failing_after(1, pd.DataFrame.to_parquet)),
    "arrays": lambda monkeypatch: monkeypatch.setattr(np, "savez_compressed", no_space),
    "facts": lambda monkeypatch: monkeypatch.setattr(Path, "write_text", no_space),
    **{f"move {n}": break_replace(n) for n in range(4)},       # two tables, one npz, then the facts
}


@pytest.mark.parametrize("interrupt", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
@pytest.mark.parametrize("before", (None, example(values={"n": 1}, arrays={"scores": np.ones(7, np.float32)})), ids=("nothing there", "an old result"))
def test_an_interrupted_save_leaves_the_old_result_or_none(store, monkeypatch, interrupt, before):
    if before is not None:
        store.save("step", "result", before)
    with monkeypatch.context() as broken:
        interrupt(broken)
        with pytest.raises(OSError, match="No space left"):
            store.save("step", "result", example())
    found = store.load("step", "result")
    if found is not None:
        assert_equal(found, before)
    assert not [name for name in files(store) if ".writing-" in name]
    assert [path.name for path in store.root.iterdir()] == ["step"]
    store.save("step", "result", example())         # and the next try goes through
    assert_equal(store.load("step", "result"), example())


def test_an_interruption_before_the_files_are_moved_keeps_the_old_result(store, monkeypatch):
    store.save("step", "result", example(values={"n": 1}))
    before = files(store)
    for interrupt in (INTERRUPTIONS[name] for name in ("first table", "second table", "arrays", "facts")):
        with monkeypatch.context() as broken:
            interrupt(broken)
            with pytest.raises(OSError):
                store.save("step", "result", example())
        assert files(store) == before


# ---- content hash ----------------------------------------------------------------------------

ROWS = example().tables["rows"]
DIFFERENT = {
    "a fact": example(values={**example().values, "n": 4}),
    "a fact's type": example(values={**example().values, "n": "3"}),
    "a fact's name": example(values={"m" if k == "n" else k: v for k, v in example().values.items()}),
    "a cell": example(tables={**example().tables, "rows": ROWS.assign(x=[0.1, -2.5, 1.0])}),
    "NaN to infinity": example(tables={**example().tables, "rows": ROWS.assign(x=[0.1, -2.5, np.inf])}),
    "the last digit": example(tables={**example().tables, "rows": ROWS.assign(x=[np.nextafter(0.1, 1), -2.5, np.nan])}),
    "a type": example(tables={**example().tables, "rows": ROWS.astype({"n": "int32"})}),
    "a column's name": example(tables={**example().tables, "rows": ROWS.rename(columns={"x": "z"})}),
    "columns swapped": example(tables={**example().tables, "rows": ROWS[["x", "id", "n", "yes"]]}),
    "rows swapped": example(tables={**example().tables, "rows": ROWS.iloc[[1, 0, 2]].reset_index(drop=True)}),
    "a row less": example(tables={**example().tables, "rows": ROWS.iloc[:2]}),
    "a table's name": example(tables={"lines": ROWS, "other": example().tables["other"]}),
    "a table less": example(tables={"rows": ROWS}),
    "an element": example(arrays={**example().arrays, "scores": np.nextafter(example().arrays["scores"], 2)}),
    "an array's type": example(arrays={**example().arrays, "scores": example().arrays["scores"].astype(np.float64)}),
    "an array's shape": example(arrays={**example().arrays, "mask": example().arrays["mask"].reshape(4)}),
    "an array's name": example(arrays={"marks" if k == "scores" else k: v for k, v in example().arrays.items()}),
    "an array less": example(arrays={}),
}


@pytest.mark.parametrize("changed", DIFFERENT.values(), ids=DIFFERENT)
def test_any_change_changes_the_content_hash(changed):
    assert changed.content != example().content


@pytest.mark.parametrize("decimals", (10, 14, 20, 300))
def test_small_numbers_count_by_their_digits(decimals):
    """A p-value of 1e-14 is not one of 1.001e-14."""
    small = 10.0 ** -decimals
    hashes = {Result(tables={"t": pd.DataFrame({"p": [p]})}).content for p in (small, 1.001 * small, -small, 0.0)}
    assert len(hashes) == 4


def test_the_content_hash_is_of_what_a_result_says():
    """Not of its key or provenance, nor of the order in which things were put in, nor of how an array lies in memory."""
    same = example(key="another", provenance={"date": "2026-12-31"}, values=dict(reversed(example().values.items())),
                   tables=dict(reversed(example().tables.items())), arrays=dict(reversed(example().arrays.items())))
    assert same.content == example().content
    table = np.arange(12.0).reshape(3, 4)
    assert Result(arrays={"a": table}).content == Result(arrays={"a": np.asfortranarray(table)}).content
    assert Result(arrays={"a": table}).content != Result(arrays={"a": table.T.reshape(3, 4)}).content


def test_canonical_text_is_the_same_for_the_same_value():
    assert canonical({"b": [1, 2.5], "a": None}) == canonical({"a": None, "b": [1, 2.5]}) == '{"a":null,"b":[1,2.5]}'
