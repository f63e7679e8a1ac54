"""Record batches (format 2) as bytes: header, checksum, records, control markers.

The broker appends and serves whole batches without looking inside. Only compaction, the key check of compacted topics
and the search for a time decode records. Format: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cramjam

# The one compiled CRC-32C among the dependencies (1.5 GB/s; pure Python makes 5 MB/s).
from aiokafka.record.util import calc_crc32c

from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.wire import Bytes

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_SIZE = HEADER.size
# What the length field does not count: base offset and the length itself.
LENGTH_PREFIX = 12
# The checksum covers everything from the attributes on.
CRC_AT, CRC_FROM = 17, 21

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
# The base timestamp holds the time from which tombstones may go (KIP-534).
DELETE_HORIZON = 0x40

ABORT_MARKER, COMMIT_MARKER = 0, 1
ZSTD = 4


class BatchHeader(NamedTuple):
    """The 61 bytes in front of the records."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    num_records: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LENGTH_PREFIX

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def has_producer(self) -> bool:
        return self.producer_id >= 0


class Record(NamedTuple):
    """One record; `headers` are its encoded headers, untouched."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: bytes


def read_header(data: Bytes, at: int = 0) -> BatchHeader:
    """The header at this position; the caller has made sure that 61 bytes are there."""
    return BatchHeader._make(HEADER.unpack_from(data, at))


def compute_crc(batch: Bytes) -> int:
    """CRC-32C of what a batch's checksum covers."""
    return int(calc_crc32c(memoryview(batch)[CRC_FROM:]))


def stamp_batch(batch: bytearray, base_offset: int, append_time_ms: int | None) -> None:
    """Gives a batch its offsets and, where the topic asks for it, the broker's time, in place."""
    struct.pack_into(">qii", batch, 0, base_offset, len(batch) - LENGTH_PREFIX, 0)
    if append_time_ms is None:
        return
    (attributes,) = struct.unpack_from(">h", batch, 21)
    struct.pack_into(">h", batch, 21, attributes | LOG_APPEND_TIME)
    struct.pack_into(">q", batch, 35, append_time_ms)
    struct.pack_into(">I", batch, CRC_AT, compute_crc(batch))


def validate_batch(batch: Bytes, max_bytes: int) -> BatchHeader:
    """The header of the one batch that a producer sent for a partition; refuses everything else."""
    if len(batch) < HEADER_SIZE:
        raise Refusal(Code.CORRUPT_MESSAGE, f"{len(batch)} bytes are no record batch")
    header = read_header(batch)
    if header.magic != 2:
        raise Refusal(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"message format {header.magic} is not supported, 2 is")
    if header.size > max_bytes:
        raise Refusal(Code.MESSAGE_TOO_LARGE, f"the batch has {header.size} bytes, max.message.bytes is {max_bytes}")
    if header.size != len(batch):
        raise Refusal(Code.INVALID_RECORD, "a request carries exactly one batch for a partition")
    if compute_crc(batch) != header.crc:
        raise Refusal(Code.CORRUPT_MESSAGE, "the batch's checksum does not fit its bytes")
    if header.is_control:
        raise Refusal(Code.INVALID_RECORD, "clients may not write control records")
    if header.num_records < 1 or header.last_offset_delta != header.num_records - 1:
        raise Refusal(Code.INVALID_RECORD, "the batch's record count does not fit its offsets")
    if header.attributes & CODEC_MASK > ZSTD:
        raise Refusal(Code.UNSUPPORTED_COMPRESSION_TYPE, f"compression {header.attributes & CODEC_MASK} is unknown")
    return header


def _decompress_snappy(data: Bytes) -> bytes:
    """Raw snappy, or the framing of Java's snappy library: magic, two versions, then length and block in turn."""
    view = memoryview(data)
    if bytes(view[:8]) != b"\x82SNAPPY\x00":
        return bytes(cramjam.snappy.decompress_raw(view))
    out, at = bytearray(), 16
    while at < len(view):
        (size,) = struct.unpack_from(">i", view, at)
        out += bytes(cramjam.snappy.decompress_raw(view[at + 4 : at + 4 + size]))
        at += 4 + size
    return bytes(out)


_DECOMPRESS: dict[int, Callable[[Bytes], bytes]] = {
    0: bytes,
    1: lambda data: zlib.decompress(data, wbits=31),
    2: _decompress_snappy,
    3: lambda data: bytes(cramjam.lz4.decompress(data)),
    ZSTD: lambda data: bytes(cramjam.zstd.decompress(data)),
}


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A signed (zigzag) number and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _read_field(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _read_varint(data, at)
    return (None, at) if size < 0 else (data[at : at + size], at + size)


def iterate_records(batch: Bytes) -> Iterator[Record]:
    """The records of one batch, decompressed; raises Refusal(CORRUPT_MESSAGE) where they cannot be read."""
    header = read_header(batch)
    is_append_time = bool(header.attributes & LOG_APPEND_TIME)
    try:
        data = _DECOMPRESS[header.attributes & CODEC_MASK](memoryview(batch)[HEADER_SIZE : header.size])
        at = 0
        for _ in range(header.num_records):
            size, at = _read_varint(data, at)
            end = at + size
            timestamp_delta_ms, at = _read_varint(data, at + 1)
            offset_delta, at = _read_varint(data, at)
            key, at = _read_field(data, at)
            value, at = _read_field(data, at)
            timestamp_ms = header.max_timestamp_ms if is_append_time else header.base_timestamp_ms + timestamp_delta_ms
            yield Record(header.base_offset + offset_delta, timestamp_ms, key, value, data[at:end])
            at = end
    except (IndexError, struct.error, zlib.error, cramjam.DecompressionError, ValueError) as error:
        raise Refusal(Code.CORRUPT_MESSAGE, f"the records at offset {header.base_offset} cannot be read") from error


def _encode_varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_field(value: bytes | None) -> bytes:
    return _encode_varint(-1) if value is None else _encode_varint(len(value)) + value


def _encode_record(record: Record, base_offset: int, base_timestamp_ms: int) -> bytes:
    body = b"".join(
        (
            b"\0",
            _encode_varint(record.timestamp_ms - base_timestamp_ms),
            _encode_varint(record.offset - base_offset),
            _encode_field(record.key),
            _encode_field(record.value),
            record.headers,
        )
    )
    return _encode_varint(len(body)) + body


def encode_batch(header: BatchHeader, records: Sequence[Record]) -> bytes:
    """A batch with these records, uncompressed; everything else, the offsets' range included, as `header` has it."""
    body = b"".join(_encode_record(record, header.base_offset, header.base_timestamp_ms) for record in records)
    header = header._replace(
        length=HEADER_SIZE - LENGTH_PREFIX + len(body),
        attributes=header.attributes & ~CODEC_MASK,
        num_records=len(records),
    )
    batch = bytearray(HEADER.pack(*header) + body)
    struct.pack_into(">I", batch, CRC_AT, compute_crc(batch))
    return bytes(batch)


def encode_marker(producer_id: int, producer_epoch: int, is_commit: bool, now_ms: int) -> bytearray:
    """The control batch that ends a transaction on a partition; its offset is stamped when it is appended."""
    key = struct.pack(">hh", 0, COMMIT_MARKER if is_commit else ABORT_MARKER)
    record = Record(0, now_ms, key, struct.pack(">hi", 0, 0), b"\0")
    attributes = TRANSACTIONAL | CONTROL
    header = BatchHeader(0, 0, 0, 2, 0, attributes, 0, now_ms, now_ms, producer_id, producer_epoch, -1, 1)
    return bytearray(encode_batch(header, [record]))


def is_commit_marker(batch: Bytes) -> bool:
    """Whether a control batch commits (or aborts) its producer's transaction."""
    key = next(iterate_records(batch)).key
    if key is None or len(key) < 4:
        raise Refusal(Code.CORRUPT_MESSAGE, "a control record without a type")
    return bool(struct.unpack_from(">h", key, 2)[0] == COMMIT_MARKER)
