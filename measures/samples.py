"""Columns made ready to be compared: numbers sorted, categories counted, each once however often it is compared.

Owns what is missing and what two equal values are. A sample does not depend on the order of its rows, so nothing that
is computed from it can.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Vocabulary = tuple[Hashable, ...]


@dataclass(frozen=True, eq=False)
class NumberSample:
    """The finite values of a column, ascending."""

    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_bytes(self) -> int:
        """The memory of the values."""
        return self.values.nbytes

    @cached_property
    def deviation(self) -> float:
        """The standard deviation (ddof 0); it may overflow to infinity or NaN."""
        return float(np.std(self.values))

    @cached_property
    def num_distinct(self) -> int:
        """How many different values there are."""
        return int(np.count_nonzero(self.values[1:] != self.values[:-1])) + 1 if len(self.values) else 0


@dataclass(frozen=True, eq=False)
class CategorySample:
    """How often each value of a vocabulary occurs in a column; the vocabulary ascends, counts may be 0."""

    vocabulary: Vocabulary
    counts: Ints

    def __len__(self) -> int:
        return self.num_rows

    @property
    def num_bytes(self) -> int:
        """The memory of the counts."""
        return self.counts.nbytes

    @cached_property
    def num_rows(self) -> int:
        """How many rows have a value."""
        return int(self.counts.sum())


Sample = NumberSample | CategorySample


def sort_numbers(values: NDArray[Any]) -> NumberSample:
    """Make a sample of numbers; NaN and infinities are missing."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    # NaN stands behind infinity.
    first = int(np.searchsorted(ordered, -np.inf, side="right"))
    end = int(np.searchsorted(ordered, np.inf, side="left"))
    # Adding 0.0 makes -0.0 equal to 0.0 in every bit, so that sorting leaves no trace of order.
    return NumberSample(ordered[first:end] + 0.0)


def count_categories(values: NDArray[Any]) -> CategorySample:
    """Make a sample of categories: strings or other hashable values, None or NaN being missing."""
    codes, vocabulary = code_categories(values)
    return CategorySample(vocabulary, count_codes(codes, len(vocabulary)))


def code_categories(values: NDArray[Any]) -> tuple[Ints, Vocabulary]:
    """Replace categories by their places in an ascending vocabulary, missing ones by -1."""
    codes, distinct = pd.factorize(np.asarray(values, dtype=object), use_na_sentinel=True)
    found: list[Hashable] = list(distinct)
    order = sorted(range(len(found)), key=lambda index: rank_category(found[index]))
    rank = np.empty(len(found) + 1, dtype=np.int64)
    rank[order] = np.arange(len(found))
    rank[-1] = -1  # where factorize's code for missing, -1, points
    return rank[codes], tuple(found[index] for index in order)


def rank_category(value: Hashable) -> tuple[str, str]:
    """Give what orders values of a vocabulary, of whatever types."""
    return str(value), type(value).__name__


def count_codes(codes: NDArray[np.signedinteger[Any]], size: int) -> Ints:
    """Count the codes 0 … size - 1; negative ones are missing."""
    return np.bincount(codes[codes >= 0], minlength=size).astype(np.int64)


def align_categories(reference: CategorySample, current: CategorySample) -> tuple[Ints, Ints]:
    """Give the counts of both side by side, over the values that either has, in ascending order."""
    if reference.vocabulary is not current.vocabulary and reference.vocabulary != current.vocabulary:
        values = sorted({*reference.vocabulary, *current.vocabulary}, key=rank_category)
        place = {value: index for index, value in enumerate(values)}
        before, after = (_spread(each, place) for each in (reference, current))
    else:
        before, after = reference.counts, current.counts
    occurs = (before > 0) | (after > 0)
    return before[occurs], after[occurs]


def pool_numbers(reference: NumberSample, current: NumberSample) -> Floats:
    """Give the values of both, ascending."""
    values = np.concatenate([reference.values, current.values])
    values.sort(kind="stable")  # two ascending runs are merged, not sorted
    return values


def align_numbers(reference: NumberSample, current: NumberSample) -> tuple[Ints, Ints]:
    """Give how often each different value occurs on either side, in ascending order."""
    pooled = pool_numbers(reference, current)
    values = pooled[np.append(True, pooled[1:] != pooled[:-1])]
    before, after = (
        np.searchsorted(each.values, values, side="right") - np.searchsorted(each.values, values, side="left")
        for each in (reference, current)
    )
    return before, after


def _spread(sample: CategorySample, place: Mapping[Hashable, int]) -> Ints:
    counts = np.zeros(len(place), dtype=np.int64)
    counts[[place[value] for value in sample.vocabulary]] = sample.counts
    return counts
