"""The topics of a cluster: which there are, and making them as declared."""

import time
import uuid
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from schemas.connections import KafkaConnection, TopicNames
from schemas.errors import Retryable
from schemas.topics import TOPICS

_TIMEOUT_S = 20.0
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """One thing in which a topic is not as declared; `actual` None means that the topic is missing."""

    topic: str
    setting: str
    declared: str
    actual: str | None

    def __str__(self) -> str:
        if self.actual is None:
            return f"{self.topic}: missing (declared with {self.declared} partitions)"
        return f"{self.topic}: {self.setting} is {self.actual}, declared {self.declared}"


def describe_topics(
    kafka: KafkaConnection, names: Iterable[str], timeout_s: float = _TIMEOUT_S
) -> dict[str, tuple[str, int]]:
    """(topic_id, number of partitions) of each of these topics that exists; the id as UUID text."""
    wanted = list(names)
    if not wanted:
        return {}
    futures = connect_admin(kafka).describe_topics(TopicCollection(wanted), request_timeout=timeout_s)
    found: dict[str, tuple[str, int]] = {}
    for name, future in futures.items():
        try:
            topic = future.result(timeout_s)
        except TimeoutError as error:
            raise Retryable(f"Kafka at {kafka.bootstrap_servers} does not answer") from error
        except KafkaException as error:
            if error.args[0].code() in _GONE:
                continue
            raise Retryable(f"cannot describe topic {name}: {error}") from error
        found[name] = (_uuid(topic.topic_id), len(topic.partitions))
    return found


def diff_topics(kafka: KafkaConnection, topics: TopicNames, num_partitions: int) -> list[TopicDifference]:
    """Every difference between the cluster and the declared topics."""
    declared = {topics(spec.name): spec for spec in TOPICS.values()}
    present = describe_topics(kafka, declared)
    differences = []
    for name, spec in declared.items():
        partitions = spec.num_partitions(num_partitions)
        if name not in present:
            differences.append(TopicDifference(name, "partitions", str(partitions), None))
        elif present[name][1] != partitions:
            differences.append(TopicDifference(name, "partitions", str(partitions), str(present[name][1])))
    for name, actual in _describe_options(kafka, list(present)).items():
        differences += [
            TopicDifference(name, option, value, actual[option])
            for option, value in declared[name].options().items()
            if actual.get(option, value) != value
        ]
    return differences


def apply_topics(kafka: KafkaConnection, topics: TopicNames, num_partitions: int) -> list[TopicDifference]:
    """Create missing topics and set the options of the others; returns what was changed.

    Partition counts are fixed for a topic's life, since keys would move: such a difference is left to `diff_topics`.
    Safe to repeat, and to run in several processes at once.
    """
    differences = [
        difference
        for difference in diff_topics(kafka, topics, num_partitions)
        if difference.actual is None or difference.setting != "partitions"
    ]
    missing = {difference.topic for difference in differences if difference.actual is None}
    new = [
        NewTopic(topics(spec.name), spec.num_partitions(num_partitions), -1, config=spec.options())
        for spec in TOPICS.values()
        if topics(spec.name) in missing
    ]
    if new:
        _wait(connect_admin(kafka).create_topics(new, request_timeout=_TIMEOUT_S), KafkaError.TOPIC_ALREADY_EXISTS)
        _wait_until_known(kafka, missing)
    changed = [difference for difference in differences if difference.actual is not None]
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(d.setting, d.declared, incremental_operation=AlterConfigOpType.SET)
                for d in changed
                if d.topic == name
            ],
        )
        for name in sorted({d.topic for d in changed})
    ]
    if resources:
        _wait(connect_admin(kafka).incremental_alter_configs(resources, request_timeout=_TIMEOUT_S))
    return differences


def _describe_options(kafka: KafkaConnection, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    futures = connect_admin(kafka).describe_configs(resources, request_timeout=_TIMEOUT_S)
    return {
        resource.name: {entry.name: entry.value for entry in _result(future).values()}
        for resource, future in futures.items()
    }


def _wait(futures: dict[Any, Future[Any]], *accepted: int) -> None:
    for name, future in futures.items():
        try:
            future.result(_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in accepted:
                raise Retryable(f"cannot set up topic {name}: {error}") from error


def _wait_until_known(kafka: KafkaConnection, names: set[str]) -> None:
    """A broker confirms a new topic a moment before its metadata has it."""
    deadline_s = time.monotonic() + _TIMEOUT_S
    while names - describe_topics(kafka, sorted(names)).keys():
        if time.monotonic() > deadline_s:
            raise Retryable(f"new topics are not to be seen after {_TIMEOUT_S:.0f} s: {', '.join(sorted(names))}")
        time.sleep(0.05)


def _result(future: Future[Any]) -> Any:
    try:
        return future.result(_TIMEOUT_S)
    except KafkaException as error:
        raise Retryable(f"the broker did not answer: {error}") from error


def _uuid(topic_id: Any) -> str:
    mask = (1 << 64) - 1
    high, low = topic_id.get_most_significant_bits() & mask, topic_id.get_least_significant_bits() & mask
    return str(uuid.UUID(int=(high << 64) | low))


def connect_admin(kafka: KafkaConnection) -> Any:
    options = {**kafka.librdkafka(), "log_level": 2}
    return _cached_admin(tuple(sorted((name, str(value)) for name, value in options.items())))


@cache
def _cached_admin(options: tuple[tuple[str, str], ...]) -> Any:
    # Connecting costs more than asking, and the sink asks every two seconds.
    return AdminClient(dict(options))
