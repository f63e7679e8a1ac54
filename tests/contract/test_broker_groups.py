"""Consumer groups: who gets which partition, who may commit, what administrators see."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from tests.contract.brokers import TIMEOUT_S, KafkaClient, get_code, wait_until

WORKER = Path(__file__).with_name("group_worker.py")
# The shortest session that Kafka allows.
SESSION_S = 6


class Worker:
    """A consumer in a process of its own, so that it can be killed; it reports what it owns and reads."""

    def __init__(self, kafka: KafkaClient, topic: str, group: str, **config: Any) -> None:
        settings = {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": group,
            "session.timeout.ms": SESSION_S * 1000,
            "heartbeat.interval.ms": 500,
            "auto.commit.interval.ms": 200,
            "auto.offset.reset": "earliest",
            **{key.replace("_", "."): value for key, value in config.items()},
        }
        self.owned: set[int] = set()
        self.num_assignments = 0
        self.read: list[tuple[int, int]] = []
        command = [sys.executable, str(WORKER), topic, json.dumps(settings)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            kind, *places = json.loads(line)
            if kind == "message":
                self.read.append((places[0], places[1]))
            else:
                self.owned = set(places[0])
                self.num_assignments += 1

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(TIMEOUT_S)
        self._thread.join(TIMEOUT_S)
        if self.process.stdout:
            self.process.stdout.close()
        self.owned = set()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.end(signal.SIGKILL)


def are_balanced(workers: list[Worker], num_partitions: int) -> bool:
    """Whether every worker has some partitions, and every partition exactly one worker."""
    owned = [partition for worker in workers for partition in worker.owned]
    return all(worker.owned for worker in workers) and sorted(owned) == list(range(num_partitions))


def describe(kafka: KafkaClient, group: str) -> Any:
    return kafka.admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_group_shares_partitions_and_takes_over(kafka: KafkaClient, workers: list[Worker], strategy: str) -> None:
    topic, group = kafka.create_topic(6), f"group-{uuid.uuid4().hex}"

    def start() -> Worker:
        workers.append(Worker(kafka, topic, group, partition_assignment_strategy=strategy))
        return workers[-1]

    first, second, third = start(), start(), start()
    wait_until(lambda: are_balanced([first, second, third], 6), "three share six partitions")
    description = describe(kafka, group)
    assert description.state == ConsumerGroupState.STABLE
    assert description.partition_assignor == strategy
    assert sorted(len(member.assignment.topic_partitions) for member in description.members) == [2, 2, 2]
    for partition in range(6):
        kafka.produce(topic, [b"%d" % number for number in range(50)], partition=partition)
    wait_until(lambda: sum(len(worker.read) for worker in workers) >= 300, "300 messages read")

    third.end()
    wait_until(lambda: are_balanced([first, second], 6), "two share six after one left")
    second.end(signal.SIGKILL)
    wait_until(lambda: are_balanced([first], 6), "the last one took over after a kill")

    wait_until(lambda: kafka.get_committed(group, topic, range(6)) == [50] * 6, "everything committed")
    places = [place for worker in workers for place in worker.read]
    assert {(partition, offset) for partition in range(6) for offset in range(50)} == set(places)


def test_static_member_comes_back_without_a_rebalance(kafka: KafkaClient, workers: list[Worker]) -> None:
    topic, group = kafka.create_topic(4), f"group-{uuid.uuid4().hex}"
    workers += [Worker(kafka, topic, group, group_instance_id=name, session_timeout_ms=30_000) for name in ("a", "b")]
    first, second = workers
    wait_until(lambda: are_balanced([first, second], 4), "two share four partitions")
    before, num_assignments = second.owned, first.num_assignments
    second.end(signal.SIGKILL)
    workers.append(Worker(kafka, topic, group, group_instance_id="b", session_timeout_ms=30_000))
    wait_until(lambda: workers[-1].owned == before, "the same partitions are back")
    assert first.num_assignments == num_assignments
    assert sorted(member.group_instance_id for member in describe(kafka, group).members) == ["a", "b"]


def test_static_member_is_fenced_by_its_successor(kafka: KafkaClient) -> None:
    topic, group = kafka.create_topic(), f"group-{uuid.uuid4().hex}"
    first = kafka.make_consumer(group_id=group, group_instance_id="only")
    first.subscribe([topic])
    wait_until(lambda: first.poll(0.1) or first.assignment(), "the first has the partition")
    second = kafka.make_consumer(group_id=group, group_instance_id="only")
    second.subscribe([topic])
    wait_until(lambda: second.poll(0.1) or second.assignment(), "the second has the partition")

    def is_fenced() -> bool:
        try:
            first.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        except KafkaException as error:
            return get_code(error) in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL)
        return False

    wait_until(is_fenced, "the first is told that it is fenced")
    second.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    first.close()
    second.close()
    assert kafka.get_committed(group, topic) == [2]


def test_stranger_may_not_commit_for_a_group_with_members(kafka: KafkaClient) -> None:
    topic, group = kafka.create_topic(2), f"group-{uuid.uuid4().hex}"
    member = kafka.make_consumer(group_id=group)
    member.subscribe([topic])
    wait_until(lambda: member.poll(0.1) or member.assignment(), "the member has partitions")
    stranger = kafka.make_consumer(group_id=group)
    with pytest.raises(KafkaException) as refused:
        stranger.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    assert get_code(refused.value) in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION)
    stranger.close()
    member.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    member.close()
    assert kafka.get_committed(group, topic, [0, 1]) == [3, -1001]


def test_administrators_list_move_and_delete_a_group(kafka: KafkaClient) -> None:
    topic, group = kafka.create_topic(2), f"group-{uuid.uuid4().hex}"
    consumer = kafka.make_consumer(group_id=group)
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.1) or len(consumer.assignment()) == 2, "the consumer has both partitions")
    consumer.commit(offsets=[TopicPartition(topic, 0, 4, metadata="four")], asynchronous=False)
    with pytest.raises(KafkaException) as refused:
        kafka.admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    assert get_code(refused.value) == KafkaError.NON_EMPTY_GROUP
    consumer.close()

    wait_until(lambda: describe(kafka, group).state == ConsumerGroupState.EMPTY, "the group is empty")
    listed = kafka.admin.list_consumer_groups().result(TIMEOUT_S).valid
    assert group in [one.group_id for one in listed]
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 9)])
    kafka.admin.alter_consumer_group_offsets([moved])[group].result(TIMEOUT_S)
    asked = kafka.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(TIMEOUT_S)
    assert sorted((place.partition, place.offset) for place in asked.topic_partitions) == [(0, 0), (1, 9)]

    kafka.admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    assert group not in [one.group_id for one in kafka.admin.list_consumer_groups().result(TIMEOUT_S).valid]
    assert kafka.get_committed(group, topic) == [-1001]
    with pytest.raises(KafkaException) as refused:
        kafka.admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    assert get_code(refused.value) == KafkaError.GROUP_ID_NOT_FOUND


def test_two_aiokafka_consumers_share_and_hand_over(kafka: KafkaClient) -> None:
    topic, group = kafka.create_topic(4), f"group-{uuid.uuid4().hex}"

    def make() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka.bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_S * 1000,
            heartbeat_interval_ms=300,
            metadata_max_age_ms=1000,
        )

    async def wait_for_shares(*shares: tuple[AIOKafkaConsumer, int]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while [len(consumer.assignment()) for consumer, _ in shares] != [share for _, share in shares]:
            assert time.monotonic() < deadline, [consumer.assignment() for consumer, _ in shares]
            await asyncio.sleep(0.05)

    async def talk() -> None:
        first, second = make(), make()
        await first.start()
        await wait_for_shares((first, 4))
        await second.start()
        await wait_for_shares((first, 2), (second, 2))
        await second.commit(dict.fromkeys(second.assignment(), 5))
        committed = second.assignment()
        await second.stop()
        await wait_for_shares((first, 4))
        assert {await first.committed(place) for place in committed} == {5}
        await first.stop()

    asyncio.run(talk())
