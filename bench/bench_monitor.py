"""How many events a second does one monitor process take in, of JSON and of Arrow, with the sink beside it and without?

Measured on stage 1's markers in ClickHouse: what is below a marker is validated, deduplicated, counted and durable.
With the sink beside it, windows are measured and judged at the same time. Peers: stock Faust that does nothing with a
message, and confluent-kafka's bare `consume`, both on the same topic; and validation alone, without Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from confluent_kafka import Consumer

from bench.events import ARROW_HEADERS, apply_model, fill, make_arrow_values, make_json_values
from bench.results import Result, compare
from bench.stock_faust import StockFaust
from bench.surroundings import run_roles, run_servers, separate, wait_until
from schemas.connections import Runtime
from schemas.messages import MessageBatch
from schemas.topics import MONITOR
from schemas.validation import validate
from store.client import ClickHouse
from store.log import SpecFollower
from store.markers import read_sink_markers
from store.summaries import read_markers

NUM_ARROW_ROWS = 5_000
SPAN_MS = 10 * 3_600_000
TIMEOUT_S = 300.0
# Markers come once a second: the rate is that between the first and the last but one, whose second was a full one.
NUM_STEPS_MIN = 4
NUM_FAUST_JSON = 60_000
NUM_VALIDATED = 20_000


@dataclass(frozen=True, slots=True)
class Load:
    """One topic full of events; `num_rows` events are in one message."""

    name: str
    num_messages: int
    num_rows: int
    make: Callable[[int], list[bytes]]
    headers: list[tuple[str, bytes]] | None = None


class Progress:
    """When a marker had which value, sampled; the rate that follows from it."""

    def __init__(self, read: Callable[[], int | None], end: int) -> None:
        self._read = read
        self._end = end
        self.steps: list[tuple[float, int]] = []

    def is_done(self) -> bool:
        if self.steps and self.steps[-1][1] >= self._end:
            return True
        reached = self._read()
        if reached is not None and (not self.steps or reached > self.steps[-1][1]):
            self.steps.append((time.perf_counter(), reached))
        return False

    def rate(self) -> float:
        """Messages a second; with few steps from the first sight of a marker on, the start of reading included."""
        grown = [step for step in self.steps if step[1]]
        (begin_s, begin), (end_s, end) = (
            (grown[0], grown[-2]) if len(grown) >= NUM_STEPS_MIN else (self.steps[0], grown[-1])
        )
        return (end - begin) / (end_s - begin_s)


def run(short: bool) -> list[Result]:
    start_ms = (time.time_ns() // 1_000_000 - SPAN_MS) // 3_600_000 * 3_600_000
    num_json, num_arrow = (300_000, 1_500_000) if short else (2_000_000, 10_000_000)
    loads = [
        Load("JSON", num_json, 1, lambda n: list(make_json_values(n, start_ms, SPAN_MS))),
        Load(
            "Arrow",
            num_arrow // NUM_ARROW_ROWS,
            NUM_ARROW_ROWS,
            lambda n: list(make_arrow_values(n * NUM_ARROW_ROWS, NUM_ARROW_ROWS, start_ms, SPAN_MS)),
            ARROW_HEADERS,
        ),
    ]
    with run_servers() as runtime:
        return [result for load in loads for result in measure_load(runtime, load)]


def measure_load(runtime: Runtime, load: Load) -> list[Result]:
    values = load.make(load.num_messages)
    alone, beside = (separate(runtime, f"{load.name.lower()}_{name}") for name in ("alone", "beside"))
    for each in (alone, beside):
        apply_model(each, window="1h")
        fill(each, each.topics("predictions"), iter(values), load.headers)
    validated = measure_validation(alone, load, values)
    del values
    consumed = measure_consume(alone, load) * load.num_rows
    faust = measure_faust(alone, load) * load.num_rows
    (monitor,) = measure_roles(alone, load, "monitor")
    with_sink, sink = measure_roles(beside, load, "monitor", "sink")

    def row(name: str, value: float, peer: str, peer_value: float) -> Result:
        return compare(f"{load.name}: {name}", value, "events/s", peer, peer_value)

    return [
        row("monitor", monitor, "stock Faust, empty loop", faust),
        row("monitor", monitor, "bare consume()", consumed),
        row("monitor", monitor, "validation alone", validated),
        row("monitor, sink beside it", with_sink, "stock Faust, empty loop", faust),
        row("sink, monitor beside it", sink, "bare consume()", consumed),
    ]


def measure_roles(runtime: Runtime, load: Load, *names: str) -> list[float]:
    """Give the events a second of each role, all started at once on a full topic."""
    store, topic, job = ClickHouse(runtime.clickhouse), runtime.topics("predictions"), runtime.topics(MONITOR)

    def read_stage1() -> int | None:
        markers = read_markers(store, job, [topic])
        return sum(marker.next_offset for marker in markers) if markers else None

    def read_sink() -> int | None:
        return sum(read_sink_markers(store, [topic]).values())

    reads = {"monitor": read_stage1, "sink": read_sink}
    progress = [Progress(reads[name], load.num_messages) for name in names]
    try:
        with run_roles(runtime, *names) as roles:
            # Summed, since `all` would stop looking at the first that is not done.
            wait_until(lambda: sum(each.is_done() for each in progress) == len(progress), TIMEOUT_S, load.name, roles)
            return [each.rate() * load.num_rows for each in progress]
    finally:
        store.close()


def measure_validation(runtime: Runtime, load: Load, values: list[bytes]) -> float:
    """Give the events a second of the one validation, in this process, on one core."""
    specs = SpecFollower(runtime.kafka, runtime.topics)
    specs.refresh()
    num_messages = max(1, NUM_VALIDATED // load.num_rows)
    batches = []
    for first in range(0, 4 * num_messages, num_messages):
        chosen: list[bytes | None] = list(islice(values, first, first + num_messages))
        now_ms = time.time_ns() // 1_000_000
        headers = dict.fromkeys(range(len(chosen)), load.headers) if load.headers else {}
        offsets = np.arange(first, first + len(chosen))
        timestamps = np.full(len(chosen), now_ms)
        batches.append(MessageBatch("predictions", "", 0, offsets, timestamps, chosen, headers))
    started_s, num_events = 0.0, 0
    for number, batch in enumerate(batches):
        if number == 1:  # the first one warms up
            started_s = time.perf_counter()
        result = validate("predictions", batch, specs.catalogue, runtime.privacy_key)
        if result.dead:
            raise RuntimeError(f"an event was refused: {result.dead[0]}")
        num_events += result.num_events if number else 0
    elapsed_s = time.perf_counter() - started_s
    specs.close()
    return num_events / elapsed_s


def measure_consume(runtime: Runtime, load: Load) -> float:
    """Give the messages a second of confluent-kafka reading the topic, their bytes included."""
    options = runtime.kafka.librdkafka(
        group_id="bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        # The default of a second throttles reading in bulk.
        fetch_queue_backoff_ms=5,
    )
    consumer = Consumer(options)
    consumer.subscribe([runtime.topics("predictions")])
    num_taken, num_first, started_s = 0, 0, 0.0
    deadline_s = time.monotonic() + TIMEOUT_S
    try:
        while num_taken < load.num_messages:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"consumed {num_taken} of {load.num_messages} messages")
            taken = [message.value() for message in consumer.consume(10_000, timeout=0.1) if not message.error()]
            num_taken += len(taken)
            if taken and not num_first:
                num_first, started_s = num_taken, time.perf_counter()
        return (num_taken - num_first) / (time.perf_counter() - started_s)
    finally:
        consumer.close()


def measure_faust(runtime: Runtime, load: Load) -> float:
    """Give the messages a second of stock Faust; of a long topic its first part."""
    peer = StockFaust(runtime, runtime.topics("predictions"), min(load.num_messages, NUM_FAUST_JSON), "rate")
    try:
        return float(peer.wait_for("rate", TIMEOUT_S))
    finally:
        peer.kill()
