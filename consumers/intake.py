"""Reading partitions of the log from where the store says that it stands, each one bound to its topic's identity.

Owns the Kafka consumer of the sink: who has which partition, where each is resumed, and that what was read belongs to
the topic that it is written down for. It must not know what is done with the messages.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.clock import Clock
from schemas.connections import KafkaConnection
from schemas.errors import DriftloopError, Retryable
from schemas.messages import MessageBatch
from store.log import describe_topics
from store.markers import Place

log = logging.getLogger(__name__)

ReadMarkers = Callable[[Iterable[str]], Mapping[Place, int]]
TopicPart = tuple[str, int]

# A topic that was deleted and made again is noticed within this time also when nothing comes in.
CHECK_S = 2.0
# Shorter than the time in which a role is to stop.
_BROKER_TIMEOUT_S = 3.0
# Fetched ahead of what is taken: with 64 MB a worker that waits for ClickHouse stays small.
_FETCHED_KB_MAX = 65_536


@dataclass(slots=True)
class Intake:
    """What came in at once: message batches, and the places known to be read up to an offset without a message."""

    batches: list[MessageBatch] = field(default_factory=list)
    ends: dict[Place, int] = field(default_factory=dict)


class Reader:
    """A member of a consumer group that resumes from markers, never from the group's committed offsets.

    Committed offsets are written as a hint for lag tools only.
    """

    def __init__(
        self, kafka: KafkaConnection, topics: list[str], group: str, read_markers: ReadMarkers, clock: Clock
    ) -> None:
        self._kafka = kafka
        self._read_markers = read_markers
        self._clock = clock
        self._assigned: set[TopicPart] = set()
        self._topic_ids: dict[TopicPart, str] = {}  # of the partitions that are placed
        self._next: dict[TopicPart, int] = {}
        self._checked_s = clock.monotonic_s()
        self._placed_s = -CHECK_S
        self._consumer = Consumer(
            {"log_level": 2}
            | kafka.librdkafka(
                group_id=group,
                enable_auto_commit=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
                # A position outside the log is looked into, not jumped from.
                auto_offset_reset="error",
                # Every assignment starts from the markers, so nothing is gained by keeping partitions.
                partition_assignment_strategy="range",
                session_timeout_ms=10_000,
                heartbeat_interval_ms=1_000,
                topic_metadata_refresh_interval_ms=int(CHECK_S * 1000),
                fetch_queue_backoff_ms=5,
                fetch_wait_max_ms=100,
                queued_max_messages_kbytes=_FETCHED_KB_MAX,
                allow_auto_create_topics=False,
            )
        )
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def read(self, num_messages: int, timeout_s: float) -> Intake:
        """What the partitions bring within `timeout_s`, in order and without a hole that this reader made.

        `Retryable` when the broker or the store cannot say where a partition stands; nothing is lost by that.
        """
        if self._clock.monotonic_s() - self._checked_s >= CHECK_S:
            self.current(())
        if self._assigned - self._topic_ids.keys() and self._clock.monotonic_s() - self._placed_s >= CHECK_S / 4:
            self._place()
        return self._sort(self._consumer.consume(num_messages, timeout=timeout_s))

    def current(self, places: Iterable[Place]) -> set[Place]:
        """Those of the places whose topic is still the same one; partitions of the others are taken up anew.

        Ids never come back: when a topic still has its id after messages were read, they were that topic's.
        """
        asked = set(places)
        names = sorted({topic for topic, _ in self._topic_ids} | {topic for topic, _, _ in asked})
        known = describe_topics(self._kafka, names, _BROKER_TIMEOUT_S)
        self._checked_s = self._clock.monotonic_s()
        renewed = [
            part for part, topic_id in sorted(self._topic_ids.items()) if known.get(part[0], ("", 0))[0] != topic_id
        ]
        for part in renewed:
            log.warning(
                "topic %s (%s) is no more; partition %d is taken up anew", part[0], self._topic_ids[part], part[1]
            )
            del self._topic_ids[part]
            self._next.pop(part, None)
        if renewed:
            self._assign_placed()
        return {place for place in asked if known.get(place[0], ("", 0))[0] == place[1]}

    def wait(self, timeout_s: float) -> None:
        """Stay in the group for up to this long without taking messages; for use while the store is away."""
        held = [TopicPartition(topic, partition) for topic, partition in self._topic_ids]
        self._consumer.pause(held)
        try:
            stray = self._consumer.poll(timeout_s)
        finally:
            self._consumer.resume([tp for tp in held if (tp.topic, tp.partition) in self._topic_ids])
        if stray is not None:
            self._sort_error_or_rewind(stray)

    def commit(self, ends: Mapping[Place, int]) -> None:
        """Write offsets as a hint; what is lost of them costs nothing."""
        mine = [
            TopicPartition(topic, partition, offset)
            for (topic, topic_id, partition), offset in ends.items()
            if self._topic_ids.get((topic, partition)) == topic_id
        ]
        if mine:
            try:
                self._consumer.commit(offsets=mine, asynchronous=True)
            except KafkaException as error:
                log.debug("the hint was not committed: %s", error)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._assigned = {(tp.topic, tp.partition) for tp in partitions}
        self._topic_ids.clear()
        self._next.clear()
        self._placed_s = -CHECK_S
        # Nothing is fetched before `_place` has asked the store where to begin.
        consumer.assign([])

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._assigned.clear()
        self._topic_ids.clear()
        self._next.clear()

    def _place(self) -> None:
        """Resume every assigned partition that is not placed yet.

        1. Ask which topics there are. 2. Read the markers of just these. 3. Compare with the log's ends. 4. Ask for
        the topics again, since the ends say nothing if one was made anew in between. 5. Only then assign.
        """
        self._placed_s = self._clock.monotonic_s()
        wanted = sorted(self._assigned - self._topic_ids.keys())
        names = sorted({topic for topic, _ in wanted})
        before = describe_topics(self._kafka, names, _BROKER_TIMEOUT_S)
        markers = self._read_markers(names)
        starts = {}
        for topic, partition in wanted:
            if topic in before:
                starts[topic, partition] = self._start_of(topic, before[topic][0], partition, markers)
        after = describe_topics(self._kafka, names, _BROKER_TIMEOUT_S)
        for (topic, partition), (start, low, high) in starts.items():
            if after.get(topic) != before[topic]:
                continue
            _refuse_marker_beyond_end(topic, before[topic][0], partition, start, high)
            if low > start > 0:
                log.error("%s/%d: offsets %d to %d were deleted before they were stored", topic, partition, start, low)
            self._topic_ids[topic, partition] = before[topic][0]
            self._next[topic, partition] = max(start, low)
            log.info("%s/%d is read from offset %d on", topic, partition, self._next[topic, partition])
        self._assign_placed()

    def _start_of(
        self, topic: str, topic_id: str, partition: int, markers: Mapping[Place, int]
    ) -> tuple[int, int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=_BROKER_TIMEOUT_S, cached=False
            )
        except KafkaException as error:
            raise Retryable(f"the broker does not say where {topic}/{partition} ends: {error}") from error
        return markers.get((topic, topic_id, partition), 0), int(low), int(high)

    def _assign_placed(self) -> None:
        placed = [TopicPartition(*part, self._next[part]) for part in sorted(self._topic_ids)]
        self._consumer.assign(placed)
        self._consumer.resume(placed)

    def _sort(self, messages: list[Any]) -> Intake:
        intake = Intake()
        taken: dict[TopicPart, list[Any]] = {}
        events: list[tuple[Any, TopicPart]] = []
        for message in messages:
            part = (message.topic(), message.partition())
            if message.error() is None:
                taken.setdefault(part, []).append(message)
            else:
                events.append((message, part))
        for part, found in taken.items():
            if part not in self._topic_ids:
                continue  # fetched before the partition was placed anew; it comes again
            fresh = found
            if found[0].offset() < self._next[part]:
                fresh = [message for message in found if message.offset() >= self._next[part]]
            if fresh:
                intake.batches.append(_batch(part[0], self._topic_ids[part], part[1], fresh))
                self._next[part] = fresh[-1].offset() + 1
        # Behind the messages that came with them: an end says where the position is once those are taken.
        for message, part in events:
            self._sort_error(message, part, intake)
        return intake

    def _sort_error(self, message: Any, part: TopicPart, intake: Intake) -> None:
        error: KafkaError = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            # Behind the last message there may be control records: nothing of them is to be stored.
            if part in self._next and message.offset() > self._next[part]:
                self._next[part] = message.offset()
            if part in self._topic_ids and self._next[part] > 0:
                intake.ends[part[0], self._topic_ids[part], part[1]] = self._next[part]
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            log.warning("%s/%d: %s; looking where it stands", *part, error.str())
            # The position says nothing of another log: what is not stored yet is read again from the marker.
            self._topic_ids.pop(part, None)
            self._next.pop(part, None)
        elif error.fatal() or error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            raise DriftloopError(f"cannot go on reading {part[0]}: {error.str()}")
        else:
            log.warning("%s: %s", part[0], error.str())

    def _sort_error_or_rewind(self, message: Any) -> None:
        part = (message.topic(), message.partition())
        if message.error() is not None:
            self._sort_error(message, part, Intake())
        elif part in self._topic_ids:
            self._assign_placed()


def _refuse_marker_beyond_end(topic: str, topic_id: str, partition: int, marker: int, end: int) -> None:
    if marker > end:
        raise DriftloopError(
            f"{topic}/{partition} (topic id {topic_id}) ends at offset {end}, but everything below {marker} was stored "
            "from it: the log was cut or restored from an older copy. Restore the log, or delete the topic and make it "
            "again; reading on would leave out what was written since"
        )


def _batch(topic: str, topic_id: str, partition: int, messages: list[Any]) -> MessageBatch:
    values = [message.value() for message in messages]
    headers = {n: found for n, message in enumerate(messages) if (found := message.headers())}
    return MessageBatch(
        topic=topic,
        topic_id=topic_id,
        partition=partition,
        offsets=np.array([message.offset() for message in messages], np.int64),
        timestamps=np.array([message.timestamp()[1] for message in messages], np.int64),
        values=values,
        headers={n: [(name, value or b"") for name, value in found] for n, found in headers.items()},
        keys={n: messages[n].key() for n, value in enumerate(values) if value is None},
    )
