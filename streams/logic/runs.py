"""Columns of a batch in which equal values stand together, since events come in the order of time, or nearly. Pure."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Entry = TypeVar("Entry", bound=np.generic)


def pick(column: npt.NDArray[Entry], rows: Ints) -> npt.NDArray[Entry]:
    """Give the entries of some rows; these are ascending and distinct, so where they are all there is nothing to do."""
    return column if len(rows) == len(column) else column[rows]


def place(column: npt.NDArray[Entry], rows: Ints, values: npt.NDArray[Entry] | int) -> None:
    """Set the entries of some rows, as `pick` gets them."""
    column[slice(None) if len(rows) == len(column) else rows] = values


def list_distinct(values: Ints) -> Ints:
    """Give the distinct values, ascending; fast where equal ones stand together."""
    return np.unique(values[find_runs(values)])


def number_values(values: Ints) -> tuple[Ints, Codes]:
    """Give the distinct values, ascending, and each one's place among them; fast where equal ones stand together."""
    begins = find_runs(values)
    distinct, places = np.unique(values[begins], return_inverse=True)
    return distinct, np.repeat(places.astype(np.int32), measure_runs(begins, len(values)))


def list_pairs(first: Ints, second: Ints) -> list[tuple[int, int]]:
    """Give the distinct pairs of two columns, in ascending order."""
    starts = find_runs(first, second)
    return sorted(set(zip(first[starts].tolist(), second[starts].tolist(), strict=True)))


def find_runs(*columns: Ints) -> Ints:
    """Give where runs of rows that are equal in all columns begin."""
    if not len(columns[0]):
        return np.empty(0, np.int64)
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.concatenate(([0], np.flatnonzero(changes) + 1))


def measure_runs(begins: Ints, size: int) -> Ints:
    """Give how long each run of a column of `size` rows is."""
    # Not np.diff, which takes as long as everything else here.
    lengths: Ints = np.concatenate((begins[1:], [size])) - begins
    return lengths
