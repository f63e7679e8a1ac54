"""Distances between two samples of one column: how big a change is, not how sure.

Owns the formulas. Where Evidently has a distance of the same meaning, its definition is followed to the choice of
bins: on the same samples the values are the same but for the last bits, at a small part of the cost, because sorted
samples are not sorted again. `measures.evidently_distances` calls Evidently itself, for whoever wants to compare.

Sums run over sorted values and are NumPy's own, not BLAS's: no value depends on the order of rows or on threads.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import special

from measures.bins import count_bins, count_coarse_bins, fill_empty, to_shares
from measures.samples import CategorySample, Floats, Ints, NumberSample, Sample, align_categories, pool_numbers

# Evidently's: below this deviation of the reference a Wasserstein distance is not scaled up any further.
_DEVIATION_MIN = 0.001
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
    """Return the Jensen-Shannon distance (natural logarithm) of the two histograms; see `count_bins`."""
    before, after = (to_shares(counts) for counts in count_bins(reference, current))
    before, after = before / before.sum(), after / after.sum()
    middle = (before + after) / 2.0
    divergence = float(special.rel_entr(before, middle).sum()) + float(special.rel_entr(after, middle).sum())
    # Rounding can take the divergence of nearly equal histograms below 0.
    return math.sqrt(max(0.0, divergence) / 2.0)


def measure_psi(reference: Sample, current: Sample) -> float:
    """Return the population stability index of the two histograms; see `count_bins`."""
    before, after = (fill_empty(to_shares(counts)) for counts in count_bins(reference, current))
    return float(((before - after) * np.log(before / after)).sum())


def measure_kl(reference: Sample, current: Sample) -> float:
    """Return the Kullback-Leibler divergence of the window from the reference, Σ p ln(p/q), p the reference's shares.

    An empty bin is taken for a small share, as PSI does; without that the divergence would be infinite.
    """
    before, after = (fill_empty(to_shares(counts)) for counts in count_bins(reference, current))
    return max(0.0, float(special.rel_entr(before / before.sum(), after / after.sum()).sum()))


def measure_hellinger(reference: Sample, current: Sample) -> float:
    """Return the Hellinger distance of the two histograms, √(½ Σ (√p - √q)²), from 0 to 1.

    Evidently's √(1 - Σ √(pq)) is the same number, but loses half of its digits where it is small.
    """
    before, after = (np.sqrt(to_shares(counts)) for counts in count_coarse_bins(reference, current))
    return math.sqrt(float(((before - after) ** 2).sum()) / 2.0)


def measure_energy(reference: NumberSample, current: NumberSample) -> float:
    """Return the energy distance √(2 ∫ (F - G)² dx), in square roots of the feature's unit; infinite on overflow."""
    values = pool_numbers(reference, current)
    before, after = (each.values.searchsorted(values[:-1], side="right") / len(each) for each in (reference, current))
    with np.errstate(all="ignore"):
        return math.sqrt(2.0 * float(((before - after) ** 2 * np.diff(values)).sum()))


def measure_total_variation(reference: CategorySample, current: CategorySample) -> float:
    """Return half the sum of the differences of shares: the part of the rows that changed category, from 0 to 1."""
    return float(_measure_gaps(reference, current).sum()) / 2.0


def measure_l_infinity(reference: CategorySample, current: CategorySample) -> float:
    """Return the largest difference of a category's share, from 0 to 1."""
    return float(_measure_gaps(reference, current).max())


def _measure_gaps(reference: CategorySample, current: CategorySample) -> Floats:
    before, after = (to_shares(counts) for counts in align_categories(reference, current))
    gaps: Floats = np.abs(before - after)
    return gaps


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
