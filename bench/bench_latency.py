"""How long after the last event of a window is its alert on the topic?

The numbers of every other window are shifted, so each window opens or resolves the drift alert of the model. From the
instant at which a window's last event was sent to the arrival of its alert at a consumer: counting, storing, the sink,
measuring every feature of every segment, judging. The peer is what it takes to measure one such window in a job of its
own: Evidently's DataDriftPreset, already imported, without reading or writing anything.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from bench.bench_measures import measure_by_preset
from bench.events import NUM_REFERENCE_ROWS, SHIFT, Feeder, apply_model, make_frame
from bench.results import Result, compare
from bench.surroundings import Watched, run_roles, run_servers, separate
from schemas.connections import Runtime
from schemas.events import Alert, decode_event
from store.log import describe_topics

NUM_PER_S = 1_000
WINDOW_MS = 5_000
# The first windows find imports and caches cold.
NUM_WARM_UP = 3
TIMEOUT_S = 180.0


def run(short: bool) -> list[Result]:
    num_windows = 10 if short else 60
    with run_servers() as servers:
        runtime = separate(servers, "latency")
        apply_model(runtime, window=f"{WINDOW_MS}ms")
        latencies_s = measure_alerts(runtime, num_windows)
    preset_s = measure_preset()
    load = f"{NUM_PER_S:,} events/s, windows of {WINDOW_MS // 1000} s"
    peer = "one DataDriftPreset, without segments or I/O"
    return [
        compare(f"last event to alert, p{rank} of {num_windows} ({load})", value, "s", peer, preset_s)
        for rank, value in ((50, np.percentile(latencies_s, 50)), (99, np.percentile(latencies_s, 99)))
    ]


def measure_alerts(runtime: Runtime, num_windows: int) -> list[float]:
    """Give the seconds from the last event of each window to its alert."""
    consumer = open_alerts(runtime)
    try:
        with (
            run_roles(runtime, "sink", "monitor") as roles,
            Feeder(runtime, NUM_PER_S, is_shifted=lambda ts_ms: ts_ms // WINDOW_MS % 2 == 1) as feeder,
        ):
            arrivals = collect(consumer, [*roles, feeder], NUM_WARM_UP + num_windows)
    finally:
        consumer.close()
    last_sent = find_last_sent(feeder.sent)
    return [(arrived_ms - last_sent[end]) / 1000 for end, arrived_ms in sorted(arrivals.items())[NUM_WARM_UP:]]


def open_alerts(runtime: Runtime) -> Consumer:
    topic = runtime.topics("alerts")
    _, num_partitions = describe_topics(runtime.kafka, [topic])[topic]
    consumer = Consumer(runtime.kafka.librdkafka(group_id="bench", enable_auto_commit=False))
    consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in range(num_partitions)])
    return consumer


def collect(consumer: Consumer, watched: Sequence[Watched], num_windows: int) -> dict[int, float]:
    """Give the arrival (epoch ms) of the first alert of the whole model by the end of its window."""
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
                arrivals.setdefault(alert.window_end, time.time() * 1000)
    return arrivals


def find_last_sent(sent: list[tuple[int, float]]) -> dict[int, float]:
    """Give, by the end of each window, when its last event had been handed to the producer (epoch ms)."""
    last = {}
    for (ts_ms, sent_ms), (next_ms, _) in pairwise(sent):
        if ts_ms // WINDOW_MS != next_ms // WINDOW_MS:
            last[(ts_ms // WINDOW_MS + 1) * WINDOW_MS] = sent_ms
    return last


def measure_preset() -> float:
    """Give the seconds of one report on the reference and one window, the imports left out."""
    reference = make_frame(NUM_REFERENCE_ROWS, seed=1).drop(columns="score")
    current = make_frame(NUM_PER_S * WINDOW_MS // 1000, seed=4, shift=SHIFT).drop(columns="score")
    measure_by_preset(reference.head(50), current.head(50))
    started_s = time.perf_counter()
    measure_by_preset(reference, current)
    return time.perf_counter() - started_s
