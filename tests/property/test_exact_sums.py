"""Sums without rounding: any order, any cut, any grouping gives the same integer, and it is the true sum."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.logic.exact_sums import pack_sum, split_floats, sum_exactly, to_fraction, unpack_sum

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Values that a batch has side by side: of one size, of all sizes, and the awkward ones.
VALUES = st.lists(st.one_of(FINITE, st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, 5e-324, -1e308, 1e308, 0.1])))


def add_exactly(values: list[float]) -> int:
    array = np.array([values], np.float64)
    return sum_exactly(split_floats(array), np.zeros(len(values), np.int64), 1)[0][0]


@given(VALUES)
def test_the_sum_is_the_true_one(values: list[float]) -> None:
    assert to_fraction(add_exactly(values)) == sum(map(Fraction, values))


@given(VALUES, st.data())
def test_order_and_cuts_do_not_matter(values: list[float], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    assert add_exactly(values) == add_exactly(shuffled[:cut]) + add_exactly(shuffled[cut:])


@given(st.lists(st.tuples(FINITE, FINITE, st.integers(0, 2)), min_size=1), st.data())
def test_groups_and_chosen_rows_are_summed_apart(rows: list[tuple[float, float, int]], data: st.DataObject) -> None:
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))))
    columns = np.array([[a for a, _, _ in rows], [b for _, b, _ in rows]])
    group = np.array([g for _, _, g in rows])[chosen]
    sums = sum_exactly(split_floats(columns).take(chosen), group, 3)
    for index in range(3):
        for column in range(2):
            expected = sum((Fraction(rows[row][column]) for row in chosen if rows[row][2] == index), Fraction(0))
            assert to_fraction(sums[index][column]) == expected


@given(VALUES)
def test_a_packed_sum_comes_back(values: list[float]) -> None:
    total = add_exactly(values)
    assert unpack_sum(*pack_sum(total)) == total


def test_nulls_count_as_nothing_and_many_rows_do_not_overflow() -> None:
    values = np.full((1, 600_000), 1.0 - 2.0**-53)
    values[0, ::3] = np.nan
    total = sum_exactly(split_floats(values), np.zeros(600_000, np.int64), 1)[0][0]
    assert to_fraction(total) == 400_000 * Fraction(1.0 - 2.0**-53)
