"""The learning rate of every step, known before the first.

Owns the one-cycle schedule of Smith and Topin 2017 ("Super-Convergence"), with the annealing by cosine
and the momentum that runs against it as `torch.optim.lr_scheduler.OneCycleLR` has them. Computed at
once: that class spends as long on a step as a small network does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RISING_SHARE = 0.3
_FIRST_DIVISOR, _LAST_DIVISOR = 25.0, 1e4
_MOMENTUM_LOW, _MOMENTUM_HIGH = 0.85, 0.95

Floats = NDArray[np.float64]


def plan_one_cycle(peak: float, num_steps: int) -> tuple[Floats, Floats]:
    """Return the learning rate and the momentum (Adam's first beta) of each of `num_steps` steps."""
    first = peak / _FIRST_DIVISOR
    last = first / _LAST_DIVISOR
    top, end = _RISING_SHARE * num_steps - 1, float(num_steps - 1)
    steps = np.arange(num_steps, dtype=np.float64)
    rising = steps <= top
    share = np.where(rising, steps / (top or 1.0), (steps - top) / (end - top))
    rates = np.where(rising, _anneal(first, peak, share), _anneal(peak, last, share))
    falling, growing = _anneal(_MOMENTUM_HIGH, _MOMENTUM_LOW, share), _anneal(_MOMENTUM_LOW, _MOMENTUM_HIGH, share)
    return rates, np.where(rising, falling, growing)


def _anneal(start: float, end: float, share: Floats) -> Floats:
    return end + (start - end) / 2.0 * (1.0 + np.cos(np.pi * share))
