"""The memory of a model's identities in one partition: 64-bit hashes in compiled hash tables.

An event counts in two streams at most: as output of its version, and where it carries features as input, once whatever
versions scored it. Mostly it counts in both, and takes one entry for both. In each stream an identity counts as seen
until its window is past retention, judged by the stream's watermark before the event that asks, and no longer than for
the next SEEN_EVENTS_MAX events of its partition. Both follow from the log, so when the memory physically forgets
changes nothing. An entry takes 26 to 51 bytes: 16 a place, of which five sixteenths to five eighths are used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.native import address, kernels

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# What bounds the memory of a partition whatever its windows are: 260 to 510 MB.
SEEN_EVENTS_MAX = 10_000_000

# The kernel keeps the lowest 32 bits of an event's number, so what is old must be gone long before they come round.
_FORGET_EVENTS = 1 << 30

# So many versions share a table, as the kernel numbers them; code 0 are inputs.
_NUM_CODES = 256
_NUM_VERSIONS = _NUM_CODES - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """Events in log order that ask whether they are first occurrences; all columns have an entry an event.

    `expires_at` is when the event's window is past retention, `ordinals` is its number in the partition. It asks as
    output of `version`, a number that `SeenIds.number` gave (-1: not at all), where time had come to `watermark` before
    it, and as input where `asks_input` is set, where time had come to `input_watermark`.
    """

    hashes: Hashes
    expires_at: Ints
    ordinals: Ints
    version: Ints
    watermark: Ints
    asks_input: Mask
    input_watermark: Ints


class SeenIds:
    """Tells first occurrences from duplicates, of one model."""

    def __init__(self, num_events_max: int = SEEN_EVENTS_MAX) -> None:
        self._num_events_max = num_events_max
        self._numbers: dict[str, int] = {}
        # Inputs are in the first; later ones are of versions for which it has no code left.
        self._tables = [_Table(num_events_max)]

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def number(self, version: str) -> int:
        """Give the number of a version, here and until this memory is gone."""
        number = self._numbers.setdefault(version, len(self._numbers))
        while number // _NUM_VERSIONS >= len(self._tables):
            self._tables.append(_Table(self._num_events_max))
        return number

    def find_new(self, asked: Asked) -> tuple[Mask, Mask]:
        """Tell which events are first occurrences as outputs and as inputs, where they ask; changes nothing.

        An event is a duplicate in a stream if the last earlier one of its hash that counted there is still remembered.
        """
        is_new, is_new_input = self._tables[0].find_new(asked, _code(asked.version, 0), asked.asks_input)
        for index in range(1, len(self._tables)):
            code = _code(asked.version, index)
            if code.any():
                is_new |= self._tables[index].find_new(asked, code, np.zeros(len(code), np.bool_))[0]
        return is_new, is_new_input

    def add(
        self,
        hashes: Hashes,
        ordinals: Ints,
        expires_at: int,
        version: str,
        with_inputs: bool,
        watermark_of: Callable[[str], int],
    ) -> None:
        """Remember identities that counted until `expires_at`, in the order of their events.

        As outputs of `version` and, if so, as inputs too; of version "" as inputs alone. `watermark_of` tells how far
        the time of a version has come, of "" that of inputs.
        """
        index, code = divmod(self.number(version), _NUM_VERSIONS) if version else (0, -1)
        is_input = with_inputs or not version
        if index:
            self._add(index, hashes, ordinals, expires_at, code + 1, False, watermark_of)
            code = -1
        if not index or is_input:
            self._add(0, hashes, ordinals, expires_at, code + 1, is_input, watermark_of)

    def _add(
        self,
        index: int,
        hashes: Hashes,
        ordinals: Ints,
        expires_at: int,
        code: int,
        is_input: bool,
        watermark_of: Callable[[str], int],
    ) -> None:
        watermarks = self._list_watermarks(index, watermark_of)
        self._tables[index].add(hashes, ordinals, expires_at, code, is_input, watermarks)

    def forget(self, watermark_of: Callable[[str], int], ordinal: int) -> None:
        """Give back what identities take that no event from `ordinal` on can meet."""
        for index, table in enumerate(self._tables):
            table.forget(self._list_watermarks(index, watermark_of), ordinal)

    def _list_watermarks(self, index: int, watermark_of: Callable[[str], int]) -> Ints:
        """Give int64[_NUM_CODES]: what nothing can come before any more, of inputs and then of a table's versions."""
        watermarks = np.zeros(_NUM_CODES, np.int64)
        watermarks[0] = watermark_of("")
        for version, number in self._numbers.items():
            if number // _NUM_VERSIONS == index:
                watermarks[number % _NUM_VERSIONS + 1] = watermark_of(version)
        return watermarks


class _Table:
    """A table of the kernel."""

    def __init__(self, num_events_max: int) -> None:
        self._num_events_max = num_events_max
        self._handle = kernels.identities_create()
        if not self._handle:
            raise MemoryError("no memory for a table of identities")
        self._forgotten_at = 0
        weakref.finalize(self, kernels.identities_free, self._handle)

    def __len__(self) -> int:
        return int(kernels.identities_count(self._handle))

    def find_new(self, asked: Asked, code: Codes, asks_input: Mask) -> tuple[Mask, Mask]:
        num_events = len(asked.hashes)
        is_new, is_new_input = np.empty(num_events, np.bool_), np.empty(num_events, np.bool_)
        columns = [
            np.ascontiguousarray(column)
            for column in (
                asked.hashes, asked.expires_at, asked.ordinals, code, asked.watermark, asks_input, asked.input_watermark
            )
        ]  # fmt: skip
        events = np.array(list(map(address, columns)), np.uint64)
        _check(
            kernels.identities_find_new(
                self._handle, address(events), num_events, self._num_events_max, address(is_new), address(is_new_input)
            )
        )
        return is_new, is_new_input

    def add(self, hashes: Hashes, ordinals: Ints, expires_at: int, code: int, is_input: bool, watermarks: Ints) -> None:
        if not len(hashes):
            return
        columns = [np.ascontiguousarray(column) for column in (hashes, ordinals)]
        _check(
            kernels.identities_add(
                self._handle, *map(address, columns), len(hashes), expires_at, code, is_input, address(watermarks),
                self._num_events_max,
            )
        )  # fmt: skip
        if ordinals[0] - self._forgotten_at > _FORGET_EVENTS:
            self.forget(watermarks, int(ordinals[0]))

    def forget(self, watermarks: Ints, ordinal: int) -> None:
        self._forgotten_at = ordinal
        _check(kernels.identities_forget(self._handle, address(watermarks), ordinal, self._num_events_max))


def _code(version: Ints, index: int) -> Codes:
    """Give the codes of numbered versions in the table of that index; 0 for those of others, and for none."""
    code = version - (index * _NUM_VERSIONS - 1)
    return np.where((code > 0) & (code < _NUM_CODES), code, 0).astype(np.uint8)


def _check(result: int) -> None:
    if result < 0:
        raise MemoryError("no memory for identities")
