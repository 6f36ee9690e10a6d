"""Fingerprints by reach on small made-up packages, and accepting a change by running it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssah.claims import RESULTS, TRIALS
from ssah.claims import trial as trial_on
from ssah.errors import SsahError
from ssah.lab import STEPS, Lab, Need, Place, Result, code
from ssah.lab.accept import Trial, accept, compare, difference, last_valid_commits, needs_a_line
from ssah.lab.code import Package, Reference
from ssah.lab.steps import Step

pytestmark = pytest.mark.slow

FILES = {
    "toy/__init__.py": '"""A package."""\n',
    "toy/steps.py": '''"""Steps."""
import numpy as np

from . import tools
from .deep import words
from .numbers import RATE as rate, scaled

@step(version=1, minutes=3)
def shown(context, seed: int) -> Result:
    """What it does."""
    x = np.arange(seed)          # a comment
    return tools.doubled(x) + scaled(x) * rate + words.length("text")

def unused():
    return 1
''',
    "toy/tools.py": "from .numbers import OFFSET\n\ndef doubled(x):\n    return 2 * x + OFFSET\n\ndef other(x):\n    return x\n",
    "toy/numbers.py": "OFFSET, RATE = 3, 0.5\n\ndef scaled(x):\n    from .tools import other\n\n    return other(x)\n",
    "toy/deep/__init__.py": "from .inner import length\n",
    "toy/deep/words.py": "from . import length\n",
    "toy/deep/inner.py": "class Counter:\n    start: int = 0\n\n    def of(self, text):\n        return len(text) + self.start\n\n\ndef length(text):\n    return Counter().of(text)\n",
}


def fingerprint(files=FILES) -> str:
    return Package(files).fingerprint("toy.steps", "shown")


def changed(path: str, old: str, new: str) -> dict[str, str]:
    assert old in FILES[path]
    return FILES | {path: FILES[path].replace(old, new)}


def test_the_fingerprint_is_what_it_was():
    """Golden: a change here makes the code of all committed results unknown."""
    assert fingerprint() == "8ae7e04d4efb7e08"


def test_everything_reached_by_name_is_found():
    reached = {f"{one.module}.{one.name}" for one in Package(FILES).reach(Reference("toy.steps", "shown"))}
    assert reached == {"toy.steps.shown", "toy.tools.doubled", "toy.numbers.OFFSET", "toy.numbers.RATE",
                       "toy.numbers.scaled", "toy.tools.other", "toy.deep.inner.length",
                       "toy.deep.inner.Counter", "numpy."}


@pytest.mark.parametrize("path, old, new", [
    ("toy/steps.py", "np.arange(seed)", "np.arange(seed + 1)"),
    ("toy/steps.py", "import numpy as np", "import cupy as np"),
    ("toy/tools.py", "2 * x", "3 * x"),
    ("toy/tools.py", "return x\n", "return -x\n"),              # through an import within a function
    ("toy/numbers.py", "3, 0.5", "4, 0.5"),
    ("toy/deep/inner.py", "start: int = 0", "start: int = 1"),  # through a module that passes it on
    ("toy/deep/inner.py", "len(text)", "len(text) * 2"),
    ("toy/deep/__init__.py", "from .inner import length", "def length(text):\n    return 0\n")])
def test_a_change_of_what_runs_is_seen(path, old, new):
    assert fingerprint(changed(path, old, new)) != fingerprint()


@pytest.mark.parametrize("path, old, new", [
    ("toy/steps.py", "# a comment", "# another"),
    ("toy/steps.py", '"""What it does."""', '"""Other words."""'),
    ("toy/steps.py", "version=1, minutes=3", "version=1, minutes=4"),
    ("toy/steps.py", "seed: int) -> Result", "seed) -> object"),
    ("toy/steps.py", "return 1", "return 2"),                   # of what is not reached
    ("toy/steps.py", "x = np.arange(seed)  ", "x = (np.arange(\n        seed))"),
    ("toy/tools.py", "def other", "def more():\n    return OFFSET\n\ndef other"),
    ("toy/steps.py", "from . import tools", "from . import tools as helpers\ntools = helpers")])
def test_what_does_not_count(path, old, new):
    if "helpers" in new:        # another name of the module, used under that name
        files = changed(path, old, "from . import tools as helpers")
        files[path] = files[path].replace("tools.doubled", "helpers.doubled")
        assert fingerprint(files) == fingerprint()
    else:
        assert fingerprint(changed(path, old, new)) == fingerprint()


def test_moving_a_definition_to_another_file_changes_nothing():
    moved = dict(FILES)
    moved["toy/tools.py"] = moved["toy/tools.py"].replace(
        "def doubled(x):\n    return 2 * x + OFFSET\n\n", "")
    moved["toy/elsewhere.py"] = "from .numbers import OFFSET as THREE\n\ndef doubled(x):\n    return 2 * x + THREE\n"
    moved["toy/steps.py"] = moved["toy/steps.py"].replace("from . import tools", "from . import elsewhere") \
        .replace("tools.doubled", "elsewhere.doubled")
    assert fingerprint(moved) == fingerprint()


def test_two_functions_of_one_name_are_two():
    files = FILES | {"toy/deep/inner.py": FILES["toy/deep/inner.py"] + "\n\ndef doubled(x):\n    return 0\n"}
    swapped = dict(files)
    swapped["toy/steps.py"] = files["toy/steps.py"].replace("tools.doubled(x)", "inner.doubled(x)") \
        .replace("from .deep import words", "from .deep import inner, words")
    assert fingerprint(files) == fingerprint() != fingerprint(swapped)


def test_a_definition_that_is_not_there_is_named():
    with pytest.raises(SsahError, match="toy.steps has no definition of 'missing'"):
        Package(FILES).fingerprint("toy.steps", "missing")


def test_steps_are_found_by_their_decorator():
    package = Package(FILES)
    assert package.home_of_step("shown") == "toy.steps"
    assert package.home_of_step("unused") is None


def test_every_step_reaches_its_own_code():
    """Of the package itself: each has a fingerprint, and no two are alike."""
    prints = {name: code.fingerprint(step.run) for name, step in STEPS.items()}
    assert len(set(prints.values())) == len(prints)
    reached = code.imported_package("ssah").reach(Reference(STEPS["probe"].run.__module__, "probe"))
    assert {"branch", "static"} <= {one.name for one in reached if one.module == "ssah.probing"}


# ---- known and accepted ----------------------------------------------------------------------

@pytest.mark.parametrize("then, accepted, known", [
    ("now", None, True),
    ("old", None, False),
    ("old", {"code": "now", "covers": ["old"]}, True),
    ("older", {"code": "now", "covers": ["old"]}, False),
    ("old", {"code": "next", "covers": ["old"]}, False),
    ("now", {"code": "next", "covers": ["old"]}, True)])          # there and back again
def test_code_is_known_if_it_is_the_same_or_was_compared(then, accepted, known):
    assert code.is_known("now", then, accepted) == known


PROGRAM = '''
import sys
from pathlib import Path

from ssah.lab import Result, Store
from toy.steps import shown

Store(Path(sys.argv[2]) / "results").save("shown", "seed=2", Result({"x": shown(None, 2)}))
'''
STEPS_FILE = "def shown(context, seed):\n    return helper(seed)\n\ndef helper(x):\n    return x * 2\n"


def commit(folder: Path, **files) -> str:
    """Write files (their dots are slashes), commit them; the commit."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run([*git, *arguments], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of a package with one step, whose one result is stored; and labs on it."""
    folder = tmp_path / "repository"
    files = {"toy/__init__.py": "", "run.py": PROGRAM}
    commit(folder, **files, **{"toy/steps.py": "@step(version=1)\n" + STEPS_FILE})
    decorated = "step = lambda **how: lambda run: run\n\n@step(version=1)\n"
    first = commit(folder, **{"toy/steps.py": decorated + STEPS_FILE})

    def shown(context, seed):
        raise AssertionError("a lab that only accepts computes nothing here")

    shown.__module__ = "toy.steps"
    monkeypatch.setattr("ssah.lab.steps.STEPS", {"shown": Step("shown", shown, 1, (), lambda profile, **_: [], 0)})

    def fingerprint_now(run):
        return Package.of_folder(folder / "toy").fingerprint("toy.steps", "shown")

    monkeypatch.setattr(code, "fingerprint", fingerprint_now)
    place = Place(folder, ("toy",), tmp_path / "committed", folder / "accepted.json", lambda profile: tmp_path / "results",
                  lambda: tmp_path / "cache", str, lambda profile, n_seeds: [Need("shown", {"seed": 2})],
                  (), lambda device: 0.0)
    profile = SimpleNamespace(name="toy", seeds=(2,), option="")
    lab = Lab(profile, place, compute=False)
    lab.store.save("shown", "seed=2", _stored(fingerprint_now(None)))
    trial = Trial(lambda name: name == "shown", lambda steps, into: ["run.py", *steps, str(into)], lambda into: into / "results")
    return SimpleNamespace(folder=folder, first=first, trial=trial, decorated=decorated,
                           lab=lambda: Lab(profile, place, compute=False))


def _stored(fingerprint: str):
    return Result({"x": 4}, provenance={"step": "shown", "code": fingerprint, "sections": {}})


def test_a_neutral_change_is_accepted_after_it_was_run(repository):
    edited = repository.decorated + STEPS_FILE.replace("x * 2", "x + x")
    (repository.folder / "toy/steps.py").write_text(edited)
    assert needs_a_line([repository.lab()], "shown")
    assert last_valid_commits([repository.lab()], ["shown"]) == {"shown": repository.first}
    assert accept([repository.lab()], ["shown"], "a sum", [repository.trial]) == ["shown"]
    line = json.loads((repository.folder / "accepted.json").read_text())["shown"]
    assert (line["before"], line["reason"]) == (repository.first, "a sum")
    assert not needs_a_line([repository.lab()], "shown")
    assert accept([repository.lab()], ["shown"], "again", [repository.trial]) == []
    # one line a step, also after the next change
    edited = repository.decorated + STEPS_FILE.replace("x * 2", "2 * x")
    commit(repository.folder, **{"toy/steps.py": edited})
    assert needs_a_line([repository.lab()], "shown")
    accept([repository.lab()], ["shown"], "turned", [repository.trial])
    lines = (repository.folder / "accepted.json").read_text().splitlines()
    assert len(lines) == 3 and "turned" in lines[1]


def test_a_change_that_changes_results_is_refused(repository):
    edited = repository.decorated + STEPS_FILE.replace("x * 2", "x * 3")
    (repository.folder / "toy/steps.py").write_text(edited)
    with pytest.raises(SsahError, match=r"other results now: shown\(seed=2\); bump the version of the step"):
        accept([repository.lab()], ["shown"], "no", [repository.trial])
    assert not (repository.folder / "accepted.json").exists()


def test_a_sum_in_another_order_is_accepted_and_told():
    """Fractions up to rounding; all else as it was."""
    table = pd.DataFrame({"id": ["a", "b"], "hit": [True, False], "loss": [1.5, float("nan")]})
    then = Result({"n": 3, "by": {"mean": 0.25}}, {"t": table}, {"mask": np.array([True, False])})
    assert difference(then, then) == 0
    rounded = replace(then, values={"n": 3, "by": {"mean": 0.25 + 1e-6}},
                      tables={"t": table.assign(loss=[1.5 + 2e-6, float("nan")])})
    assert difference(then, rounded) == pytest.approx(2e-6)
    others = [
        replace(then, values={"n": 4, "by": {"mean": 0.25}}),
        replace(then, values={"n": 3, "by": {"mean": 0.2502}}),
        replace(then, values={"n": 3, "by": {}}),
        replace(then, tables={"t": table.assign(loss=[1.501, float("nan")])}),
        replace(then, tables={"t": table.assign(loss=[1.5, 2.0])}),
        replace(then, tables={"t": table.assign(hit=[False, False])}),
        replace(then, tables={"t": table.assign(id=["a", "c"])}),
        replace(then, tables={"t": table.iloc[:1]}),
        replace(then, arrays={"mask": np.array([True, True])}),
    ]
    assert [difference(then, other) for other in others] == [np.inf] * len(others)
    found = compare({("s", "x=1"): then, ("s", "x=2"): then}, {("s", "x=1"): then, ("s", "x=2"): rounded})
    assert found == {"s": pytest.approx(2e-6)}
    with pytest.raises(SsahError, match=r"other results now: s\(x=2\); bump"):
        compare({("s", "x=1"): then, ("s", "x=2"): then}, {("s", "x=1"): then})


def test_what_is_planned_or_kept_in_addition_is_no_other_result():
    then = Result({"x": 1.0, "artifacts": {"answers.json": "aa"}})
    more = Result({"x": 1.0, "artifacts": {"answers.json": "aa", "model/weights": "bb"}})
    assert difference(then, more) == 0
    other_file = Result({"x": 1.0, "artifacts": {"answers.json": "cc", "model/weights": "bb"}})
    another_fact = Result({"x": 1.0, "y": 1.0, "artifacts": {"answers.json": "aa"}})
    for changed in (other_file, another_fact):
        assert difference(then, changed) == np.inf
    assert difference(more, then) == np.inf         # what was kept must still be there
    assert compare({("s", "x=1"): then}, {("s", "x=1"): then, ("s", "x=2"): more}) == {"s": 0}
    with pytest.raises(SsahError, match="other results now: t;"):       # a step that had none
        compare({("s", "x=1"): then}, {("s", "x=1"): then, ("t", "x=1"): then})


def test_going_back_needs_no_line(repository):
    (repository.folder / "toy/steps.py").write_text(repository.decorated + STEPS_FILE.replace("x * 2", "x + x"))
    accept([repository.lab()], ["shown"], "a sum", [repository.trial])
    (repository.folder / "toy/steps.py").write_text(repository.decorated + STEPS_FILE)
    assert not needs_a_line([repository.lab()], "shown")


def test_results_of_code_that_no_commit_has_must_be_compared_by_name(repository):
    lab = repository.lab()
    lab.store.save("shown", "seed=2", _stored("unknown"))
    (repository.folder / "toy/steps.py").write_text(repository.decorated + STEPS_FILE.replace("x * 2", "x + x"))
    with pytest.raises(SsahError, match="no commit has the code that made the stored results of shown"):
        accept([lab], ["shown"], "?", [repository.trial])
    assert accept([lab], ["shown"], "!", [repository.trial], before=repository.first[:8]) == ["shown"]
    line = json.loads((repository.folder / "accepted.json").read_text())["shown"]
    assert line["before"] == repository.first       # a short name is noted in full


def test_a_tree_that_cannot_compute_is_named(repository):
    edited = "import nothing_of_this_name\n" + repository.decorated + STEPS_FILE.replace("2", "3")
    (repository.folder / "toy/steps.py").write_text(edited)
    with pytest.raises(SsahError, match="cannot compute shown.*nothing_of_this_name"):
        accept([repository.lab()], ["shown"], "?", [repository.trial])
    with pytest.raises(SsahError, match="'not-a-commit' is no commit"):
        accept([repository.lab()], ["shown"], "?", [repository.trial], before="not-a-commit")


def test_a_line_covers_the_results_of_every_profile(repository):
    """Two labs of one place: a profile each, with results by other code each."""
    (repository.folder / "toy/steps.py").write_text(repository.decorated + STEPS_FILE.replace("x * 2", "x + x"))
    lab, other = repository.lab(), repository.lab()
    other.store = type(other.store)(repository.folder / "other")
    other.store.save("shown", "seed=2", _stored("of another time"))
    accept([lab, other], ["shown"], "a sum", [repository.trial], before=repository.first)
    line = json.loads((repository.folder / "accepted.json").read_text())["shown"]
    assert "of another time" in line["covers"] and len(line["covers"]) == 2


def test_a_step_is_tried_on_the_first_profile_that_has_it(repository):
    (repository.folder / "toy/steps.py").write_text(repository.decorated + STEPS_FILE.replace("x * 2", "x + x"))
    without = replace(repository.trial, plans=lambda name: False)
    with pytest.raises(SsahError, match="no small profile computes shown"):
        accept([repository.lab()], ["shown"], "?", [without])
    assert accept([repository.lab()], ["shown"], "a sum", [without, repository.trial]) == ["shown"]


def test_every_step_of_committed_results_is_on_a_small_profile():
    trials = list(map(trial_on, TRIALS))
    for step in {folder.name for folder in RESULTS.glob("*/*/")}:
        assert any(trial.plans(step) for trial in trials), step


def test_the_trial_of_the_package_is_a_command_that_it_has():
    arguments = trial_on(TRIALS[-1]).command(["splits"], Path("somewhere"))
    helped = subprocess.run([sys.executable, *arguments[:3], "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "--profile" in helped.stdout and "--into" in helped.stdout
