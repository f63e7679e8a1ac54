"""Sums of floats without rounding, so that adding is associative and commutative bit for bit.

A finite double is an integer times 2^-1074. The kernel adds such integers in limbs (`schemas/native/counts.c`); here
they become Python integers, and those what a summary row keeps.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from schemas.native import address, kernels

# The sum's unit: the smallest positive double.
UNIT_EXPONENT = -1074

# Of 32 bits each, as the kernel has them.
NUM_LIMBS = 68


def read_sums(limbs: npt.NDArray[np.int64]) -> list[int]:
    """Give the sums that limbs (int64[..., NUM_LIMBS]) stand for, in their order, in units of 2^-1074."""
    limbs = np.ascontiguousarray(limbs)
    num_sums = limbs.size // NUM_LIMBS
    words = np.empty((num_sums, NUM_LIMBS), np.uint32)
    kernels.carry_sums(address(limbs), num_sums, address(words))
    size = NUM_LIMBS * 4
    sent = words.tobytes()
    return [
        int.from_bytes(sent[begin : begin + size], "little", signed=True) for begin in range(0, num_sums * size, size)
    ]


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
