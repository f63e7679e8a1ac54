"""Sums of floats without rounding, so that adding is associative and commutative bit for bit.

A finite double is an integer times 2^-1074. Each is cut into two limbs and filed under its exponent; limbs are summed
as integers below 2^53, where float addition is exact, and put together as Python integers: a fixed-point
superaccumulator (Kulisch and Miranker 1986), vectorised over rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Exponents are filed 8 by 8: a limb of 27 bits shifted by up to 7 stays below 2^34, and 2^19 of those below 2^53.
_EXPONENTS_PER_BIN = 8
_LIMB_BITS = 27
NUM_ROWS_MAX = 1 << 19

# The sum's unit: the smallest positive double.
UNIT_EXPONENT = -1074

_MANTISSA_BITS = 52
_MANTISSA = np.int64((1 << _MANTISSA_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Limbs:
    """Doubles cut into integers: value = (high·2^27 + low)·2^(8·bin)·2^-1074; arrays are [columns, rows]."""

    high: Floats
    low: Floats
    bin: Ints
    first_bin: int
    num_bins: int

    def take(self, rows: Ints) -> Limbs:
        """Give the limbs of some rows."""
        return Limbs(self.high[:, rows], self.low[:, rows], self.bin[:, rows], self.first_bin, self.num_bins)


def split_floats(values: Floats) -> Limbs:
    """Cut doubles ([columns, rows], NaN counts as 0) into limbs."""
    bits = np.where(np.isnan(values), 0.0, values).view(np.int64)
    exponent = (bits >> _MANTISSA_BITS) & 0x7FF
    assert not (exponent == 0x7FF).any(), "infinities are refused by validation"
    mantissa = (bits & _MANTISSA) | ((exponent != 0).astype(np.int64) << _MANTISSA_BITS)
    mantissa = np.where(bits < 0, -mantissa, mantissa)
    exponent = np.maximum(exponent, 1) - 1
    file, shift = exponent // _EXPONENTS_PER_BIN, exponent % _EXPONENTS_PER_BIN
    used = file[mantissa != 0]
    first, last = (int(used.min()), int(used.max())) if used.size else (0, 0)
    file[mantissa == 0] = first
    high = (mantissa >> _LIMB_BITS) << shift
    low = (mantissa & ((1 << _LIMB_BITS) - 1)) << shift
    return Limbs(high.astype(np.float64), low.astype(np.float64), file - first, first, last - first + 1)


def sum_exactly(limbs: Limbs, group: Ints, num_groups: int) -> list[list[int]]:
    """Give the exact sums [groups][columns] in units of 2^-1074; `group` is int64[rows] in 0…num_groups-1."""
    num_columns, num_rows = limbs.bin.shape
    sums = [[0] * num_columns for _ in range(num_groups)]
    num_cells = num_columns * num_groups * limbs.num_bins
    base = (np.arange(num_columns)[:, None] * num_groups + group[None, :]) * limbs.num_bins
    for begin in range(0, num_rows, NUM_ROWS_MAX):
        part = slice(begin, begin + NUM_ROWS_MAX)
        cell = (base[:, part] + limbs.bin[:, part]).ravel()
        high = np.bincount(cell, limbs.high[:, part].ravel(), num_cells)
        low = np.bincount(cell, limbs.low[:, part].ravel(), num_cells)
        used = np.flatnonzero((high != 0) | (low != 0))
        for place, h, lo in zip(used.tolist(), high[used].tolist(), low[used].tolist(), strict=True):
            rest, file = divmod(place, limbs.num_bins)
            column, row = divmod(rest, num_groups)
            exponent = (file + limbs.first_bin) * _EXPONENTS_PER_BIN
            sums[row][column] += ((int(h) << _LIMB_BITS) + int(lo)) << exponent
    return sums


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
