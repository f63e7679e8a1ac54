"""What the reader makes of messages and ends that come in one batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError

from consumers.intake import Reader
from schemas.clock import ManualClock
from schemas.connections import KafkaConnection

ID = "00000000-0000-0000-0000-000000000001"


@dataclass
class FakeMessage:
    """A message as librdkafka hands it out."""

    at: int
    code: int | None = None
    kind: str = "records"

    def topic(self) -> str:
        return self.kind

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def error(self) -> Any:
        return None if self.code is None else KafkaError(self.code)

    def value(self) -> bytes:
        return b"{}"

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)

    def headers(self) -> None:
        return None


def _end(offset: int) -> FakeMessage:
    return FakeMessage(offset, KafkaError._PARTITION_EOF)


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(KafkaConnection("127.0.0.1:1"), ["records"], "g", lambda topics: {}, ManualClock())
    made._topic_ids[("records", 0)] = ID
    made._next[("records", 0)] = 10
    yield made
    made.close()


def test_an_end_in_the_same_batch_does_not_pass_the_messages_before_it(reader: Reader) -> None:
    intake = reader._sort([FakeMessage(10), FakeMessage(11), _end(12)])
    assert [batch.offsets.tolist() for batch in intake.batches] == [[10, 11]]
    assert intake.ends == {("records", ID, 0): 12}


def test_an_end_behind_control_records_moves_the_position(reader: Reader) -> None:
    assert reader._sort([FakeMessage(10), _end(13)]).ends == {("records", ID, 0): 13}
    assert [batch.offsets.tolist() for batch in reader._sort([FakeMessage(13)]).batches] == [[13]]


def test_an_end_before_more_messages_takes_nothing_back(reader: Reader) -> None:
    intake = reader._sort([FakeMessage(10), _end(11), FakeMessage(11)])
    assert [batch.offsets.tolist() for batch in intake.batches] == [[10, 11]]
    assert intake.ends == {("records", ID, 0): 12}


def test_what_was_taken_already_is_passed_over(reader: Reader) -> None:
    intake = reader._sort([FakeMessage(8), FakeMessage(9), FakeMessage(10)])
    assert [batch.offsets.tolist() for batch in intake.batches] == [[10]]


def test_a_partition_that_is_not_placed_gives_nothing(reader: Reader) -> None:
    assert (
        reader._sort([FakeMessage(0, kind="labels"), FakeMessage(1, KafkaError._PARTITION_EOF, "labels")]).batches == []
    )


def test_a_position_outside_the_log_is_forgotten(reader: Reader) -> None:
    reader._sort([FakeMessage(10), FakeMessage(0, KafkaError._AUTO_OFFSET_RESET)])
    assert reader._sort([FakeMessage(11)]).batches == []
