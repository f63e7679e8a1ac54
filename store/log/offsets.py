"""Where partitions end, and how far consumer groups are."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.connections import KafkaConnection
from schemas.errors import Retryable
from store.log.topics import connect_admin, describe_topics

_TIMEOUT_S = 10.0
# A broker that is away is our message to give, not a log line of the client for every try.
QUIET = {"log_level": 0}


def wait_for_log(kafka: KafkaConnection, timeout_s: float) -> None:
    """Return once a broker answers; raises `Retryable` when none has within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    for attempt in itertools.count():
        admin = AdminClient(kafka.librdkafka() | QUIET)
        try:
            admin.list_topics(timeout=2.0)
            return
        except KafkaException as error:
            if time.monotonic() >= deadline_s:
                raise Retryable(f"Kafka at {kafka.bootstrap_servers} does not answer: {error.args[0].str()}") from error
            time.sleep(min(0.05 * 2**attempt, 0.5))


def read_end_offsets(kafka: KafkaConnection, topics: Iterable[str]) -> dict[tuple[str, str, int], int]:
    """{(topic, topic_id, partition): end offset} of the topics that exist."""
    described = describe_topics(kafka, topics)
    asked = {
        TopicPartition(topic, partition): OffsetSpec.latest()
        for topic, (_, num_partitions) in described.items()
        for partition in range(num_partitions)
    }
    try:
        futures = connect_admin(kafka).list_offsets(asked, request_timeout=_TIMEOUT_S) if asked else {}
        return {
            (place.topic, described[place.topic][0], place.partition): future.result(_TIMEOUT_S).offset
            for place, future in futures.items()
        }
    except (KafkaException, TimeoutError) as error:
        raise Retryable(f"cannot read the ends of {', '.join(described)}: {error}") from error
