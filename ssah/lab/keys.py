"""Keys: what identifies a result. The code is not in the key; its fingerprint stands beside it.

A field that was added to a section of the profile after a result was made, and that has its default
value, changes nothing: the result is held against a key without it.
"""

import dataclasses
import hashlib
from collections.abc import Callable

from .steps import Step
from .store import Result, canonical


def key(step: Step, params: dict, profile, inputs: dict[str, Result],
        fingerprint: Callable[[str], str], made_with: dict | None = None) -> str:
    """Sixteen hex digits of step, version, params, sections, sources and content of the inputs.

    `fingerprint` says what stands for a source. `made_with`: the sections that are recorded with an
    old result (section -> field -> value), whose key is wanted as it would have been then.
    """
    sections = {name: getattr(profile, name) for name in step.reads}
    sources = [source for section in sections.values() for source in section.sources()]
    facts = {
        "step": step.name,
        "version": step.version,
        "params": params,
        "sections": {name: _fields(section, (made_with or {}).get(name))
                     for name, section in sections.items()},
        "sources": {source: fingerprint(source) for source in sources},
        "inputs": {label: result.content for label, result in inputs.items()}}
    return hashlib.sha256(canonical(facts).encode()).hexdigest()[:16]


def _fields(section, recorded: dict | None) -> dict:
    """The fields of a section; without those that are not `recorded` and have their default."""
    values = dataclasses.asdict(section)
    if recorded is None:
        return values
    return {field.name: values[field.name] for field in dataclasses.fields(section)
            if field.name in recorded or not _is_default(field, getattr(section, field.name))}


def _is_default(field: dataclasses.Field, value) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return value == field.default_factory()
    return field.default is not dataclasses.MISSING and value == field.default
