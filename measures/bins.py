"""The bins in which two samples are compared, and their shares of rows: Evidently's choices, bit for bit."""

from __future__ import annotations

import numpy as np

from measures.samples import CategorySample, Floats, Ints, NumberSample, Sample, align_categories, align_numbers

# Evidently's: a numeric reference with so many different values or fewer is compared value by value.
_NUM_VALUES_MAX = 20
# Evidently's: what an empty bin's share is taken for, unless other shares are as small.
_EMPTY_SHARE = 0.0001
_EMPTY_DIVISOR = 10**6


def count_bins(reference: Sample, current: Sample) -> tuple[Ints, Ints]:
    """Count both samples in the bins that Evidently compares.

    Categories are their own bins. So are the values of a numeric reference with at most 20 different ones. Other
    numbers have Sturges' bins of equal width over the range of both samples.
    """
    if isinstance(reference, CategorySample) or isinstance(current, CategorySample):
        assert isinstance(reference, CategorySample)
        assert isinstance(current, CategorySample)
        return align_categories(reference, current)
    if reference.num_distinct > _NUM_VALUES_MAX:
        edges = _lay_edges(reference, current, len(reference) + len(current))
        if edges is not None:
            before, after = (_count_between(each.values, edges) for each in (reference, current))
            return before, after
    return align_numbers(reference, current)


def count_coarse_bins(reference: Sample, current: Sample) -> tuple[Ints, Ints]:
    """Count both samples in the bins of Evidently's Hellinger distance.

    Numbers always have bins of equal width, as many as Sturges' rule gives for the different values of both.
    """
    if isinstance(reference, CategorySample) or isinstance(current, CategorySample):
        return count_bins(reference, current)
    before, after = align_numbers(reference, current)
    edges = _lay_edges(reference, current, len(before))
    if edges is None:
        return before, after
    return _count_between(reference.values, edges), _count_between(current.values, edges)


def _lay_edges(reference: NumberSample, current: NumberSample, num_values: int) -> Floats | None:
    """Return the edges of NumPy's `sturges` bins for so many values over the range of both samples.

    None where floats are too few or the range is too wide for them.
    """
    low = min(reference.values[0], current.values[0])
    high = max(reference.values[-1], current.values[-1])
    with np.errstate(all="ignore"):
        extent = high - low
        width = extent / (np.log2(num_values) + 1.0)
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


def to_shares(counts: Ints) -> Floats:
    """Give each bin its part of the rows."""
    shares: Floats = counts / counts.sum()
    return shares


def fill_empty(shares: Floats) -> Floats:
    """Replace 0 by what Evidently takes for it."""
    smallest = float(shares[shares != 0].min())
    filler = smallest / _EMPTY_DIVISOR if smallest <= _EMPTY_SHARE else _EMPTY_SHARE
    return np.where(shares == 0, filler, shares)
