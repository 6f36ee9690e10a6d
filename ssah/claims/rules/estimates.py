"""Means with their intervals, of a crossed layout of seeds and prompts."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ...errors import SsahError

#: Levels of the two intervals of an estimate. The wide one tells an effect from nothing, the
#: narrow one shows that an effect is small (two one-sided tests at 5 % each).
LEVELS = (0.95, 0.90)
#: A ratio over a denominator that may be smaller than this is refused (ten points).
RATIO_LEAST = 0.10


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval (`low`, `high`) and its 90 % interval (`low90`, `high90`).

    `n` says in words what was averaged. Raises SsahError where the ends are out of order, which
    includes every NaN.
    """

    mean: float
    low: float
    high: float
    low90: float
    high90: float
    n: str = ""

    def __post_init__(self):
        if not self.low <= self.low90 <= self.mean <= self.high90 <= self.high:
            raise SsahError(f"{self}: not an interval around its mean; look for missing values "
                            "in what was averaged")

    def __str__(self) -> str:
        numbers = f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"
        return f"{numbers} ({self.n})" if self.n else numbers

    def __neg__(self) -> "Estimate":
        return Estimate(-self.mean, -self.high, -self.low, -self.high90, -self.low90, self.n)

    def over(self, divisor: float) -> "Estimate":
        """The estimate and all its ends divided by a number above 0."""
        ends = (self.mean, self.low, self.high, self.low90, self.high90)
        return Estimate(*(end / divisor for end in ends), self.n)


def exactly(value: float, n: str = "taken as exact") -> Estimate:
    """An estimate without uncertainty, as for a printed number whose error is not known."""
    return Estimate(value, value, value, value, value, n)


def mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of a crossed layout without replication: rows, columns, residual.

    `values` is (rows, columns), at least two of each. Under random effects their expectations
    are c·R + E, r·C + E and E, for r rows, c columns and variances R, C and E.
    """
    n_rows, n_columns = values.shape
    grand_mean = values.mean()
    row_effects = values.mean(axis=1) - grand_mean
    column_effects = values.mean(axis=0) - grand_mean
    residuals = values - grand_mean - row_effects[:, None] - column_effects
    of_rows = n_columns * np.sum(row_effects**2) / (n_rows - 1)
    of_columns = n_rows * np.sum(column_effects**2) / (n_columns - 1)
    of_residuals = np.sum(residuals**2) / ((n_rows - 1) * (n_columns - 1))
    return float(of_rows), float(of_columns), float(of_residuals)


def satterthwaite(values, factors: tuple[str, str] = ("seeds", "prompts")) -> Estimate:
    """The mean of a crossed layout with its intervals, both factors random.

    `values` is (seeds, prompts): every prompt at every seed, a number each. With other names in
    `factors` it is any crossed layout, such as ("draws", "prompts") for random controls.

    The variance of the mean is (MS_seeds + MS_prompts - MS_residual) / (seeds · prompts). A
    component of variance that comes out negative counts as 0, so a factor's mean square counts
    at least as much as the residual one: the variance is never below 0 and never smaller than
    one factor alone would make it. The degrees of freedom are Satterthwaite's: the square of
    that sum over the sum of the squared mean squares, each over its own degrees of freedom.

    With one seed the interval is Student's over prompts and says nothing about other seeds;
    with one prompt it is that over seeds. Where all values are equal it has no width: the data
    show no variance, so read `n` beside it (with a rate of 0 in n, 3 / n is not excluded).
    Where the seeds lie far apart near 0 or 1, so that their means are skewed, 95 % intervals
    cover about 90 % (`tests/test_rules.py`), as any that treats few means as normal would.

    Raises SsahError on missing values and where there is only one value.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.size < 2:
        raise SsahError(f"expected {factors[0]} x {factors[1]} with two values or more, "
                        f"got the shape {values.shape}")
    if not np.isfinite(values).all():
        raise SsahError(f"some of the {factors[0]} x {factors[1]} values are missing: "
                        f"keep only {factors[1]} that all {factors[0]} have")
    if min(values.shape) == 1:
        variance = values.var(ddof=1) / values.size
        freedom = values.size - 1
    else:
        variance, freedom = crossed_variance(values)
    return _interval(values, variance, freedom, factors)


def crossed_variance(values: np.ndarray) -> tuple[float, float]:
    """The variance of the mean of a crossed layout, and its degrees of freedom.

    `values` is as in `mean_squares`; `satterthwaite` says how both are formed.
    """
    of_rows, of_columns, of_residuals = mean_squares(values)
    total = max(of_rows, of_residuals) + max(of_columns, of_residuals) - of_residuals
    if total == 0:
        return 0.0, 1.0
    rows_freedom = values.shape[0] - 1
    columns_freedom = values.shape[1] - 1
    uncertainty = (of_rows**2 / rows_freedom + of_columns**2 / columns_freedom
                   + of_residuals**2 / (rows_freedom * columns_freedom))
    return total / values.size, total**2 / uncertainty


def _interval(values: np.ndarray, variance: float, freedom: float,
              factors: tuple[str, str]) -> Estimate:
    mean = float(values.mean())
    # of Student's t
    quantiles = stdtrit(freedom, [(1 + level) / 2 for level in LEVELS])
    wide, narrow = (float(half) for half in quantiles * np.sqrt(variance))
    n = " x ".join(f"{size} {factor}" for size, factor in zip(values.shape, factors))
    return Estimate(mean, mean - wide, mean + wide, mean - narrow, mean + narrow, n)


def ratio(numerator: Estimate, denominator: Estimate) -> Estimate | None:
    """The numerator and its interval over the mean denominator; None where that may be small.

    None stands for "refused": the denominator's 95 % interval reaches below ten points
    (`RATIO_LEAST`), so nothing can be said about a share of it, and the word is *cannot tell*.
    The denominator's own uncertainty is not in the interval. It scales the whole interval and
    cannot move it across 0, so it matters for *reproduced* against *smaller* only.
    """
    if denominator.low < RATIO_LEAST:
        return None
    return numerator.over(denominator.mean)
