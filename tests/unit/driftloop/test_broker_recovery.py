"""What a start makes of files that end in the middle of something."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.embedded.broker.batches import BatchHeader, Record, encode_batch, read_header
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.journal import Journal
from driftloop.embedded.broker.log import Log
from driftloop.embedded.broker.offsets import CommittedOffset, CommittedOffsets
from driftloop.embedded.broker.topics import Topics
from driftloop.embedded.broker.transactions import State, Transaction, TransactionCoordinator

NOW_MS = 1_800_000_000_000


class Halves:
    """A journal, topics and transactions in a folder, as a broker opens them."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal")
        self.topics = Topics(folder / "topics", self.journal)
        self.offsets = CommittedOffsets(self.journal)
        self.transactions = TransactionCoordinator(self.journal, self.topics, self.offsets)
        self.transactions.finish_interrupted(NOW_MS)

    def close(self) -> None:
        self.topics.close()
        self.journal.close()


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[Halves]:
    opened = Halves(tmp_path)
    yield opened
    opened.close()


def write(halves: Halves, transaction: Transaction, log: Log, sequence: int = 0) -> None:
    header = BatchHeader(
        0, 0, 0, 2, 0, 0x10, 0, NOW_MS, NOW_MS, transaction.producer_id, transaction.epoch, sequence, 1
    )
    batch = encode_batch(header, [Record(0, NOW_MS, None, b"x", b"\0")])
    topic = halves.topics.get("t")
    log.append(batch, NOW_MS, lambda header: halves.transactions.validate_write(header, topic, 0))


def begin(halves: Halves) -> tuple[Transaction, Log]:
    topic = halves.topics.create("t", 1, {})
    transaction = halves.transactions.begin_producer("tx", 60_000, -1, -1, NOW_MS)
    halves.transactions.add_partitions(transaction, [(topic, 0)], NOW_MS)
    write(halves, transaction, topic.partitions[0])
    halves.transactions.add_offsets(transaction, "g", {("t", 0): CommittedOffset(42, -1, "")})
    return transaction, topic.partitions[0]


def cut_last_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


@pytest.mark.parametrize("is_commit", [True, False])
@pytest.mark.parametrize("loses_marker", [True, False])
def test_decided_end_is_carried_out(tmp_path: Path, is_commit: bool, loses_marker: bool) -> None:
    """The process died after the decision: before its marker was written, or after it."""
    first = Halves(tmp_path)
    transaction, log = begin(first)
    first.transactions.end(transaction, is_commit, NOW_MS)
    segment, size = log.active.path, log.active.size
    data_size = read_header(segment.read_bytes()).size
    assert data_size < size
    first.close()
    cut_last_line(tmp_path / "journal")
    if loses_marker:
        os.truncate(segment, data_size)

    again = Halves(tmp_path)
    assert again.transactions.by_id["tx"].state == (State.COMPLETE_COMMIT if is_commit else State.COMPLETE_ABORT)
    log = again.topics.get_log("t", 0)
    assert (log.end_offset, log.stable_offset) == (2, 2), "one record, one marker"
    assert [one.first_offset for one in log.producers.aborted] == ([] if is_commit else [0])
    assert again.offsets.get("g") == ({("t", 0): CommittedOffset(42, -1, "")} if is_commit else {})
    again.close()


def test_undecided_transaction_goes_on(tmp_path: Path) -> None:
    first = Halves(tmp_path)
    begin(first)
    first.close()
    again = Halves(tmp_path)
    transaction = again.transactions.by_id["tx"]
    assert transaction.state == State.ONGOING
    assert again.topics.get_log("t", 0).stable_offset == 0
    again.transactions.end(transaction, True, NOW_MS)
    assert again.topics.get_log("t", 0).stable_offset == 2
    assert again.offsets.get("g")["t", 0].offset == 42
    again.close()


def test_write_outside_a_transaction_is_refused(halves: Halves) -> None:
    transaction, log = begin(halves)
    halves.transactions.end(transaction, True, NOW_MS)
    with pytest.raises(Refusal) as refused:
        write(halves, transaction, log, sequence=1)
    assert refused.value.code == Code.INVALID_TXN_STATE
    assert log.end_offset == 2


def test_timed_out_producer_is_fenced(halves: Halves) -> None:
    transaction, log = begin(halves)
    epoch = transaction.epoch
    halves.transactions.enforce_timeouts(NOW_MS + 60_001)
    assert [one.first_offset for one in log.producers.aborted] == [0]
    with pytest.raises(Refusal) as refused:
        halves.transactions.get("tx", transaction.producer_id, epoch)
    assert refused.value.code == Code.PRODUCER_FENCED


def test_journal_cut_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "whole")
    for number in range(5):
        journal.put({("fact", number): {"n": number}, ("last",): number, ("fact", number - 2): None})
    journal.close()
    data = (tmp_path / "whole").read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        journal = Journal(path)
        num_whole = sum(end <= cut for end in ends)
        assert journal.facts.get(("last",)) == (num_whole - 1 if num_whole else None)
        assert {key[1] for key, _ in journal.select("fact")} == set(range(max(num_whole - 2, 0), num_whole))
        assert path.stat().st_size == (ends[num_whole - 1] if num_whole else 0)
        journal.close()


def test_topic_deletion_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    first = Halves(tmp_path)
    topic = first.topics.create("t", 2, {})
    first.close()
    stray = tmp_path / "topics" / "11111111-1111-1111-1111-111111111111" / "0"
    stray.mkdir(parents=True)
    again = Halves(tmp_path)
    assert not stray.exists()
    assert again.topics.get("t").id == topic.id
    assert len(again.topics.get("t").partitions) == 2
    again.close()
