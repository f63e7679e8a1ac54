"""The memory of identities of one version in one partition: 64-bit hashes in a compiled hash table.

An identity counts as seen until its window is past retention, judged by the watermark before the event that asks, and
no longer than for the next SEEN_EVENTS_MAX events of its partition. Both follow from the log, so when the memory
physically forgets changes nothing. An identity takes 26 to 51 bytes: 16 a place, of which five sixteenths to five
eighths are used.
"""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

from schemas.native import address, kernels

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

# What bounds the memory of a partition whatever its windows are: 260 to 510 MB.
SEEN_EVENTS_MAX = 10_000_000

# The kernel keeps the lowest 32 bits of an event's number, so what is old must be gone long before they come round.
_FORGET_EVENTS = 1 << 30


class SeenIds:
    """Tells first occurrences from duplicates; `ordinals` are the numbers of events in their partition."""

    def __init__(self, num_events_max: int = SEEN_EVENTS_MAX) -> None:
        self._num_events_max = num_events_max
        self._handle = kernels.identities_create()
        if not self._handle:
            raise MemoryError("no memory for a table of identities")
        self._forgotten_at = 0
        weakref.finalize(self, kernels.identities_free, self._handle)

    def __len__(self) -> int:
        return int(kernels.identities_count(self._handle))

    def find_new(self, hashes: Hashes, expires_at: Ints, ordinals: Ints, watermark: Ints) -> npt.NDArray[np.bool_]:
        """Tell which events (in log order) are first occurrences; changes nothing.

        `expires_at` is when each event's own window is past retention, `watermark` what had passed before it came.
        An event is a duplicate if the last earlier one of its hash that counted is still remembered.
        """
        is_new = np.empty(len(hashes), np.bool_)
        columns = [np.ascontiguousarray(column) for column in (hashes, expires_at, ordinals, watermark)]
        _check(
            kernels.identities_find_new(
                self._handle, *map(address, columns), len(hashes), self._num_events_max, address(is_new)
            )
        )
        return is_new

    def add(self, hashes: Hashes, ordinals: Ints, expires_at: int, watermark: int) -> None:
        """Remember identities that counted until `expires_at`, in the order of their events; time is at `watermark`."""
        if not len(hashes):
            return
        columns = [np.ascontiguousarray(column) for column in (hashes, ordinals)]
        _check(
            kernels.identities_add(
                self._handle, *map(address, columns), len(hashes), expires_at, watermark, self._num_events_max
            )
        )
        if ordinals[0] - self._forgotten_at > _FORGET_EVENTS:
            self.forget(watermark, int(ordinals[0]))

    def forget(self, watermark: int, ordinal: int) -> None:
        """Give back what identities take that no event from `ordinal` on can meet."""
        self._forgotten_at = ordinal
        _check(kernels.identities_forget(self._handle, watermark, ordinal, self._num_events_max))


def _check(result: int) -> None:
    if result < 0:
        raise MemoryError("no memory for identities")
