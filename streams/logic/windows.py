"""Which window each event belongs to, under the spec in force at its time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.spec import ModelHistory

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Each event's window and what follows from it; every array is int64[n], instants in epoch ms.

    `spec` is the position in `history.versions`, `expires_at` is when the window is past its retention, and
    `watermark` is the time that the event alone proves to have passed: its `ts` less the allowed lateness.
    """

    spec: Ints
    start: Ints
    end: Ints
    expires_at: Ints
    watermark: Ints


def assign_windows(history: ModelHistory, ts: Ints) -> Assignment:
    """Give the tumbling window of each `ts` (int64[n], epoch ms) under the version in force at that instant."""
    spec = history.index_in_force(ts)
    windows = [published.spec.windows for published in history.versions]
    # Of one version as scalars.
    of_row = 0 if len(windows) == 1 else spec
    size = np.array([w.size_ms for w in windows], np.int64)[of_row]
    origin = np.array([w.origin_ms for w in windows], np.int64)[of_row]
    lateness = np.array([w.lateness_ms for w in windows], np.int64)[of_row]
    retention = np.array([w.retention * w.size_ms for w in windows], np.int64)[of_row]
    start = (ts - origin) // size * size + origin
    end = start + size
    return Assignment(spec, start, end, end + retention, ts - lateness)


def is_in_force(history: ModelHistory, start: int, end: int) -> bool:
    """Tell whether a window (epoch ms) is one of the spec that is in force at its start.

    One that is not was counted by a worker that learned too late of a newer spec: it is never measured.
    """
    return history.in_force(start).window_size_ms == end - start
