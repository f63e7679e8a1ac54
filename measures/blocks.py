"""How sure is a change when rows depend on each other, as the events of one session or hour do?

Owns block mode. The reference is split into blocks as long as the window; how much they differ from each other, by
whatever dependence, is how much a window may differ. A t prediction interval for shares, on the scale where their
variance does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from measures.p_values import find_scanned_cuts

Counts = NDArray[Any]
Floats = NDArray[np.float64]

# Fewer blocks do not show their own variance well enough; twice as many are needed where successive blocks are alike.
NUM_BLOCKS_MIN, NUM_BLOCKS_ALIKE_MIN = 30, 60
_ALIKE = 0.2

# A share is used where a block has so many rows on its rarer side: below, it is too far from normal.
_RARE_ROWS_MIN = 20.0

_CORRELATION_MAX = 0.99
_NUM_EFFECTIVE_MIN = 2.5


@dataclass(frozen=True, slots=True)
class BlockProfile:
    """How the shares of each column vary over blocks of the reference, float64[columns, shares].

    A share is that of the values up to a cut, of a category, or of nulls; `sizes` are the mean rows of a block that it
    is a share of. `mean` and `variance` are of its arcsine transform, `is_used` says which are looked at.
    `num_effective` float64[columns] is how many independent blocks would tell as much; NaN where there are too few.
    """

    _split: Callable[[Counts, Counts], tuple[Floats, Floats]]
    mean: Floats
    variance: Floats
    sizes: Floats
    is_used: NDArray[np.bool_]
    num_effective: Floats

    def p_values(self, window: Counts, window_nulls: Counts) -> Floats:
        """Give the p-values of a window's columns: counts [columns, cells] and nulls [columns].

        NaN ("uncalibrated") where the reference has too few blocks; 1 where no share can be used. To be taken together
        with the p-value for independent rows: the larger counts.
        """
        hits, sizes = self._split(window, window_nulls)
        # A shorter window varies more; that a longer one varies less cannot be known.
        spread = self.variance * np.maximum(1.0, self.sizes / np.maximum(sizes, 1.0))
        num_effective = self.num_effective[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(_stabilise(hits, sizes) - self.mean) / np.sqrt(spread * (1.0 + 1.0 / num_effective))
        is_used = self.is_used & (sizes > 0)
        largest = np.where(is_used, t, 0.0).max(axis=-1)
        p_values: Floats = np.minimum(
            1.0, 2.0 * is_used.sum(axis=-1) * special.stdtr(self.num_effective - 1.0, -largest)
        )
        return np.where(is_used.any(axis=-1) | np.isnan(self.num_effective), p_values, 1.0)


def profile_numbers(blocks: Counts, nulls: Counts) -> BlockProfile:
    """Learn from consecutive blocks of the reference: counts [blocks, columns, bins] and nulls [blocks, columns]."""
    cuts = find_scanned_cuts(blocks.sum(axis=0))
    # A cut that several quantiles share is looked at once.
    is_new = np.concatenate([np.ones_like(cuts[:, :1], dtype=np.bool_), np.diff(cuts, axis=-1) > 0], axis=-1)

    def split(counts: Counts, null: Counts) -> tuple[Floats, Floats]:
        below = np.cumsum(counts, axis=-1)
        places = np.broadcast_to(cuts, (*below.shape[:-1], cuts.shape[-1]))
        return _append_nulls(np.take_along_axis(below, places, axis=-1), counts, null)

    return _profile(split, blocks, nulls, np.pad(is_new, ((0, 0), (0, 1)), constant_values=True))


def profile_categories(blocks: Counts, nulls: Counts) -> BlockProfile:
    """Learn from consecutive blocks of the reference: counts [blocks, columns, categories] and nulls."""
    columns = blocks.shape[1], blocks.shape[2] + 1
    return _profile(lambda counts, null: _append_nulls(counts, counts, null), blocks, nulls, np.ones(columns, np.bool_))


def _append_nulls(hits: Counts, counts: Counts, nulls: Counts) -> tuple[Floats, Floats]:
    """Give hits and sizes of the shares among values, and of nulls among all rows."""
    num_values = np.broadcast_to(counts.sum(axis=-1, keepdims=True), hits.shape)
    return (
        np.concatenate([hits, nulls[..., None]], axis=-1).astype(np.float64),
        np.concatenate([num_values, (num_values[..., 0] + nulls)[..., None]], axis=-1).astype(np.float64),
    )


def _profile(
    split: Callable[[Counts, Counts], tuple[Floats, Floats]],
    blocks: Counts,
    nulls: Counts,
    is_wanted: NDArray[np.bool_],
) -> BlockProfile:
    hits, sizes = split(blocks, nulls)
    # Blocks without rows tell nothing.
    is_known = sizes > 0
    num_blocks = is_known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = sizes.sum(axis=0) / num_blocks
        share = hits.sum(axis=0) / sizes.sum(axis=0)
        is_used = is_wanted & (size * np.minimum(share, 1.0 - share) >= _RARE_ROWS_MIN)
        y = np.where(is_known, _stabilise(hits, sizes), 0.0)
        mean = y.sum(axis=0) / num_blocks
        deviation = np.where(is_known, y - mean, 0.0)
        squares = (deviation**2).sum(axis=0)
        num_effective = _count_effective(deviation, squares, is_used, is_known.any(axis=-1).sum(axis=0))
        variance = squares / (num_blocks - 1) / (1.0 - 1.0 / num_effective[:, None])
    # Sampling alone makes the arcsine of a share vary by a quarter of a row.
    return BlockProfile(split, mean, np.fmax(variance, 0.25 / size), size, is_used, num_effective)


def _count_effective(
    deviation: Floats, squares: Floats, is_used: NDArray[np.bool_], num_blocks: NDArray[Any]
) -> Floats:
    """Give M(1-r)/(1+r), r the mean lag-1 autocorrelation over a column's shares, its bias of -(1+4r)/M removed."""
    lagged = (deviation[1:] * deviation[:-1]).sum(axis=0) / np.maximum(squares, 1e-12)
    r = np.where(is_used, lagged, 0.0).sum(axis=-1) / np.maximum(is_used.sum(axis=-1), 1)
    r = np.clip(r + (1.0 + 4.0 * r) / num_blocks, 0.0, _CORRELATION_MAX)
    enough = num_blocks >= np.where(r > _ALIKE, NUM_BLOCKS_ALIKE_MIN, NUM_BLOCKS_MIN)
    return np.where(enough, np.maximum(_NUM_EFFECTIVE_MIN, num_blocks * (1.0 - r) / (1.0 + r)), np.nan)


def _stabilise(hits: Floats, sizes: Floats) -> Floats:
    """Anscombe's arcsine, whose variance is a quarter over the rows, whatever the share."""
    stable: Floats = np.arcsin(np.sqrt((hits + 0.375) / (sizes + 0.75)))
    return stable
