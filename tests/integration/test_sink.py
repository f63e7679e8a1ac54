"""The sink against real servers: every valid event is stored once, through duplicates, kills and outages."""

import itertools
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as LibrdkafkaProducer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.catalogue import PublishedSpec, encode_published
from schemas.connections import Runtime
from schemas.declarations import (
    FeatureSpec,
    ModelSpec,
    ReferenceSource,
    WindowSpec,
    default_alerts,
    default_performance,
)
from schemas.events import DeadLetter, encode_event
from store.client import ClickHouse
from store.log import Producer, TopicReader, apply_topics, describe_topics
from store.markers import read_sink_markers, write_sink_marker
from store.migrations import migrate
from tests.brokers import AnyBroker, available_brokers, make_broker
from tests.clickhouses import EmbeddedClickHouse
from tests.role_process import RoleProcess, make_runtime

START_MS = 1_767_225_600_000
numbers = itertools.count()


@dataclass
class Stack:
    """One test's surroundings: topics and a database of its own on shared servers."""

    runtime: Runtime
    ch: ClickHouse
    server: EmbeddedClickHouse
    broker: AnyBroker
    folder: Path
    sinks: list[RoleProcess]

    def start_sink(self) -> RoleProcess:
        sink = RoleProcess("sink", self.runtime, self.folder / f"sink-{next(numbers)}.log")
        self.sinks.append(sink)
        return sink

    def send(self, kind: str, events: Any, **more: Any) -> None:
        producer = Producer(self.runtime.kafka)
        for event in events:
            producer.produce(self.runtime.topics(kind), str(event["record_id"]), json.dumps(event).encode(), **more)
        producer.flush()

    def count(self, table: str) -> int:
        """As `curl` asks: a plain SELECT over HTTP."""
        query = urllib.parse.quote(f"SELECT count() FROM {self.runtime.clickhouse.database}.{table}")
        with urllib.request.urlopen(f"{self.server.url}/?query={query}&final=1", timeout=30) as answer:
            return int(answer.read())

    def is_stored(self, kind: str) -> bool:
        """Whether the markers of a topic have reached its ends."""
        topic = self.runtime.topics(kind)
        topic_id, num_partitions = describe_topics(self.runtime.kafka, [topic])[topic]
        markers = read_sink_markers(self.ch, [topic])
        ends = _ends(self.runtime, topic, num_partitions)
        return all(markers.get((topic, topic_id, partition), 0) == end for partition, end in ends.items())


@pytest.fixture(scope="module", params=available_brokers())
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyBroker]:
    server = make_broker(request.param, tmp_path_factory.mktemp("broker"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    clickhouse = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    clickhouse.start()
    yield clickhouse
    clickhouse.stop()


@pytest.fixture
def stack(broker: AnyBroker, server: EmbeddedClickHouse, tmp_path: Path) -> Iterator[Stack]:
    runtime = make_runtime(broker.bootstrap, server.url, f"t{time.time_ns()}", tmp_path)
    ch = ClickHouse(runtime.clickhouse)
    migrate(ch)
    apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    _publish(runtime, "fraud")
    surroundings = Stack(runtime, ch, server, broker, tmp_path, [])
    yield surroundings
    for sink in surroundings.sinks:
        if sink.process.poll() is None:
            sink.kill()
    ch.close()


def test_valid_events_are_stored_once_and_the_others_left_out(stack: Stack) -> None:
    good = [_record(n) for n in range(1000)]
    stack.send("records", [*good, *good[:300], {**good[0], "model": "nobody"}, {**good[1], "record_id": 7}])
    stack.send("predictions", [_prediction(n, version) for n in range(500) for version in ("1", "2")])
    stack.send("labels", [{"record_id": f"r{n}", "model": "fraud", "ts": START_MS, "label": n % 2} for n in range(500)])
    _send_raw(stack, "records", b"{broken")
    letter = DeadLetter(
        model="", reason="malformed", message="…", raw="{broken", stage="validate", at=START_MS,
        topic=stack.runtime.topics("records"), topic_id="00000000-0000-0000-0000-000000000001",
        partition=0, offset=5, row=0,
    )  # fmt: skip
    _send_raw(stack, "dead-letters", encode_event(letter))
    sink = stack.start_sink()
    for kind in ("records", "predictions", "labels", "dead-letters"):
        _wait_until(lambda kind=kind: stack.is_stored(kind), sink)  # type: ignore[misc]
    assert stack.count("records") == 1000
    assert stack.count("predictions") == 1000
    assert stack.count("labels") == 500
    assert stack.ch.query("SELECT reason, raw, offset FROM dead_letters") == [("malformed", "{broken", 5)]
    assert stack.ch.query("SELECT sum(features['amount']), countIf(features_text['country'] = 'DE') FROM records") == [
        (sum(range(1000)), 500)
    ]
    assert sink.stop() == 0


def test_a_model_published_while_it_runs_is_known_at_once(stack: Stack) -> None:
    sink = stack.start_sink()
    stack.send("records", [_record(1)])
    _wait_until(lambda: stack.count("records") == 1, sink)
    _publish(stack.runtime, "churn")
    stack.send("records", [{**_record(2), "model": "churn"}])
    _wait_until(lambda: stack.count("records") == 2, sink)


def test_kills_in_the_middle_lose_and_double_nothing(stack: Stack) -> None:
    num_events = 60_000
    sink = stack.start_sink()
    for part in range(4):
        events = [_record(n) for n in range(part * num_events // 4, (part + 1) * num_events // 4)]
        stack.send("records", [*events, *events[::20]])
        _wait_until(lambda part=part: stack.count("records") > part * num_events // 4, sink)  # type: ignore[misc]
        sink.kill()
        sink = stack.start_sink()
    _wait_until(lambda: stack.is_stored("records"), sink)
    assert stack.count("records") == num_events
    assert stack.ch.query("SELECT uniqExact(record_id), sum(features['amount']) FROM records") == [
        (num_events, sum(range(num_events)))
    ]


def test_a_second_worker_takes_over_when_the_first_dies(stack: Stack) -> None:
    first = stack.start_sink()
    stack.send("records", [_record(n) for n in range(2000)])
    _wait_until(lambda: stack.is_stored("records"), first)
    second = stack.start_sink()
    stack.send("records", [_record(n) for n in range(2000, 4000)])
    _wait_until(lambda: "is read from offset" in second.log, second)
    first.kill()
    stack.send("records", [_record(n) for n in range(4000, 6000)])
    _wait_until(lambda: stack.is_stored("records"), second)
    assert stack.count("records") == 6000


def test_reading_everything_again_changes_no_count(stack: Stack) -> None:
    stack.send("records", [_record(n) for n in range(3000)])
    sink = stack.start_sink()
    _wait_until(lambda: stack.is_stored("records"), sink)
    sink.kill()
    stack.ch.command("TRUNCATE TABLE sink_markers")
    sink = stack.start_sink()
    _wait_until(lambda: stack.is_stored("records"), sink)
    assert stack.ch.query("SELECT count() FROM records SETTINGS final = 0")[0][0] >= 3000
    assert stack.count("records") == 3000


def test_clickhouse_away_loses_and_doubles_nothing(stack: Stack) -> None:
    sink = stack.start_sink()
    stack.send("records", [_record(n) for n in range(1000)])
    _wait_until(lambda: stack.count("records") > 0, sink)
    stack.server.kill()
    try:
        back_s = time.monotonic() + 20
        sent = 1000
        while time.monotonic() < back_s:
            stack.send("records", [_record(n) for n in range(sent, sent + 2000)])
            sent += 2000
        assert sink.process.poll() is None, sink.log
        assert "waiting: ClickHouse" in sink.log
    finally:
        stack.server.start()
    _wait_until(lambda: stack.is_stored("records"), sink)
    assert stack.count("records") == sent
    assert stack.ch.query("SELECT uniqExact(record_id) FROM records") == [(sent,)]


def test_a_topic_made_again_is_another_log(stack: Stack) -> None:
    topic = stack.runtime.topics("records")
    sink = stack.start_sink()
    stack.send("records", [_record(n) for n in range(5000)])
    _wait_until(lambda: stack.is_stored("records"), sink)
    admin = AdminClient({"bootstrap.servers": stack.runtime.kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(20)
    _wait_until(lambda: describe_topics(stack.runtime.kafka, [topic]) == {}, sink)
    admin.create_topics([NewTopic(topic, 4, -1)])[topic].result(20)
    stack.send("records", [_record(n) for n in range(10_000, 18_000)])
    _wait_until(lambda: stack.is_stored("records"), sink)
    assert stack.count("records") == 13_000
    assert len({place[1] for place in read_sink_markers(stack.ch, [topic])}) == 2


def test_a_marker_beyond_the_end_stops_the_worker_loudly(stack: Stack) -> None:
    topic = stack.runtime.topics("records")
    stack.send("records", [_record(n) for n in range(10)])
    topic_id, _ = describe_topics(stack.runtime.kafka, [topic])[topic]
    write_sink_marker(stack.ch, topic, topic_id, 0, 1_000_000, START_MS)
    sink = stack.start_sink()
    assert sink.process.wait(120) != 0
    assert f"{topic}/0" in sink.log
    assert "everything below 1000000 was stored" in sink.log


def test_aborted_messages_are_left_out_and_the_marker_passes_them(stack: Stack) -> None:
    topic = stack.runtime.topics("records")
    producer = LibrdkafkaProducer(
        {"bootstrap.servers": stack.runtime.kafka.bootstrap_servers, "transactional.id": stack.runtime.topics("tx")}
    )
    producer.init_transactions(30)
    for number, keep in enumerate([True, False, True, False]):
        producer.begin_transaction()
        for n in range(number * 100, number * 100 + 100):
            producer.produce(topic, json.dumps(_record(n)), key=f"r{n}", partition=n % 4)
        if keep:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)
    sink = stack.start_sink()
    _wait_until(lambda: stack.is_stored("records"), sink)
    assert stack.count("records") == 200


def test_of_two_messages_with_one_identity_the_first_is_stored(stack: Stack) -> None:
    stack.send("records", [{**_record(1), "features": {"amount": value}} for value in (5, 6, 7)], partition=2)
    stack.send("records", [{**_record(1), "features": {"amount": 4}}], partition=1)
    sink = stack.start_sink()
    _wait_until(lambda: stack.is_stored("records"), sink)
    assert stack.ch.query("SELECT features['amount'], partition FROM records") == [(4.0, 1)]


def _record(n: int) -> dict[str, Any]:
    features = {"amount": n, "country": "DE" if n % 2 else "FR"}
    return {"record_id": f"r{n}", "model": "fraud", "ts": START_MS + n, "features": features}


def _prediction(n: int, version: str) -> dict[str, Any]:
    event = {"record_id": f"r{n}", "model": "fraud", "ts": START_MS + n, "model_version": version}
    return {**event, "prediction": n % 2, "score": n / 1000}


def _publish(runtime: Runtime, model: str) -> None:
    spec = ModelSpec(
        model=model,
        task="binary",
        reference=ReferenceSource(file="reference.parquet"),
        windows=WindowSpec(size_ms=3_600_000, lateness_ms=60_000),
        features={"amount": FeatureSpec(type="number"), "country": FeatureSpec(type="category")},
        performance=default_performance("binary"),
        alerts=default_alerts(),
    )
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=START_MS, reference_hash="h", reference_rows=1
    )
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics("specs"), published.key, encode_published(published))
    producer.flush()


def _send_raw(stack: Stack, kind: str, value: bytes) -> None:
    producer = Producer(stack.runtime.kafka)
    producer.produce(stack.runtime.topics(kind), "raw", value)
    producer.flush()


def _ends(runtime: Runtime, topic: str, num_partitions: int) -> dict[int, int]:
    reader = TopicReader(runtime.kafka, topic)
    try:
        return {partition: reader.end_of(partition) for partition in range(num_partitions)}
    finally:
        reader.close()


def _wait_until(condition: Callable[[], bool], sink: RoleProcess, timeout_s: float = 120) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert sink.process.poll() is None, f"the sink ended:\n{sink.log}"
        assert time.monotonic() < deadline_s, f"not in {timeout_s} s; the sink says:\n{sink.log}"
        time.sleep(0.1)
