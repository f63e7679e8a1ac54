"""Chunks from real record batches: holes, control records, aborted transactions, cuts, headers, tombstones."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c as crc32c
from aiokafka.structs import TopicPartition

from schemas.errors import ConfigurationError
from schemas.native import address, kernels
from streams.batches import cut_batch, read_chunk
from streams.chunks import Chunk, ChunkRecords, check_internals
from streams.record_sets import RecordSet
from streams.record_sets import unpack as unpack_records

TP = TopicPartition("records", 2)
NO_PRODUCER = -1


def make_batch(
    base: int,
    values: list[bytes | None],
    producer: int = NO_PRODUCER,
    is_transactional: bool = False,
    codec: int = 0,
    **more: object,
) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, is_transactional, producer, 0, 0, 1 << 20)
    for index, value in enumerate(values):
        builder.append(index, 1000 + index, b"key", value, **({"headers": []} | more))
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")  # the offset is outside what the checksum covers
    return bytes(data)


def unpack(data: bytes, fetch_offset: int = 0, num_records_max: int = 100, aborted: object = None) -> list[Chunk]:
    plain = PartitionRecords(TP, RecordSet(data), aborted, fetch_offset, None, None, True, READ_COMMITTED)
    return list(ChunkRecords(plain, num_records_max))


def test_batches_come_as_one_chunk_whose_start_is_what_was_asked_for() -> None:
    (chunk,) = unpack(make_batch(10, [b"a", b"b"]) + make_batch(15, [b"c"]), fetch_offset=8)
    assert (chunk.start, chunk.next_offset, chunk.num_records_max) == (8, 16, 3)
    batch = read_chunk(chunk, "id", 0)
    assert batch.offsets.tolist() == [10, 11, 15]
    assert batch.values == [b"a", b"b", b"c"]
    assert batch.timestamps.tolist() == [1000, 1001, 1000]
    assert (batch.headers, batch.keys) == ({}, {})


def test_chunks_are_cut_between_batches_and_join_without_a_hole() -> None:
    data = b"".join(make_batch(base, [b"a", b"b"]) for base in (0, 2, 7, 9))
    chunks = unpack(data, num_records_max=4)
    assert [(chunk.start, chunk.next_offset) for chunk in chunks] == [(0, 4), (4, 11)]


def test_what_was_read_already_is_left_out() -> None:
    (chunk,) = unpack(make_batch(10, [b"a", b"b", b"c"]), fetch_offset=10)
    assert read_chunk(chunk, "id", 12).values == [b"c"]


def test_aborted_transactions_are_hidden_and_still_passed() -> None:
    data = make_batch(0, [b"bad"], producer=7, is_transactional=True) + make_batch(1, [b"good"])
    (chunk,) = unpack(data, aborted=[(7, 0)])
    assert (chunk.start, chunk.next_offset) == (0, 2)
    assert read_chunk(chunk, "id", 0).values == [b"good"]


def test_a_fetch_of_hidden_records_only_gives_an_empty_chunk() -> None:
    (chunk,) = unpack(make_batch(3, [b"bad", b"worse"], producer=7, is_transactional=True), 3, aborted=[(7, 3)])
    assert (chunk.start, chunk.next_offset, chunk.batches) == (3, 5, [])


def test_headers_and_keys_are_kept_where_they_matter() -> None:
    data = (
        make_batch(0, [b"a"]) + make_batch(1, [None], headers=[("driftloop-watermark", b"5")]) + make_batch(2, [None])
    )
    (chunk,) = unpack(data)
    batch = read_chunk(chunk, "id", 0)
    assert batch.values == [b"a", None, None]
    assert batch.headers == {1: [("driftloop-watermark", b"5")]}
    assert batch.keys == {1: b"key", 2: b"key"}


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_compressed_batches_and_plain_ones_come_as_one_chunk(codec: int) -> None:
    values = [b"a" * 500, b"", None, b"b" * 70_000]
    data = make_batch(5, values, codec=codec) + make_batch(9, [b"c"]) + make_batch(12, values, codec=codec)
    (chunk,) = unpack(data)
    batch = read_chunk(chunk, "id", 6)
    assert batch.values == [*values[1:], b"c", *values]
    assert batch.offsets.tolist() == [6, 7, 8, 9, 12, 13, 14, 15]
    assert batch.timestamps.tolist() == [1001, 1002, 1003, 1000, 1000, 1001, 1002, 1003]


def test_a_batch_with_the_time_of_appending_has_it_for_every_message() -> None:
    data = bytearray(make_batch(0, [b"a", b"b"]))
    data[22] |= 8  # attributes: log append time
    data[35:43] = (5000).to_bytes(8, "big")  # max timestamp
    data[17:21] = crc32c(bytes(data[21:])).to_bytes(4, "big")
    (chunk,) = unpack(bytes(data))
    assert read_chunk(chunk, "id", 0).timestamps.tolist() == [5000, 5000]


def test_a_flipped_bit_is_noticed_and_a_cut_batch_waits_for_its_rest() -> None:
    data = make_batch(0, [b"a"]) + make_batch(1, [b"b" * 100])
    assert [chunk.next_offset for chunk in unpack(data[:-1])] == [1]
    with pytest.raises(CorruptRecordException):
        unpack(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100])
def test_the_checksum_is_that_of_kafka(length: int) -> None:
    data = bytes(range(length))
    found = kernels.crc32c(address(np.frombuffer(data, np.uint8)) if data else 0, length)
    assert found == crc32c(data)


def test_records_that_claim_more_than_there_is_are_refused() -> None:
    whole = make_batch(0, [b"abc", b"def"], headers=[("h", b"v")])
    rng = np.random.default_rng(1)
    for _ in range(2000):
        data = bytearray(whole)
        for place in rng.integers(57, len(data), 3).tolist():
            data[place] = int(rng.integers(256))
        batch = next(RecordSet(bytes(data)).batches())
        try:
            records = unpack_records([batch], 0)
        except CorruptRecordException:
            continue
        assert (records.value_start + np.maximum(records.value_length, 0) <= len(data)).all()
        assert (records.key_start + np.maximum(records.key_length, 0) <= len(data)).all()


def test_a_void_chunk_holds_nothing() -> None:
    (chunk,) = unpack(make_batch(0, [b"a"]))
    chunk.void()
    assert chunk.is_void
    assert read_chunk(chunk, "id", 0).values == []


@pytest.mark.parametrize(("num_max", "bytes_max", "expected"), [(3, 1000, [3, 3, 1]), (100, 20, [2, 2, 2, 1])])
def test_a_batch_is_cut_by_messages_and_by_bytes(num_max: int, bytes_max: int, expected: list[int]) -> None:
    (chunk,) = unpack(make_batch(0, [b"0123456789"] * 6 + [None], headers=[("h", b"v")]))
    parts = list(cut_batch(read_chunk(chunk, "id", 0), num_max, bytes_max))
    assert sum(len(part) for part in parts) == 7
    assert max(len(part) for part in parts) <= num_max
    assert np.concatenate([part.offsets for part in parts]).tolist() == list(range(7))
    assert [sorted(part.headers) for part in parts] == [list(range(len(part))) for part in parts]
    assert [len(part) for part in parts] == expected


def test_another_aiokafka_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="_unpack_records"):
        check_internals({PartitionRecords._unpack_records: "000000000000"})
