"""Where commands read and write: folders of the checkout, and labs apart from what is committed."""

from pathlib import Path

from ..inputs import archives

PACKAGE = Path(__file__).parents[1]
BUILD = archives.REPOSITORY / "build"
NOTEBOOKS = archives.REPOSITORY / "notebooks"
FIGURES = archives.REPOSITORY / "figures"


def recomputed_lab(profile, into: Path | None, **options):
    """A lab on what this machine computes: apart from what is committed.

    Under `into`, where it is given; else of the default profile under ``build``, and of any other
    where all its results are.
    """
    from ..claims import lab_of

    if into is None and profile.name != "default":
        return lab_of(profile, **options)
    return lab_of(profile, root=(into or BUILD) / "results" / profile.name, **options)


def lab_of_notebooks(profile, into: Path):
    """A lab on what `run_notebooks` recomputes: apart from what is committed, under `into`."""
    from ..claims import COMMITTED, lab_of

    if profile.name not in COMMITTED:
        return lab_of(profile, compute=False)
    if profile.name != "default":
        into = into / profile.name
    return lab_of(profile, root=into / "results" / profile.name, compute=False)
