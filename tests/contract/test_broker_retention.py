"""What a broker removes: by age, by size, by key. And what it keeps: offsets."""

import time
from pathlib import Path

import pytest

from tests.brokers import EmbeddedBroker
from tests.contract.brokers import KafkaClient, wait_until

# Apache Kafka takes no segments below 1 MiB: this makes ten messages a segment.
CHUNK = b"x" * 100_000
SMALL = {"segment_bytes": str(2**20), "segment_ms": "600000"}
ALONE = {"batch_num_messages": 1}


def test_old_segments_go_by_size(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(retention_bytes="2500000", retention_ms="-1", **SMALL)
    kafka.produce(topic, [CHUNK] * 100, **ALONE)
    low, high = wait_until(
        lambda: watermarks if (watermarks := kafka.get_watermarks(topic))[0] >= 60 else None, "most segments gone"
    )
    assert high == 100
    # What is left: at least the limit, at most a segment more.
    assert 25 <= high - low <= 36
    assert [message.offset() for message in kafka.read(topic)] == list(range(low, 100))


def test_old_segments_go_by_age(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(retention_ms="3600000", **SMALL)
    day_ago_ms = int(time.time() * 1000) - 86_400_000
    kafka.produce(topic, [{"value": CHUNK, "timestamp": day_ago_ms}] * 35, **ALONE)
    kafka.produce(topic, [CHUNK] * 15, **ALONE)
    low, high = wait_until(
        lambda: watermarks if (watermarks := kafka.get_watermarks(topic))[0] >= 30 else None, "yesterday gone"
    )
    # A segment that has today's messages too stays as it is; Apache Kafka begins one when times are far apart.
    assert low <= 35
    assert high == 50
    assert [message.offset() for message in kafka.read(topic)] == list(range(low, 50))


def test_what_is_all_old_goes_entirely_and_offsets_go_on(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(retention_ms="3600000", **SMALL)
    day_ago_ms = int(time.time() * 1000) - 86_400_000
    kafka.produce(topic, [{"value": CHUNK, "timestamp": day_ago_ms}] * 10)
    wait_until(lambda: kafka.get_watermarks(topic) == (10, 10), "an empty log")
    assert kafka.produce(topic, [b"next"])[0].offset() == 10


def test_compaction_keeps_the_last_of_each_key_where_it_was(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(
        cleanup_policy="compact",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="1000",
        delete_retention_ms="0",
        segment_ms="1000",
    )
    for round_number in range(10):
        records = [{"key": b"k%d" % key, "value": b"v%d-%d" % (round_number, key) * 20} for key in range(100)]
        kafka.produce(topic, records, batch_num_messages=30, compression_type="lz4" if round_number % 2 else "none")
    gone = [b"k%d" % key for key in range(0, 100, 2)]
    kafka.produce(topic, [{"key": key, "value": None} for key in gone])

    def read_compacted() -> dict[bytes, tuple[int, bytes]] | None:
        # The last segment is never compacted, so something has to follow what shall be.
        kafka.produce(topic, [{"key": b"ticker", "value": b"tick"}])
        came = [message for message in kafka.read(topic) if message.key() != b"ticker"]
        is_done = len(came) == 50 and all(message.value() is not None for message in came)
        return {message.key(): (message.offset(), message.value()) for message in came} if is_done else None

    kept = wait_until(read_compacted, "compacted, tombstones gone", 60)
    assert kept == {b"k%d" % key: (900 + key, b"v9-%d" % key * 20) for key in range(1, 100, 2)}


def test_compaction_drops_what_was_aborted(kafka: KafkaClient) -> None:
    topic = kafka.create_topic(
        cleanup_policy="compact", min_cleanable_dirty_ratio="0.01", max_compaction_lag_ms="1000", segment_ms="1000"
    )
    producer = kafka.make_producer(transactional_id=topic)
    producer.init_transactions(30)
    for word, end in ((b"kept", producer.commit_transaction), (b"aborted", producer.abort_transaction)):
        producer.begin_transaction()
        for key in range(10):
            producer.produce(topic, word, key=b"k%d" % key, partition=0)
        assert producer.flush(30) == 0
        end(30)

    def is_compacted() -> bool:
        kafka.produce(topic, [{"key": b"ticker", "value": b"tick"}])
        seen = kafka.read_values(topic, isolation_level="read_uncommitted")
        assert [v for v in kafka.read_values(topic, isolation_level="read_committed") if v != b"tick"] == [b"kept"] * 10
        return b"aborted" not in seen

    wait_until(is_compacted, "the aborted records gone", 60)


def test_compacted_log_is_the_same_after_a_kill(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Embedded only: the rename of a compacted segment and the removal of its neighbours are two steps."""
    broker = EmbeddedBroker(tmp_path)
    request.addfinalizer(broker.kill)
    broker.start()
    kafka = KafkaClient(broker.bootstrap)
    topic = kafka.create_topic(cleanup_policy="compact", min_cleanable_dirty_ratio="0.01", segment_bytes="2000")
    for round_number in range(30):
        kafka.produce(topic, [{"key": b"k%d" % key, "value": b"%d" % round_number} for key in range(20)])
    wait_until(lambda: len(kafka.read(topic)) < 200, "compacted")
    before = [(message.offset(), message.key(), message.value()) for message in kafka.read(topic)]
    broker.kill()
    broker.start()
    after = [(message.offset(), message.key(), message.value()) for message in kafka.read(topic)]
    # A pass may have gone on between reading and the kill: nothing but replaced records may be missing.
    assert set(after) <= set(before)
    assert {key: value for _, key, value in after} == {b"k%d" % key: b"29" for key in range(20)}
