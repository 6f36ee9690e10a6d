"""The exception that the command line turns into a clear line instead of a traceback."""

from importlib.util import find_spec

#: Packages of the extra `models`; stored results are read without them.
MODEL_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "gguf", "safetensors")


class SsahError(Exception):
    """Bad input or a missing thing; the message names the remedy."""


class NotStored(SsahError):
    """A result that is in no store, and that nobody asked to compute; `label`: which, if one."""

    def __init__(self, message: str, label: str = ""):
        super().__init__(message)
        self.label = label


def check_models_installed() -> None:
    """Raise `SsahError` where only what reads stored results is installed."""
    for package in MODEL_PACKAGES:
        if find_spec(package) is None:
            raise no_models(package)


def no_models(package: str) -> SsahError:
    """What to say where one of `MODEL_PACKAGES` is missing."""
    return SsahError(f"{package} is not installed: reading stored results does without it, but "
                     "models do not; `make models` installs it (or `pip install "
                     "'ssah[models]'`)")


def no_dask(package: str) -> SsahError:
    """What to say where a package of the extra `parallel` is missing."""
    return SsahError(f"{package} is not installed, which runs steps side by side; `make models` "
                     "installs it (or `pip install 'ssah[parallel]'`), and without --jobs and "
                     "--scheduler all runs one after the other")
