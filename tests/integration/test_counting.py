"""Stage 1 from end to end: chunks from a broker, summaries in ClickHouse, exact through kills, on every broker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from confluent_kafka import Producer as LibrdkafkaProducer
from confluent_kafka.admin import AdminClient

from schemas.connections import Runtime
from schemas.spec import (
    Catalogue,
    FeatureSpec,
    ModelHistory,
    ModelSpec,
    PublishedSpec,
    ReferenceSource,
    WindowSpec,
    default_alerts,
    default_performance,
    encode_published,
)
from store.client import ClickHouse
from store.log import Producer, apply_topics, describe_topics
from store.summaries import Marker, Place, insert_markers, read_markers, read_stamps, read_summaries
from streams.app import name_job
from streams.logic.summaries import Merged, merge_rows
from tests.brokers import available_brokers
from tests.clickhouses import EmbeddedClickHouse
from tests.role_process import RoleProcess
from tests.servers import run_servers

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS

# Several starts of the monitor, each many seconds of imports where the machine is busy.
pytestmark = pytest.mark.timeout(900)
WAIT_S = 240


@dataclass
class Surroundings:
    """Servers, and the monitor processes of one test."""

    runtime: Runtime
    store: ClickHouse
    clickhouse: EmbeddedClickHouse
    folder: Path
    monitors: list[RoleProcess]

    def start_monitor(self, worker: str = "monitor-1") -> RoleProcess:
        monitor = RoleProcess("monitor", self.runtime, self.folder / f"{worker}.log", worker)
        self.monitors.append(monitor)
        return monitor

    def count_rows(self) -> int:
        stamps = read_stamps(self.store, name_job(self.runtime))
        return sum(stamp.num_rows for stamp in stamps if stamp.is_confirmed)

    def read_merged(self, history: ModelHistory) -> list[Merged]:
        job = name_job(self.runtime)
        starts = sorted({stamp.window_start for stamp in read_stamps(self.store, job, "m")})
        return merge_rows(read_summaries(self.store, job, "m", starts[0], starts[-1] + 1), history)

    def publish(self, published: PublishedSpec) -> ModelHistory:
        producer = Producer(self.runtime.kafka)
        producer.produce(self.runtime.topics("specs"), published.key, encode_published(published))
        producer.flush()
        catalogue = Catalogue()
        catalogue.add(published)
        history = catalogue.get("m")
        assert history is not None
        return history


@pytest.fixture(params=available_brokers())
def surroundings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Surroundings]:
    monitors: list[RoleProcess] = []
    with run_servers(request.param, tmp_path) as servers:
        try:
            yield Surroundings(servers.runtime, servers.store, servers.clickhouse, tmp_path, monitors)
        finally:
            for monitor in monitors:
                if monitor.process.poll() is None:
                    monitor.kill()
                print(monitor.log[-3000:])


def make_published() -> PublishedSpec:
    spec = ModelSpec(
        model="m", task="binary", reference=ReferenceSource(file="r.csv"), segments=["country"],
        features={"amount": FeatureSpec(type="number"), "country": FeatureSpec(type="category")},
        windows=WindowSpec(size_ms=HOUR_MS, lateness_ms=60_000),
        performance=default_performance("binary"), alerts=default_alerts(),
    )  # fmt: skip
    return PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="h", reference_rows=1,
        cuts={"amount": [-1.0, 0.0, 1.0]}, categories={"country": ["DE", "FR"]},
        segment_values={"country": ["DE", "FR"]},
    )  # fmt: skip


def make_events(num: int, seed: int) -> pd.DataFrame:
    """Events of five hours, a little out of order, one in ten sent twice to the same partition."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "record_id": [f"r{index}" for index in range(num)],
            "ts": START_MS + (np.arange(num) * 5 * HOUR_MS // num) - rng.integers(0, 50_000, num),
            "amount": rng.normal(size=num) * 10.0 ** rng.integers(-6, 6, num),
            "country": rng.choice(["DE", "FR", "XX"], num),
            "partition": np.arange(num) % 4,
        }
    )
    again = frame.sample(num // 10, random_state=seed).index
    return frame.loc[np.sort(np.concatenate((frame.index, again)), kind="stable")].reset_index(drop=True)


def produce(runtime: Runtime, events: pd.DataFrame) -> None:
    producer = LibrdkafkaProducer(runtime.kafka.librdkafka(linger_ms=20))
    topic = runtime.topics("records")
    for row in events.itertuples():
        features = {"amount": row.amount, "country": row.country}
        value = json.dumps({"record_id": row.record_id, "model": "m", "ts": row.ts, "features": features})
        producer.produce(topic, value, partition=row.partition)
        producer.poll(0)
    assert producer.flush(60) == 0


def summarise(events: pd.DataFrame) -> dict[tuple[str, int], tuple[object, ...]]:
    """The oracle: the same counts by pandas."""
    first = events.drop_duplicates("record_id")
    found: dict[tuple[str, int], tuple[object, ...]] = {}
    for segment, rows, every in [("", first, events)] + [
        (
            f"country={name if name != 'XX' else '__other__'}",
            first[first.country == name],
            events[events.country == name],
        )
        for name in ("DE", "FR", "XX")
    ]:
        window = rows.ts // HOUR_MS * HOUR_MS
        for start, group in rows.groupby(window):
            bins = np.bincount(np.searchsorted([-1.0, 0.0, 1.0], group.amount), minlength=4).tolist()
            countries = [int((group.country == name).sum()) for name in ("DE", "FR", "XX")]
            num_duplicates = int((every.ts // HOUR_MS * HOUR_MS == start).sum()) - len(group)
            extremes = (group.amount.min(), group.amount.max())
            found[segment, int(start)] = (len(group), num_duplicates, bins, countries, extremes)
    return found


def describe(merged: list[Merged]) -> dict[tuple[str, int], tuple[object, ...]]:
    found: dict[tuple[str, int], tuple[object, ...]] = {}
    for m in merged:
        (amount,), (country,) = m.numbers(), m.categories()
        found[m.segment, m.window_start] = (
            m.num_rows, m.summary.num_duplicates, amount.bins.tolist(), country.counts.tolist(),
            (amount.min, amount.max),
        )  # fmt: skip
    return found


def wait_until(is_true: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.1)


def test_counts_are_exact_through_kills(surroundings: Surroundings) -> None:
    """SIGKILL of the monitor in mid-stream, twice, and of ClickHouse once: pandas counts the same."""
    history = surroundings.publish(make_published())
    events = make_events(24_000, seed=1)
    parts = [events.iloc[begin : begin + 6_600] for begin in range(0, len(events), 6_600)]
    monitor = surroundings.start_monitor()
    num_before = 0
    for index, part in enumerate(parts):
        produce(surroundings.runtime, part)
        wait_until(lambda known=num_before: surroundings.count_rows() > known, "rows to be counted")  # type: ignore[misc]
        num_before = surroundings.count_rows()
        if index in (0, 2):
            monitor.kill()
            monitor = surroundings.start_monitor()
        elif index == 1:
            surroundings.clickhouse.kill()
            surroundings.clickhouse.start()
    expected = summarise(events)
    total = sum(int(values[0]) for (segment, _), values in expected.items() if segment == "")  # type: ignore[call-overload]
    wait_until(lambda: surroundings.count_rows() >= total, f"{total} rows")
    assert describe(surroundings.read_merged(history)) == expected
    assert monitor.stop() == 0


def test_every_partition_has_a_marker_at_once_and_is_known_to_be_at_its_end(surroundings: Surroundings) -> None:
    surroundings.publish(make_published())
    monitor = surroundings.start_monitor()
    topics = [surroundings.runtime.topics(name) for name in ("records", "predictions", "labels")]
    job = name_job(surroundings.runtime)

    def is_known() -> bool:
        markers = read_markers(surroundings.store, job, topics)
        return len(markers) == 12 and all(marker.next_offset == 0 and marker.at_end_at > 0 for marker in markers)

    wait_until(is_known, "12 markers at the end of empty partitions")
    assert monitor.stop() == 0


def test_bad_messages_become_dead_letters_and_stop_nothing(surroundings: Surroundings) -> None:
    surroundings.publish(make_published())
    events = make_events(400, seed=3)
    produce(surroundings.runtime, events.iloc[:200])
    producer = Producer(surroundings.runtime.kafka)
    for value in (b"{", b'{"record_id": "x", "model": "nobody", "ts": 1700000000000, "features": {}}', b""):
        producer.produce(surroundings.runtime.topics("records"), "k", value)
    producer.flush()
    produce(surroundings.runtime, events.iloc[200:])
    monitor = surroundings.start_monitor()
    num_rows = int(events.record_id.nunique())
    wait_until(lambda: surroundings.count_rows() >= num_rows, f"{num_rows} rows")
    reasons = surroundings.store.query("SELECT reason, count() FROM dead_letters GROUP BY reason ORDER BY reason")
    assert reasons == [("empty", 1), ("malformed", 1), ("unknown_model", 1)]
    assert monitor.stop() == 0


def test_a_topic_made_anew_is_another_log(surroundings: Surroundings) -> None:
    """Deleted and made again while the monitor runs: it begins at the new log's beginning, and the old counts stay."""
    surroundings.publish(make_published())
    runtime = surroundings.runtime
    topic = runtime.topics("records")
    events = make_events(300, seed=4)
    produce(runtime, events)
    monitor = surroundings.start_monitor()
    wait_until(lambda: surroundings.count_rows() == 300, "300 rows")
    admin = AdminClient(runtime.kafka.librdkafka())
    old_id = describe_topics(runtime.kafka, [topic])[topic][0]
    admin.delete_topics([topic])[topic].result(30)
    wait_until(lambda: topic not in describe_topics(runtime.kafka, [topic]), "the topic to be gone")
    apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    wait_until(lambda: topic in describe_topics(runtime.kafka, [topic]), "the topic to be there")
    produce(runtime, make_events(200, seed=5).assign(record_id=lambda frame: "new-" + frame.record_id))
    wait_until(lambda: surroundings.count_rows() == 500, "500 rows")
    markers = read_markers(surroundings.store, name_job(runtime), [topic])
    assert old_id not in {marker.place.topic_id for marker in markers}
    assert monitor.stop() == 0


def test_a_marker_beyond_the_end_of_the_log_stops_the_monitor(surroundings: Surroundings) -> None:
    surroundings.publish(make_published())
    topic = surroundings.runtime.topics("records")
    topic_id = describe_topics(surroundings.runtime.kafka, [topic])[topic][0]
    insert_markers(surroundings.store, name_job(surroundings.runtime), [Marker(Place(topic, topic_id, 1), 1000, {})])
    monitor = surroundings.start_monitor()
    assert monitor.process.wait(WAIT_S) != 0
    assert "was counted up to 1000" in monitor.log
