"""What goes in comes out: bytes, offsets, times, limits."""

import asyncio
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tests.contract.brokers import TIMEOUT_S, KafkaClient, get_code

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# One batch whatever the codec: times within it are found by reading it, not by its header.
ONE_BATCH = {"linger_ms": 500, "batch_num_messages": 1000}


def ms_ago(age_ms: int) -> int:
    return int(time.time() * 1000) - age_ms


@pytest.mark.parametrize("codec", CODECS)
def test_messages_come_back_as_they_were(kafka: KafkaClient, codec: str) -> None:
    topic, start_ms = kafka.create_topic(), ms_ago(60_000)
    sent: list[dict[str, Any]] = [
        {
            "key": None if number % 3 == 0 else b"key-%d" % number,
            "value": None if number % 7 == 0 else b"value-%d" % number * 20,
            "headers": [("h", b"%d" % number), ("h", None)] if number % 5 == 0 else None,
            "timestamp": start_ms + number,
        }
        for number in range(2000)
    ]
    kafka.produce(topic, sent, compression_type=codec, linger_ms=20)
    came = kafka.read(topic)
    assert [message.offset() for message in came] == list(range(2000))
    assert [
        {"key": m.key(), "value": m.value(), "headers": m.headers(), "timestamp": m.timestamp()[1]} for m in came
    ] == sent


def test_aiokafka_writes_and_reads(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(2)

    async def talk() -> list[tuple[int, int, bytes | None]]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
        await producer.start()
        await consumer.start()
        try:
            for number in range(100):
                await producer.send(topic, b"%d" % number, partition=number % 2)
            await producer.flush()
            came = [await asyncio.wait_for(consumer.getone(), TIMEOUT_S) for _ in range(100)]
            return sorted((record.partition, record.offset, record.value) for record in came)
        finally:
            await consumer.stop()
            await producer.stop()

    assert asyncio.run(talk()) == sorted((number % 2, number // 2, b"%d" % number) for number in range(100))


@pytest.mark.parametrize("codec", CODECS)
def test_offset_for_a_time_is_exact(kafka: KafkaClient, codec: str) -> None:
    topic, start_ms = kafka.create_topic(), ms_ago(3_600_000)
    for first in (0, 100):
        batch = [{"value": b"x", "timestamp": start_ms + number * 1000} for number in range(first, first + 100)]
        kafka.produce(topic, batch, compression_type=codec, **ONE_BATCH)
    consumer = kafka.make_consumer()
    for asked_ms, offset in ((-5000, 0), (0, 0), (1, 1), (55_000, 55), (99_001, 100), (199_000, 199), (199_001, -1)):
        asked = TopicPartition(topic, 0, start_ms + asked_ms)
        found = consumer.offsets_for_times([asked], timeout=TIMEOUT_S)[0].offset
        assert found == offset, f"{asked_ms} ms after the first"
    consumer.close()


def test_unordered_times_find_the_first_record_in_the_log(kafka: KafkaClient) -> None:
    topic, start_ms = kafka.create_topic(), ms_ago(60_000)
    for delay_ms in (0, 5000, 2000, 9000, 1000):
        kafka.produce(topic, [{"value": b"x", "timestamp": start_ms + delay_ms}])
    place = TopicPartition(topic, 0)
    consumer = kafka.make_consumer()
    asked = TopicPartition(topic, 0, start_ms + 1500)
    assert consumer.offsets_for_times([asked], timeout=TIMEOUT_S)[0].offset == 1
    consumer.close()
    for spec, offset in ((OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 5), (OffsetSpec.max_timestamp(), 3)):
        assert kafka.admin.list_offsets({place: spec})[place].result(TIMEOUT_S).offset == offset


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_append_time_is_the_brokers(kafka: KafkaClient, codec: str) -> None:
    topic, before_ms = kafka.create_topic(message_timestamp_type="LogAppendTime"), ms_ago(0)
    long_ago = [{"value": b"%d" % number, "timestamp": 1_500_000_000_000 + number} for number in range(10)]
    kafka.produce(topic, long_ago, compression_type=codec, **ONE_BATCH)
    came = kafka.read(topic, check_crcs=True)
    assert [message.value() for message in came] == [b"%d" % number for number in range(10)]
    kinds_and_times = {message.timestamp() for message in came}
    assert {kind for kind, _ in kinds_and_times} == {2}
    times_ms = [at_ms for _, at_ms in kinds_and_times]
    assert before_ms <= min(times_ms) <= max(times_ms) <= ms_ago(0)
    consumer = kafka.make_consumer()
    assert consumer.offsets_for_times([TopicPartition(topic, 0, before_ms)], timeout=TIMEOUT_S)[0].offset == 0
    consumer.close()


def test_time_far_ahead_is_refused(kafka: KafkaClient) -> None:
    topic = kafka.create_topic()
    with pytest.raises(KafkaException) as refused:
        kafka.produce(topic, [{"value": b"x", "timestamp": ms_ago(-2 * 3_600_000)}])
    assert get_code(refused.value) == KafkaError.INVALID_TIMESTAMP


def test_too_large_message_is_refused_and_the_next_is_not(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(max_message_bytes="10000")
    with pytest.raises(KafkaException) as refused:
        kafka.produce(topic, [b"x" * 20_000])
    assert get_code(refused.value) == KafkaError.MSG_SIZE_TOO_LARGE
    assert kafka.produce(topic, [b"y" * 5000])[0].offset() == 0


def test_message_larger_than_the_fetch_limits_still_comes(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(max_message_bytes="10000000")
    sizes = [900_000, 5_000_000, 10, 9_000_000]
    kafka.produce(topic, [b"x" * size for size in sizes], message_max_bytes=12_000_000)

    async def read() -> list[int]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap, max_partition_fetch_bytes=1000, fetch_max_bytes=1000
        )
        await consumer.start()
        try:
            consumer.assign([AioPartition(topic, 0)])
            await consumer.seek_to_beginning()
            return [len((await asyncio.wait_for(consumer.getone(), TIMEOUT_S)).value) for _ in sizes]
        finally:
            await consumer.stop()

    assert asyncio.run(read()) == sizes


def test_small_fetches_read_many_partitions(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(4)
    for partition in range(4):
        kafka.produce(topic, [b"%04d" % number * 100 for number in range(500)], partition=partition)
    consumer = kafka.make_consumer(fetch_max_bytes=5000, max_partition_fetch_bytes=2000, message_max_bytes=1500)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    offsets: dict[int, list[int]] = {partition: [] for partition in range(4)}
    deadline = time.monotonic() + TIMEOUT_S
    while sum(map(len, offsets.values())) < 2000 and time.monotonic() < deadline:
        for message in consumer.consume(1000, timeout=0.5):
            assert message.error() is None
            offsets[message.partition()].append(message.offset())
    consumer.close()
    assert offsets == {partition: list(range(500)) for partition in range(4)}


def test_waiting_fetch_is_answered_when_a_message_comes(kafka: KafkaClient) -> None:
    """The fetch may wait for ten minutes, the test for half a minute: so it is the message that ends the wait."""
    topic = kafka.create_topic()

    async def talk() -> bytes:
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka.bootstrap,
            fetch_max_wait_ms=600_000,
            request_timeout_ms=700_000,
            auto_offset_reset="earliest",
        )
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await consumer.start()
        await producer.start()
        try:
            coming = asyncio.ensure_future(consumer.getone())
            assert await asyncio.wait({coming}, timeout=1) == (set(), {coming})
            await producer.send_and_wait(topic, b"now")
            value = (await asyncio.wait_for(coming, TIMEOUT_S)).value
            assert isinstance(value, bytes)
            return value
        finally:
            await producer.stop()
            await consumer.stop()

    assert asyncio.run(talk()) == b"now"


@pytest.mark.parametrize(("reset", "first"), [("earliest", 0), ("latest", 10)])
def test_offset_out_of_range_is_reset(kafka: KafkaClient, reset: str, first: int) -> None:
    topic = kafka.create_topic()
    kafka.produce(topic, [b"x"] * 10)
    consumer = kafka.make_consumer(auto_offset_reset=reset, enable_partition_eof=True)
    consumer.assign([TopicPartition(topic, 0, 5000)])
    message = consumer.poll(TIMEOUT_S)
    assert message.offset() == first
    consumer.close()


def test_unacknowledged_messages_arrive(kafka: KafkaClient) -> None:
    topic = kafka.create_topic()
    kafka.produce(topic, [b"%d" % number for number in range(100)], acks=0)
    kafka.produce(topic, [b"last"], acks="all")
    # Two connections: the last message may overtake, none may be missing.
    assert sorted(kafka.read_values(topic)) == sorted([*(b"%d" % number for number in range(100)), b"last"])
