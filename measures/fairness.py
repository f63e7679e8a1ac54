"""How differently does a model treat groups?

Owns gaps and ratios of a rate over groups, and how sure they are. What is the rate of (rows predicted positive, or
positives found) and what the groups are is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from measures.intervals import CONFIDENCE, UNKNOWN, Interval


@dataclass(frozen=True, slots=True)
class Disparity:
    """A gap or ratio between the groups with the largest and the smallest rate, and its interval.

    The interval is of 95 % for all pairs of groups together (Bonferroni): the two were chosen for being furthest apart.
    """

    value: float
    interval: Interval


def measure_gap(num_hits: Sequence[int], num_rows: Sequence[int]) -> Disparity:
    """Return the largest rate less the smallest, 0 to 1; NaN of fewer than two groups. Every group has rows.

    >>> measure_gap([30, 10], [100, 100]).value
    0.2
    """
    if len(num_rows) < 2:
        return Disparity(math.nan, UNKNOWN)
    (low, low_rows), (high, high_rows) = _find_ends(num_hits, num_rows)
    gap = round(high - low, 15)
    # Agresti and Caffo's (2000) two added rows a group: a rate of 0 or 1 in few rows is not certain.
    error = math.hypot(*(_deviate(rate, rows) for rate, rows in ((low, low_rows), (high, high_rows))))
    half = _find_z(len(num_rows)) * error
    return Disparity(gap, Interval(error, max(0.0, gap - half), min(1.0, gap + half)))


def measure_ratio(num_hits: Sequence[int], num_rows: Sequence[int]) -> Disparity:
    """Return the smallest rate over the largest, 0 to 1; NaN of fewer than two groups or without any hit.

    >>> round(measure_ratio([30, 10], [100, 100]).value, 6)
    0.333333
    """
    if len(num_rows) < 2 or not any(num_hits):
        return Disparity(math.nan, UNKNOWN)
    (low, low_rows), (high, high_rows) = _find_ends(num_hits, num_rows)
    ratio = low / high
    # Katz's logarithm of a ratio (1978), half a hit added (Walter 1975).
    logs = [((rate * rows + 0.5) / (rows + 0.5), rows) for rate, rows in ((low, low_rows), (high, high_rows))]
    error = math.sqrt(sum(max(0.0, 1.0 / (rate * (rows + 0.5)) - 1.0 / (rows + 0.5)) for rate, rows in logs))
    spread, middle = math.exp(_find_z(len(num_rows)) * error), logs[0][0] / logs[1][0]
    return Disparity(ratio, Interval(ratio * error, min(ratio, middle / spread), min(1.0, max(ratio, middle * spread))))


def _find_ends(num_hits: Sequence[int], num_rows: Sequence[int]) -> tuple[tuple[float, int], tuple[float, int]]:
    rates = [(hits / rows, rows) for hits, rows in zip(num_hits, num_rows, strict=True)]
    return min(rates), max(rates)


def _deviate(rate: float, num_rows: int) -> float:
    share = (rate * num_rows + 1.0) / (num_rows + 2.0)
    return math.sqrt(share * (1.0 - share) / (num_rows + 2.0))


def _find_z(num_groups: int) -> float:
    num_pairs = num_groups * (num_groups - 1) / 2.0
    return float(special.ndtri(1.0 - (1.0 - CONFIDENCE) / 2.0 / num_pairs))
