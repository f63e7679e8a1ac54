"""Mean and spread of numbers that come in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """How many values there are, their mean, and their standard deviation (ddof 0)."""

    num_values: int
    mean: float
    sd: float


def measure_spread(read: Callable[[], Iterable[Floats]]) -> Spread | None:
    """Measure all values of the blocks that `read` gives, which it is called for twice; None where there are none.

    The same blocks give the same bits. Two passes, since a sum of squares alone loses what a large mean hides.
    """
    sums = [(len(block), float(block.sum())) for block in read()]
    num_values = sum(size for size, _ in sums)
    if not num_values:
        return None
    mean = math.fsum(each for _, each in sums) / num_values
    squares = math.fsum(float(np.square(block - mean).sum()) for block in read())
    return Spread(num_values, mean, math.sqrt(squares / num_values))


def drop_missing(values: Floats) -> Floats:
    """Return the values that are not NaN."""
    return values[~np.isnan(values)]
