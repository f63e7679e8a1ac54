"""Fills topics with events as fast as the broker takes them.

What differs from event to event is written into prepared bytes; no Python object is made for a value.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from confluent_kafka import KafkaError, Producer

from bench.events import ARROW_HEADERS, MODEL, NUM_POOL_ROWS, JsonEvents, make_frame
from schemas.connections import Runtime

NUM_ARROW_ROWS = 5_000
TIMEOUT_S = 300.0
# Events handed over in one call, all for one partition; several of them are one batch of the log.
NUM_PER_CALL = 5_000
# What the producer holds at most, so that a long fill stays small.
_QUEUE_KB = 200_000
_DIGITS = 10
# The most that brokers allow.
_HELD_MS_MAX = 900_000


class Fill:
    """Sends messages to the partitions in turn; leaving the block waits until all of them are in the log.

    What is held is not seen by anyone who reads committed messages only before `release`: one transaction.
    """

    def __init__(self, runtime: Runtime, topic: str, *, is_held: bool = False) -> None:
        self._topic = topic
        self._is_held = is_held
        self._num_partitions = runtime.num_partitions
        self._next_partition = 0
        self._errors: list[str] = []
        self._producer = Producer(
            {"log_level": 2}
            | runtime.kafka.librdkafka(
                acks="all",
                linger_ms=20,
                batch_size=1 << 20,
                message_max_bytes=10 << 20,
                compression_type="none",
                queue_buffering_max_kbytes=_QUEUE_KB,
                queue_buffering_max_messages=1_000_000,
                **({"transactional_id": f"fill-{topic}", "transaction_timeout_ms": _HELD_MS_MAX} if is_held else {}),
            )
        )

    def __enter__(self) -> Fill:
        if self._is_held:
            self._producer.init_transactions(TIMEOUT_S)
            self._producer.begin_transaction()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:
            self._producer.purge()
        else:
            self.flush()

    def flush(self) -> None:
        """Wait until everything sent is in the log; RuntimeError when something cannot be."""
        if undelivered := self._producer.flush(TIMEOUT_S):
            raise TimeoutError(f"{undelivered} messages were not delivered within {TIMEOUT_S:.0f} s")
        if self._errors:
            raise RuntimeError(f"{len(self._errors)} messages were not delivered, the first: {self._errors[0]}")

    def release(self) -> None:
        """Let all that was sent be seen at once."""
        self._producer.commit_transaction(TIMEOUT_S)

    def send_many(self, values: Sequence[bytes]) -> None:
        """Send messages without headers to one partition."""
        left = [{"value": value} for value in values]
        deadline_s = time.monotonic() + TIMEOUT_S
        while left:
            self._producer.produce_batch(self._topic, left, partition=self._next_partition, on_delivery=self._note)
            # Those that found the queue full, in order.
            left = [{"value": each["value"]} for each in left if "_error" in each]
            self._producer.poll(0.05 if left else 0)
            if left and time.monotonic() > deadline_s:
                raise TimeoutError(f"the queue to {self._topic} stayed full for {TIMEOUT_S:.0f} s")
        self._turn()

    def send(self, value: bytes, headers: Any = None, partition: int | None = None) -> None:
        """Send one message, to the partition whose turn it is if none is named."""
        place = self._next_partition if partition is None else partition
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self._producer.produce(self._topic, value, headers=headers, partition=place, on_delivery=self._note)
                break
            except BufferError:
                if time.monotonic() > deadline_s:
                    raise
                self._producer.poll(0.05)
        self._producer.poll(0)
        self._turn()

    def _turn(self) -> None:
        self._next_partition = (self._next_partition + 1) % self._num_partitions

    def _note(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._errors.append(error.str())


def fill_json(fill: Fill, num_events: int, start_ms: int, span_ms: int) -> None:
    """Send JSON predictions, evenly spread over [start, start + span)."""
    events = JsonEvents()
    for first in range(0, num_events, NUM_PER_CALL):
        numbers = range(first, min(num_events, first + NUM_PER_CALL))
        fill.send_many([events.make(number, start_ms + number * span_ms // num_events) for number in numbers])


def fill_arrow(fill: Fill, num_events: int, start_ms: int, span_ms: int) -> None:
    """Send the same predictions as Arrow streams of NUM_ARROW_ROWS rows."""
    for value in make_arrow_values(num_events, start_ms, span_ms):
        fill.send(value, ARROW_HEADERS)


def make_arrow_values(num_events: int, start_ms: int, span_ms: int) -> Iterator[bytes]:
    """Give Arrow streams of predictions, evenly spread over [start, start + span)."""
    pool = make_frame(NUM_POOL_ROWS, seed=3)
    slices = [
        convert_features(pool.iloc[first : first + NUM_ARROW_ROWS]) for first in range(0, NUM_POOL_ROWS, NUM_ARROW_ROWS)
    ]
    for index, first in enumerate(range(0, num_events, NUM_ARROW_ROWS)):
        numbers = np.arange(first, first + NUM_ARROW_ROWS)
        yield encode_stream(MODEL, numbers, start_ms + numbers * span_ms // num_events, slices[index % len(slices)])


def convert_features(frame: pd.DataFrame) -> tuple[pa.Array, pa.StructArray]:
    """Give the score and the struct of features of a frame."""
    names = [name for name in frame.columns if name != "score"]
    features = pa.StructArray.from_arrays([pa.array(frame[name].to_numpy()) for name in names], names)
    return pa.array(frame["score"].to_numpy()), features


def encode_stream(
    model: str, numbers: npt.NDArray[np.int64], ts_ms: npt.NDArray[np.int64], values: tuple[pa.Array, pa.StructArray]
) -> bytes:
    """Give one Arrow stream; `numbers` make the identities."""
    score, features = values
    table = pa.table(
        {
            "record_id": format_ids(numbers),
            "model": pa.repeat(model, len(numbers)),
            "ts": pa.array(ts_ms),
            "score": score,
            "features": features,
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def format_ids(numbers: npt.NDArray[np.int64]) -> pa.StringArray:
    """Give `r` and ten digits of each number, as `JsonEvents` does."""
    width = _DIGITS + 1
    text = np.full((len(numbers), width), ord("r"), np.uint8)
    text[:, 1:] = numbers[:, None] // 10 ** np.arange(_DIGITS - 1, -1, -1) % 10 + ord("0")
    offsets = np.arange(0, len(numbers) * width + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text.ravel()))
