"""How big is a change, read from the same counts as its p-value, and when is it too small to matter?

Owns the two effects, their floors, and the p-values of "no larger than the floor" behind the strict floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Counts = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Floors:
    """The smallest effects that may alarm, shares between 0 and 1.

    A shift by a tenth of a standard deviation is KS .04; so is a move of 4 % of the rows across a cut. Categories
    change in shares, where 2 % of the rows are as easily seen. `is_strict` asks for more than an estimate above the
    floor: that the true effect is larger.
    """

    ks: float = 0.04
    share: float = 0.02
    is_strict: bool = False


def measure_ks(window: Counts, reference: Counts) -> Floats:
    """Give max |F(cut) - G(cut)|, the Kolmogorov-Smirnov distance at the cuts, of counts [..., bins].

    A lower bound of the distance over all values. NaN where a side has no rows.
    """
    return _largest_gap(
        np.cumsum(window, axis=-1)[..., :-1], np.cumsum(reference, axis=-1)[..., :-1], window, reference
    )


def measure_linf(window: Counts, reference: Counts) -> Floats:
    """Give the largest difference of a category's shares (L-infinity), of counts [..., categories].

    NaN where a side has no rows.
    """
    return _largest_gap(window, reference, window, reference)


def bound_ks(window: Counts, reference: Counts, floor: float) -> Floats:
    """Give a p-value of "the true Kolmogorov-Smirnov distance is at most `floor`" by the asymptotic distribution."""
    n, m = np.sum(window, axis=-1), np.sum(reference, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.maximum(0.0, measure_ks(window, reference) - floor)
        p_values = special.kolmogorov(np.sqrt(n * (m / (n + m))) * excess)
    return np.where(np.isnan(p_values), 1.0, p_values)


def bound_shares(window: Counts, reference: Counts, floor: float) -> Floats:
    """Give a p-value of "no share differs by more than `floor`": normal tails, times the number of categories.

    The quarter row in the variance keeps a share of 0 or 1 from being taken for certain.
    """
    n, m = (np.sum(each, axis=-1, keepdims=True) for each in (window, reference))
    with np.errstate(divide="ignore", invalid="ignore"):
        q, s = window / n, reference / m
        variance = (q * (1.0 - q) + 0.25 / n) / n + (s * (1.0 - s) + 0.25 / m) / m
        z = (np.abs(q - s) - floor) / np.sqrt(variance)
    is_seen = window + reference > 0
    z = np.where(is_seen & ~np.isnan(z), z, -np.inf)
    p_values: Floats = np.minimum(1.0, is_seen.sum(axis=-1) * 2.0 * special.ndtr(-z.max(axis=-1)))
    return np.where(is_seen.any(axis=-1), p_values, 1.0)


def _largest_gap(part: Counts, reference_part: Counts, whole: Counts, reference_whole: Counts) -> Floats:
    n, m = (np.sum(each, axis=-1) for each in (whole, reference_whole))
    if part.shape[-1] == 0:
        return np.where((n > 0) & (m > 0), 0.0, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(part / n[..., None] - reference_part / m[..., None])
    return np.where((n > 0) & (m > 0), gap.max(axis=-1), np.nan)
