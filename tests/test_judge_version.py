"""The version of the judge is a setting of a profile, and reaches every label of every step."""

import pytest

from ssah import judging
from ssah.claims import lab_of, load_profile
from ssah.claims.profiles import DEFAULT, SMOKE

#: The sections of the steps that judge.
JUDGING = ("calibration", "evaluation", "judge", "probing")

VERSION_2 = "+".join(f"{section}.judge_version=2" for section in JUDGING)


def test_the_first_bench_keeps_version_1():
    for profile in (DEFAULT, SMOKE):
        assert {getattr(profile, section).judge_version for section in JUDGING} == {1}


@pytest.mark.parametrize("step, params", [
    ("judge_on_people", {}),
    ("calibration", {"seed": 0}),
    ("ablation", {"seed": 0, "condition": "none"}),
    ("scan", {"seed": 0}),
    ("probe", {"seed": 0, "requests": "harmful"}),
    ("along_answers", {"seed": 0}),
    ("budget", {"seed": 0, "trained": "full"}),
])
@pytest.mark.slow
def test_a_step_judges_by_the_version_of_its_profile(tmp_path, monkeypatch, step, params):
    """All that a step asks of the judge, it asks of this version."""
    asked = []

    def noted(function, position):
        def ask(*arguments, **options):
            version = arguments[position] if len(arguments) > position else options.get("version", 1)
            asked.append(version)
            return function(*arguments, **options)
        return ask

    monkeypatch.setattr(judging, "judge", noted(judging.judge, 4))
    monkeypatch.setattr(judging, "is_refusal", noted(judging.is_refusal, 1))
    profile = load_profile(f"smoke+seeds=0+{VERSION_2}")
    lab_of(profile, root=tmp_path).get(step, **params)
    assert asked and set(asked) == {2}


def test_what_counts_as_a_refusal_is_that_of_the_version(tmp_path):
    """On the answers that people labelled: version 2 finds "Sorry, no." too, and knows its labels."""
    tables = []
    for name in ("smoke", f"smoke+{VERSION_2}"):
        judged = lab_of(load_profile(name), root=tmp_path / str(len(tables))).get("judge_on_people")
        tables.append(judged.tables["labels"])
    first, second = tables
    assert set(first["judge"]) <= set(judging.LABELS[1])
    assert set(second["judge"]) <= set(judging.LABELS[2])
    assert (second.loc[second["human"], "judge"] == "refuse").all()


def test_another_version_is_refused(tmp_path):
    from ssah.errors import SsahError

    lab = lab_of(load_profile("smoke+judge.judge_version=3"), root=tmp_path)
    with pytest.raises(SsahError, match="unknown version 3 of the judge; known: 1, 2"):
        lab.get("judge_on_people")
