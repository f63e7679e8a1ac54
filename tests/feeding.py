"""Sends the known truth to a running system and waits until all of it is measured."""

from __future__ import annotations

from driftloop.replay.settling import Settling
from schemas.topics import WATERMARK_HEADER
from store.client import ClickHouse
from store.log import Producer, describe_topics
from store.markers import read_sink_markers
from tests import truth
from tests.stacks import RunningStack

Events = list[tuple[int, str, str, bytes]]
INBOUND = ("records", "predictions", "labels")
MEASURED = """
    SELECT toUnixTimestamp64Milli(window_start), segment, kind, feature, metric, value
    FROM measurements_now WHERE model = 'credit'
"""


def send(running: RunningStack, events: Events) -> None:
    producer = Producer(running.runtime.kafka)
    for _, topic, key, value in events:
        producer.produce(topic, key, value)
    producer.flush(60.0)
    producer.close()


def send_watermark(running: RunningStack, end_ms: int, model: str = truth.MODEL) -> None:
    """Say on every partition that nothing before `end_ms` will follow."""
    producer = Producer(running.runtime.kafka)
    for topic, (_, num_partitions) in describe_topics(running.runtime.kafka, INBOUND).items():
        for partition in range(num_partitions):
            producer.produce(
                topic, model, None, headers=[(WATERMARK_HEADER, str(end_ms).encode())], partition=partition
            )
    producer.flush(30.0)
    producer.close()


def finish(running: RunningStack, end_ms: int, timeout_s: float = 200.0, model: str = truth.MODEL) -> None:
    """Close all windows and wait until everything is measured."""
    send_watermark(running, end_ms, model)
    settling = Settling(running.runtime, model)
    try:
        settling.wait(truth.START_MS, end_ms, timeout_s)
    finally:
        settling.close()


def read_measured(running: RunningStack) -> dict[tuple[int, str, str, str, str], float]:
    store = ClickHouse(running.runtime.clickhouse)
    try:
        return {(row[0], row[1], row[2], row[3], row[4]): row[5] for row in store.query(MEASURED)}
    finally:
        store.close()


def count_rows(running: RunningStack, table: str) -> int:
    store = ClickHouse(running.runtime.clickhouse)
    try:
        # The name is one of the test's own.
        return int(store.query(f"SELECT count() FROM {table}")[0][0])
    finally:
        store.close()


def sum_sink_markers(running: RunningStack) -> int:
    """How many messages the sink has stored or passed over; grows with its progress."""
    store = ClickHouse(running.runtime.clickhouse)
    try:
        return sum(read_sink_markers(store, INBOUND).values())
    finally:
        store.close()
