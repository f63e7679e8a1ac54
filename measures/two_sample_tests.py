"""Two-sample tests of one column: a statistic and how likely one as large is if nothing has changed.

Owns the statistics and their p-values; `measures.quadratic_tails` the limiting laws of two of them. Both samples are
random: no test here takes the reference's shares for the truth. These tests judge one column of one window at a level
that the user chose; what opens calibrated alerts is `measures.p_values`.
"""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
from scipy import special

from measures.quadratic_tails import tail_anderson_darling, tail_cramer_von_mises
from measures.samples import CategorySample, Floats, NumberSample, align_categories, pool_numbers

# Up to so many rows SciPy counts lattice paths; beyond, it takes Smirnov's limit.
_KS_EXACT_ROWS_MAX = 10_000
# Up to so many rows a side SciPy counts the arrangements for Cramér and von Mises' test.
_CVM_EXACT_ROWS_MAX = 20
# The standard deviation of Anderson and Darling's statistic in the limit, √(2(π² - 9)/3).
_ANDERSON_DEVIATION = math.sqrt(2.0 * (math.pi**2 - 9.0) / 3.0)


def compute_ks(reference: NumberSample, current: NumberSample) -> tuple[float, float]:
    """Return statistic and p-value of the two-sample Kolmogorov-Smirnov test: exact up to 10,000 rows a side."""
    # Imported here, since it takes half a second and most models never ask.
    from scipy import stats

    if max(len(reference), len(current)) <= _KS_EXACT_ROWS_MAX:
        with warnings.catch_warnings():
            # SciPy warns when the exact p-value underflows and it takes the asymptotic one.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = stats.ks_2samp(reference.values, current.values)
        return float(result.statistic), float(result.pvalue)
    statistic = _measure_ks(reference.values, current.values)
    size = float(len(reference)) * len(current) / (len(reference) + len(current))
    return statistic, min(1.0, max(0.0, float(stats.kstwo.sf(statistic, np.round(size)))))


def compute_cramer_von_mises(reference: NumberSample, current: NumberSample) -> tuple[float, float]:
    """Return Cramér and von Mises' two-sample statistic T (Anderson 1962) and its p-value.

    Without ties it is SciPy's, exact up to 20 rows a side. Tied values are spread evenly (`_walk`), which makes the
    p-value too large rather than too small; the mid-ranks of SciPy and Evidently make it far too small instead.
    """
    walk = _walk(reference, current)
    own, other = float(len(reference)), float(len(current))
    product, num = own * other, own + other
    statistic = float((walk**2).sum()) / (product * num**2)
    if max(own, other) <= _CVM_EXACT_ROWS_MAX and min(own, other) > 1 and _is_untied(reference, current):
        from scipy import stats

        return statistic, float(stats.cramervonmises_2samp(reference.values, current.values, method="exact").pvalue)
    mean = (1.0 + 1.0 / num) / 6.0
    variance = (num + 1.0) * (4.0 * product * num - 3.0 * (own**2 + other**2) - 2.0 * product)
    variance /= 180.0 * num**2 * product
    if variance <= 0.0:  # one row a side says nothing
        return statistic, 1.0
    return statistic, tail_cramer_von_mises(1.0 / 6.0 + (statistic - mean) / math.sqrt(45.0 * variance))


def compute_anderson_darling(reference: NumberSample, current: NumberSample) -> tuple[float, float]:
    """Return Anderson and Darling's two-sample statistic A² (Pettitt 1976), about 1 without a change, and its p-value.

    Standardized by its exact mean and variance (Scholz and Stephens 1987, equation 4), then judged by the limiting
    law. Ties as in `compute_cramer_von_mises`. Fewer than 4 rows in all have p-value 1.
    """
    own, other = len(reference), len(current)
    num = own + other
    place = np.arange(1, num, dtype=np.float64)
    statistic = float((_walk(reference, current) ** 2 / (place * (num - place))).sum()) / (float(own) * other)
    if num < 4:
        return statistic, 1.0
    deviation = _deviate_anderson(own, other)
    return statistic, tail_anderson_darling(1.0 + _ANDERSON_DEVIATION * (statistic - 1.0) / deviation)


def compute_contingency(reference: CategorySample, current: CategorySample) -> tuple[float, float]:
    """Return Pearson's two-sample χ² on the 2 × K table of counts, without continuity correction, and its p-value.

    Both samples are random here. Evidently's test of the same name takes the reference's shares for
    the truth: with 1,000 reference rows and windows of 5,000 it is wrong in 82 of 100 at level .05.
    A single category gives statistic 0 and p-value 1.
    """
    counts, expected = _tabulate(reference, current)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, _tail_chisquare(statistic, counts.shape[1])


def compute_g(reference: CategorySample, current: CategorySample) -> tuple[float, float]:
    """Return the likelihood-ratio statistic 2 Σ O ln(O/E) of the 2 × K table of counts, and its p-value.

    Evidently's `g_test` takes the reference's counts, unscaled, for what is expected: it fails where the samples
    have different numbers of rows, and alarms far too often where they have the same.
    """
    counts, expected = _tabulate(reference, current)
    statistic = 2.0 * max(0.0, float(special.xlogy(counts, counts / expected).sum()))
    return statistic, _tail_chisquare(statistic, counts.shape[1])


def _tabulate(reference: CategorySample, current: CategorySample) -> tuple[Floats, Floats]:
    """Return the counts of both samples by category, and what would be expected if they had the same shares."""
    counts = np.stack(align_categories(reference, current)).astype(np.float64)
    return counts, counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()


def _tail_chisquare(statistic: float, num_values: int) -> float:
    return float(special.chdtrc(num_values - 1, statistic)) if num_values > 1 else 1.0


def _walk(reference: NumberSample, current: NumberSample) -> Floats:
    """Return N·M(i) - n·i for i from 1 to N - 1: M(i) of the i smallest of both samples are the reference's.

    n is the reference's number of rows, N that of both. Over values that are equal M rises evenly: the mean over all
    orders that they could have.
    """
    values = pool_numbers(reference, current)
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    own = reference.values.searchsorted(values[ends], side="right")
    places = np.arange(1, len(values), dtype=np.float64)
    inside = np.interp(places, np.append(0, ends + 1), np.append(0, own))
    walk: Floats = len(values) * inside - len(reference) * places
    return walk


def _is_untied(reference: NumberSample, current: NumberSample) -> bool:
    values = pool_numbers(reference, current)
    return bool(np.all(values[1:] != values[:-1]))


@functools.lru_cache(maxsize=1024)
def _deviate_anderson(own: int, other: int) -> float:
    """Return the standard deviation of A² for two samples of these sizes: equation 4 with k = 2."""
    num = own + other
    inverse = 1.0 / np.arange(1, num)
    h = float(inverse.sum())
    # g = Σ over i < j of 1 / ((N - i) j).
    g = float((inverse[::-1][:-1] * (h - np.cumsum(inverse)[:-1])).sum())
    sizes = 1.0 / own + 1.0 / other
    a = (4 * g - 6) + (10 - 6 * g) * sizes
    b = (2 * g - 4) * 4 + 16 * h + (2 * g - 14 * h - 4) * sizes - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * sizes + 4 * h
    d = (2 * h + 6) * 4 - 8 * h
    return math.sqrt((a * num**3 + b * num**2 + c * num + d) / ((num - 1.0) * (num - 2.0) * (num - 3.0)))


def _measure_ks(reference: Floats, current: Floats) -> float:
    """Return the largest gap between the two distribution functions."""
    few, many = sorted((reference, current), key=len)
    ends = np.append(few[1:] != few[:-1], True)
    values, not_above = few[ends], np.flatnonzero(ends) + 1
    below = np.concatenate([[0], not_above[:-1]])
    # Between two values of the one sample its function stands still, so the gap is largest at the ends.
    at = np.abs(many.searchsorted(values, side="right") / len(many) - not_above / len(few))
    before = np.abs(many.searchsorted(values, side="left") / len(many) - below / len(few))
    return float(max(at.max(), before.max()))
