"""Closed-form two-sample p-values of a window's counts against its reference's, for many columns at once.

Owns the tests; which of them make up a column's p-value is `measures.calibration`. It must not resample, and must not
take the reference for the truth: both sides are random. It needs SciPy's special functions only, whose import takes a
third of the time of SciPy's statistics.

All take counts as integer arrays [..., cells] of the same cells in the same order. Cells empty on both sides, such as
padding, change nothing. A p-value is 1 where nothing can be said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from measures.exact_tails import fisher_p_values

Counts = NDArray[Any]
Floats = NDArray[np.float64]

# Of the reference's cuts those that are tested one by one: the middle, and the tails, where the rank sum is blind.
SCAN_QUANTILES = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])

# A smaller skewness changes no p-value in the digits that the approximation has.
_SKEWNESS_MIN = 1e-3

# What the smaller sample must expect in a cell before χ² trusts it: with the textbook's 5 the level is exceeded
# twofold at 1e-4.
_EXPECTED_MIN = 20.0


def numeric_p_values(window: Counts, reference: Counts) -> Floats:
    """Give the p-values of numbers counted in bins between cuts of the reference: rank sum and scan, Bonferroni's."""
    both = np.minimum(rank_p_values(window, reference), scan_p_values(window, reference))
    p_values: Floats = np.minimum(1.0, 2.0 * both)
    return p_values


def categorical_p_values(window: Counts, reference: Counts) -> Floats:
    """Give the p-values of categories: Fisher's test of each and χ² over all, Bonferroni's."""
    both = np.minimum(share_p_values(window, reference), contingency_p_values(window, reference))
    p_values: Floats = np.minimum(1.0, 2.0 * both)
    return p_values


def rank_p_values(window: Counts, reference: Counts) -> Floats:
    """Give the two-sided p-values of the rank sum over ordered bins, ties and all.

    Wilcoxon's statistic with mid-ranks; its permutation distribution by a shifted gamma (Pearson III) of the same
    three moments, which counts where one side is small or most rows are tied. An approximation.
    """
    n, m = np.sum(window, axis=-1, dtype=np.float64), np.sum(reference, axis=-1, dtype=np.float64)
    pooled = np.asarray(window + reference, dtype=np.float64)
    total = n + m
    with np.errstate(divide="ignore", invalid="ignore"):
        ranks = np.cumsum(pooled, axis=-1) - (pooled - 1.0) / 2.0
        deviation = ranks - (pooled * ranks).sum(axis=-1, keepdims=True) / pooled.sum(axis=-1, keepdims=True)
        second = (pooled * deviation**2).sum(axis=-1) / total
        third = (pooled * deviation**3).sum(axis=-1) / total
        variance = n * m / (total - 1.0) * second
        cumulant = n * m * (m - n) / ((total - 1.0) * (total - 2.0)) * third
        z = (window * deviation).sum(axis=-1) / np.sqrt(variance)
        p_values = _gamma_tails(z, cumulant / variance**1.5)
    return np.where(np.isnan(p_values), 1.0, p_values)


def scan_p_values(window: Counts, reference: Counts) -> Floats:
    """Give the p-values of the largest difference at nine cuts: Fisher's exact test of each, times nine.

    The cuts are the reference's own order statistics nearest SCAN_QUANTILES, found from its counts. Exact all the
    same: a one-sided Fisher tail at the reference's k-th value is the beta-binomial tail at the next one.
    """
    n = np.sum(window, axis=-1, keepdims=True)
    m = np.sum(reference, axis=-1, keepdims=True)
    below, reference_below = np.cumsum(window, axis=-1), np.cumsum(reference, axis=-1)
    cuts = np.broadcast_to(find_scanned_cuts(reference), (*below.shape[:-1], len(SCAN_QUANTILES)))
    hits = np.take_along_axis(below, cuts, axis=-1)
    marked = hits + np.take_along_axis(reference_below, cuts, axis=-1)
    p_values: Floats = np.minimum(1.0, len(SCAN_QUANTILES) * fisher_p_values(hits, n, marked, n + m).min(axis=-1))
    return p_values


def find_scanned_cuts(reference: Counts) -> NDArray[np.int64]:
    """Give int64[..., 9], ascending: which of a reference's cuts are its order statistics at SCAN_QUANTILES."""
    below = np.cumsum(reference, axis=-1)
    # Rounded first, as the cuts' ranks are: 0.15 × 100 is 15.000000000000002 in binary.
    ranks = np.maximum(1.0, np.ceil(np.round(below[..., -1:] * SCAN_QUANTILES, 9)))
    cuts = (below[..., None, :] < ranks[..., None]).sum(axis=-1)
    found: NDArray[np.int64] = np.minimum(cuts, reference.shape[-1] - 1)
    return found


def share_p_values(window: Counts, reference: Counts) -> Floats:
    """Give the p-values of the most changed share: Fisher's exact test of each category, times their number."""
    n = np.sum(window, axis=-1, keepdims=True)
    pooled = window + reference
    smallest = fisher_p_values(window, n, pooled, np.sum(pooled, axis=-1, keepdims=True)).min(axis=-1)
    p_values: Floats = np.minimum(1.0, smallest * np.maximum(1, (pooled > 0).sum(axis=-1)))
    return p_values


def contingency_p_values(window: Counts, reference: Counts) -> Floats:
    """Give the p-values of Pearson's two-sample χ², rare categories folded into one cell.

    Rare is what the smaller sample expects fewer than 20 of. 1 where all the rare ones together are, or where fewer
    than two cells remain. An approximation.
    """
    n, m = (np.sum(each, axis=-1, keepdims=True, dtype=np.float64) for each in (window, reference))
    pooled = window + reference
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = pooled * (np.minimum(n, m) / (n + m))
        is_rare = ~(expected >= _EXPECTED_MIN)
        folded_window, folded_pooled = _fold(window, is_rare), _fold(pooled, is_rare)
        # With both rows of the table in one: (w - t·n/M)² · (1/(t·n/M) + 1/(t·m/M)).
        terms = (folded_window - folded_pooled * (n / (n + m))) ** 2 * (n + m) ** 2 / (folded_pooled * n * m)
        statistic = np.where(folded_pooled > 0, terms, 0.0).sum(axis=-1)
    num_cells = (folded_pooled > 0).sum(axis=-1)
    rest = np.where(is_rare, expected, 0.0).sum(axis=-1)
    is_sound = (num_cells >= 2) & ((folded_pooled[..., -1] == 0) | (rest >= _EXPECTED_MIN))
    p_values = special.chdtrc(np.maximum(num_cells - 1, 1), np.where(is_sound, statistic, 0.0))
    return np.where(is_sound, p_values, 1.0)


def _fold(counts: Counts, is_rare: NDArray[np.bool_]) -> Counts:
    return np.concatenate(
        [np.where(is_rare, 0, counts), np.where(is_rare, counts, 0).sum(axis=-1, keepdims=True)], axis=-1
    )


def _gamma_tails(z: Floats, skewness: Floats) -> Floats:
    """Give two-sided tails of a gamma shifted and scaled to mean 0, deviation 1 and this skewness; normal without."""
    p_values = 2.0 * special.ndtr(-np.abs(z))
    is_skew = np.abs(skewness) > _SKEWNESS_MIN
    shape = 4.0 / np.where(is_skew, skewness, 1.0) ** 2
    x = np.maximum(0.0, shape + z * np.sign(skewness) * np.sqrt(shape))
    skew = 2.0 * np.minimum(special.gammaincc(shape, x), special.gammainc(shape, x))
    tails: Floats = np.minimum(1.0, np.where(is_skew, skew, p_values))
    return tails
