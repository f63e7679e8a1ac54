"""Idempotent producers and transactions."""

import asyncio
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from tests.contract.brokers import TIMEOUT_S, KafkaClient, get_code, wait_until

COMMITTED = {"isolation_level": "read_committed"}
UNCOMMITTED = {"isolation_level": "read_uncommitted"}


def start_transactions(kafka: KafkaClient, transactional_id: str | None = None, **config: Any) -> Producer:
    producer = kafka.make_producer(transactional_id=transactional_id or f"tx-{uuid.uuid4().hex}", **config)
    producer.init_transactions(TIMEOUT_S)
    return producer


def send(producer: Producer, topic: str, *values: bytes, partition: int = 0) -> None:
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(TIMEOUT_S) == 0


def test_idempotent_producer_writes_in_order(kafka: KafkaClient) -> None:
    topic = kafka.create_topic()
    values = [b"%d" % number for number in range(20_000)]
    kafka.produce(topic, values, enable_idempotence=True, linger_ms=1)
    came = kafka.read(topic)
    assert [message.value() for message in came] == values
    assert [message.offset() for message in came] == list(range(20_000))


def test_committed_is_seen_and_aborted_is_not(kafka: KafkaClient) -> None:
    topic, producer = kafka.create_topic(2), start_transactions(kafka)
    for round_number in range(3):
        for word, end in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
            producer.begin_transaction()
            for partition in (0, 1):
                send(producer, topic, b"%b %d" % (word, round_number), partition=partition)
            end(TIMEOUT_S)
    kafka.produce(topic, [b"plain"])
    kept = [b"kept %d" % number for number in range(3)]
    assert kafka.read_values(topic, 0, **COMMITTED) == [*kept, b"plain"]
    assert kafka.read_values(topic, 1, **COMMITTED) == kept
    assert len(kafka.read_values(topic, 0, **UNCOMMITTED)) == 7
    # Six data records, six markers, one plain record.
    assert kafka.get_watermarks(topic) == (0, 13)


def test_aborted_stay_hidden_from_a_reader_in_the_middle(kafka: KafkaClient) -> None:
    topic, producer = kafka.create_topic(), start_transactions(kafka)
    producer.begin_transaction()
    send(producer, topic, b"a0", b"a1", b"a2")
    kafka.produce(topic, [b"between"])
    send(producer, topic, b"a4")
    producer.abort_transaction(TIMEOUT_S)
    for offset in range(5):
        came = kafka.read(topic, offset=offset, **COMMITTED)
        assert [message.value() for message in came] == ([b"between"] if offset <= 3 else [])


def test_open_transaction_holds_committed_readers_back(kafka: KafkaClient) -> None:
    topic, producer = kafka.create_topic(), start_transactions(kafka)
    producer.begin_transaction()
    send(producer, topic, b"open")
    kafka.produce(topic, [b"after"])
    assert kafka.read_values(topic, **COMMITTED) == []
    assert kafka.read_values(topic, **UNCOMMITTED) == [b"open", b"after"]
    producer.commit_transaction(TIMEOUT_S)
    assert kafka.read_values(topic, **COMMITTED) == [b"open", b"after"]


def test_offsets_move_with_the_transaction(kafka: KafkaClient) -> None:
    topic, out, group = kafka.create_topic(), kafka.create_topic(), f"group-{uuid.uuid4().hex}"
    kafka.produce(topic, [b"%d" % number for number in range(10)])
    consumer = kafka.make_consumer(group_id=group)
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.1), "a first message")
    producer = start_transactions(kafka)
    for offset, end, committed in ((5, producer.commit_transaction, 5), (10, producer.abort_transaction, 5)):
        producer.begin_transaction()
        send(producer, out, b"up to %d" % offset)
        metadata = consumer.consumer_group_metadata()
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, offset)], metadata, TIMEOUT_S)
        end(TIMEOUT_S)
        assert kafka.get_committed(group, topic) == [committed]
    consumer.close()
    assert kafka.read_values(out, **COMMITTED) == [b"up to 5"]


def test_second_producer_fences_the_first(kafka: KafkaClient) -> None:
    topic, name = kafka.create_topic(), f"tx-{uuid.uuid4().hex}"
    first = start_transactions(kafka, name)
    first.begin_transaction()
    send(first, topic, b"left open")
    second = start_transactions(kafka, name)
    first.produce(topic, b"too late", partition=0)
    with pytest.raises(KafkaException) as refused:
        first.commit_transaction(TIMEOUT_S)
    assert refused.value.args[0].fatal()
    assert get_code(refused.value) in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
    second.begin_transaction()
    send(second, topic, b"second")
    second.commit_transaction(TIMEOUT_S)
    assert kafka.read_values(topic, **COMMITTED) == [b"second"]


def test_forgotten_transaction_is_aborted_in_time(kafka: KafkaClient) -> None:
    topic, producer = kafka.create_topic(), start_transactions(kafka, transaction_timeout_ms=2000)
    producer.begin_transaction()
    send(producer, topic, b"forgotten")
    kafka.produce(topic, [b"waiting"])
    assert kafka.read_values(topic, **COMMITTED) == []
    wait_until(lambda: kafka.read_values(topic, **COMMITTED) == [b"waiting"], "the transaction aborted")
    with pytest.raises(KafkaException):
        producer.commit_transaction(TIMEOUT_S)


def test_transaction_timeout_has_a_limit(kafka: KafkaClient) -> None:
    producer = kafka.make_producer(transactional_id=f"tx-{uuid.uuid4().hex}", transaction_timeout_ms=900_001)
    with pytest.raises(KafkaException) as refused:
        producer.init_transactions(TIMEOUT_S)
    assert get_code(refused.value) == KafkaError.INVALID_TRANSACTION_TIMEOUT


def test_aiokafka_transactions(kafka: KafkaClient) -> None:
    topic = kafka.create_topic()

    async def talk() -> list[bytes | None]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"tx-{uuid.uuid4().hex}")
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept", partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"dropped", partition=0)
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept too", partition=0)
        await producer.stop()
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level="read_committed")
        await consumer.start()
        consumer.assign([AioPartition(topic, 0)])
        await consumer.seek_to_beginning()
        try:
            return [(await asyncio.wait_for(consumer.getone(), TIMEOUT_S)).value for _ in range(2)]
        finally:
            await consumer.stop()

    assert asyncio.run(talk()) == [b"kept", b"kept too"]
