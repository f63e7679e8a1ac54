"""How long after the last event of a window is its alert on the topic?

The numbers of every other window are shifted, so each window opens or resolves the drift alert of the model. From the
instant at which a window's last event was sent to the arrival of its alert at a consumer. A calibrated alert follows
from counts: counting, storing, testing every column of every segment, judging. One with a fixed threshold waits for the
rows as well: the sink, reading, measuring. Events keep coming all the while, but a window ends only when the alert of
the one before is there: so this is latency, not the length of a queue. The peer is what it takes to measure one such
window in a job of its own: Evidently's DataDriftPreset, already imported, without reading or writing anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from bench.bench_measures import measure_by_preset
from bench.events import NUM_REFERENCE_ROWS, SHIFT, Feeder, apply_model, make_frame, read_now_ms
from bench.results import Limit, Result, compare
from bench.surroundings import Options, Watched, run_roles, run_servers, separate
from measures.budget import DAY_MS
from schemas.connections import Runtime
from schemas.events import Alert, decode_event
from store.log import describe_topics

# About half of what monitor and sink get through together on two cores.
NUM_PER_S = int(os.environ.get("DRIFTLOOP_BENCH_EVENTS_PER_S", "40000"))
# Four days of event time are sent in three seconds: windows so long are tested alone, and not merged as well, by
# which an alert would outlast the windows that it is about.
WINDOW_MS, WINDOW_S = 4 * DAY_MS, 3.0
NUM_WINDOWS_MAX = 200
THRESHOLDS = {"calibrated": "calibrated", "of a fixed threshold": "0.1"}
# The first windows find imports and caches cold.
NUM_WARM_UP = 3
TIMEOUT_S = 180.0


def run(options: Options) -> Iterator[Result]:
    num_windows = 10 if options.short else 60
    preset_s = measure_preset()
    load = f"{NUM_PER_S:,} events/s, windows of {WINDOW_S:g} s and more"
    peer = "one DataDriftPreset, without segments or I/O"
    for name, threshold in THRESHOLDS.items():
        with run_servers(options) as servers:
            runtime = separate(servers.runtime, "latency")
            apply_model(runtime, f"{WINDOW_MS // DAY_MS}d", threshold=threshold)
            latencies_s = measure_alerts(runtime, num_windows)
        # What is promised is promised of calibrated alerts.
        limit = Limit("value", "at most", 2, aim=0.5) if threshold == "calibrated" else None
        for rank, reached in ((50, None), (99, limit)):
            value = float(np.percentile(latencies_s, rank))
            what = f"last event to alert {name}, p{rank} of {num_windows} ({load})"
            yield compare(what, value, "s", peer, preset_s, reached)


class WindowClock:
    """Event time that runs evenly to the end of each window, and waits there for the alert of the one before."""

    def __init__(self) -> None:
        # In the past, since events from the future are refused; odd, so that the first window has an alert.
        self._window = (read_now_ms() - NUM_WINDOWS_MAX * WINDOW_MS) // (2 * WINDOW_MS) * 2 + 1
        self._num_ended = 0
        self._opened_s: float | None = None  # begins with the first event, however long processes take to start
        self.num_announced = 0

    def read(self) -> int:
        """Give the present, epoch ms."""
        if self._opened_s is None:
            self._opened_s = time.monotonic()
        share = (time.monotonic() - self._opened_s) / WINDOW_S
        if share >= 1.0 and self.num_announced >= self._num_ended:
            self._window += 1
            self._num_ended += 1
            self._opened_s, share = time.monotonic(), 0.0
        return self._window * WINDOW_MS + min(int(share * WINDOW_MS), WINDOW_MS - 1)


def is_odd(ts_ms: int) -> bool:
    """Whether an instant is in every other window."""
    return ts_ms // WINDOW_MS % 2 == 1


def measure_alerts(runtime: Runtime, num_windows: int) -> list[float]:
    """Give the seconds from the last event of each window to its alert."""
    consumer, clock = open_alerts(runtime), WindowClock()
    try:
        with (
            run_roles(runtime, "sink", "monitor") as roles,
            Feeder(runtime, NUM_PER_S, clock.read, is_shifted=is_odd) as feeder,
        ):
            arrivals = collect(consumer, [*roles, feeder], clock, NUM_WARM_UP + num_windows)
    finally:
        consumer.close()
    last_sent = find_last_sent(feeder.sent)
    return [arrived_s - last_sent[end] for end, arrived_s in sorted(arrivals.items())[NUM_WARM_UP:]]


def open_alerts(runtime: Runtime) -> Consumer:
    topic = runtime.topics("alerts")
    _, num_partitions = describe_topics(runtime.kafka, [topic])[topic]
    consumer = Consumer(runtime.kafka.librdkafka(group_id="bench", enable_auto_commit=False))
    consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in range(num_partitions)])
    return consumer


def collect(consumer: Consumer, watched: Sequence[Watched], clock: WindowClock, num_windows: int) -> dict[int, float]:
    """Give the arrival (time.monotonic) of the first alert of the whole model by the end of its window."""
    arrivals: dict[int, float] = {}
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(arrivals) < num_windows:
        for each in watched:
            each.require_alive()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{len(arrivals)} alerts of {num_windows} after {TIMEOUT_S:.0f} s")
        for message in consumer.consume(100, timeout=0.1):
            if message.error():
                raise RuntimeError(str(message.error()))
            alert = decode_event(Alert, message.value())
            if not alert.segment:
                arrivals.setdefault(alert.window_end, time.monotonic())
                clock.num_announced = len(arrivals)
    return arrivals


def find_last_sent(sent: list[tuple[int, float]]) -> dict[int, float]:
    """Give, by the end of each window, when its last event had been handed to the producer (time.monotonic)."""
    last = {}
    for (ts_ms, sent_s), (next_ms, _) in pairwise(sent):
        if ts_ms // WINDOW_MS != next_ms // WINDOW_MS:
            last[(ts_ms // WINDOW_MS + 1) * WINDOW_MS] = sent_s
    return last


def measure_preset() -> float:
    """Give the seconds of one report on the reference and one window, the imports left out."""
    reference = make_frame(NUM_REFERENCE_ROWS, seed=1).drop(columns="score")
    current = make_frame(int(NUM_PER_S * WINDOW_S), seed=4, shift=SHIFT).drop(columns="score")
    measure_by_preset(reference.head(50), current.head(50))
    started_s = time.perf_counter()
    measure_by_preset(reference, current)
    return time.perf_counter() - started_s
