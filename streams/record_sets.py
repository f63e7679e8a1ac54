"""What a fetch brought, as Kafka's batches lie in it: headers are read here, records by a compiled kernel, all at once.

`RecordSet` stands where aiokafka has its `MemoryRecords`, and keeps the bytes that it was made of.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from schemas.errors import DriftloopError
from schemas.native import address, kernels

Ints = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH = struct.Struct(">qi")
_CHECKED_FROM = 21  # the checksum covers what follows it
_RECORD_LENGTH_MIN = 7
_CODEC_MASK, _TRANSACTIONAL, _CONTROL = 0x07, 0x10, 0x20
_DECODERS = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}


class RecordSet:
    """One partition's part of a fetch response."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._plain: Any = MemoryRecords(data)

    def has_next(self) -> bool:
        """For aiokafka: is there a whole batch?"""
        return bool(self._plain.has_next())

    def next_batch(self) -> Any:
        """For aiokafka: the next batch."""
        return self._plain.next_batch()

    def size_in_bytes(self) -> int:
        """For aiokafka: how much was fetched."""
        return int(self._plain.size_in_bytes())

    def batches(self) -> Iterator[RecordBatch]:
        """Give the whole batches; the last may be cut off, and is fetched again."""
        data, begin, size = self.data, 0, len(self.data)
        buffer = np.frombuffer(data, np.uint8)
        while size - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(data, begin)[1]
            if end > size:
                return
            if data[begin + 16] < 2:
                raise DriftloopError(
                    "a message has the format from before Kafka 0.11, which has no record batches. "
                    "Let the broker or its producer write the present format, and read from behind the old messages."
                )
            base, _, _, _, crc, attributes, delta, _, _, producer, _, _, count = _HEADER.unpack_from(data, begin)
            yield RecordBatch(buffer, begin, end, base, base + delta + 1, attributes, producer, crc, count)
            begin = end


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """A batch as it lies in a fetch response; `num_records` may be less than its offsets, after a compaction."""

    fetched: npt.NDArray[np.uint8]
    begin: int
    end: int
    base_offset: int
    next_offset: int
    attributes: int
    producer_id: int
    crc: int
    num_records: int

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The bytes of the batch."""
        return self.fetched[self.begin : self.end]

    @property
    def is_compressed(self) -> bool:
        """True if its records are."""
        return bool(self.attributes & _CODEC_MASK)

    @property
    def is_transactional(self) -> bool:
        """True within a transaction."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control_batch(self) -> bool:
        """True for the end of a transaction."""
        return bool(self.attributes & _CONTROL)

    def validate_crc(self) -> bool:
        """True if the batch is what was written."""
        checked = self.data[_CHECKED_FROM:]
        return bool(kernels.crc32c(address(checked), len(checked)) == self.crc)

    def parse(self) -> Any:
        """Give it as aiokafka has it."""
        return DefaultRecordBatch(self.data.tobytes())

    def unpacked(self) -> bytes:
        """Give it without compression; its checksum is not right then."""
        number = self.attributes & _CODEC_MASK
        if not number:
            return self.data.tobytes()
        if number not in _DECODERS:
            raise CorruptRecordException(f"a batch is compressed in the unknown way {number}")
        records = _DECODERS[number](self.data[_HEADER.size :].tobytes())
        fields = list(_HEADER.unpack(self.data[: _HEADER.size].tobytes()))
        fields[1] = _HEADER.size - _LENGTH.size + len(records)
        fields[5] &= ~_CODEC_MASK
        return _HEADER.pack(*fields) + bytes(records)


@dataclass(frozen=True, slots=True)
class Records:
    """Records as slices of one buffer, each by start and length (-1: null)."""

    buffer: npt.NDArray[np.uint8]
    offset: Ints
    timestamp: Ints
    value_start: Ints
    value_length: Lengths
    key_start: Ints
    key_length: Lengths
    headers_start: Ints
    headers_length: Lengths
    num_headers: Lengths


def unpack(batches: Sequence[RecordBatch], since: int) -> Records:
    """Give the records of batches from offset `since` on; CorruptRecordException if they are none."""
    buffer = _join(batches)
    room = min(sum(max(0, batch.num_records) for batch in batches), len(buffer) // _RECORD_LENGTH_MIN)
    kinds = (np.int64, np.int64, np.int64, np.int32, np.int64, np.int32, np.int64, np.int32, np.int32)
    # One more: a record before `since` is written and then overwritten.
    columns: list[npt.NDArray[Any]] = [np.empty(room + 1, kind) for kind in kinds]
    num_records = kernels.unpack_records(address(buffer), len(buffer), since, room + 1, *map(address, columns))
    if num_records < 0:
        raise CorruptRecordException("a record batch cannot be read")
    return Records(buffer, *(column[:num_records] for column in columns))


def _join(batches: Sequence[RecordBatch]) -> npt.NDArray[np.uint8]:
    """Give the batches one behind the other, uncompressed; from where they lie if they lie like that."""
    if not batches:
        return np.empty(0, np.uint8)
    first, last = batches[0], batches[-1]
    lie_so = all(former.end == batch.begin and former.fetched is batch.fetched for former, batch in pairwise(batches))
    if lie_so and not any(batch.is_compressed for batch in batches):
        return first.fetched[first.begin : last.end]
    return np.frombuffer(b"".join(batch.unpacked() for batch in batches), np.uint8)
