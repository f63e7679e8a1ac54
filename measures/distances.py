"""Distances and tests between two samples of one column.

Owns the formulas. Wasserstein, Jensen-Shannon and PSI are Evidently's, whose definitions they follow to the choice of
bins: on the same samples they give the same values but for the last bits, at a small part of the cost, because sorted
samples are not sorted again. `measures.evidently_distances` calls Evidently itself, for whoever wants to compare.

Sums run over sorted values and are NumPy's own, not BLAS's: no value depends on the order of rows or on threads.
"""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
from scipy import special

from measures.samples import CategorySample, Floats, Ints, NumberSample, Sample, align_categories, align_numbers

# Evidently's: below this deviation of the reference a Wasserstein distance is not scaled up any further.
_DEVIATION_MIN = 0.001
# Evidently's: a numeric reference with so many different values or fewer is compared value by value.
_NUM_VALUES_MAX = 20
# Evidently's: what PSI takes for the share of a bin that is empty on one side, unless other shares are as small.
_EMPTY_SHARE = 0.0001
_EMPTY_DIVISOR = 10**6
# Up to so many rows SciPy counts lattice paths; beyond, it takes Smirnov's limit.
_KS_EXACT_ROWS_MAX = 10_000
# Two samples' quantiles as pairs: 4 pairings of 100,000 + 100,000 rows take 20 MB.
_NUM_PAIRINGS_MAX = 4


def measure_wasserstein(reference: NumberSample, current: NumberSample) -> float:
    """Return the first Wasserstein distance over the reference's standard deviation; NaN or infinite on overflow.

    The distance is the mean of |F⁻¹(u) - G⁻¹(u)| over u in (0, 1], here the area between two staircases of quantiles.
    """
    own, other, shares = _pair_quantiles(len(reference), len(current))
    with np.errstate(all="ignore"):
        gaps = reference.values[own]
        gaps -= current.values[other]
        np.abs(gaps, out=gaps)
        gaps *= shares
        return float(gaps.sum()) / max(reference.deviation, _DEVIATION_MIN)


def measure_jensenshannon(reference: Sample, current: Sample) -> float:
    """Return the Jensen-Shannon distance (natural logarithm) of the two histograms; see `_count_bins`."""
    before, after = (_to_shares(counts) for counts in _count_bins(reference, current))
    before, after = before / before.sum(), after / after.sum()
    middle = (before + after) / 2.0
    divergence = float(special.rel_entr(before, middle).sum()) + float(special.rel_entr(after, middle).sum())
    # Rounding can take the divergence of nearly equal histograms below 0.
    return math.sqrt(max(0.0, divergence) / 2.0)


def measure_psi(reference: Sample, current: Sample) -> float:
    """Return the population stability index of the two histograms; see `_count_bins`."""
    before, after = (_fill_empty(_to_shares(counts)) for counts in _count_bins(reference, current))
    return float(((before - after) * np.log(before / after)).sum())


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


def compute_contingency(reference: CategorySample, current: CategorySample) -> tuple[float, float]:
    """Return Pearson's two-sample χ² on the 2 × K table of counts, without continuity correction, and its p-value.

    Both samples are random here. Evidently's test of the same name takes the reference's shares for
    the truth: with 1,000 reference rows and windows of 5,000 it is wrong in 82 of 100 at level .05.
    A single category gives statistic 0 and p-value 1.
    """
    counts = np.stack(align_categories(reference, current)).astype(np.float64)
    num_values = counts.shape[1]
    if num_values == 1:
        return 0.0, 1.0
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, float(special.chdtrc(num_values - 1, statistic))


@functools.lru_cache(maxsize=_NUM_PAIRINGS_MAX)
def _pair_quantiles(num_own: int, num_other: int) -> tuple[Ints, Ints, Floats]:
    """Return, for u from 0 to 1, which order statistics of the two samples face each other, and over what share of u.

    It depends on the sizes alone, so that all columns of a window have it in common. In units of 1 / (own · other)
    one staircase steps at the multiples of `other`, the second at those of `own`; all of it is integer arithmetic.
    """
    own_steps = np.arange(1, num_own + 1, dtype=np.int64) * num_other
    other_steps = np.arange(1, num_other + 1, dtype=np.int64) * num_own
    is_own = np.zeros(num_own + num_other, dtype=np.bool_)
    # As many steps of the other staircase come before each of these.
    is_own[np.arange(num_own) + own_steps // num_own] = True
    steps = np.empty(num_own + num_other, dtype=np.int64)
    steps[is_own], steps[~is_own] = own_steps, other_steps
    own: Ints = np.cumsum(is_own) - is_own
    other: Ints = np.arange(len(steps)) - own
    widths = np.diff(steps, prepend=0)
    # Where both step at once, one of the two has no width; the last step is such a one.
    is_wide = widths > 0
    shares = widths[is_wide] / (num_own * num_other)
    pairing = own[is_wide], other[is_wide], shares
    for each in pairing:
        each.flags.writeable = False  # shared by all who ask
    return pairing


def _count_bins(reference: Sample, current: Sample) -> tuple[Ints, Ints]:
    """Count both samples in the bins that Evidently compares.

    Categories are their own bins. So are the values of a numeric reference with at most 20 different ones. Other
    numbers have Sturges' bins of equal width over the range of both samples.
    """
    if isinstance(reference, CategorySample) or isinstance(current, CategorySample):
        assert isinstance(reference, CategorySample)
        assert isinstance(current, CategorySample)
        return align_categories(reference, current)
    if reference.num_distinct > _NUM_VALUES_MAX:
        edges = _lay_edges(reference, current)
        if edges is not None:
            before, after = (_count_between(each.values, edges) for each in (reference, current))
            return before, after
    return align_numbers(reference, current)


def _lay_edges(reference: NumberSample, current: NumberSample) -> Floats | None:
    """Return the edges of NumPy's `sturges` bins; None where floats are too few or the range is too wide for them."""
    low = min(reference.values[0], current.values[0])
    high = max(reference.values[-1], current.values[-1])
    with np.errstate(all="ignore"):
        extent = high - low
        width = extent / (np.log2(len(reference) + len(current)) + 1.0)
        num_bins = np.ceil(extent / width) if width else 1.0
    if not np.isfinite(num_bins):
        return None
    edges: Floats = np.linspace(low, high, int(num_bins) + 1)
    return edges if np.all(edges[:-1] < edges[1:]) else None


def _count_between(values: Floats, edges: Floats) -> Ints:
    """Count sorted values in [edge, next edge), the last bin closed, as NumPy's histogram does."""
    below = np.append(values.searchsorted(edges[:-1], side="left"), values.searchsorted(edges[-1], side="right"))
    counts: Ints = np.diff(below)
    return counts


def _to_shares(counts: Ints) -> Floats:
    shares: Floats = counts / counts.sum()
    return shares


def _fill_empty(shares: Floats) -> Floats:
    """Replace 0 by what Evidently takes for it."""
    smallest = float(shares[shares != 0].min())
    filler = smallest / _EMPTY_DIVISOR if smallest <= _EMPTY_SHARE else _EMPTY_SHARE
    return np.where(shares == 0, filler, shares)


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
