"""Reading a whole topic up to its present end, without a consumer group."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.connections import KafkaConnection
from schemas.errors import Retryable

_CHUNK = 10_000
_NO_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
)


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message of the log with its place; `timestamp_ms` is Kafka's."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class TopicReader:
    """Reads a topic from its beginning; each call of `read_to_end` goes on where the last one ended."""

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self.topic = topic
        self._lock = threading.Lock()
        self._next: dict[int, int] = {}
        self._consumer = Consumer(
            {"log_level": 2}
            | kafka.librdkafka(
                group_id="driftloop-reader",
                enable_auto_commit=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
                fetch_queue_backoff_ms=5,
                fetch_wait_max_ms=10,
            )
        )

    def read_to_end(self, timeout_s: float = 10.0) -> list[LogMessage]:
        """New messages of all partitions up to their ends as of now, each partition in order.

        Raises `Retryable` when the topic is not there or its end is not reached in time; nothing is then lost, the
        next call brings it.
        """
        with self._lock:
            deadline_s = time.monotonic() + timeout_s
            try:
                self._find_partitions(timeout_s)
                ends = {p: self._end_of(p, deadline_s) for p in self._next}
                behind = {p: end for p, end in ends.items() if self._next[p] < end}
                return self._read(behind, deadline_s) if behind else []
            except KafkaException as error:
                raise Retryable(f"cannot read topic {self.topic}: {error.args[0].str()}") from error

    def end_of(self, partition: int, timeout_s: float = 10.0) -> int:
        """The offset that the next message of a partition will get (or get beyond, behind control records)."""
        try:
            place = TopicPartition(self.topic, partition)
            return int(self._consumer.get_watermark_offsets(place, timeout=timeout_s, cached=False)[1])
        except KafkaException as error:
            raise Retryable(f"cannot ask for the end of {self.topic}/{partition}: {error.args[0].str()}") from error

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _find_partitions(self, timeout_s: float) -> None:
        if self._next:
            return
        topic = self._consumer.list_topics(self.topic, timeout=timeout_s).topics.get(self.topic)
        if topic is None or topic.error is not None or not topic.partitions:
            raise Retryable(f"topic {self.topic} does not exist (yet); `driftloop topics apply` makes it")
        self._next = dict.fromkeys(topic.partitions, 0)

    def _end_of(self, partition: int, deadline_s: float) -> int:
        place = TopicPartition(self.topic, partition)
        while True:
            left_s = max(deadline_s - time.monotonic(), 0.1)
            try:
                low, high = self._consumer.get_watermark_offsets(place, timeout=left_s, cached=False)
                break
            except KafkaException as error:
                # A new topic's partitions have no leader for a moment.
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
        if high < self._next[partition]:
            # The topic was deleted and made again.
            self._next[partition] = 0
        self._next[partition] = max(self._next[partition], low)
        return int(high)

    def _read(self, ends: dict[int, int], deadline_s: float) -> list[LogMessage]:
        before = dict(self._next)
        read: list[LogMessage] = []
        # Only while there is something to read. A fetch that waits for news would keep later questions waiting behind
        # it, since a broker answers one connection in order; and a dozen readers would ask for nothing all the time.
        self._consumer.assign([TopicPartition(self.topic, p, self._next[p]) for p in ends])
        try:
            while any(self._next[p] < end for p, end in ends.items()):
                if time.monotonic() > deadline_s:
                    raise Retryable(f"the end of topic {self.topic} was not reached in time")
                read += self._consume()
        except BaseException:
            self._next = before
            raise
        finally:
            self._consumer.unassign()
        return read

    def _consume(self) -> list[LogMessage]:
        """Take what has come, and note how far that is."""
        read: list[LogMessage] = []
        for message in self._consumer.consume(_CHUNK, timeout=0.05):
            error = message.error()
            if error is None:
                read.append(_log_message(message))
                self._next[message.partition()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Behind the last message there may be control records, or compacted ones.
                self._next[message.partition()] = max(self._next[message.partition()], message.offset())
            elif not error.retriable():
                raise KafkaException(error)
        return read


def _log_message(message: Any) -> LogMessage:
    return LogMessage(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=[(name, value or b"") for name, value in message.headers() or ()],
    )
