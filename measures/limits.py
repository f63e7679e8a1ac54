"""Between which limits may a metric move before it counts as changed?

Owns the limits of performance metrics. Which side of them is harm depends on the metric
(`measures.performance.higher_is_better`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.performance import Task, measure_performance

# Three standard deviations, Shewhart's choice: about one false alarm in 370 windows if a metric
# were normal and its mean and deviation known.
NUM_DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The band in which a metric is at home; all three are NaN where nothing is known."""

    lower: float
    upper: float
    mean: float


def limits_3sd(values: Sequence[float]) -> Limits:
    """Return mean ± 3 standard deviations (ddof 0) of a metric over its reference windows.

    NaN windows are left out. Fewer than two windows show no spread: lower and upper are NaN then,
    so that no window can lie outside.

    >>> limits_3sd([0.75, 1.0])
    Limits(lower=0.5, upper=1.25, mean=0.875)
    """
    known = np.asarray([value for value in values if not math.isnan(value)], dtype=np.float64)
    if known.size == 0:
        return Limits(math.nan, math.nan, math.nan)
    # Rounding must not put a metric that never changes outside its own limits.
    mean = min(max(float(known.mean()), float(known.min())), float(known.max()))
    deviation = math.sqrt(float(((known - mean) ** 2).mean())) if known.size >= 2 else math.nan
    return Limits(mean - NUM_DEVIATIONS * deviation, mean + NUM_DEVIATIONS * deviation, mean)


def limits_bootstrap(
    task: Task,
    metric: str,
    labels: NDArray[Any],
    predictions: NDArray[Any] | None,
    scores: NDArray[Any] | None,
    classes: Sequence[str] | None,
    num_rows: int,
    num_resamples: int = 200,
    seed: int = 0,
) -> Limits:
    """Return the limits for windows of `num_rows` rows of a model of which only one labelled set is known.

    The mean is the metric on all given rows; the spread is the standard deviation of the metric
    over `num_resamples` windows drawn from them with replacement (Efron's bootstrap). That holds
    for windows like the given rows; it knows nothing of how windows differ from each other.
    All NaN where the metric is undefined. Deterministic in seed and row order.
    """
    if num_rows < 1:
        raise ValueError(f"a window needs at least one row, not {num_rows}")

    def measure(index: NDArray[np.int64] | slice) -> float:
        chosen = [None if each is None else each[index] for each in (predictions, scores)]
        return measure_performance(task, labels[index], chosen[0], chosen[1], classes, [metric])[metric]

    mean = measure(slice(None))
    if math.isnan(mean):
        return Limits(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    resampled = np.array([measure(rng.integers(len(labels), size=num_rows)) for _ in range(num_resamples)])
    resampled = resampled[~np.isnan(resampled)]
    deviation = float(resampled.std(ddof=0)) if resampled.size >= 2 else math.nan
    return Limits(mean - NUM_DEVIATIONS * deviation, mean + NUM_DEVIATIONS * deviation, mean)
