"""How soon after a request does a job take its first step, where a trainer waits for work?

Requests by hand, one after the other, through the broker to a real trainer whose spare process is ready; from the
sending of the request to the beginning of the first epoch: admission, claim, reading 20,000 rows, encoding.
"""

from __future__ import annotations

import statistics
import time

from bench.bench_snapshot import fill
from bench.results import Limit, Result
from bench.surroundings import Options, Role, run_servers, separate, wait_until
from schemas.catalogue import PublishedSpec, encode_published
from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.events import Measurement, RetrainEvent, RetrainRequest, decode_event, encode_event
from schemas.spec import (
    FeatureSpec,
    ModelSpec,
    ReferenceSource,
    RetrainSpec,
    TrainingSpec,
    WindowSpec,
    default_alerts,
    default_performance,
)
from store.client import ClickHouse
from store.job_logs import read_log
from store.log import Producer, TopicReader, apply_topics
from store.measurements import insert_measurements
from store.migrations import migrate

NUM_ROWS = 20_000
WINDOW_MS = 50_000
TIMEOUT_S = 180.0
# A process that is started when the last job has ended needs so long to import what it needs, with room to spare.
PREPARE_S = 12.0


def run(options: Options) -> list[Result]:
    num_requests = 5 if options.short else 20
    with run_servers(options) as servers:
        runtime = separate(servers.runtime, "retrain")
        ch = ClickHouse(runtime.clickhouse)
        try:
            published = prepare(runtime, ch)
            trainer = Role(runtime, "train")
            try:
                waits_s = [ask(runtime, ch, published, number, trainer) for number in range(num_requests)]
            finally:
                trainer.stop()
        finally:
            ch.close()
    limit = Limit("value", "at most", 2)
    named = f"a request to the first step, median of {num_requests}; the longest {max(waits_s):.2f} s"
    return [Result(named, statistics.median(waits_s), "s", limit=limit)]


def prepare(runtime: Runtime, ch: ClickHouse) -> PublishedSpec:
    """Fill the store with labelled rows of several windows, and declare a model that learns from them."""
    migrate(ch)
    apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    fill(ch, NUM_ROWS)
    ch.command(
        "INSERT INTO predictions (model, record_id, ts, model_version, score, prediction, topic, topic_id, partition, "
        "offset, row) "
        "SELECT model, record_id, ts, 'external', 0.5, 1, topic, topic_id, partition, offset, row FROM records"
    )
    ((model, first_ms, last_ms),) = ch.query(
        "SELECT any(model), toUnixTimestamp64Milli(min(ts)), toUnixTimestamp64Milli(max(ts)) FROM records"
    )
    features = {f"n{place}": FeatureSpec(type="number") for place in range(10)}
    features |= {f"c{place}": FeatureSpec(type="category") for place in range(2)}
    spec = ModelSpec(
        model=model, task="binary", reference=ReferenceSource(file="r.parquet"), features=features,
        windows=WindowSpec(size_ms=WINDOW_MS, lateness_ms=1000), performance=default_performance("binary"),
        alerts=default_alerts(), retrain=RetrainSpec(training=TrainingSpec(epochs=1, early_stopping="none")),
    )  # fmt: skip
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="r", reference_rows=1
    )
    end_ms = (last_ms - first_ms) // WINDOW_MS * WINDOW_MS + first_ms // WINDOW_MS * WINDOW_MS
    measured = Measurement(
        model=model, model_version="", window_start=end_ms - WINDOW_MS, window_end=end_ms, segment="", feature="",
        kind="quality", metric="num_rows", value=1, status="ok", num_rows=1, computed_at=SystemClock().now_ms(),
    )  # fmt: skip
    insert_measurements(ch, [measured])
    send(runtime, "specs", published.key, encode_published(published))
    return published


def ask(runtime: Runtime, ch: ClickHouse, published: PublishedSpec, number: int, trainer: Role) -> float:
    """Ask for a retraining, wait until its job is over, and return the seconds from asking to its first step."""
    time.sleep(PREPARE_S)
    request = RetrainRequest(
        request_id=f"bench-{number}", model=published.model, rule="manual", trigger_alert_id="", reason="bench",
        first_window_start=0, first_window_end=0, window_size_ms=published.window_size_ms,
        requested_at=SystemClock().now_ms(), manual=True,
    )  # fmt: skip
    asked_ms = time.time() * 1000
    send(runtime, "retrain-requests", published.model, encode_event(request))
    reader = TopicReader(runtime.kafka, runtime.topics("retrain-events"))
    begun_ms: list[float] = []

    def is_over() -> bool:
        over = False
        for message in reader.read_to_end():
            event = decode_event(RetrainEvent, message.value or b"")
            if event.job_id == request.request_id and event.type == "epoch" and not begun_ms:
                begun_ms.append(event.at - 1000 * event.detail["seconds"])
            if event.job_id == request.request_id and event.type in ("promoted", "rejected", "failed", "cancelled"):
                if not begun_ms:
                    printed = "\n".join(line.text for line in read_log(ch, event.job_id)[-20:])
                    raise RuntimeError(f"the job took no step: {event.detail}\n{printed}")
                over = True
        return over

    try:
        wait_until(is_over, TIMEOUT_S, "the job's end", [trainer])
    finally:
        reader.close()
    return (begun_ms[0] - asked_ms) / 1000


def send(runtime: Runtime, topic: str, key: str, value: bytes) -> None:
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics(topic), key, value)
    producer.flush(20)
    producer.close()
