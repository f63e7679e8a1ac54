"""What the monitor is compared with on the same topic: bare `consume`, stock Faust; and validation alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bench.progress import Pace
from bench.stock_faust import StockFaust
from schemas.connections import Runtime
from schemas.messages import MessageBatch
from schemas.validation import validate
from store.log import SpecFollower

TIMEOUT_S = 300.0
NUM_BATCHES = 6
NUM_VALIDATED_BYTES = 6_000_000


def measure_consume(runtime: Runtime, num_messages: int) -> Pace:
    """Let confluent-kafka read the topic, the bytes of every message included."""
    options = runtime.kafka.librdkafka(
        group_id="bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        # The default of a second throttles reading in bulk.
        fetch_queue_backoff_ms=5,
    )
    consumer = Consumer(options)
    consumer.subscribe([runtime.topics("predictions")])
    num_taken, num_first, started_s, started_cpu_s = 0, 0, 0.0, 0.0
    deadline_s = time.monotonic() + TIMEOUT_S
    try:
        while num_taken < num_messages:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"consumed {num_taken} of {num_messages} messages")
            taken = [message.value() for message in consumer.consume(10_000, timeout=0.1) if not message.error()]
            num_taken += len(taken)
            if taken and not num_first:
                num_first, started_s, started_cpu_s = num_taken, time.perf_counter(), time.process_time()
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    finally:
        consumer.close()
    num = num_taken - num_first
    return Pace(num / elapsed_s, cpu_s / num, elapsed_s)


def measure_faust(runtime: Runtime, num_messages: int) -> Pace:
    """Let stock Faust take the first messages of the topic."""
    peer = StockFaust(runtime, runtime.topics("predictions"), num_messages, "rate")
    try:
        per_s, cpu_s = map(float, peer.wait_for("rate", TIMEOUT_S).split())
        return Pace(per_s, cpu_s, num_messages / per_s)
    finally:
        peer.kill()


def measure_validation(runtime: Runtime, headers: Any) -> float:
    """Give the events a second of the one validation, in this process, on one core."""
    specs = SpecFollower(runtime.kafka, runtime.topics)
    specs.refresh()
    values = read_values(runtime, NUM_VALIDATED_BYTES, headers)
    size = max(1, len(values) // NUM_BATCHES)
    started_s, num_events = 0.0, 0
    for number, first in enumerate(range(0, len(values), size)):
        if number == 1:  # the first one warms up
            started_s = time.perf_counter()
        batch = _make_batch(values[first : first + size], first, headers)
        result = validate("predictions", batch, specs.catalogue, runtime.privacy_key)
        if result.dead:
            raise RuntimeError(f"an event was refused: {result.dead[0]}")
        num_events += result.num_events if number else 0
    elapsed_s = time.perf_counter() - started_s
    specs.close()
    return num_events / elapsed_s


def read_values(runtime: Runtime, num_bytes: int, headers: Any) -> list[bytes]:
    """Give the first messages with these headers of the first partition, about so many bytes."""
    consumer = Consumer(runtime.kafka.librdkafka(group_id="bare", enable_auto_commit=False))
    consumer.assign([TopicPartition(runtime.topics("predictions"), 0, OFFSET_BEGINNING)])
    values: list[bytes] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    try:
        while sum(map(len, values)) < num_bytes:
            if time.monotonic() > deadline_s:
                raise TimeoutError("the topic is too short")
            taken = [message for message in consumer.consume(1_000, timeout=0.1) if not message.error()]
            values += [message.value() for message in taken if message.headers() == headers]
        return values
    finally:
        consumer.close()


def _make_batch(values: Sequence[bytes], first: int, headers: Any) -> MessageBatch:
    return MessageBatch(
        "predictions",
        "",
        0,
        np.arange(first, first + len(values)),
        np.full(len(values), time.time_ns() // 1_000_000),
        list(values),
        dict.fromkeys(range(len(values)), headers) if headers else {},
    )
