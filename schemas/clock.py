"""The only place that reads the time; everything else is handed a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What asks for the time asks one of these."""

    def now_ms(self) -> int:
        """Epoch milliseconds (UTC)."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards, for deadlines and durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is advanced; for tests and replays."""

    def __init__(self, now_ms: int = 0) -> None:
        self._start_ms = now_ms
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return (self._now_ms - self._start_ms) / 1000

    def advance_ms(self, ms: int) -> None:
        """Move time forward by `ms` (never backwards)."""
        assert ms >= 0
        self._now_ms += ms
