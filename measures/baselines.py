"""How well does saying the last label again do?

Owns the no-change baseline of evaluation in sequence (Bifet and others 2013): where labels follow each other, a model
is worth no more than what it adds to it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.intervals import UNKNOWN, Interval, bound_mean, bound_share
from measures.performance import mean_of


def measure_no_change_accuracy(labels: NDArray[Any]) -> tuple[float, Interval]:
    """Return the share of n labels, in order of time, that equal the one before; NaN of fewer than two.

    >>> measure_no_change_accuracy(np.array([1.0, 1.0, 0.0, 0.0, 0.0]))[0]
    0.75
    """
    num_pairs = len(labels) - 1
    if num_pairs < 1:
        return math.nan, UNKNOWN
    share = int(np.count_nonzero(labels[1:] == labels[:-1])) / num_pairs
    return share, bound_share(share, num_pairs)


def measure_no_change_mae(labels: NDArray[np.float64]) -> tuple[float, Interval]:
    """Return the mean absolute difference of n labels, in order of time, from the one before; NaN of fewer than two.

    >>> measure_no_change_mae(np.array([1.0, 2.0, 4.0]))[0]
    1.5
    """
    if len(labels) < 2:
        return math.nan, UNKNOWN
    steps = np.abs(np.diff(labels))
    mean = mean_of(steps)
    return mean, bound_mean(mean, mean_of(steps**2), len(steps))
