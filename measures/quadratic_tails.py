"""Tails of Σ wⱼ Zⱼ², Z independent standard normal: the limiting laws of two tests of distribution functions.

Smirnov's inversion (1937; Slepian 1958): with simple weights w₁ > w₂ > … and D(y) = Π (1 - wⱼ y),
P(Σ > x) = 1/π Σₖ (-1)ᵏ⁺¹ ∫ exp(-xy/2) / (y √|D(y)|) dy over y from 1/w₂ₖ₋₁ to 1/w₂ₖ. The integrand has an inverse
square root at either end, for which Chebyshev's nodes are exact but for a smooth factor. No tail is lost to rounding:
1e-100 is as good as .1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from measures.samples import Floats

# With 30 nodes an interval p-values are right to 1e-13.
_NUM_NODES = 30
# Intervals until exp(-xy/2) is below a float's last digit: at the smallest x, (2π · 40)² · .003 / 2 = 95 and
# 80 · 81 · .03 / 2 = 97.
_NUM_INTERVALS = 40
# Below, the tails are 1 to the last digit of a float.
_CRAMER_VON_MISES_MIN = 0.003
_ANDERSON_DARLING_MIN = 0.03
_NODES: Floats = np.cos(math.pi * (np.arange(_NUM_NODES) + 0.5) / _NUM_NODES)
_SIGNS: Floats = np.where(np.arange(_NUM_INTERVALS) % 2 == 0, 1.0, -1.0)


def tail_cramer_von_mises(value: float) -> float:
    """Return the probability that Cramér and von Mises' ω² exceeds a value: weights 1 / (jπ)²."""
    if value < _CRAMER_VON_MISES_MIN:
        return 1.0
    return _tail(value, lambda place: (place * math.pi) ** 2, lambda y: np.sin(np.sqrt(y)) / np.sqrt(y))


def tail_anderson_darling(value: float) -> float:
    """Return the probability that Anderson and Darling's A² exceeds a value: weights 1 / (j (j + 1))."""
    if value < _ANDERSON_DARLING_MIN:
        return 1.0
    return _tail(
        value,
        lambda place: place * (place + 1.0),
        lambda y: np.cos(math.pi / 2.0 * np.sqrt(1.0 + 4.0 * y)) / (math.pi * y),
    )


def _tail(value: float, root: Callable[[Floats], Floats], determinant: Callable[[Floats], Floats]) -> float:
    odd = np.arange(1.0, 2.0 * _NUM_INTERVALS, 2.0)[:, None]
    low, high = root(odd), root(odd + 1.0)
    y = (low + high) / 2.0 + (high - low) / 2.0 * _NODES
    # Chebyshev's rule holds for f(y) / √((y - low)(high - y)), and this is f.
    smooth = np.exp(-value * y / 2.0) / y * np.sqrt((y - low) * (high - y) / np.abs(determinant(y)))
    return min(1.0, max(0.0, float((_SIGNS * smooth.sum(axis=1)).sum()) / _NUM_NODES))
