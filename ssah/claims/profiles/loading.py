"""A profile by its name, and with settings from outside: on the command line or in a TOML file."""

import hashlib
import json
import re
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

from ...errors import SsahError
from .claim_sections import ProbingSection
from .known import BENCH, DEFAULT, SMOKE, TINY_PAIR
from .profile import SECTIONS, Profile
from .sections import ModelSection


#: Settings that name a model, which may be a folder.
MODELS = ("model.name", "model.aligned")


def load_profile(name: str) -> Profile:
    """A profile by name; settings may be changed by ``+section.field=value`` after it.

    - ``default``, ``smoke``, and those of the second bench: ``organism``, ``smollm2-135m``,
      ``qwen-0.5b`` and ``qwen-1.5b`` (``tiny-pair``: the pair's steps on a random model);
    - ``model:BASE`` (or ``paper:BASE``): the same experiments on another model (hub id or path);
      ``model:BASE,aligned=CHAT`` takes a ready-made aligned model instead of aligning BASE;
    - ``pair:ALIGNED,UNALIGNED``: notebook 01 on two ready-made models;
    - ``FILE.toml``: settings by section, and with ``profile = "..."`` the profile that they change.

    A profile with other settings has a name, and so results, of its own. Raises `SsahError` for any
    other name, and for settings that there are not.
    """
    given = absolute(name)
    stem, changes = _parts(given)
    if stem.endswith(".toml"):
        profile = _from_file(Path(stem))
    else:
        profile = _by_name(stem)
    return with_settings(profile, _pairs(changes), given)


def _by_name(name: str) -> Profile:
    kind, _, rest = name.partition(":")
    models = rest.split(",")
    if name == "default":
        return DEFAULT
    for tiny in (SMOKE, TINY_PAIR):
        if name == tiny.name:
            return tiny
    if name in BENCH:
        return BENCH[name]
    if kind in ("model", "paper") and rest:
        return _of_model(name, models[0], _pairs(models[1:]))
    if kind == "pair" and len(models) == 2 and all(models):
        label = " and ".join(map(_label, models))
        return replace(DEFAULT, name="-".join(["pair", *map(_in_file_name, models)]), chosen=name,
                       seeds=(0,), model=ModelSection(models[0], label, "bfloat16"),
                       probing=ProbingSection(pair=tuple(models)))
    raise SsahError(f"unknown profile {name!r}; known: default, smoke, "
                    f"{', '.join(BENCH)}, "
                    "model:BASE[,aligned=CHAT] (or paper:BASE), pair:ALIGNED,UNALIGNED (hub ids or "
                    "paths), FILE.toml")


def _of_model(name: str, base: str, options: dict[str, str]) -> Profile:
    aligned = options.pop("aligned", "")
    if options:
        raise SsahError(f"unknown option {', '.join(options)} of the profile {name!r}; known: "
                        "aligned=CHAT")
    label = f"{_label(base)}, aligned: {_label(aligned)}" if aligned else _label(base)
    files = [_in_file_name(model) for model in (base, aligned) if model]
    return replace(DEFAULT, name="-".join(["paper", *files]), chosen=name,
                   model=ModelSection(base, label, "bfloat16", aligned))


def _from_file(path: Path) -> Profile:
    """A profile from a TOML file: tables are sections, ``seeds`` and ``profile`` stand on top."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SsahError(f"the profile {path} cannot be read: {error}") from error
    profile = load_profile(content.pop("profile", "default"))
    for name in MODELS:     # a folder is looked for beside the file
        section, _, field_name = name.partition(".")
        if field_name in content.get(section, {}):
            content[section][field_name] = _whole(content[section][field_name], path.parent)
    settings = {}
    for name, value in content.items():
        if isinstance(value, dict):
            settings |= {f"{name}.{field_name}": one for field_name, one in value.items()}
        else:
            settings[name] = value
    return with_settings(profile, settings, str(path))


def with_settings(profile: Profile, settings: dict, chosen: str) -> Profile:
    """The profile with other settings, ``section.field`` or ``seeds`` -> value (text is read).

    `chosen`: what chooses it on the command line. Raises `SsahError` for a section or field that
    there is not, and a value of another type.
    """
    changed = profile
    for name, value in settings.items():
        changed = _with_setting(changed, name, value)
    if changed == profile:
        return profile
    if not changed.seeds:
        raise SsahError("seeds must name one seed or more")
    sections = {name: asdict(getattr(changed, name)) for name in SECTIONS}
    digest = hashlib.sha256(json.dumps([sections, changed.seeds]).encode()).hexdigest()[:8]
    return replace(changed, name=f"{profile.name}-{digest}", chosen=chosen)


def _with_setting(profile: Profile, name: str, value) -> Profile:
    if name == "seeds":
        return replace(profile, seeds=_read(name, value, profile.seeds))
    section, _, field_name = name.partition(".")
    if section not in SECTIONS:
        raise SsahError(f"unknown setting {name!r}; sections: {', '.join(SECTIONS)}")
    before = getattr(profile, section)
    known = [one.name for one in fields(before)]
    if field_name not in known:
        raise SsahError(f"unknown setting {name!r}; {section} has: {', '.join(known)}")
    new = _read(name, value, getattr(before, field_name))
    return replace(profile, **{section: replace(before, **{field_name: new})})


def _read(name: str, value, like):
    """A value of the type of `like`, from text or as TOML has it; lists by commas in text."""
    try:
        if isinstance(like, tuple):
            parts = value.split(",") if isinstance(value, str) else value
            kind = type(like[0]) if like else str
            return tuple(_one(part, kind) for part in parts if part != "")
        return _one(value, type(like))
    except (TypeError, ValueError):
        shape = "a list of " if isinstance(like, tuple) else ""
        kind = type(like[0] if isinstance(like, tuple) and like else like).__name__
        raise SsahError(f"{name} takes {shape}{kind}; got {value!r}") from None


def _one(value, kind: type):
    if kind is int and isinstance(value, float):
        raise TypeError("a fraction is no count")
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise TypeError("of another type")
    return kind(value)


def _pairs(texts: list[str]) -> dict[str, str]:
    """``name=value`` texts as a dict; `SsahError` for another text."""
    for text in texts:
        if "=" not in text:
            raise SsahError(f"a profile's options are name=value; got {text!r} (a comma begins the "
                            "next option, so the path of a model has none)")
    return dict(text.split("=", 1) for text in texts)


def absolute(name: str) -> str:
    """A profile's name with the paths in it made absolute, for kernels run in another folder."""
    stem, changes = _parts(name)
    changes = [_with_whole_path(change) for change in changes]
    kind, colon, rest = stem.partition(":")
    if stem.endswith(".toml"):
        return "+".join([_whole(stem), *changes])
    if not colon:
        return "+".join([stem, *changes])
    models = []
    for part in rest.split(","):
        option, equals, model = part.rpartition("=")
        models.append(option + equals + _whole(model))
    return "+".join([f"{kind}:{','.join(models)}", *changes])


def _parts(name: str) -> tuple[str, list[str]]:
    """What stands before the settings of a profile's name, and the settings; a path may have a +."""
    stem, *changes = re.split(rf"\+(?=[\w.]+=|(?:{'|'.join(SECTIONS)})\.)", name)
    return stem, changes


def _with_whole_path(change: str) -> str:
    """A setting ``name=value``, of a model in a folder with its whole path."""
    name, equals, value = change.partition("=")
    return name + equals + (_whole(value) if name in MODELS else value)


def _whole(model: str, beside: Path = Path()) -> str:
    """The whole path of a model (or file) that is there, else its name as it is."""
    path = beside / Path(model).expanduser()
    return str(path.resolve()) if model and path.exists() else model


def _label(model: str) -> str:
    return model.rstrip("/").split("/")[-1]


def _in_file_name(model: str) -> str:
    return model.strip("/").replace("/", "--").replace(":", "-")
