"""Steps: named functions with declared inputs, so that a key can be computed without running them.

A step is a function of a `Context`; it reads only the profile sections, upstream results and
artifacts that it declares. Declaring imports no torch.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ..errors import SsahError
from .store import Result


@dataclass(frozen=True)
class Need:
    """An upstream result; with `artifact=True` also the files that it left in the cache folder."""

    step: str
    params: dict = field(default_factory=dict)
    artifact: bool = False

    @property
    def label(self) -> str:
        """How the result is called in messages and keys."""
        return label(self.step, self.params)


def no_needs(profile, **params) -> list[Need]:
    """Of a step that stands on no other."""
    return []


def little_memory(profile) -> float:
    """GiB of a step that holds no model: Python, torch and some tables."""
    return 1.0


@dataclass(frozen=True)
class Step:
    """A named, recomputable function."""

    name: str
    run: Callable[..., Result]
    version: int                            # bumped by hand where a result should change
    reads: tuple[str, ...]                  # sections of the profile, or ``section.field``
    needs: Callable[..., list[Need]]        # of the profile and the step's parameters
    minutes: float                          # roughly, on two cores with the default profile
    memory: Callable[..., float] = little_memory    # GiB at most, of the profile


STEPS: dict[str, Step] = {}


def step(*, version: int, reads=(), needs=no_needs, minutes: float = 0.1, memory=little_memory):
    """Register a function ``run(context, **params) -> Result`` under its own name (see `Step`)."""
    def register(run: Callable) -> Callable:
        STEPS[run.__name__] = Step(run.__name__, run, version, tuple(reads), needs, minutes, memory)
        return run
    return register


def fields_read(step: Step) -> dict[str, tuple[str, ...]]:
    """Section -> the fields of it that a step reads; none named stands for all."""
    found: dict[str, tuple[str, ...]] = {}
    for name in step.reads:
        section, _, one = name.partition(".")
        found[section] = (*found.get(section, ()), one) if one else ()
    return found


def sections_read(step: Step, profile) -> dict[str, object]:
    """The sections of a profile as a step sees them: whole, or nothing but the fields it names."""
    sections = {}
    for name, names in fields_read(step).items():
        section = getattr(profile, name)
        part = SimpleNamespace(**{one: getattr(section, one) for one in names})
        sections[name] = part if names else section
    return sections


@dataclass
class Context:
    """What a running step sees."""

    profile: SimpleNamespace        # the declared sections or fields, and the profile's name
    inputs: dict[str, Result]
    artifacts: dict[str, Path]
    folder: Path                    # the step's own artifacts go here

    def get(self, name: str, /, **params) -> Result:
        """A declared upstream result (parameters in the declared order; KeyError otherwise)."""
        return self.inputs[label(name, params)]

    def artifact(self, name: str, /, **params) -> Path:
        """Artifacts of an upstream result that was declared with ``artifact=True``."""
        return self.artifacts[label(name, params)]


def find_step(name: str) -> Step:
    """A registered step; `SsahError` with the known names otherwise."""
    if name not in STEPS:
        raise SsahError(f"unknown step {name!r}; known: {', '.join(STEPS)}")
    return STEPS[name]


def with_upstream(profile, needs: Iterable[Need]) -> list[Need]:
    """Results and all that they are computed from, each once and after what it needs."""
    found: dict[str, Need] = {}

    def add(need: Need) -> None:
        if need.label in found:
            return
        for upstream in find_step(need.step).needs(profile, **need.params):
            add(upstream)
        found[need.label] = Need(need.step, need.params)

    for need in needs:
        add(need)
    return list(found.values())


def bound(name: str, params: dict) -> dict:
    """Parameters in the order of the step's function, as plain Python.

    Raises `SsahError` for a parameter that the step does not have, and for one that is missing.
    """
    _, *declared = inspect.signature(find_step(name).run).parameters.values()   # first: the context
    names = [parameter.name for parameter in declared]
    unknown = sorted(set(params) - set(names))
    missing = sorted(parameter.name for parameter in declared
                     if parameter.name not in params and parameter.default is parameter.empty)
    for what, wrong in (("unknown", unknown), ("missing", missing)):
        if wrong:
            raise SsahError(f"{name} takes {', '.join(names) or 'no parameters'}; "
                            f"{what}: {', '.join(wrong)}")
    return {name: _plain(params[name]) for name in names if name in params}


def _plain(value):
    """A number of NumPy as one of Python, which JSON takes."""
    return value.item() if isinstance(value, np.generic) else value


def slug(params: dict) -> str:
    """File name of a result: its parameters, readable, in the order in which they are given."""
    return ",".join(f"{name}={value}" for name, value in params.items()) or "result"


def label(name: str, params: dict) -> str:
    """How a result is called in messages and keys: ``step(a=1,b=2)``."""
    return f"{name}({slug(params)})" if params else name
