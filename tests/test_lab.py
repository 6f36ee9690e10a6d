"""The lab on toy steps: what is computed, loaded, stale; frames and facts; keys that forgive."""

import json
import shutil
from dataclasses import field, make_dataclass, replace

import numpy as np
import pandas as pd
import pytest

from ssah.claims import PLACE, lab_of, profiles, results_of
from ssah.errors import NotStored, SsahError
from ssah.inputs import archives
from ssah.lab import Lab, Need, Result, Store, code, keys, machine, step, steps


class Toys:
    """Three toy steps in place of the real ones: numbers -> doubled (leaves a file) -> total (reads a section). `ran` notes what ran."""

    def __init__(self):
        self.ran: list[str] = []
        self.start, self.broken = 1, False
        step(version=1)(self.numbers)
        step(version=1, needs=lambda profile, factor=2: [Need("numbers")])(self.doubled)
        step(version=1, reads=("calibration",), needs=lambda profile: [Need("doubled", {"factor": 2}, artifact=True)])(self.total)

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
    monkeypatch.setattr(steps, "STEPS", {})
    # the real one reads the definitions of a package
    monkeypatch.setattr(code, "fingerprint", lambda run: "code")
    return Toys()


@pytest.fixture
def lab(tmp_path):
    """Makes labs on one folder; each is as a new session."""
    def make(prompts: int = 10, **options) -> Lab:
        profile = replace(profiles.SMOKE, calibration=replace(profiles.SMOKE.calibration, prompts=prompts))
        return lab_of(profile, root=tmp_path / "results", **options)
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
    monkeypatch.setattr(code, "fingerprint", lambda run: "new" if run.__name__ == "doubled" else "code")
    state, _, why = lab().look("doubled", {"factor": 2})
    assert (state, why) == ("stale", "the code behind it changed")
    lab().get("total")
    assert toys.ran == ["doubled"]


def test_committed_results_stay_readable_while_code_is_edited(toys, lab, monkeypatch, tmp_path):
    """As in an exercise; that it changed is said by `code_changed`, which a test asks."""
    result = lab().get("numbers")
    monkeypatch.setattr(code, "fingerprint", lambda run: "new")
    one = lab(compute=False)
    one.place = replace(one.place, committed=tmp_path)
    assert one.look("numbers", {})[0] == "ok" and one.get("numbers").content == result.content
    assert one.code_changed(result)


def test_a_step_that_fails_leaves_the_former_artifacts(toys, lab):
    lab().get("total")
    folder = lab().artifact("doubled", {"factor": 2})
    toys.broken = True
    toys.doubled = None
    with pytest.raises(KeyboardInterrupt):
        lab(recompute=["total"]).get("total")
    assert (folder / "x.txt").read_text() == "2 4 6" and [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_after_an_interruption_what_is_computed_is_told_again(toys, lab):
    """No bar is left behind, on which later steps would be written."""
    one = lab()
    toys.broken = True
    with pytest.raises(KeyboardInterrupt):
        one.require([Need("total")])
    assert one.bar is None


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
    steps.STEPS[name] = replace(steps.STEPS[name], version=2)
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
    @step(version=1)
    def model(context):
        (context.folder / "bits.txt").write_text(str(toys.start))
        return Result({"bits": toys.start})

    @step(version=1, needs=lambda profile: [Need("model", artifact=True)])
    def scores(context):
        return Result({"of": int((context.artifact("model") / "bits.txt").read_text())})

    @step(version=1, needs=lambda profile: [Need("scores"), Need("model", artifact=True)])
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
    @step(version=1)
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
    @step(version=1, needs=lambda profile: [Need("doubled", {"factor": 2})])
    def hasty(context):
        return Result({"x": context.get("doubled", factor=2).arrays["x"].tolist(), "folder": str(context.artifact("doubled", factor=2))})

    with pytest.raises(KeyError):
        lab().get("hasty")


@pytest.mark.parametrize("spoil, reason", [
    (lambda toys, root: None, "not in the store"),
    (lambda toys, root: steps.STEPS.update(numbers=replace(steps.STEPS["numbers"], version=2)), "version changed"),
    (lambda toys, root: (root / "numbers" / "result.npz").write_bytes(b""), "damaged"),
], ids=["missing", "stale", "corrupt"])
def test_a_lab_that_may_not_compute_names_the_remedy(toys, lab, tmp_path, spoil, reason):
    if reason != "not in the store":
        lab().get("numbers")
    toys.ran.clear()
    spoil(toys, tmp_path / "results")
    reader = lab(compute=False)
    reader.place = replace(reader.place, plan=lambda profile, n_seeds: [Need("numbers")])
    with pytest.raises(SsahError, match=f"numbers: .*{reason}.*`ssah recompute numbers --profile smoke --in-place`"):
        reader.get("numbers")
    assert toys.ran == []


def test_what_no_plan_has_is_said_instead_of_a_command_that_would_refuse(planned):
    with pytest.raises(NotStored, match="seed=7,name=a.: not in the store, and this profile does not plan it"):
        planned(compute=False).get("row", seed=7, name="a")
    with pytest.raises(NotStored, match="this profile plans no result of total; `ssah status --profile smoke`"):
        planned().facts("total")


def test_where_nothing_can_be_written_nothing_is_computed(planned, tmp_path):
    (tmp_path / "results").write_text("no folder")
    with pytest.raises(SsahError, match="cannot be written to .*results/row"):
        planned().get("row", seed=1, name="a")
    assert planned.ran == []


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
    assert set(provenance["packages"]) == set(PLACE.packages)
    assert {"seconds", "date", "commit", "device", "peak_memory_gib"} <= set(provenance)


@pytest.mark.parametrize("commit, clean, said", [
    ("0123456789abcdef", True, "0123456"), ("0123456789abcdef", False, "0123456 + changes"),
    (None, False, "unknown")])
def test_a_commit_is_said_in_short(commit, clean, said):
    assert machine.in_short({"commit": commit, "clean": clean}) == said


def test_results_of_other_profiles_never_reach_the_repository(tmp_path):
    assert results_of(profiles.SMOKE) == tmp_path / "cache" / "results" / "smoke"
    assert results_of(profiles.DEFAULT).is_relative_to(archives.REPOSITORY / "data" / "results")


def test_results_in_another_folder_have_artifacts_of_their_own(toys, lab, tmp_path):
    """So that a rerun beside the committed results never replaces what those were made with."""
    first, other = lab(), lab_of(lab().profile, root=tmp_path / "rerun")
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
    with pytest.raises(SsahError, match="ablation takes seed, condition; missing: condition"):
        lab_of(profiles.SMOKE).get("ablation", seed=0)
    with pytest.raises(SsahError, match="unknown role 'alinged'; known: base, aligned, unaligned"):
        lab_of(profiles.SMOKE).get("checkpoint", role="alinged", seed=0)


# ---- frames and facts ------------------------------------------------------------------------

@pytest.fixture
def planned(toys, lab, monkeypatch):
    """A lab of two seeds whose step `row` has a table, scalars and other values."""
    ran = []

    @step(version=1)
    def row(context, seed, name="a"):
        ran.append((seed, name))
        table = pd.DataFrame({"id": ["x", "y"], "value": [seed, 10 * seed]})
        return Result({"mean": 5.5 * seed, "ok": True, "list": [1, 2]}, {"rows": table})

    def make(**options):
        one = lab(**options)
        needs = [Need("row", {"seed": seed, "name": name}) for seed in (1, 2) for name in "ab"]
        one.place = replace(one.place, plan=lambda profile, n_seeds: needs)
        return one

    make.ran = ran
    return make


def test_a_frame_has_all_stored_planned_runs_with_parameters_as_columns(planned):
    planned().get("row", seed=1, name="a")
    planned().get("row", seed=2, name="b")
    planned().get("row", seed=3, name="a")      # not planned
    frame = planned().frame("row", "rows")
    assert frame.to_dict("list") == {"id": ["x", "y", "x", "y"], "value": [1, 10, 2, 20],
                                     "seed": [1, 1, 2, 2], "name": ["a", "a", "b", "b"]}
    facts = planned().facts("row")
    assert facts.to_dict("list") == {"seed": [1, 2], "name": ["a", "b"], "mean": [5.5, 11.0],
                                     "ok": [True, True]}


def test_frames_compute_nothing(planned):
    for read in (lambda one: one.frame("row", "rows"), lambda one: one.facts("row")):
        with pytest.raises(SsahError, match="no planned result of row is stored .* `ssah recompute row"):
            read(planned())
    assert planned.ran == []


def test_a_frame_is_the_callers_own(planned):
    one = planned()
    one.get("row", seed=1, name="a")
    frame = one.frame("row", "rows")
    frame["value"] = 0
    assert one.frame("row", "rows")["value"].tolist() == [1, 10]


def test_a_frame_has_what_another_lab_stored_after_the_first_reading(planned):
    reader = planned()
    planned().get("row", seed=1, name="a")
    assert reader.frame("row", "rows")["value"].tolist() == [1, 10]
    planned().get("row", seed=2, name="a")
    assert reader.frame("row", "rows")["value"].tolist() == [1, 10, 2, 20]


def test_what_is_made_of_results_is_formed_once_until_a_result_is_computed(planned):
    formed = []

    def total(lab, name):
        formed.append(name)
        return int(lab.frame("row", "rows").query("name == @name")["value"].sum())

    one = planned()
    with pytest.raises(SsahError, match="no planned result"):
        one.once(total, name="a")
    one.get("row", seed=1, name="a")
    assert [one.once(total, name="a"), one.once(total, name="a")] == [11, 11]
    assert one.once(total, name="b") == 0
    assert formed == ["a", "a", "b"]        # the first of them raised, and was not kept
    one.get("row", seed=2, name="a")
    assert one.once(total, name="a") == 33


def test_an_unknown_table_is_refused_with_the_known_ones(planned):
    planned().get("row", seed=1, name="a")
    with pytest.raises(SsahError, match="row has no table 'columns'; it has: rows"):
        planned().frame("row", "columns")
    with pytest.raises(SsahError, match="unknown step"):
        planned().facts("rows")


def test_what_is_stale_or_damaged_is_left_out_and_said(planned, tmp_path, capsys):
    for seed in (1, 2):
        planned().get("row", seed=seed, name="a")
    (tmp_path / "results" / "row" / "seed=1,name=a.rows.parquet").write_bytes(b"")
    capsys.readouterr()
    assert planned().frame("row", "rows")["seed"].unique().tolist() == [2]
    assert "left out: row(seed=1,name=a) is corrupt" in capsys.readouterr().err
    damaged, whole, never_run = (Need("row", {"seed": seed, "name": "a"}) for seed in (1, 2, 3))
    assert planned().has_all([whole]) and not planned().has_all([whole, never_run])
    assert capsys.readouterr().err == ""        # there is nothing to tell of what never ran
    assert not planned().has_all([whole, damaged])
    assert "left out: row(seed=1,name=a) is corrupt" in capsys.readouterr().err
    steps.STEPS["row"] = replace(steps.STEPS["row"], version=2)
    with pytest.raises(SsahError, match="no planned result"):
        planned().facts("row")
    assert "left out: row(seed=2,name=a) is stale" in capsys.readouterr().err


def test_a_column_of_the_tables_own_is_kept(toys, lab):
    @step(version=1)
    def named(context, seed):
        return Result(tables={"rows": pd.DataFrame({"seed": ["of the table"]})})

    one = lab()
    one.place = replace(one.place, plan=lambda profile, n_seeds: [Need("named", {"seed": 0})])
    one.get("named", seed=0)
    assert one.frame("named", "rows")["seed"].tolist() == ["of the table"]


def test_looking_computes_nothing(toys, lab):
    """Not even the inputs of what is looked at."""
    lab().get("total")
    shutil.rmtree(lab().store.root / "numbers")
    toys.ran.clear()
    state, _, why = lab().look("total", {})
    assert (state, why) == ("stale", "doubled(factor=2): numbers: not in the store")
    assert toys.ran == []


# ---- keys that forgive -----------------------------------------------------------------------

def with_field(section, name: str, default, value):
    """The section with one more field: of a class that has it with a default."""
    longer = make_dataclass(type(section).__name__, [(name, type(default), field(default=default))],
                            bases=(type(section),), frozen=True)
    values = {one: getattr(section, one) for one in section.__dataclass_fields__}
    return longer(**values, **{name: value})


@pytest.mark.parametrize("value, ran", [(7, []), (8, ["total"])])
def test_a_field_added_later_counts_only_where_it_is_not_at_its_default(toys, lab, value, ran):
    before = lab().get("total")
    toys.ran.clear()
    one = lab()
    one.profile = replace(one.profile,
                          calibration=with_field(one.profile.calibration, "later", 7, value))
    assert one.look("total", {})[0] == ("stale" if ran else "ok")
    after = one.get("total")
    assert toys.ran == ran
    assert (after.key == before.key) == (not ran)


def test_a_field_that_was_recorded_counts_at_its_default_too(toys, lab):
    """Made when the field was there with another value: to go back to the default is a change."""
    one = lab()
    one.profile = replace(one.profile,
                          calibration=with_field(one.profile.calibration, "later", 7, 8))
    one.get("total")
    back = lab()
    back.profile = replace(back.profile,
                           calibration=with_field(back.profile.calibration, "later", 7, 7))
    assert back.look("total", {})[0] == "stale"


def read_only(toys, *fields: str) -> None:
    """Let `total` read nothing but these fields of the section `calibration`."""
    reads = tuple(f"calibration.{name}" for name in fields)
    steps.STEPS["total"] = replace(steps.STEPS["total"], reads=reads)


def test_a_step_that_names_fields_does_not_see_the_others(toys, lab):
    read_only(toys, "prompts")
    profile = lab().profile
    seen = steps.sections_read(steps.STEPS["total"], profile)["calibration"]
    assert vars(seen) == {"prompts": profile.calibration.prompts}
    assert steps.fields_read(steps.STEPS["total"]) == {"calibration": ("prompts",)}


@pytest.mark.parametrize("changed, state", [("answer_tokens", "ok"), ("prompts", "stale")])
@pytest.mark.parametrize("made_by_the_whole", [True, False])
def test_only_the_fields_that_a_step_names_make_it_stale(toys, lab, changed, state,
                                                         made_by_the_whole):
    """Whether the result was made when it read the whole section, or just these fields."""
    if not made_by_the_whole:
        read_only(toys, "prompts")
    lab().get("total")
    read_only(toys, "prompts")
    one = lab()
    one.profile = replace(one.profile,
                          calibration=replace(one.profile.calibration, **{changed: 3}))
    assert one.look("total", {})[0] == state


def test_the_key_of_a_committed_result_is_pinned():
    """A golden number: whatever changes here makes all committed results stale."""
    facts = json.loads((results_of(profiles.DEFAULT) / "splits" / "result.json").read_text())
    found = keys.key(steps.STEPS["splits"], {}, profiles.DEFAULT, {}, archives.fingerprint,
                     made_with=facts["provenance"]["sections"])
    assert found == facts["key"]
