"""Sums without rounding: any order, any cut, any grouping gives the same integer, and it is the true sum."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import EventColumns
from schemas.texts import TextColumn
from streams.logic.counts import CodedRows
from streams.logic.exact_sums import pack_sum, to_fraction, unpack_sum
from streams.logic.layouts import DEVIATION_MAX, Layout, NumberField

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Values that a batch has side by side: of one size, of all sizes, and the awkward ones.
VALUES = st.lists(st.one_of(FINITE, st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, 5e-324, -1e308, 1e308, 0.1])))

# Without cuts the centre is 0, so that sums are those of the values, up to the largest deviation.
LAYOUT = Layout(
    "inputs", tuple(NumberField(name, np.empty(0), None, None, slot) for name, slot in (("x", 0), ("y", 4))), (), (), 8
)


def add_exactly(x: list[float], y: list[float], rows: list[int], groups: list[int]) -> list[list[int]]:
    """Give per group Σx, Σy, Σx², Σy² of the chosen rows."""
    columns = EventColumns(
        "records", "m", np.arange(len(x)), np.zeros(len(x), np.int32), np.arange(len(x)),
        TextColumn.of(list(map(str, range(len(x))))),
        numbers={"x": np.array(x, np.float64), "y": np.array(y, np.float64)},
    )  # fmt: skip
    found = CodedRows(LAYOUT, columns).count(np.array(rows, np.int64), np.array(groups, np.int32), 3)
    return [summary.sums for summary in found.read(np.arange(3))]


def clip(value: float) -> float:
    return min(max(value, -DEVIATION_MAX), DEVIATION_MAX)


def sum_of(values: list[float]) -> int:
    return add_exactly(values, values, list(range(len(values))), [0] * len(values))[0][0]


@settings(deadline=None)
@given(VALUES)
def test_the_sum_is_the_true_one(values: list[float]) -> None:
    assert to_fraction(sum_of(values)) == sum(Fraction(clip(value)) for value in values)


@settings(deadline=None)
@given(VALUES, st.data())
def test_order_and_cuts_do_not_matter(values: list[float], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    assert sum_of(values) == sum_of(shuffled[:cut]) + sum_of(shuffled[cut:])


@settings(deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE | st.just(float("nan")), st.integers(0, 2)), min_size=1), st.data())
def test_groups_and_chosen_rows_are_summed_apart(rows: list[tuple[float, float, int]], data: st.DataObject) -> None:
    chosen = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    sums = add_exactly([x for x, _, _ in rows], [y for _, y, _ in rows], chosen, [rows[row][2] for row in chosen])
    for group in range(3):
        own = [rows[row] for row in chosen if rows[row][2] == group]
        x, y = [clip(row[0]) for row in own], [clip(row[1]) for row in own if row[1] == row[1]]
        expected = [x, y, [value * value for value in x], [value * value for value in y]]
        assert [to_fraction(total) for total in sums[group]] == [sum(map(Fraction, values)) for values in expected]


@settings(deadline=None)
@given(VALUES)
def test_a_packed_sum_comes_back(values: list[float]) -> None:
    total = sum_of(values)
    assert unpack_sum(*pack_sum(total)) == total


def test_many_rows_do_not_overflow() -> None:
    total = sum_of([1.0 - 2.0**-53] * 600_000)
    assert to_fraction(total) == 600_000 * Fraction(1.0 - 2.0**-53)
