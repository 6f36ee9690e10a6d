"""What ``--profile`` and ``-p`` say: a profile with its settings, and parameters of steps."""

from ..errors import SsahError


def pairs(texts: list[str]) -> dict[str, str]:
    """``name=value`` options as a dict."""
    for text in texts:
        if "=" not in text:
            raise SsahError(f"-p takes name=value; got {text!r}")
    given = dict(text.split("=", 1) for text in texts)
    if len(given) < len(texts):
        raise SsahError("-p gives a name twice; run the command once for each value, or leave the "
                        "name out for all")
    return given


def divided(given: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """``-p`` options: settings of the profile (``section.field=value``), and all others."""
    settings = [f"{name}={value}" for name, value in given.items() if "." in name]
    return settings, {name: value for name, value in given.items() if "." not in name}


def chosen_profile(args):
    """The profile of ``--profile``, with the settings among the ``-p`` options."""
    from ..claims import load_profile

    settings, _ = divided(pairs(args.parameter))
    return load_profile("+".join([args.profile, *settings]))
