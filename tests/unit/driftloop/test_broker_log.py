"""A partition's log against a list in memory: what is appended, read, cut off, sealed, removed and compacted."""

import asyncio
import shutil
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.embedded.broker.batches import BatchHeader, Record, encode_batch, iterate_records, read_header
from driftloop.embedded.broker.compaction import compact
from driftloop.embedded.broker.configs import TopicConfig
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.log import Log

NOW_MS = 1_800_000_000_000
_numbers = count()

# Batches of records, each a key, a value and a time.
records = st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.none() | st.binary(max_size=300), st.integers(0, 1000))
batches = st.lists(st.lists(records, min_size=1, max_size=5), min_size=1, max_size=12)


def build_batch(
    rows: list[tuple[bytes | None, bytes | None, int]],
    producer: tuple[int, int, int] = (-1, -1, -1),
    attributes: int = 0,
) -> bytes:
    """A batch as a producer sends it; times are milliseconds before the present."""
    entries = [Record(at, NOW_MS - age_ms, key, value, b"\0") for at, (key, value, age_ms) in enumerate(rows)]
    times_ms = [entry.timestamp_ms for entry in entries]
    header = BatchHeader(0, 0, -1, 2, 0, attributes, len(rows) - 1, times_ms[0], max(times_ms), *producer, len(rows))
    return encode_batch(header, entries)


def read_all(log: Log, offset: int = 0, max_bytes: int = 2**30) -> list[Record]:
    """Every record from an offset on, by fetching again and again."""
    came: list[Record] = []
    while offset < log.end_offset:
        data = log.read(offset, max_bytes, log.end_offset, True)
        if not data:
            break
        at = 0
        while at < len(data):
            header = read_header(data, at)
            came += [one for one in iterate_records(data[at : at + header.size]) if one.offset >= offset]
            at += header.size
            offset = header.last_offset + 1
    return came


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def fresh(folder: Path) -> Path:
    """A folder of its own for each example."""
    return folder / str(next(_numbers))


@settings(deadline=None, max_examples=30)
@given(batches, st.integers(1, 2000), st.integers(100, 3000))
def test_log_is_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[bytes, bytes | None, int]]], limit: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("log")
    log = Log(path, TopicConfig({"segment.bytes": str(size)}))
    flat = [row for batch in rows for row in batch]
    for batch in rows:
        log.append(build_batch(list(batch)), NOW_MS)
    expected = [(at, NOW_MS - age_ms, key, value) for at, (key, value, age_ms) in enumerate(flat)]
    for reopened in (False, True):
        if reopened:
            log.close()
            log = Log(path, TopicConfig({"segment.bytes": str(size)}))
        assert log.end_offset == len(flat)
        assert [one[:4] for one in read_all(log, max_bytes=limit)] == expected
        for offset in range(len(flat)):
            assert read_all(log, offset)[0].offset == offset
        for age_ms in (0, 1, 500, 999, 1001):
            wanted = next((one[:2] for one in expected if one[1] >= NOW_MS - age_ms), None)
            assert log.find_time(NOW_MS - age_ms, log.end_offset) == wanted
    log.close()
    shutil.rmtree(path)


def test_log_cut_anywhere_keeps_its_whole_batches(folder: Path) -> None:
    log = Log(folder / "whole", TopicConfig({}))
    ends, data = [0], b""
    for number in range(4):
        log.append(build_batch([(b"k", b"%d" % number * 10, 0)] * 3, (7, 0, number * 3)), NOW_MS)
        ends.append(log.size)
    log.close()
    data = next((folder / "whole").glob("*.log")).read_bytes()
    for cut in range(0, len(data) + 1, 3):
        path = fresh(folder)
        path.mkdir()
        (path / f"{0:020}.log").write_bytes(data[:cut])
        log = Log(path, TopicConfig({}))
        num_whole = sum(end <= cut for end in ends[1:])
        assert log.end_offset == num_whole * 3
        assert log.size == ends[num_whole]
        # The producer is known as of the last whole batch: it may go on there, and nowhere else.
        assert log.append(build_batch([(b"k", b"", 0)], (7, 0, num_whole * 3)), NOW_MS).base_offset == num_whole * 3
        log.close()


def test_first_batch_comes_whole_however_small_the_limit(folder: Path) -> None:
    log = Log(folder / "log", TopicConfig({}))
    sizes = []
    for number in range(3):
        batch = build_batch([(None, b"x" * 1000 * (number + 1), 0)])
        sizes.append(len(batch))
        log.append(batch, NOW_MS)
    assert log.read(0, 1, log.end_offset, True) == log.read(0, sizes[0], log.end_offset, False)
    assert log.read(0, sizes[0] - 1, log.end_offset, False) == b""
    assert len(log.read(0, sizes[0] + sizes[1] + 5, log.end_offset, False)) == sizes[0] + sizes[1]
    assert len(log.read(0, 10**9, 2, False)) == sizes[0] + sizes[1]
    log.close()


def test_producer_is_held_to_its_sequence(folder: Path) -> None:
    def send(sequence: int, epoch: int = 0, num: int = 2) -> int:
        return log.append(build_batch([(None, b"x", 0)] * num, (7, epoch, sequence)), NOW_MS).base_offset

    log = Log(folder / "log", TopicConfig({"segment.bytes": "200"}))
    assert [send(sequence) for sequence in (0, 2, 4)] == [0, 2, 4]
    for reopened in (False, True):
        if reopened:
            log.close()
            log = Log(folder / "log", TopicConfig({"segment.bytes": "200"}))
        assert [send(sequence) for sequence in (2, 4)] == [2, 4], "a repeated batch keeps its place"
        assert log.end_offset == 6
        with pytest.raises(Refusal) as gap:
            send(8)
        assert gap.value.code == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert send(0, epoch=1) == 6
    with pytest.raises(Refusal) as stale:
        send(6, epoch=0)
    assert stale.value.code == Code.INVALID_PRODUCER_EPOCH
    log.close()


def test_sequence_numbers_wrap(folder: Path) -> None:
    log = Log(folder / "log", TopicConfig({}))
    for sequence, num in ((2**31 - 2, 1), (2**31 - 1, 3), (2, 1)):
        log.append(build_batch([(None, b"x", 0)] * num, (7, 0, sequence)), NOW_MS)
    assert log.end_offset == 5
    log.close()


def test_damaged_batches_are_refused(folder: Path) -> None:
    log = Log(folder / "log", TopicConfig({"max.message.bytes": "500"}))
    good = build_batch([(None, b"x", 0)])
    flipped = bytearray(good)
    flipped[-2] ^= 1
    cases = {
        Code.CORRUPT_MESSAGE: bytes(flipped),
        Code.INVALID_RECORD: good + good,
        Code.MESSAGE_TOO_LARGE: build_batch([(None, b"x" * 600, 0)]),
        Code.UNSUPPORTED_FOR_MESSAGE_FORMAT: good[:16] + b"\1" + good[17:],
    }
    for code, batch in cases.items():
        with pytest.raises(Refusal) as refused:
            log.append(batch, NOW_MS)
        assert refused.value.code == code
    assert log.end_offset == 0
    log.close()


@settings(deadline=None, max_examples=30)
@given(batches, st.integers(150, 1500), st.booleans())
def test_compacted_log_has_the_last_of_each_key(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[tuple[bytes, bytes | None, int]]],
    size: int,
    reopens: bool,
) -> None:
    path = tmp_path_factory.mktemp("log")
    options = {
        "segment.bytes": str(size),
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0",
        "delete.retention.ms": "1000",
    }
    log = Log(path, TopicConfig(options))
    for batch in rows:
        log.append(build_batch(list(batch)), NOW_MS)
    log.seal()
    log.append(build_batch([(b"z", b"active", 0)]), NOW_MS)
    before = read_all(log)
    last = {one.key: one.offset for one in before}
    kept = [one for one in before if last[one.key] == one.offset]
    asyncio.run(compact(log, NOW_MS + 1))
    if reopens:
        log.close()
        log = Log(path, TopicConfig(options))
    assert read_all(log) == kept, "tombstones stay until their time is over"
    assert log.end_offset == len(before)
    for offset in range(len(before)):
        assert [one.offset for one in read_all(log, offset)] == [one.offset for one in kept if one.offset >= offset]
    if not reopens:  # When tombstones may go is in memory only until the next pass.
        asyncio.run(compact(log, NOW_MS + 1002))
        assert read_all(log) == [one for one in kept if one.value is not None]
    log.close()
    shutil.rmtree(path)
