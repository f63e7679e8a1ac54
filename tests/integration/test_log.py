"""The control topics: everything is read once and in order, and the first role map of an epoch counts for all."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.connections import KafkaConnection, Runtime
from schemas.errors import Retryable
from schemas.events import RoleMap, encode_event
from store.log import (
    Producer,
    RoleFollower,
    SpecFollower,
    TopicReader,
    apply_topics,
    describe_topics,
    diff_topics,
    publish_roles,
)
from tests.brokers import AnyBroker, available_brokers, make_broker
from tests.role_process import make_runtime

names = itertools.count()


@pytest.fixture(scope="module", params=available_brokers())
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyBroker]:
    server = make_broker(request.param, tmp_path_factory.mktemp("broker"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def runtime(broker: AnyBroker, tmp_path: Path) -> Runtime:
    made = make_runtime(broker.bootstrap, "http://127.0.0.1:1", f"log{next(names)}x{time.time_ns()}", tmp_path)
    apply_topics(made.kafka, made.topics, 3)
    return made


def test_topics_become_as_declared(runtime: Runtime) -> None:
    assert diff_topics(runtime.kafka, runtime.topics, 3) == []
    assert apply_topics(runtime.kafka, runtime.topics, 3) == []
    records, models = runtime.topics("records"), runtime.topics("models")
    described = describe_topics(runtime.kafka, [records, models, "there-is-none"])
    assert {name: partitions for name, (_, partitions) in described.items()} == {records: 3, models: 1}
    assert described[records][0] != described[models][0]
    assert {str(difference) for difference in diff_topics(runtime.kafka, runtime.topics, 5)} == {
        f"{runtime.topics(name)}: partitions is 3, declared 5"
        for name in ("records", "predictions", "labels", "dead-letters", "progress")
    }
    assert apply_topics(runtime.kafka, runtime.topics, 5) == []


def test_a_topic_made_again_has_another_id_and_is_read_from_its_beginning(runtime: Runtime) -> None:
    topic = runtime.topics("again")
    admin = AdminClient({"bootstrap.servers": runtime.kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, -1)])[topic].result(20)
    first_id = _described(runtime, topic)
    _fill(runtime, topic, [b"a", b"b"])
    reader = TopicReader(runtime.kafka, topic)
    assert [message.value for message in reader.read_to_end()] == [b"a", b"b"]
    admin.delete_topics([topic])[topic].result(20)
    _wait_until_gone(runtime, topic)
    admin.create_topics([NewTopic(topic, 1, -1)])[topic].result(20)
    assert _described(runtime, topic) != first_id
    _fill(runtime, topic, [b"c"])
    assert [message.value for message in reader.read_to_end()] == [b"c"]
    reader.close()


def test_reading_goes_on_where_it_ended(runtime: Runtime) -> None:
    topic = runtime.topics("records")
    reader = TopicReader(runtime.kafka, topic)
    assert reader.read_to_end() == []
    _fill(runtime, topic, [str(n).encode() for n in range(500)])
    assert sorted(int(message.value or b"") for message in reader.read_to_end()) == list(range(500))
    assert reader.read_to_end() == []
    _fill(runtime, topic, [b"500"])
    assert [message.value for message in reader.read_to_end()] == [b"500"]
    reader.close()


def test_what_is_not_there_is_worth_another_try(runtime: Runtime) -> None:
    with pytest.raises(Retryable, match="does not exist"):
        TopicReader(runtime.kafka, "there-is-none").read_to_end(5)
    nobody = KafkaConnection("127.0.0.1:1", {"socket.connection.setup.timeout.ms": "1000"})
    with pytest.raises(Retryable):
        TopicReader(nobody, "records").read_to_end(0.5)
    producer = Producer(nobody)
    producer.produce("records", "k", b"v")
    with pytest.raises(Retryable, match="1 messages were not delivered"):
        producer.flush(0.5)


def test_the_first_role_map_of_an_epoch_counts_for_everyone(runtime: Runtime) -> None:
    early = RoleFollower(runtime.kafka, runtime.topics)
    early.refresh()
    assert early.current("fraud") is None
    assert publish_roles(runtime.kafka, runtime.topics, _roles(1, "external", at=0))
    assert publish_roles(runtime.kafka, runtime.topics, _roles(2, "7", at=1000))
    assert not publish_roles(runtime.kafka, runtime.topics, _roles(2, "8", at=1000))
    late = RoleFollower(runtime.kafka, runtime.topics)
    for follower in (early, late):
        follower.refresh()
        current = follower.current("fraud")
        assert current is not None
        assert (current.epoch, current.roles) == (2, {"champion": "7"})
        before, after = follower.at("fraud", 999), follower.at("fraud", 1000)
        assert before is not None
        assert after is not None
        assert (before.epoch, after.epoch) == (1, 2)
        assert follower.at("fraud", -1) is None
        follower.close()


def test_foreign_messages_on_control_topics_are_passed_over(runtime: Runtime) -> None:
    _fill(runtime, runtime.topics("models"), [b"{broken", encode_event(_roles(1, "7", at=0))])
    _fill(runtime, runtime.topics("specs"), [b"{broken", None])
    roles, specs = RoleFollower(runtime.kafka, runtime.topics), SpecFollower(runtime.kafka, runtime.topics)
    assert [taken.epoch for taken in roles.refresh()] == [1]
    specs.refresh()
    assert specs.catalogue.models() == []
    roles.close()
    specs.close()


def _roles(epoch: int, champion: str, at: int) -> RoleMap:
    return RoleMap(model="fraud", epoch=epoch, roles={"champion": champion}, at=at, changed_at=at)


def _fill(runtime: Runtime, topic: str, values: list[bytes | None]) -> None:
    producer = Producer(runtime.kafka)
    for n, value in enumerate(values):
        producer.produce(topic, f"k{n}", value)
    producer.flush()


def _described(runtime: Runtime, topic: str) -> str:
    deadline_s = time.monotonic() + 20
    while topic not in (found := describe_topics(runtime.kafka, [topic])):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return found[topic][0]


def _wait_until_gone(runtime: Runtime, topic: str) -> None:
    deadline_s = time.monotonic() + 20
    while describe_topics(runtime.kafka, [topic]):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
