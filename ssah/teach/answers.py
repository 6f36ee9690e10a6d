"""What every check does: call a student's function, and say in one line what is wrong with it."""

import copy
import warnings
from collections.abc import Callable, Sequence

import numpy as np

#: What NumPy calls the types of numbers, of truth values and of texts.
KINDS = {"numbers": "fiu", "truth values": "b", "texts": "UO"}


class Wrong(AssertionError):
    """What is wrong with an answer, in one line; a notebook shows that line and no traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"{type(self).__name__}: {self}"]


class NotWritten(Wrong, NotImplementedError):
    """The answer is still a blank."""


class Answer:
    """A student's function under its name."""

    def __init__(self, name: str, function: Callable):
        self.name = name
        self.function = function
        if not callable(function):
            found = type(function).__name__
            raise Wrong(f"{name}: give the function itself, without brackets; this is a {found}")

    def call(self, case: str, *arguments, **options):
        """What the function returns; `Wrong` if it raises or changes an array that it was given.

        Warnings are not shown, since graders take what is written to stderr for a failure.
        """
        before = copy.deepcopy(arguments)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                result = self.function(*arguments, **options)
        except Exception as error:
            raise self.failure(case, error) from None
        for number, (argument, original) in enumerate(zip(arguments, before), start=1):
            if isinstance(argument, np.ndarray) and not np.array_equal(argument, original):
                raise self.wrong(case, f"it changes its argument {number}; work on a copy")
        return result

    def failure(self, case: str, error: Exception) -> Wrong:
        """What to say of an exception that the function raised."""
        if isinstance(error, NotImplementedError):
            return NotWritten(f"{self.name}: not written yet")
        lines = str(error).strip().splitlines()
        said = f": {lines[0]}" if lines else ""
        return self.wrong(case, f"it stops with {type(error).__name__}{said}")

    def wrong(self, case: str, problem: str) -> Wrong:
        """The one line, to be raised."""
        return Wrong(f"{self.name}, {case}: {problem}")

    def require(self, case: str, held: bool, problem: str) -> None:
        """Raise `Wrong` if a check did not hold."""
        if not held:
            raise self.wrong(case, problem)

    def array(
        self, case: str, result, shape: tuple[int, ...], kind: str = "numbers"
    ) -> np.ndarray:
        """The result as an array of this shape and kind (`KINDS`); numbers must be finite."""
        if result is None:
            raise self.wrong(case, "it returns nothing (is there a `return`?)")
        try:
            array = np.asarray(result)
        except Exception:
            raise self.wrong(case, f"a {type(result).__name__} is no array") from None
        if array.shape != shape:
            raise self.wrong(case, f"the result has shape {array.shape}, not {shape}")
        if array.dtype.kind not in KINDS[kind]:
            raise self.wrong(case, f"the result is made of {array.dtype}, not of {kind}")
        if kind == "numbers":
            n_bad = int((~np.isfinite(array)).sum())
            if n_bad:
                raise self.wrong(case, f"{n_bad} of {array.size} numbers are NaN or infinite")
        return array

    def number(self, case: str, result) -> float:
        """The result as one finite number."""
        return float(self.array(case, result, ()))

    def text(self, case: str, result, allowed: Sequence[str]) -> str:
        """The result as one of some texts."""
        if not isinstance(result, str):
            found = type(result).__name__
            raise self.wrong(case, f"the result is a {found}, not a text")
        known = ", ".join(allowed)
        self.require(case, result in allowed, f"{result!r} is none of: {known}")
        return result

    def passed(self) -> None:
        """Say that all is right."""
        print(f"{self.name}: right")


def is_nan(result) -> bool:
    """Whether a result is one NaN, of whatever type (Python's, NumPy's, torch's)."""
    try:
        one_number = not isinstance(result, str) and np.ndim(result) == 0
        return one_number and bool(np.isnan(float(result)))
    except (TypeError, ValueError):
        return False


def near(found, expected, tolerance: float = 1e-6) -> bool:
    """Whether numbers agree, to a share of the larger or, near 0, to `tolerance` itself."""
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance))
