"""The command line: one line and an exit code for every bad input, and the result commands on the smoke profile."""

import errno
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_runs_of_notebooks import write_notebook

from ssah import SsahError, cli
from ssah.claims import lab_of, plan, verify
from ssah.claims.profiles import SMOKE, absolute, load_profile
from ssah.cli import estimates, places
from ssah.inputs import archives
from ssah.lab import Need, notebooks, slug

pytestmark = pytest.mark.slow


@pytest.fixture
def two_notebooks(tmp_path, monkeypatch):
    """Two notebooks instead of the committed ones."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder, "01_a", "print(n_seeds)")
    write_notebook(folder, "02_b", "raise KeyError('x')")
    monkeypatch.setattr(places, "NOTEBOOKS", folder)
    return folder


# ---- errors ----------------------------------------------------------------------------------

@pytest.mark.parametrize("command, message", [
    ("run 07", "no notebook 07 in"), ("run 01 -p sead=3", "has no parameter 'sead'; it has: profile, recompute"),
    ("run -p n_seeds=3x", "'n_seeds' takes int; got '3x'"), ("run -p n_seeds", "-p takes name=value; got 'n_seeds'"),
    ("run --profile huge", "unknown profile 'huge'; known: default, smoke, organism, smollm2-135m, "),
    ("status --profile huge", "unknown profile 'huge'"), ("recompute ablatoin", "unknown step 'ablatoin'; known: splits, "),
    ("recompute budget -p seed=0 -p seed=1", "-p gives a name twice"), ("run -p n_seeds=4", "n_seeds is 1 to 3 for this profile; got 4"),
    ("recompute scan --profile pair:o/a,o/b", "this profile has no results of scan"), ("recompute scan -p seed=7", "no planned result of scan has seed=7; planned: seed=0"),
    ("run 01 --profile organism", "notebook 01 reads no results of 'organism'; of such a profile run 07"),
    ("run 02 --profile pair:o/a,o/b", "of such a profile run 01, and 02 without --profile"),
    ("fetch --offline", "is not in")])
def test_bad_input_gives_one_line_that_names_the_remedy(two_notebooks, capsys, command, message):
    assert cli.main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_profile_of_one_seed_is_read_with_it(two_notebooks, tmp_path, monkeypatch):
    write_notebook(two_notebooks, "07_c", "assert n_seeds == 1")
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path / "figures"))
    assert cli.main(["run", "--profile", "organism", "--into", str(tmp_path / "build")]) == 0


def test_debug_shows_the_traceback_and_global_options_stand_anywhere(two_notebooks):
    for command in ("--debug run 07", "run 07 --debug"):
        with pytest.raises(SsahError):
            cli.main(command.split())


@pytest.mark.parametrize("raised, code, message", [
    (OSError(errno.ENOSPC, "No space left", "data.bin"), 2, "error: the disk is full (data.bin)"),
    (PermissionError(errno.EACCES, "no", "build"), 2, "error: [Errno 13] no: 'build'"),
    (NotADirectoryError(20, "Not a directory", "README.md"), 2, "error: [Errno 20] Not a directory: 'README.md'"),
    (KeyboardInterrupt(), 130, "interrupted; finished results are kept; run the same command to go on")])
def test_a_full_disk_and_ctrl_c_give_one_line(monkeypatch, capsys, raised, code, message):
    def fail():
        raise raised
    monkeypatch.setattr(archives, "cache_dir", fail)
    assert cli.main(["clean"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_other_errors_are_not_hidden(monkeypatch):
    def fail():
        raise OSError(errno.EIO, "no")
    monkeypatch.setattr(archives, "cache_dir", fail)
    with pytest.raises(OSError, match="no") as raised:
        cli.main(["clean"])
    assert raised.value.errno == errno.EIO


# ---- notebooks -------------------------------------------------------------------------------

def test_run_reports_failure_and_never_imports_torch(two_notebooks, tmp_path):
    script = ("import sys; from ssah import cli; from ssah.cli import places; from pathlib import Path; "
              f"places.NOTEBOOKS = Path({str(two_notebooks)!r}); code = cli.main(sys.argv[1:]); "
              "assert 'torch' not in sys.modules; sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", script, "run", "--into", str(tmp_path / "build"), "-p", "n_seeds=2"],
                          capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "failed: KeyError: 'x'" in done.stdout and "02_b: KeyError" in done.stdout
    assert (tmp_path / "build" / "html" / "02.html").exists()


def test_rerun_prints_an_estimate_and_recomputes_one_seed_or_all(two_notebooks, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(notebooks, "run_notebooks", lambda paths, parameters, into, **_: asked.append(parameters) or [])
    assert cli.main(["rerun", "--profile", "smoke", "--into", str(tmp_path)]) == 0
    assert cli.main(["rerun", "--all", "--profile", "smoke", "--into", str(tmp_path)]) == 0
    assert asked == [{"profile": "smoke", "recompute": True, "n_seeds": n} for n in (1, len(SMOKE.seeds))]
    core_only, everything = (line for line in capsys.readouterr().out.splitlines() if "to compute, about" in line)
    assert int(core_only.split()[0]) < int(everything.split()[0])


def test_the_estimate_adds_what_the_steps_declare():
    needs = [Need("budget", {"seed": 0, "trained": "full"})] * 3
    assert estimates.estimate(load_profile("default"), needs) == "about 45 min on two cores"
    assert estimates.estimate(load_profile("default"), needs * 4) == "about 3.0 hours on two cores"
    another = estimates.estimate(load_profile("model:owner/name"), needs)
    assert another == "about 45 min on two cores for a model of 135M weights, in proportion for others"


def test_an_estimate_computes_nothing_and_adds_up(capsys, monkeypatch):
    monkeypatch.setattr(notebooks, "run_notebooks", lambda *_, **__: pytest.fail("it ran"))
    assert cli.main(["rerun", "--all", "--estimate", "--profile", "qwen-1.5b", "--into", "nowhere"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("step "))
    rows = [line.split("  ") for line in lines[head + 1:-1]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    total = [cell.strip() for cell in lines[-1].split("  ") if cell.strip()]
    assert total[0] == "all" and int(total[1]) == sum(int(count) for _, count, *_ in cells)
    assert float(total[2]) == pytest.approx(sum(float(minutes) for *_, minutes, _ in cells), abs=len(cells))


# ---- results ---------------------------------------------------------------------------------

def test_status_and_recompute(capsys):
    assert cli.main(["status", "--profile", "smoke"]) == 1
    assert "0 ok" not in capsys.readouterr().out and not lab_of(SMOKE).store.slugs()
    for _ in range(2):      # the second time it is there, and made again all the same
        assert cli.main(["recompute", "checkpoint", "-p", "role=aligned", "-p", "seed=1", "--profile", "smoke",
                         "--in-place"]) == 0
        assert "checkpoint(role=aligned,seed=1)" in capsys.readouterr().err
    assert cli.main(["status", "--profile", "smoke"]) == 1
    report = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in report.splitlines()}
    assert " ok " in lines["checkpoint(role=aligned,seed=1)"] and " missing " in lines["checkpoint(role=aligned,seed=0)"]
    assert "3 ok" in report.splitlines()[-1]      # splits and base_answers were needed


@pytest.mark.slow      # it computes a whole budget, and all upstream of it
def test_recompute_runs_what_was_asked_for_and_not_what_it_is_compared_with(capsys):
    cli.main(["recompute", "budget", "-p", "seed=0", "-p", "trained=RU", "--profile", "smoke", "--in-place"])
    assert "budget(seed=0,trained=full)" in capsys.readouterr().err
    cli.main(["recompute", "budget", "-p", "seed=0", "-p", "trained=RU", "--profile", "smoke", "--in-place"])
    again = capsys.readouterr().err
    assert "budget(seed=0,trained=RU)" in again and "trained=full" not in again


def test_paths_of_models_are_meant_from_where_the_command_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my model").mkdir()
    whole = str(tmp_path / "my model")
    assert absolute("paper:my model") == f"paper:{whole}" and absolute("pair:my model/,owner/other") == f"pair:{whole},owner/other"
    assert absolute("paper:owner/model@main") == "paper:owner/model@main" and absolute("smoke") == "smoke"
    profile = load_profile("paper:my model/")
    assert profile.model.label == "my model" and profile.option == f" --profile '{f'paper:{whole}'}'"


def test_a_pair_has_results_for_one_notebook_alone(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(notebooks, "run_notebooks", lambda paths, parameters, into, **_: asked.append([p.stem for p in paths]) or [])
    cli.main(["run", "--profile", "pair:o/a,o/b", "--into", str(tmp_path)])
    cli.main(["run", "02", "--profile", "pair:o/a,o/b", "--into", str(tmp_path)])
    assert asked == [["01_reasoning_direction"]]        # the other is refused, in one line


def test_recompute_leaves_the_committed_results_alone(tmp_path):
    """Without --in-place a step is made under --into, where `ssah run --recompute` finds it."""
    assert cli.main(["recompute", "splits", "--profile", "smoke", "--into", str(tmp_path)]) == 0
    assert (tmp_path / "results" / "smoke" / "splits" / "result.json").exists()
    assert not lab_of(SMOKE).store.slugs()


def test_recompute_and_status_meet_where_results_are(tmp_path, capsys):
    """What `recompute` writes `status` sees: in the profile's own place, or in the folder that both are given."""
    elsewhere = ["--into", str(tmp_path)]
    for option in ([], elsewhere):
        assert cli.main(["recompute", "splits", "--profile", "smoke", *option]) == 0
        capsys.readouterr()
        cli.main(["status", "--profile", "smoke", *option])
        assert "1 ok" in capsys.readouterr().out.splitlines()[-1]


def test_the_estimate_of_a_step_has_what_is_missing_upstream(capsys):
    """Twelve minutes of `budget` alone, more with what it stands on."""
    cli.main(["recompute", "base_answers", "--profile", "smoke"])
    assert "1 results of base_answers and 1 missing upstream" in capsys.readouterr().out


def test_settings_are_given_like_parameters(monkeypatch, capsys):
    assert cli.main(["status", "--profile", "smoke", "-p", "alignment.epochs=7"]) == 1
    assert "189 missing" in capsys.readouterr().out
    assert cli.main(["status", "--profile", "smoke", "-p", "alignment.epoch=7"]) == 2
    assert "alignment has: refusals" in capsys.readouterr().err


def test_without_a_command_there_is_help_and_recompute_lists_its_steps(capsys):
    assert cli.main([]) == 0
    assert "verify" in capsys.readouterr().out
    assert cli.main(["recompute", "help"]) == 0
    listed = capsys.readouterr().out
    assert "ablation" in listed and "2.5" in listed
    with pytest.raises(SystemExit):
        cli.main(["recompute", "--help"])
    assert listed in capsys.readouterr().out


def test_verify_says_what_it_will_download_and_how_long_it_takes(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(verify, "verify", lambda profile, depth, into: asked.append(depth) or 0)
    for option in ([], ["--spot"], ["--full"]):
        cli.main(["verify", "--into", str(tmp_path), *option])
    assert asked == ["quick", "spot", "full"]
    quick, _, spot, _, full, _ = capsys.readouterr().out.splitlines()
    assert "189 stored results" in quick and "nothing to download; about 19 s" in quick
    assert "up to 177 MB to download" in spot and "about 5 minutes" in spot
    assert "up to 177 MB to download" in full


@pytest.mark.parametrize("here, minutes, known", [
    ("cpu", 3.0, "measured"), ("cuda", 0.5, "measured"), ("mps", 0.5, "measured")])
def test_measured_are_the_minutes_of_such_a_machine(monkeypatch, here, minutes, known):
    """Two results made on CPUs, in two and in four minutes, and one on a GPU in half a minute."""
    monkeypatch.setenv("SSAH_DEVICE", here)
    made = [{"device": "CPU, 2 threads", "seconds": 120}, {"device": "CPU, 1 threads", "seconds": 240},
            {"device": "NVIDIA H200", "seconds": 30}]
    runs = [({}, SimpleNamespace(provenance=facts)) for facts in made]
    lab = SimpleNamespace(stored=lambda step: runs)
    found = estimates.minutes_of.__wrapped__("guard", load_profile("smollm2-135m"), lab)
    assert found == (minutes, known)


def test_minutes_of_a_full_check_are_those_that_the_stored_results_took(one_seed, tmp_path):
    lab = lab_of(one_seed, compute=False)
    needs = [Need("ablation", params) for params, _ in lab.stored("ablation")]
    took = 0.0
    for need in lab_of(one_seed, root=tmp_path).to_compute(needs):
        took += lab.get(need.step, **need.params).provenance["seconds"]
    found = verify.retraining_minutes(lab, lab_of(one_seed, root=tmp_path))
    assert found == pytest.approx(took / 60) and took > 0
    assert verify.retraining_minutes(lab, lab) == 0         # all of it is there


def test_status_tells_corrupt_and_what_stands_on_it(capsys):
    cli.main(["recompute", "base_answers", "--profile", "smoke", "--in-place"])
    store = lab_of(SMOKE).store
    (store.root / "splits" / "result.splits.parquet").write_bytes(b"")
    assert cli.main(["status", "--profile", "smoke"]) == 1
    states = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert states["splits"] == "corrupt" and states["base_answers"] == "stale"


@pytest.fixture
def one_seed(smoke_seed):
    """A smoke profile of one seed, with a copy of all its results: artifacts are not among them."""
    profile = replace(SMOKE, seeds=(0,))
    # another process may be writing results of other seeds meanwhile
    shutil.copytree(smoke_seed / "results" / "smoke", lab_of(profile).store.root,
                    ignore=shutil.ignore_patterns(".writing-*"))
    return profile


def test_verify_passes_on_what_was_just_made_and_finds_what_was_changed(one_seed, tmp_path, capsys):
    assert verify.verify(one_seed, depth="full", into=tmp_path) == 0
    assert "FAIL" not in capsys.readouterr().out
    lab, params = lab_of(one_seed), {"seed": 0, "variation": "scale z"}
    kept = lab.get("variation", **params)
    lab.store.save("variation", slug(params), replace(kept, arrays={"scu": kept.arrays["scu"][::-1].copy()}))
    assert verify.verify(one_seed, depth="quick", into=tmp_path) == 1
    assert "FAIL  labels, variation scale z" in capsys.readouterr().out
    (lab.store.root / "shares" / "result.json").unlink()
    assert verify.verify(one_seed, depth="quick", into=tmp_path) > 1
    assert "the other checks need results in order" in capsys.readouterr().out


def test_the_plan_lists_every_result_once_after_what_it_needs():
    planned = [(need.step, slug(need.params)) for need in plan(SMOKE)]
    assert len(set(planned)) == len(planned)
    assert planned.index(("splits", "result")) < planned.index(("checkpoint", "role=aligned,seed=0")) \
        < planned.index(("attribution", "seed=0")) < planned.index(("ablation", "seed=0,condition=SCU"))


def test_accept_says_what_changed_and_asks_for_a_reason(tmp_path, monkeypatch, capsys):
    """On the committed results, with no line of accepted changes."""
    from ssah import claims

    monkeypatch.setattr(claims, "PLACE", replace(claims.PLACE, accepted=tmp_path / "none.json"))
    assert cli.main(["accept", "splits"]) == 2
    assert "the code behind splits changed; say why no result does: --reason" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


# ---- the cache -------------------------------------------------------------------------------

def test_clean_tells_the_size_and_deletes_only_when_told(capsys):
    file = archives.cache_dir() / "artifacts" / "weights"
    file.parent.mkdir()
    file.write_bytes(np.zeros(2**20, np.uint8).tobytes())
    with (archives.cache_dir() / "thesis").open("wb") as other:
        other.truncate(2**30)                               # not ours: neither counted nor deleted
    assert cli.main(["clean"]) == 0 and file.exists()       # no terminal, so nobody could say yes
    told = capsys.readouterr().out
    assert "--yes" in told and "0.00 GiB" in told
    assert cli.main(["clean", "--yes"]) == 0 and not file.exists()
