"""Sums of floats without rounding, so that adding is associative and commutative bit for bit.

A finite double is an integer times 2^-1074. Each is cut into limbs that are integers below 2^34, so that 2^19 of them
add up below 2^53, where float addition is exact; the limbs' sums are put together as Python integers. How a value is
cut depends on its batch, its exact value does not. (A fixed-point superaccumulator, Kulisch and Miranker 1986.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# The sum's unit: the smallest positive double.
UNIT_EXPONENT = -1074

NUM_ROWS_MAX = 1 << 19

# Two limbs hold a column's 33 and 34 highest bits below its largest value. What has bits below them is added by itself.
_HIGH_BITS = 33
_LOW_BITS = 34

# Columns with larger or smaller values are added one by one: scaling by powers of two must stay exact.
_EXPONENT_MAX = 900


@dataclass(frozen=True, slots=True)
class Limbs:
    """Doubles cut into integers, [columns, rows]: value = (high·2^34 + low)·2^(exponent[column]-67) + rest.

    `rest` has (column, row, value) of the few that have more digits; it is sorted by row.
    """

    high: Floats
    low: Floats
    exponent: Ints
    rest_column: Ints
    rest_row: Ints
    rest_value: Floats

    def take(self, rows: Ints) -> Limbs:
        """Give the limbs of some rows, in ascending order."""
        if len(rows) == self.high.shape[1]:
            return self
        position = np.minimum(np.searchsorted(rows, self.rest_row), max(len(rows) - 1, 0))
        kept = rows[position] == self.rest_row if len(rows) else np.zeros(len(self.rest_row), np.bool_)
        return Limbs(
            self.high[:, rows], self.low[:, rows], self.exponent,
            self.rest_column[kept], position[kept], self.rest_value[kept],
        )  # fmt: skip


def split_floats(values: Floats) -> Limbs:
    """Cut doubles ([columns, rows], NaN counts as 0) into limbs."""
    values = np.where(np.isnan(values), 0.0, values)
    largest = np.abs(values).max(axis=1, initial=0.0)
    assert np.isfinite(largest).all(), "infinities are refused by validation"
    exponent = np.frexp(largest)[1].astype(np.int64)  # |value| < 2^exponent
    is_plain = np.abs(exponent) <= _EXPONENT_MAX
    exponent[~is_plain] = 0
    rest = np.where(is_plain[:, None], values, 0.0)
    scale = np.ldexp(1.0, _HIGH_BITS - exponent)[:, None]
    high = np.rint(rest * scale)
    rest -= high / scale
    low = np.rint(rest * (scale * 2.0**_LOW_BITS))
    rest -= low / (scale * 2.0**_LOW_BITS)
    rest[~is_plain] = values[~is_plain]
    rest_row, rest_column = np.nonzero(rest.T)
    return Limbs(high, low, exponent, rest_column, rest_row, rest[rest_column, rest_row])


def sum_exactly(limbs: Limbs, group: Ints, num_groups: int) -> list[list[int]]:
    """Give the exact sums [groups][columns] in units of 2^-1074; `group` is int64[rows] in 0…num_groups-1."""
    num_columns, num_rows = limbs.high.shape
    sums = [[0] * num_columns for _ in range(num_groups)]
    for begin in range(0, num_rows, NUM_ROWS_MAX):
        part = slice(begin, begin + NUM_ROWS_MAX)
        for column in range(num_columns):
            shift = int(limbs.exponent[column]) - _HIGH_BITS - _LOW_BITS - UNIT_EXPONENT
            high = _add_by_group(limbs.high[column, part], group[part], num_groups)
            low = _add_by_group(limbs.low[column, part], group[part], num_groups)
            for index, (h, lo) in enumerate(zip(high, low, strict=True)):
                if h or lo:
                    sums[index][column] += ((int(h) << _LOW_BITS) + int(lo)) << shift
    entries = zip(limbs.rest_column.tolist(), group[limbs.rest_row].tolist(), limbs.rest_value.tolist(), strict=True)
    for column, index, value in entries:
        numerator, denominator = value.as_integer_ratio()
        sums[index][column] += (numerator << -UNIT_EXPONENT) // denominator
    return sums


def _add_by_group(limb: Floats, group: Ints, num_groups: int) -> list[float]:
    if num_groups == 1:
        return [float(limb.sum())]
    return np.bincount(group, limb, num_groups).tolist()  # type: ignore[no-any-return]


def to_fraction(total: int) -> Fraction:
    """Give a sum as the number that it is."""
    return Fraction(total, 1 << -UNIT_EXPONENT)


def pack_sum(total: int) -> tuple[bytes, int]:
    """Give a sum as (odd integer in bytes, exponent of 2), which is short; `unpack_sum` undoes it."""
    if total == 0:
        return b"", 0
    exponent = (total & -total).bit_length() - 1
    odd = total >> exponent
    return odd.to_bytes(odd.bit_length() // 8 + 1, "little", signed=True), exponent


def unpack_sum(odd: bytes, exponent: int) -> int:
    """Undo `pack_sum`."""
    return int.from_bytes(odd, "little", signed=True) << exponent
