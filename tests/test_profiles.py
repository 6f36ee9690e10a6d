"""Profiles by name, with settings from outside, and a ready-made aligned model."""

import re
from dataclasses import replace

import pytest

import ssah
from ssah.claims import lab_of, load_profile, plan, results_of
from ssah.claims.profiles import DEFAULT, SECTIONS, SMOKE, absolute, with_settings
from ssah.errors import SsahError
from ssah.lab import STEPS
from ssah.lab.steps import fields_read


def test_settings_make_another_profile_with_results_of_its_own():
    longer = load_profile("default+alignment.epochs=4")
    assert longer.alignment.epochs == 4 and longer.alignment == replace(DEFAULT.alignment, epochs=4)
    assert longer.name != "default" and results_of(longer) != results_of(DEFAULT)
    assert longer.option == " --profile default+alignment.epochs=4"
    assert load_profile(longer.option.removeprefix(" --profile ")) == longer
    assert load_profile("default+alignment.epochs=5").name != longer.name


def test_settings_that_change_nothing_leave_the_committed_results():
    assert load_profile("default+alignment.epochs=2") == DEFAULT


@pytest.mark.parametrize("setting, section, field, value", [
    ("alignment.lr=1e-3", "alignment", "lr", 1e-3), ("budget.prefills=1,2", "budget", "prefills", (1, 2)),
    ("data.benign=alpaca,mine.json", "data", "benign", ("alpaca", "mine.json")),
    ("freezing.shares=0.1,0.2,0.3", "freezing", "shares", (0.1, 0.2, 0.3)),
    ("data.evaluate_only=", "data", "evaluate_only", ())])
def test_values_are_read_as_what_they_replace(setting, section, field, value):
    found = getattr(getattr(load_profile(f"default+{setting}"), section), field)
    assert found == value and type(found) is type(value)


def test_a_toml_file_is_a_profile(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('profile = "smoke"\nseeds = [0, 1]\n[alignment]\nepochs = 3\nlr = 1e-3\n[budget]\nprefills = [1, 2]\n')
    profile = load_profile(str(path))
    expected = replace(SMOKE, name=profile.name, chosen=str(path), seeds=(0, 1),
                       alignment=replace(SMOKE.alignment, epochs=3, lr=1e-3),
                       budget=replace(SMOKE.budget, prefills=(1, 2)))
    assert profile == expected
    path.write_text("not toml")
    with pytest.raises(SsahError, match="mine.toml cannot be read"):
        load_profile(str(path))


@pytest.mark.parametrize("name, message", [
    ("default+alignment.epoch=4", "unknown setting 'alignment.epoch'; alignment has: refusals, benign, "),
    ("default+align.epochs=4", "unknown setting 'align.epochs'; sections: model, data, alignment, "),
    ("default+alignment.epochs=many", "alignment.epochs takes int; got 'many'"),
    ("default+alignment.epochs=1.5", "alignment.epochs takes int; got '1.5'"),
    ("default+budget.prefills=1,x", "budget.prefills takes a list of int"),
    ("default+alignment.epochs", "options are name=value; got 'alignment.epochs'"),
    ("default+seeds=", "seeds must name one seed or more"),
    ("model:a,foo=b", "unknown option foo of the profile 'model:a,foo=b'; known: aligned=CHAT"),
    ("model:", "unknown profile 'model:'; known: default, smoke, organism, smollm2-135m, "),
    ("none.toml", "none.toml cannot be read: .*No such file")])
def test_what_cannot_be_meant_is_refused(name, message):
    with pytest.raises(SsahError, match=message):
        load_profile(name)


@pytest.mark.parametrize("name, message", [
    ("model:./no/such", "no model './no/such': there is no such path; give a hub id"),
    ("model:a/b,aligned=/no/such", "no model '/no/such': there is no such path"),
    ("pair:a/b,./no/such", "no model './no/such'"),
    ("model:advbench", "'advbench' is a set of prompts, not a model")])
def test_a_model_that_cannot_be_is_refused_before_anything_is_downloaded(name, message, capsys):
    from ssah import cli

    with pytest.raises(SsahError, match=message):
        lab_of(load_profile(name))
    for command in (["run", "02", "--recompute"], ["status"], ["recompute", "splits"]):
        assert cli.main([*command, "--profile", name]) == 2
        assert re.search(message, capsys.readouterr().err)


def test_paths_are_meant_from_where_the_command_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "chat"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine.toml").write_text("seeds = [0]")
    assert absolute("model:base,aligned=chat+seeds=0") == f"model:{tmp_path}/base,aligned={tmp_path}/chat+seeds=0"
    assert absolute("mine.toml+seeds=1") == f"{tmp_path}/mine.toml+seeds=1"
    assert absolute("model:owner/name@main") == "model:owner/name@main"
    assert absolute("smoke+model.name=base+seeds=0") == f"smoke+model.name={tmp_path}/base+seeds=0"


def test_the_path_of_a_model_may_have_a_plus_and_no_comma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b").mkdir()
    profile = load_profile("model:a+b+seeds=1")
    assert profile.model.name == f"{tmp_path}/a+b" and profile.seeds == (1,)
    with pytest.raises(SsahError, match="got 'd' .a comma begins the next option"):
        load_profile("model:./c,d")


def test_a_model_of_a_toml_file_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "there" / "mine").mkdir(parents=True)
    (tmp_path / "there" / "it.toml").write_text('profile = "smoke"\nmodel.name = "mine"')
    monkeypatch.chdir(tmp_path)
    assert load_profile("there/it.toml").model.name == f"{tmp_path}/there/mine"


def test_a_ready_made_aligned_model_is_not_trained():
    """The paper's own setting: of the pair only the unaligned one is still made from the base."""
    ours, theirs = (plan(load_profile(name)) for name in ("model:a/b", "model:a/b,aligned=c/d"))
    trained = {need.label for need in theirs if need.step == "checkpoint"}
    assert trained == {f"checkpoint(role=unaligned,seed={seed})" for seed in (0, 1, 2)}
    assert {need.label for need in ours} - {need.label for need in theirs} == {
        f"checkpoint(role=aligned,seed={seed})" for seed in (0, 1, 2)}


def test_which_aligned_model_is_in_the_keys():
    """Two profiles that differ in it alone share no result that reads a model."""
    profiles = [load_profile(name) for name in ("model:a/b", "model:a/b,aligned=c/d", "model:a/b,aligned=e/f")]
    assert len({profile.name for profile in profiles}) == 3
    assert len({str(profile.model) for profile in profiles}) == 3
    assert all("c/d" in profile.model.sources() for profile in profiles[1:2])


def test_sections_are_all_that_steps_read():
    assert set(SECTIONS) == {section for step in STEPS.values() for section in fields_read(step)}


def test_a_field_that_a_step_reads_is_one_of_its_section():
    for step in STEPS.values():
        for section, names in fields_read(step).items():
            assert set(names) <= set(SMOKE.__dataclass_fields__[section].default_factory
                                     .__dataclass_fields__), step.name


def test_results_of_a_profile_of_ones_own_have_one_place(tmp_path, monkeypatch):
    """What `run --recompute` writes is what `status`, `verify` and `run` read."""
    monkeypatch.setenv("SSAH_RECOMPUTED", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    profile = load_profile("smoke+seeds=0")
    writes = ssah.open_lab("smoke+seeds=0", recompute=True, n_seeds=1)
    reads = ssah.open_lab("smoke+seeds=0", n_seeds=1)
    assert writes.store == reads.store == lab_of(profile).store
    assert writes.compute and not reads.compute
    with pytest.raises(SsahError, match=r"splits: not in the store; set recompute = True \(or `ssah run --recompute "):
        reads.get("splits")
    writes.get("splits")
    assert ssah.open_lab("smoke+seeds=0", n_seeds=1).get("splits").values


def test_settings_of_the_same_value_are_the_same_profile():
    assert with_settings(SMOKE, {"alignment.lr": "0.005"}, "x") is SMOKE


def test_a_lab_has_all_seeds_of_its_profile_unless_fewer_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    for name in ("default", "organism", "qwen-0.5b"):
        assert ssah.open_lab(name).seeds == load_profile(name).seeds
    assert ssah.open_lab(n_seeds=1).seeds == (0,)
