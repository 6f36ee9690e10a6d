"""The pins are written in three places; they must say the same.

`pyproject.toml` is where a direct pin is edited, `requirements.lock` holds everything
that is installed, `environment.yml` repeats the direct pins for conda. Whether the
packages at hand are those versions is not looked at here.
"""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ssah.errors import MODEL_PACKAGES

ROOT = Path(__file__).resolve().parent.parent


def read_pins(lines: list[str], where: str) -> dict[str, str]:
    """`{normalised name: version}`; comments, pip options and empty lines are skipped."""
    pins = {}
    for line in lines:
        line = line.partition("#")[0].strip()
        if not line or line.startswith("-"):
            continue
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == ["=="], f"{where}: write `{line}` as one exact pin, `{name}==VERSION`"
        assert name not in pins, f"{where}: {name} is listed twice; remove one"
        pins[name] = next(iter(requirement.specifier)).version
    return pins


def direct_pins() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += extra
    return read_pins(lines, "pyproject.toml")


def lock_pins() -> dict[str, str]:
    return read_pins((ROOT / "requirements.lock").read_text().splitlines(), "requirements.lock")


def conda_pins() -> dict[str, str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (section,) = [item for item in environment["dependencies"] if isinstance(item, dict)]
    return read_pins(section["pip"], "environment.yml")


def test_every_direct_dependency_is_locked():
    missing = sorted(direct_pins().keys() - lock_pins().keys())
    assert not missing, f"{missing} of pyproject.toml not in requirements.lock: run `make lock`"


def test_lock_has_the_versions_of_pyproject():
    lock = lock_pins()
    differ = {
        name: f"pyproject {version}, lock {lock[name]}"
        for name, version in direct_pins().items()
        if lock.get(name, version) != version
    }
    assert not differ, f"{differ}: run `make lock` after an edit of pyproject.toml"


def test_conda_environment_repeats_the_direct_pins():
    differ = sorted({name for name, _ in direct_pins().items() ^ conda_pins().items()})
    assert not differ, f"{differ}: copy these pins from pyproject.toml to environment.yml"


def test_torch_is_one_version_without_a_build_label():
    versions = {pins["torch"] for pins in (direct_pins(), lock_pins(), conda_pins())}
    assert len(versions) == 1, f"torch is {sorted(versions)}: give all three files one version"
    (version,) = versions
    assert "+" not in version, f"torch=={version}: drop the label, which only one platform has"


def test_the_packages_of_models_are_those_that_are_asked_for():
    """What is said to be missing where only the reading set is installed is the extra `models`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = read_pins(project["optional-dependencies"]["models"], "pyproject.toml")
    assert tuple(pins) == MODEL_PACKAGES
