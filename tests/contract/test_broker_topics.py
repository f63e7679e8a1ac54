"""Topics and the cluster, as administrators and clients see them."""

import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType

from tests.contract.brokers import TIMEOUT_S, KafkaClient, get_code, wait_until


def describe(kafka: KafkaClient, topic: str) -> Any:
    return kafka.admin.describe_topics(TopicCollection([topic]))[topic].result(TIMEOUT_S)


def get_config(kafka: KafkaClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = kafka.admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    return {name: entry.value for name, entry in entries.items()}


def alter_config(kafka: KafkaClient, topic: str, *changes: tuple[str, str | None, AlterConfigOpType]) -> None:
    entries = [ConfigEntry(name, value, incremental_operation=operation) for name, value, operation in changes]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    kafka.admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


def test_created_topic_has_its_partitions_and_configuration(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(3, retention_ms="60000", cleanup_policy="compact")
    description = describe(kafka, topic)
    assert [partition.id for partition in description.partitions] == [0, 1, 2]
    config = get_config(kafka, topic)
    assert (config["retention.ms"], config["cleanup.policy"]) == ("60000", "compact")
    assert config["message.timestamp.type"] == "CreateTime"
    assert kafka.get_watermarks(topic, 2) == (0, 0)


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (NewTopic("bad name!", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("x" * 250, 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("..", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("too-few", 0, 1), KafkaError.INVALID_PARTITIONS),
        (NewTopic("too-safe", 1, 3), KafkaError.INVALID_REPLICATION_FACTOR),
        (NewTopic("odd", 1, 1, config={"no.such.option": "1"}), KafkaError.INVALID_CONFIG),
        (NewTopic("odd", 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
    ],
)
def test_impossible_topic_is_refused_with_kafkas_code(kafka: KafkaClient, topic: NewTopic, code: int) -> None:
    with pytest.raises(KafkaException) as refused:
        kafka.admin.create_topics([topic])[topic.topic].result(TIMEOUT_S)
    assert get_code(refused.value) == code


def test_topic_exists_once(kafka: KafkaClient) -> None:
    topic = kafka.create_topic()
    with pytest.raises(KafkaException) as refused:
        kafka.create_topic(name=topic)
    assert get_code(refused.value) == KafkaError.TOPIC_ALREADY_EXISTS


def test_validate_only_makes_nothing(kafka: KafkaClient) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    kafka.admin.create_topics([NewTopic(name, 1, 1)], validate_only=True)[name].result(TIMEOUT_S)
    assert name not in kafka.admin.list_topics(timeout=TIMEOUT_S).topics


def test_topics_are_not_made_by_using_them(kafka: KafkaClient) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    with pytest.raises(KafkaException) as refused:
        kafka.produce(name, [b"x"], message_timeout_ms=2000, topic_metadata_propagation_max_ms=500)
    assert get_code(refused.value) == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert name not in kafka.admin.list_topics(timeout=TIMEOUT_S).topics


def test_topic_made_again_is_another_log(kafka: KafkaClient) -> None:
    topic, group = kafka.create_topic(2), f"group-{uuid.uuid4().hex}"
    kafka.produce(topic, [b"old"] * 5)
    first_id = str(describe(kafka, topic).topic_id)
    consumer = kafka.make_consumer(group_id=group)
    consumer.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    consumer.close()

    kafka.delete_topic(topic)
    kafka.create_topic(1, name=topic)

    assert str(describe(kafka, topic).topic_id) != first_id
    assert len(describe(kafka, topic).partitions) == 1
    assert kafka.get_watermarks(topic) == (0, 0)
    wait_until(lambda: kafka.get_committed(group, topic) == [-1001], "the old topic's offset forgotten")
    assert [message.offset() for message in kafka.produce(topic, [b"new"])] == [0]
    assert kafka.read_values(topic) == [b"new"]


def test_unknown_topic_cannot_be_deleted_or_described(kafka: KafkaClient) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    for ask in (
        lambda: kafka.admin.delete_topics([name])[name].result(TIMEOUT_S),
        lambda: describe(kafka, name),
        lambda: get_config(kafka, name),
    ):
        with pytest.raises(KafkaException) as refused:
            ask()
        assert get_code(refused.value) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_partitions_are_added_never_removed(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"kept"])
    kafka.admin.create_partitions([NewPartitions(topic, 4)])[topic].result(TIMEOUT_S)
    wait_until(lambda: len(describe(kafka, topic).partitions) == 4, "four partitions")
    kafka.produce(topic, [b"new"], partition=3)
    assert kafka.read_values(topic) == [b"kept"]
    assert kafka.read_values(topic, 3) == [b"new"]
    with pytest.raises(KafkaException) as refused:
        kafka.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(TIMEOUT_S)
    assert get_code(refused.value) == KafkaError.INVALID_PARTITIONS


def test_configuration_changes_one_by_one(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(retention_ms="60000", max_message_bytes="2000")
    alter_config(kafka, topic, ("retention.ms", "70000", AlterConfigOpType.SET))
    assert get_config(kafka, topic)["retention.ms"] == "70000"
    assert get_config(kafka, topic)["max.message.bytes"] == "2000"
    alter_config(
        kafka,
        topic,
        ("max.message.bytes", None, AlterConfigOpType.DELETE),
        ("cleanup.policy", "compact", AlterConfigOpType.APPEND),
    )
    config = get_config(kafka, topic)
    assert config["max.message.bytes"] == "1048588"
    assert sorted(config["cleanup.policy"].split(",")) == ["compact", "delete"]
    with pytest.raises(KafkaException) as refused:
        alter_config(kafka, topic, ("retention.ms", "never", AlterConfigOpType.SET))
    assert get_code(refused.value) == KafkaError.INVALID_CONFIG
    assert get_config(kafka, topic)["retention.ms"] == "70000"


@pytest.mark.filterwarnings("ignore:alter_configs has been deprecated:DeprecationWarning")
def test_configuration_changes_as_a_whole(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(retention_ms="60000", max_message_bytes="2000")
    resource = ConfigResource(ResourceType.TOPIC, topic, set_config={"retention.ms": "80000"})
    kafka.admin.alter_configs([resource])[resource].result(TIMEOUT_S)
    config = get_config(kafka, topic)
    assert (config["retention.ms"], config["max.message.bytes"]) == ("80000", "1048588")


def test_deleted_records_are_gone_and_offsets_stay(kafka: KafkaClient) -> None:
    topic = kafka.create_topic()
    kafka.produce(topic, [b"%d" % number for number in range(100)])
    asked = TopicPartition(topic, 0, 50)
    deleted = kafka.admin.delete_records([asked])[asked].result(TIMEOUT_S)
    assert deleted.low_watermark == 50
    assert kafka.get_watermarks(topic) == (50, 100)
    assert [message.offset() for message in kafka.read(topic)] == list(range(50, 100))
    beyond = TopicPartition(topic, 0, 101)
    with pytest.raises(KafkaException) as refused:
        kafka.admin.delete_records([beyond])[beyond].result(TIMEOUT_S)
    assert get_code(refused.value) == KafkaError.OFFSET_OUT_OF_RANGE
    everything = TopicPartition(topic, 0, -1)
    kafka.admin.delete_records([everything])[everything].result(TIMEOUT_S)
    assert kafka.get_watermarks(topic) == (100, 100)
    assert kafka.produce(topic, [b"next"])[0].offset() == 100


def test_cluster_describes_itself(kafka: KafkaClient) -> None:
    cluster = kafka.admin.describe_cluster().result(TIMEOUT_S)
    host, port = kafka.bootstrap.split(":")
    assert cluster.cluster_id
    assert [(node.host, node.port) for node in cluster.nodes] == [(host, int(port))]
    broker = ConfigResource(ResourceType.BROKER, str(cluster.nodes[0].id))
    config = kafka.admin.describe_configs([broker])[broker].result(TIMEOUT_S)
    assert config["auto.create.topics.enable"].value == "false"
