"""Columns in runs against NumPy, and the tallies of a batch against one row after the other."""

from __future__ import annotations

import numpy as np
import pytest

from streams.logic.counts import tally_rows
from streams.logic.runs import list_distinct, list_pairs, number_values, pick


@pytest.mark.parametrize("values", [[], [7], [3, 3, 3, 9, 9], [5, 1, 1, 5, 2, 2, 5]])
def test_runs_are_numbered_as_if_each_value_were_looked_at(values: list[int]) -> None:
    column = np.array(values, np.int64)
    distinct, places = np.unique(column, return_inverse=True)
    found, codes = number_values(column)
    assert (found.tolist(), codes.tolist(), codes.dtype) == (distinct.tolist(), places.tolist(), np.int32)
    assert list_distinct(column).tolist() == distinct.tolist()
    assert list_pairs(column, -column) == [(value, -value) for value in distinct.tolist()]


def test_pairs_differ_where_either_does() -> None:
    assert list_pairs(np.array([2, 2, 1, 1, 2]), np.array([5, 6, 6, 6, 5])) == [(1, 6), (2, 5), (2, 6)]


def test_all_rows_are_the_column_itself() -> None:
    column = np.array([4, 5, 6])
    assert pick(column, np.arange(3)) is column
    assert pick(column, np.array([0, 2])).tolist() == [4, 6]


def test_tallies_are_those_of_one_row_after_the_other() -> None:
    rng = np.random.default_rng(4)
    offset = np.sort(rng.integers(0, 10**12, 500))
    rows = np.flatnonzero(rng.random(500) < 0.7)
    group = rng.integers(0, 5, len(rows)).astype(np.int32)
    is_new, is_late = rng.random(len(rows)) < 0.8, rng.random(len(rows)) < 0.3
    found = tally_rows(offset, rows, group, is_new, is_late, 6)
    for number in range(6):
        own = group == number
        ends = [*(offset[rows[own]] + 1).tolist()] or [0]
        expected = int((~is_new[own]).sum()), int(is_late[own].sum()), ends[-1]
        assert tuple(int(column[number]) for column in found) == expected
