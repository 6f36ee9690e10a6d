"""Results on disk (whole, damaged, interrupted, compared by content), and the lab that decides what to compute."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssah.claims import profiles
from ssah.inputs import archives
from ssah.errors import SsahError
from ssah import lab
from ssah.lab import Lab, Need
from ssah.lab import Result, Store
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


@pytest.mark.parametrize("slug", ("result", "seed=0,condition=random SCU", "share=0.5,x=1.25", "variation=as in Table 1"))
def test_names_may_hold_dots_and_spaces(store, slug):
    store.save("step", slug, example())
    assert_equal(store.load("step", slug), example())
    assert store.slugs() == [("step", slug)]


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


# ---- the lab ---------------------------------------------------------------------------------

class Toys:
    """Three toy steps in place of the real ones: numbers -> doubled (leaves a file) -> total (reads a section). `ran` notes what ran."""

    def __init__(self):
        self.ran: list[str] = []
        self.start, self.broken = 1, False
        engine.step(version=1)(self.numbers)
        engine.step(version=1, needs=lambda profile, factor=2: [Need("numbers")])(self.doubled)
        engine.step(version=1, reads=("calibration",), needs=lambda profile: [Need("doubled", {"factor": 2}, artifact=True)])(self.total)

    def numbers(self, context) -> Result:
        """Three numbers from `start` on."""
        self.ran.append("numbers")
        return Result(arrays={"x": np.arange(3) + self.start})

    def doubled(self, context, factor: int = 2) -> Result:
        """Them times `factor`, also in a file."""
        self.ran.append("doubled")
        x = factor * context.get("numbers").arrays["x"]
        (context.folder / "x.txt").write_text(" ".join(map(str, x)))
        return Result(arrays={"x": x})

    def total(self, context) -> Result:
        """Their sum, from that file, times a number of the profile."""
        self.ran.append("total")
        if self.broken:
            raise KeyboardInterrupt
        x = (context.artifact("doubled", factor=2) / "x.txt").read_text().split()
        return Result({"total": sum(map(int, x)) * context.profile.calibration.prompts})


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(engine, "STEPS", {})
    monkeypatch.setattr(engine, "code_fingerprint", lambda step: {})        # it looks for a step's code in the package
    return Toys()


@pytest.fixture
def lab(tmp_path):
    """Makes labs on one folder; each is as a new session."""
    def make(prompts: int = 10, **options) -> Lab:
        profile = replace(profiles.SMOKE, calibration=replace(profiles.SMOKE.calibration, prompts=prompts))
        return Lab(profile, root=tmp_path / "results", **options)
    return make


def test_a_missing_result_is_computed_with_all_it_needs(toys, lab):
    assert lab().get("total").values == {"total": (2 + 4 + 6) * 10}
    assert toys.ran == ["numbers", "doubled", "total"]


def test_a_hit_does_not_run_again(toys, lab):
    first = lab().get("total")
    toys.ran.clear()
    assert lab().get("total").values == first.values
    assert toys.ran == []


def test_one_lab_looks_only_once(toys, lab, monkeypatch):
    one = lab()
    first = one.get("total")
    monkeypatch.setattr(Store, "load", lambda *args: pytest.fail("read again"))
    assert one.get("total") is first


@pytest.mark.parametrize("name, params, message", [
    ("numbers", {"seed": 0}, "numbers takes no parameters; unknown: seed"),
    ("doubled", {"factor": 2, "x": 1, "y": 1}, "unknown: x, y")])
def test_parameters_are_those_of_the_step(toys, lab, name, params, message):
    with pytest.raises(SsahError, match=message):
        lab().get(name, **params)
    assert toys.ran == []


def test_numbers_of_numpy_are_numbers(toys, lab):
    assert lab().get("doubled", factor=np.int64(2)).arrays["x"].tolist() == lab().get("doubled", factor=2).arrays["x"].tolist()
    assert toys.ran == ["numbers", "doubled"]


def test_results_of_other_code_are_stale(toys, lab, monkeypatch):
    """Such as those of an exercise that was undone; of the committed ones a test knows more."""
    lab().get("total")
    toys.ran.clear()
    monkeypatch.setattr(engine, "code_fingerprint", lambda step: {"module": "new"} if step.name == "doubled" else {})
    assert lab().look("doubled", {"factor": 2})[::2] == ("stale", "the code behind it changed")
    lab().get("total")
    assert toys.ran == ["doubled"]


def test_a_step_that_fails_leaves_the_former_artifacts(toys, lab):
    lab().get("total")
    folder = lab().artifact("doubled", {"factor": 2})
    toys.broken = True
    toys.doubled = None
    with pytest.raises(KeyboardInterrupt):
        lab(recompute=["total"]).get("total")
    assert (folder / "x.txt").read_text() == "2 4 6" and [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_changed_input_makes_what_stands_on_it_stale(toys, lab):
    lab().get("total")
    toys.ran.clear()
    toys.start = 5
    result = lab(recompute=["numbers"]).get("total")
    assert toys.ran == ["numbers", "doubled", "total"]
    assert result.values == {"total": (10 + 12 + 14) * 10}


def test_recomputing_the_same_content_leaves_the_rest_alone(toys, lab):
    """Keys hold the content of the inputs, not the time at which they were made."""
    lab().get("total")
    toys.ran.clear()
    lab(recompute=["numbers"]).get("total")
    assert toys.ran == ["numbers"]


@pytest.mark.parametrize("named, expected", [(["total"], ["total"]), (["doubled(factor=2)"], ["doubled"]), (["numbers", "total"], ["numbers", "total"]),
                                             (["doubled"], []), ([], [])])
def test_results_are_recomputed_by_label_and_once(toys, lab, named, expected):
    lab().get("total")
    toys.ran.clear()
    again = lab(recompute=named)
    again.get("total"), again.get("total"), again.get("numbers")
    assert sorted(toys.ran) == sorted(expected)


@pytest.mark.parametrize("name", ("numbers", "doubled", "total"))
def test_a_new_version_makes_a_result_stale(toys, lab, name):
    before = lab().get(name, **({"factor": 2} if name == "doubled" else {}))
    toys.ran.clear()
    engine.STEPS[name] = replace(engine.STEPS[name], version=2)
    one = lab()
    state, _, reason = one.look(name, {"factor": 2} if name == "doubled" else {})
    assert state == "stale" and "version" in reason
    after = one.get(name, **({"factor": 2} if name == "doubled" else {}))
    assert toys.ran == [name]
    assert after.key != before.key and after.content == before.content


def test_only_sections_that_a_step_reads_make_it_stale(toys, lab):
    lab(prompts=10).get("total")
    toys.ran.clear()
    assert lab(prompts=7).get("total").values == {"total": 12 * 7}
    assert toys.ran == ["total"]


def test_parameters_name_results_of_their_own(toys, lab):
    one = lab()
    assert one.get("doubled", factor=2).arrays["x"].tolist() == [2, 4, 6]
    assert one.get("doubled", factor=3).arrays["x"].tolist() == [3, 6, 9]
    assert {(step, slug) for step, slug in one.store.slugs()} == {("numbers", "result"), ("doubled", "factor=2"), ("doubled", "factor=3")}


def test_an_interrupted_run_keeps_what_was_finished(toys, lab):
    toys.broken = True
    with pytest.raises(KeyboardInterrupt):
        lab().get("total")
    assert toys.ran == ["numbers", "doubled", "total"]
    toys.broken = False
    toys.ran.clear()
    assert lab().get("total").values == {"total": 120}
    assert toys.ran == ["total"]


def test_a_damaged_result_is_computed_afresh(toys, lab, tmp_path, capsys):
    first = lab().get("total")
    toys.ran.clear()
    (tmp_path / "results" / "numbers" / "result.npz").write_bytes(b"")
    assert lab().look("numbers", {})[0] == "corrupt"
    assert lab().get("total").values == first.values
    assert toys.ran == ["numbers"]
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", (lambda path: path.unlink(), lambda path: path.write_text("7 7 7"), lambda path: shutil.rmtree(archives.cache_dir())),
                         ids=("removed", "edited", "cache removed"))
def test_a_missing_artifact_makes_its_step_run_again(toys, lab, damage):
    """A result is in the store, its files are not in the cache folder: as after a fresh clone."""
    damage(lab().artifact("doubled", {"factor": 2}) / "x.txt")
    toys.ran.clear()
    assert lab().get("total").values == {"total": 120}
    assert toys.ran == ["doubled", "total"]


def test_an_artifact_made_anew_with_other_bits_is_not_mixed_with_what_stood_on_the_old(toys, lab):
    """As on a fresh clone of another machine: a model is trained again, and scores of the old one are in the store."""
    @engine.step(version=1)
    def model(context):
        (context.folder / "bits.txt").write_text(str(toys.start))
        return Result({"bits": toys.start})

    @engine.step(version=1, needs=lambda profile: [Need("model", artifact=True)])
    def scores(context):
        return Result({"of": int((context.artifact("model") / "bits.txt").read_text())})

    @engine.step(version=1, needs=lambda profile: [Need("scores"), Need("model", artifact=True)])
    def tuned(context):
        return Result({"model": int((context.artifact("model") / "bits.txt").read_text()), "scores": context.get("scores").values["of"]})

    lab().get("scores")
    shutil.rmtree(archives.cache_dir())
    toys.start = 2
    once = lab()
    assert once.look("tuned", {})[0] == "missing" and once.get("scores").values == {"of": 1}       # validated before
    assert once.get("tuned").values == {"model": 2, "scores": 2}


def test_a_missing_artifact_does_not_matter_while_nobody_needs_it(toys, lab):
    lab().get("total")
    shutil.rmtree(archives.cache_dir())
    toys.ran.clear()
    lab().get("total")
    assert toys.ran == []


def test_what_a_step_did_not_declare_it_cannot_read(toys, lab):
    @engine.step(version=1)
    def sneaky(context, what):
        if what == "input":
            context.get("numbers")
        elif what == "artifact":
            context.artifact("doubled", factor=2)
        else:
            context.profile.calibration

    lab().get("total")
    for what, error in (("input", KeyError), ("artifact", KeyError), ("section", AttributeError)):
        with pytest.raises(error):
            lab().get("sneaky", what=what)
    assert not any(step == "sneaky" for step, _ in lab().store.slugs())


def test_an_input_declared_without_its_files_does_not_give_them(toys, lab):
    @engine.step(version=1, needs=lambda profile: [Need("doubled", {"factor": 2})])
    def hasty(context):
        return Result({"x": context.get("doubled", factor=2).arrays["x"].tolist(), "folder": str(context.artifact("doubled", factor=2))})

    with pytest.raises(KeyError):
        lab().get("hasty")


@pytest.mark.parametrize("spoil, reason", [
    (lambda toys, root: None, "not in the store"),
    (lambda toys, root: engine.STEPS.update(numbers=replace(engine.STEPS["numbers"], version=2)), "version changed"),
    (lambda toys, root: (root / "numbers" / "result.npz").write_bytes(b""), "damaged"),
], ids=["missing", "stale", "corrupt"])
def test_a_lab_that_may_not_compute_names_the_remedy(toys, lab, tmp_path, spoil, reason):
    if reason != "not in the store":
        lab().get("numbers")
    toys.ran.clear()
    spoil(toys, tmp_path / "results")
    with pytest.raises(SsahError, match=f"numbers: .*{reason}.*`ssah recompute numbers --profile smoke --in-place`"):
        lab(compute=False).get("numbers")
    assert toys.ran == []


def test_a_lab_that_may_not_compute_still_loads(toys, lab):
    lab().get("total")
    assert lab(compute=False).get("total").values == {"total": 120}


def test_an_unknown_step_is_refused_with_the_known_ones(toys, lab):
    with pytest.raises(SsahError, match="unknown step 'totals'; known: numbers, doubled, total"):
        lab().get("totals")


def test_a_step_says_that_and_why_it_runs(toys, lab, capsys):
    lab().get("numbers")
    assert "computing numbers: not in the store" in capsys.readouterr().err
    lab(recompute=["numbers"]).get("numbers")
    assert "computing numbers: asked for afresh" in capsys.readouterr().err
    lab().get("numbers")
    assert capsys.readouterr().err == ""


def test_provenance_says_how_to_get_the_result_again(toys, lab):
    provenance = lab().get("doubled", factor=3).provenance
    assert provenance["command"] == "ssah recompute doubled -p factor=3 --profile smoke"
    assert provenance["params"] == {"factor": 3} and provenance["version"] == 1
    assert set(provenance["packages"]) == set(engine.PACKAGES)
    assert {"seconds", "date", "commit", "device", "peak_memory_gib"} <= set(provenance)


def test_results_of_other_profiles_never_reach_the_repository(tmp_path):
    assert engine.default_root(profiles.SMOKE) == tmp_path / "cache" / "results" / "smoke"
    assert engine.default_root(profiles.DEFAULT).is_relative_to(archives.REPOSITORY / "data" / "results")


def test_results_in_another_folder_have_artifacts_of_their_own(toys, lab, tmp_path):
    """So that a rerun beside the committed results never replaces what those were made with."""
    first, other = lab(), Lab(lab().profile, root=tmp_path / "rerun")
    folders = {one.artifact("doubled", {"factor": 2}) for one in (first, other)}
    assert first.get("doubled", factor=2).key == other.get("doubled", factor=2).key
    assert len(folders) == 2
    assert all((folder / "x.txt").read_text() == "2 4 6" for folder in folders)


def test_artifacts_are_private(toys, lab):
    folder = lab().artifact("doubled", {"factor": 2})
    assert folder.is_relative_to(archives.cache_dir())
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.iterdir()] == ["x.txt"]


def test_a_missing_parameter_is_named():
    from ssah.lab import Lab as RealLab

    with pytest.raises(SsahError, match="ablation takes seed, condition; missing: condition"):
        RealLab(profiles.SMOKE).get("ablation", seed=0)
    with pytest.raises(SsahError, match="unknown role 'alinged'; known: base, aligned, unaligned"):
        RealLab(profiles.SMOKE).get("checkpoint", role="alinged", seed=0)
