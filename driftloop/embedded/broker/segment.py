"""One file of a partition's log: whole batches one after the other, with a sparse index in memory.

A segment knows bytes, offsets and times; it knows nothing of transactions, retention or clients.
"""

import logging
import mmap
import os
import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

from driftloop.embedded.broker.batches import (
    HEADER_SIZE,
    LENGTH_PREFIX,
    BatchHeader,
    compute_crc,
    iterate_records,
    read_header,
)
from driftloop.embedded.broker.errors import Code, Refusal

log = logging.getLogger(__name__)

# As index.interval.bytes: 24 bytes of memory for 4 KiB of log, and at most that much to walk.
INDEX_INTERVAL_BYTES = 4096
_INDEX_HEAD = struct.Struct(">qqqqI")


class Segment:
    """A file named after its base offset; the last segment of a log is appended to, all others are sealed."""

    def __init__(self, path: Path, base_offset: int) -> None:
        self.path = path
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.size = 0
        self.max_timestamp_ms = -1
        self.first_timestamp_ms = -1
        self._offsets = array("q")
        self._positions = array("q")
        # The largest timestamp in front of each index entry; it never falls, so it can be searched.
        self._times_before_ms = array("q")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    @classmethod
    def locate(cls, folder: Path, base_offset: int) -> Path:
        return folder / f"{base_offset:020}.log"

    @property
    def index_path(self) -> Path:
        return self.path.with_suffix(".index")

    @property
    def state_path(self) -> Path:
        """Where the log keeps its producers as they were at this segment's base offset."""
        return self.path.with_suffix(".state")

    def note(self, header: BatchHeader) -> None:
        """Takes in the header of the batch that now ends the file."""
        if not self._positions or self.size - self._positions[-1] >= INDEX_INTERVAL_BYTES:
            self._offsets.append(header.base_offset)
            self._positions.append(self.size)
            self._times_before_ms.append(self.max_timestamp_ms)
        if self.first_timestamp_ms < 0:
            self.first_timestamp_ms = header.max_timestamp_ms
        self.size += header.size
        self.next_offset = header.last_offset + 1
        self.max_timestamp_ms = max(self.max_timestamp_ms, header.max_timestamp_ms)

    def append(self, batch: bytearray, header: BatchHeader) -> None:
        """Writes one stamped batch; after an error the file ends where it ended before."""
        try:
            written = os.write(self._file, batch)
            if written != len(batch):
                raise OSError(f"only {written} of {len(batch)} bytes were written")
        except OSError as error:
            os.ftruncate(self._file, self.size)
            raise Refusal(Code.KAFKA_STORAGE_ERROR, f"{self.path}: {error}") from error
        self.note(header)

    def recover(self, verify: bool) -> Iterator[tuple[BatchHeader, bytes]]:
        """Reads a file from its beginning, yields its batches, and cuts off what is no whole batch.

        Only the last segment can be torn, so only there the checksums are verified. Control batches come with their
        bytes, all others with none.
        """
        size = os.fstat(self._file).st_size
        if size >= HEADER_SIZE:
            with mmap.mmap(self._file, size, prot=mmap.PROT_READ) as data, memoryview(data) as view:
                while (header := self._read_whole(view, size, verify)) is not None:
                    batch = bytes(view[self.size : self.size + header.size]) if header.is_control else b""
                    self.note(header)
                    yield header, batch
        if size != self.size:
            log.warning("%s: cut off %d bytes that are no whole batch", self.path, size - self.size)
            os.ftruncate(self._file, self.size)

    def _read_whole(self, view: memoryview, size: int, verify: bool) -> BatchHeader | None:
        """The header of the batch at the end of what is known, or None where none stands there whole."""
        if self.size + HEADER_SIZE > size:
            return None
        header = read_header(view, self.size)
        is_whole = header.length >= HEADER_SIZE - LENGTH_PREFIX and self.size + header.size <= size
        if not is_whole or header.magic != 2 or header.base_offset < self.next_offset or header.last_offset_delta < 0:
            return None
        if verify and compute_crc(view[self.size : self.size + header.size]) != header.crc:
            return None
        return header

    def save_index(self) -> None:
        """Keeps the index of a sealed segment, so that a start need not read the file; safe to repeat."""
        body = self._offsets.tobytes() + self._positions.tobytes() + self._times_before_ms.tobytes()
        head = _INDEX_HEAD.pack(
            self.size, self.next_offset, self.max_timestamp_ms, self.first_timestamp_ms, zlib.crc32(body)
        )
        temporary = self.index_path.with_suffix(".index-new")
        temporary.write_bytes(head + body)
        os.replace(temporary, self.index_path)

    def load_index(self) -> bool:
        """Whether a kept index fits the file; if not, the caller reads the file."""
        try:
            data = self.index_path.read_bytes()
        except FileNotFoundError:
            return False
        body = data[_INDEX_HEAD.size :]
        if len(data) < _INDEX_HEAD.size or len(body) % 24:
            return False
        size, next_offset, max_timestamp_ms, first_timestamp_ms, crc = _INDEX_HEAD.unpack_from(data)
        if size != os.fstat(self._file).st_size or crc != zlib.crc32(body):
            return False
        third = len(body) // 3
        for column, at in ((self._offsets, 0), (self._positions, third), (self._times_before_ms, 2 * third)):
            column.frombytes(body[at : at + third])
        self.size, self.next_offset = size, next_offset
        self.max_timestamp_ms, self.first_timestamp_ms = max_timestamp_ms, first_timestamp_ms
        return True

    def read_header_at(self, position: int) -> BatchHeader:
        return read_header(os.pread(self._file, HEADER_SIZE, position))

    def read_bytes(self, position: int, size: int) -> bytes:
        return os.pread(self._file, size, position)

    def iterate_headers(self, position: int = 0) -> Iterator[tuple[int, BatchHeader]]:
        """Position and header of every batch from this one on."""
        while position < self.size:
            header = self.read_header_at(position)
            yield position, header
            position += header.size

    def find_position(self, offset: int) -> int:
        """Where the first batch begins that holds this offset or a later one; the file's size if there is none."""
        entry = bisect_right(self._offsets, offset) - 1
        if offset >= self.next_offset or not self._positions:
            return self.size
        start = self._positions[max(entry, 0)]
        return next(
            (position for position, header in self.iterate_headers(start) if header.last_offset >= offset), self.size
        )

    def read(self, offset: int, max_bytes: int, limit_offset: int, at_least_one: bool) -> bytes:
        """Whole batches from this offset on, all below the limit.

        At most `max_bytes`, except that a first batch that is larger comes whole when `at_least_one` asks for it
        (KIP-74: a consumer must get past it).
        """
        start = self.find_position(offset)
        end = self.size if limit_offset >= self.next_offset else self.find_position(limit_offset)
        if start >= end:
            return b""
        if end - start > max_bytes:
            end = self._find_end(start, start + max_bytes)
            if end == start:
                return self.read_bytes(start, self.read_header_at(start).size) if at_least_one else b""
        return self.read_bytes(start, end - start)

    def _find_end(self, start: int, limit: int) -> int:
        """The last batch border in start..limit."""
        entry = bisect_right(self._positions, limit) - 1
        end = max(start, self._positions[max(entry, 0)])
        for position, header in self.iterate_headers(end):
            if position + header.size > limit:
                break
            end = position + header.size
        return end

    def find_time(self, timestamp_ms: int, start_offset: int) -> tuple[int, int] | None:
        """Offset and time of the first record at or after this time and offset."""
        if timestamp_ms > self.max_timestamp_ms or not self._positions:
            return None
        entry = bisect_left(self._times_before_ms, timestamp_ms) - 1
        for position, header in self.iterate_headers(self._positions[max(entry, 0)]):
            if header.max_timestamp_ms < timestamp_ms or header.last_offset < start_offset or header.is_control:
                continue
            for record in iterate_records(self.read_bytes(position, header.size)):
                if record.timestamp_ms >= timestamp_ms and record.offset >= start_offset:
                    return record.offset, record.timestamp_ms
        return None

    def close(self) -> None:
        os.close(self._file)

    def delete(self) -> None:
        """Removes the file; whoever maps it still may."""
        self.close()
        for path in (self.path, self.index_path, self.state_path):
            path.unlink(missing_ok=True)
