"""The memory of identities of one version in one partition: 64-bit hashes in sorted runs, all vectorised.

An identity counts as seen until its window is past retention, judged by the watermark before the event that asks; so
when the memory physically forgets changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_NEVER = np.iinfo(np.int64).min

# Larger runs are not merged any more: merging two of them takes about 50 ms, and the event loop waits for it. Ten
# million identities are then ten runs, each about 0.1 µs a look-up.
RUN_SIZE_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class _Run:
    hashes: Hashes  # sorted, without repetition
    expires_at: Ints
    last_expiry: int


class SeenIds:
    """Tells first occurrences from duplicates."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.hashes) for run in self._runs)

    def find_new(self, hashes: Hashes, expires_at: Ints, watermark: Ints) -> npt.NDArray[np.bool_]:
        """Tell which events (in log order) are first occurrences; changes nothing.

        `expires_at` is when each event's own window is past retention, `watermark` what had passed before it came.
        An event is a duplicate if an earlier one that counted has the same hash and has not expired.
        """
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        remembered = np.full(len(hashes), _NEVER)
        remembered[order] = self._look_up(ordered)
        is_new = remembered <= watermark
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(again):
            self._settle_repetitions(order, ordered, again, is_new, remembered, expires_at, watermark)
        return is_new

    def add(self, hashes: Hashes, expires_at: Ints) -> None:
        """Remember identities that counted."""
        if not len(hashes):
            return
        order = np.argsort(hashes, kind="stable")
        self._runs.append(_keep_latest(hashes[order], expires_at[order]))
        while len(self._runs) > 1:
            older, newer = self._runs[-2:]
            if len(older.hashes) > 2 * len(newer.hashes) or len(older.hashes) + len(newer.hashes) > RUN_SIZE_MAX:
                break
            self._runs[-2:] = [_merge(older, newer)]

    def forget(self, watermark_ms: int) -> None:
        """Drop runs in which every identity has expired."""
        self._runs = [run for run in self._runs if run.last_expiry > watermark_ms]

    def _look_up(self, ordered: Hashes) -> Ints:
        found = np.full(len(ordered), _NEVER)
        for run in self._runs:
            position = np.searchsorted(run.hashes, ordered)
            np.minimum(position, len(run.hashes) - 1, out=position)
            hit = run.hashes[position] == ordered
            np.maximum(found, np.where(hit, run.expires_at[position], _NEVER), out=found)
        return found

    def _settle_repetitions(
        self,
        order: Ints,
        ordered: Hashes,
        again: Ints,
        is_new: npt.NDArray[np.bool_],
        remembered: Ints,
        expires_at: Ints,
        watermark: Ints,
    ) -> None:
        # One by one, since whether the second counts depends on whether the first did; repetitions are few.
        latest: dict[int, int] = {}
        positions = np.unique(np.concatenate((again, again + 1)))
        for position in positions.tolist():
            index, identity = int(order[position]), int(ordered[position])
            seen_until = latest.get(identity, int(remembered[index]))
            is_new[index] = seen_until <= watermark[index]
            latest[identity] = max(seen_until, int(expires_at[index])) if is_new[index] else seen_until


def _merge(older: _Run, newer: _Run) -> _Run:
    size = len(older.hashes) + len(newer.hashes)
    hashes, expires_at = np.empty(size, np.uint64), np.empty(size, np.int64)
    position = np.searchsorted(older.hashes, newer.hashes) + np.arange(len(newer.hashes))
    rest = np.ones(size, np.bool_)
    rest[position] = False
    hashes[position], expires_at[position] = newer.hashes, newer.expires_at
    hashes[rest], expires_at[rest] = older.hashes, older.expires_at
    return _keep_latest(hashes, expires_at)


def _keep_latest(ordered: Hashes, expires_at: Ints) -> _Run:
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if len(first) < len(ordered):  # counted again after it had expired
        ordered, expires_at = ordered[first], np.maximum.reduceat(expires_at, first)
    return _Run(ordered, expires_at, int(expires_at.max()))
