"""How small must a p-value be, that on average at most so many false alerts open?

Owns the spending of the false-alarm budget over columns, segments, time scales and repeated looks. Levels depend on
elapsed time alone, never on values. It must not know what is tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

# One window finds large changes at once, a day's or a week's windows together small ones. A third of the level is
# little to pay: it moves the threshold by a tenth.
_SHORT_MS, _SHORT_SCALES = 12 * HOUR_MS, (1, 6, 24)
_MIDDLE_MS, _MIDDLE_SCALES = 4 * DAY_MS, (1, 7)

# However generous the budget: above 5 % a p-value says nothing.
LEVEL_MAX = 0.05

# The first look at a window takes nine tenths of its level, each later look nine tenths of what is left. So late data
# may still open an alert, and all looks together stay within the budget, however many there will be.
_SHARE_LEFT = 0.1

# Below a hundredth of the rows no value is judged in earnest.
_SMALLEST_SHARE = 0.01

# A reference smaller than ten times the largest merged window makes errors come in bunches: what is odd in it is
# found again in every window.
REFERENCE_ROWS_MIN = 10


def choose_scales(window_ms: int) -> tuple[int, ...]:
    """Give the numbers of windows that are tested together; 1 is always among them.

    >>> choose_scales(HOUR_MS), choose_scales(DAY_MS), choose_scales(7 * DAY_MS)
    ((1, 6, 24), (1, 7), (1,))
    """
    if window_ms < _SHORT_MS:
        return _SHORT_SCALES
    return _MIDDLE_SCALES if window_ms < _MIDDLE_MS else (1,)


def give_level(count: float, per_ms: int, window_ms: int, num_tests: int) -> float:
    """Give the level at which each of `num_tests` tests of every window adds up to `count` false alarms per `per_ms`.

    >>> round(give_level(1.0, 30 * DAY_MS, DAY_MS, num_tests=2) * 30 * 2, 9)
    1.0
    """
    return min(LEVEL_MAX, count * window_ms / per_ms / max(num_tests, 1))


def share_of_look(look: int) -> float:
    """Give the share of a window's level that its look-th test has, counted from 1; all together have 1."""
    assert look >= 1
    return float((1.0 - _SHARE_LEFT) * _SHARE_LEFT ** (look - 1))


def restate_level(level: float, smallest: float) -> float:
    """Give the level for a value that is judged again and again while its rows grow from a share `smallest` to all.

    A standardized mean that is looked at all along crosses z with probability φ(z) · ((z - 1/z)/2 · log(1/smallest) +
    2/z), one side of the approximation of Miller and Siegmund, "Maximally selected chi square statistics" (1982).
    Rows must come in an order that does not depend on their values.
    """
    growth = -math.log(min(max(smallest, _SMALLEST_SHARE), 1.0))
    if growth == 0.0:
        return level

    def exceeds(z: float) -> bool:
        density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        return density * ((z - 1.0 / z) / 2.0 * growth + 2.0 / z) > level

    low, high = 1.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    return float(special.ndtr(-high))


def is_reference_small(num_reference: int, num_window: int) -> bool:
    """Say whether false alarms may come in bunches, because the reference has few rows for a (merged) window's."""
    return num_reference < REFERENCE_ROWS_MIN * num_window


@dataclass(frozen=True, slots=True)
class Budget:
    """`count` false alerts per `per_ms` of a model whose every window of `window_ms` is tested `num_tests` times.

    `num_tests` counts columns times segments and is fixed for a spec; `origin_ms` is where windows are counted from.
    """

    count: float
    per_ms: int
    window_ms: int
    origin_ms: int
    num_tests: int

    @property
    def scales(self) -> tuple[int, ...]:
        """The numbers of windows that are tested together."""
        return choose_scales(self.window_ms)

    def level(self, scale: int, look: int = 1) -> float:
        """Give the level of one test: of one column of one segment of one merged window.

        `look` counts, from 1, how often the merged window is tested, because more of its events came.

        >>> round(Budget(1.0, 30 * DAY_MS, HOUR_MS, 0, num_tests=20).level(24) * 20 * 30 * 3, 9)
        0.9
        """
        assert scale in self.scales
        count, num_tests = self.count * share_of_look(look), len(self.scales) * max(self.num_tests, 1)
        return give_level(count, self.per_ms, self.window_ms * scale, num_tests)

    def span(self, window_start: int, scale: int) -> tuple[int, int]:
        """Give start and end (epoch ms) of the merged window that a window is part of; they tile time from the origin.

        >>> Budget(1.0, 30 * DAY_MS, HOUR_MS, 0, num_tests=1).span(7 * HOUR_MS, 6) == (6 * HOUR_MS, 12 * HOUR_MS)
        True
        """
        size_ms = self.window_ms * scale
        start = (window_start - self.origin_ms) // size_ms * size_ms + self.origin_ms
        return start, start + size_ms

    def completes(self, window_start: int, scale: int) -> bool:
        """Say whether a window is the last one of its merged window, which is tested when that one is."""
        return self.span(window_start, scale)[1] == window_start + self.window_ms
