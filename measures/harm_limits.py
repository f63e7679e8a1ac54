"""Beyond which value is a metric surely worse than in its reference, at a level that a budget allows?

Owns the one-sided limits of `limits: calibrated`. They come from how much the reference's own windows differ, and from
the sampling error of the metric in a window of the given size. Limits at fixed deviations: `measures.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from measures.limits import Limits
from measures.performance import higher_is_better

Floats = NDArray[np.float64]

# Resamples show a standard deviation to 5 % and a skewness to 0.17; of windows larger than this as many rows are taken
# and the deviation scaled by the root.
NUM_RESAMPLES = 200
RESAMPLED_ROWS_MAX = 5_000

_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a metric is close to normal, larger being worse.

    `to_scale` takes values and the rows of a window; `variance_min` of one row is that of a proportion: a metric that
    was perfect in every window will not be so for ever.
    """

    to_scale: Callable[[Floats, float], Floats]
    to_metric: Callable[[float], float]
    variance_min: Callable[[float], float]


# Proportions on the scale where their variance does not depend on them. Areas on the logit scale, which stretches the
# tail of few positives; measured on the raw one, the level is exceeded up to 100 times.
_PROPORTION = _Scale(
    lambda v, n: np.arcsin(np.sqrt(np.clip(1.0 - v, 0.0, 1.0))),
    lambda x: 1.0 - math.sin(min(max(x, 0.0), math.pi / 2.0)) ** 2,
    lambda x: 0.25,
)
_AREA = _Scale(
    lambda v, n: -special.logit(np.clip(v, 0.5 / n, 1.0 - 0.5 / n)),
    lambda x: float(special.expit(-x)),
    lambda x: 2.0 + 2.0 * math.cosh(x),
)
_LOSS = _Scale(lambda v, n: np.log(np.maximum(v, _SMALLEST)), math.exp, lambda x: 0.0)
_EXPLAINED = _Scale(lambda v, n: np.log(np.maximum(1.0 - v, _SMALLEST)), lambda x: 1.0 - math.exp(x), lambda x: 0.0)

_SCALES = dict.fromkeys(("accuracy", "f1", "precision", "recall"), _PROPORTION) | {
    "roc_auc": _AREA,
    "pr_auc": _AREA,
    "r2": _EXPLAINED,
}


@dataclass(frozen=True, slots=True)
class Spread:
    """How a metric varies over windows of the reference, on its scale.

    `centre` and `variance` are of windows of `num_rows` rows; `sampling_variance` and `skewness` are what drawing so
    many rows alone explains. `num_windows` is 1 where windows were never compared, else the windows' weight.
    """

    metric: str
    centre: float
    variance: float
    sampling_variance: float
    skewness: float
    num_rows: float
    num_windows: float

    def limit(self, num_rows: int, level: float) -> Limits:
        """Give the limits of a window of `num_rows` labelled rows, worse than which lies a share `level` of windows.

        Without a known change, that is. The better side's limit mirrors the worse side's, for the eye: nothing is
        promised of it. All NaN where nothing is known of the metric.
        """
        if math.isnan(self.centre) or num_rows < 1:
            return Limits(math.nan, math.nan, math.nan)
        scale = _SCALES.get(self.metric, _LOSS)
        z = float(special.ndtri(1.0 - level))
        sampling = self.sampling_variance * self.num_rows / num_rows
        error = z * math.sqrt(sampling + self.sampling_variance / self.num_windows)
        total = sampling
        if self.num_windows >= 2.0:
            # A smaller window varies more; that a larger one varies less cannot be known.
            extra = max(0.0, sampling - self.sampling_variance)
            t = float(special.stdtrit(self.num_windows - 1.0, 1.0 - level))
            between = t * math.sqrt(self.variance * (1.0 + 1.0 / self.num_windows))
            # Drawing rows alone explains the smaller of the two; a reference may happen to vary less than that.
            error = max(error, math.hypot(between, z * math.sqrt(extra)))
            total = max(total, self.variance + extra)
        if total > 0.0:
            # Cornish and Fisher's first term, for the tail that is longer or shorter than the normal one.
            third = max(0.0, self.skewness) * math.sqrt(self.num_rows / num_rows) * sampling**1.5
            error += third / (6.0 * total) * (z * z - 1.0)
        worst = scale.to_metric(self.centre + error)
        mean = scale.to_metric(self.centre)
        other = 2.0 * mean - worst
        return Limits(worst, other, mean) if higher_is_better(self.metric) else Limits(other, worst, mean)


def learn_spread(metric: str, values: Sequence[float], sizes: Sequence[int], resampled: Sequence[float]) -> Spread:
    """Learn from the metric in each window of the reference, and from windows drawn out of all its rows.

    `sizes` are the labelled rows of each window; `resampled` are values of windows of the median size, or of
    RESAMPLED_ROWS_MAX rows where that is smaller, drawn with replacement. Windows smaller than the median weigh less;
    NaN values are left out. A single window says nothing of how windows differ: then they are taken to differ by
    their rows alone.
    """
    scale = _SCALES.get(metric, _LOSS)
    value, size = np.asarray(values, np.float64), np.asarray(sizes, np.float64)
    is_known = ~np.isnan(value) & (size > 0)
    if not is_known.any():
        return Spread(metric, *[math.nan] * 6)
    value, size = value[is_known], size[is_known]
    num_rows = float(np.median(size))
    weight = np.minimum(1.0, size / num_rows)
    num_windows = float(weight.sum())
    x = scale.to_scale(value, num_rows)
    centre = float((weight * x).sum() / num_windows)
    share = min(num_rows, RESAMPLED_ROWS_MAX) / num_rows
    drawn = np.asarray(resampled, np.float64)
    sampling, skewness = _describe(scale.to_scale(drawn[~np.isnan(drawn)], num_rows * share), share)
    sampling = max(sampling, scale.variance_min(centre) / num_rows)
    variance = math.nan
    if num_windows >= 2.0:
        variance = float((weight * (x - centre) ** 2).sum()) / (num_windows - 1.0)
    return Spread(metric, centre, variance, sampling, skewness, num_rows, max(1.0, num_windows))


def _describe(drawn: Floats, share: float) -> tuple[float, float]:
    """Give variance and skewness for windows that are 1 / share times as large as the drawn ones; 0 of none."""
    if len(drawn) < 2:
        return 0.0, 0.0
    variance = float(drawn.var(ddof=1))
    if variance == 0.0:
        return 0.0, 0.0
    third = float(((drawn - drawn.mean()) ** 3).mean())
    return variance * share, third / variance**1.5 * math.sqrt(share)
