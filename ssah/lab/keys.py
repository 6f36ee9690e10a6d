"""Keys: what identifies a result. The code is not in the key; its fingerprint stands beside it.

A field that was added to a section of the profile after a result was made, and that has its default
value, changes nothing: the result is held against a key without it. Nor does a field that was
recorded with it and that its step does not read.
"""

import dataclasses
import hashlib
from collections.abc import Callable

from .steps import Step, fields_read
from .store import Result, canonical


def key(step: Step, params: dict, profile, inputs: dict[str, Result],
        fingerprint: Callable[[str], str], made_with: dict | None = None) -> str:
    """Sixteen hex digits of step, version, params, sections, sources and content of the inputs.

    `fingerprint` says what stands for a source. `made_with`: the sections that are recorded with an
    old result (section -> field -> value), whose key is wanted as it would have been then.
    """
    read = fields_read(step)
    whole = [getattr(profile, name) for name, only in read.items() if not only]
    sources = [source for section in whole for source in section.sources()]
    facts = {
        "step": step.name,
        "version": step.version,
        "params": params,
        "sections": {name: _fields(getattr(profile, name), only, (made_with or {}).get(name))
                     for name, only in read.items()},
        "sources": {source: fingerprint(source) for source in sources},
        "inputs": {label: result.content for label, result in inputs.items()}}
    return hashlib.sha256(canonical(facts).encode()).hexdigest()[:16]


def _fields(section, only: tuple[str, ...], recorded: dict | None) -> dict:
    """The fields of a section that a step reads (`only` these, or all), field -> value.

    Without those that are not `recorded` and have their default; and what was recorded of others
    stands as it was.
    """
    values = dataclasses.asdict(section)
    names = only or tuple(values)
    if recorded is None:
        return {name: values[name] for name in names}
    held = {name: value for name, value in recorded.items()
            if name in values and name not in names}
    for field in dataclasses.fields(section):
        is_new = field.name not in recorded and _is_default(field, getattr(section, field.name))
        if field.name in names and not is_new:
            held[field.name] = values[field.name]
    return held


def _is_default(field: dataclasses.Field, value) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return value == field.default_factory()
    return field.default is not dataclasses.MISSING and value == field.default
