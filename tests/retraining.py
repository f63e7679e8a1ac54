"""A small world in which retraining pays: a relation that turns round, an old model that guesses then, and labels.

Rows go straight into the store, as the sink would have written them; requests, roles and records go through the log.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.catalogue import PublishedSpec, encode_published
from schemas.clock import SystemClock
from schemas.columns import EventColumns
from schemas.connections import ClickHouseConnection, Runtime
from schemas.declarations import (
    FeatureSpec,
    ModelSpec,
    ReferenceSource,
    ResourceSpec,
    RetrainSpec,
    WindowSpec,
    default_alerts,
    default_performance,
)
from schemas.events import Measurement, RetrainEvent, RetrainRequest, decode_event, encode_event
from schemas.identity import request_id
from schemas.texts import TextColumn
from store.client import ClickHouse
from store.events import insert_events
from store.log import Producer, TopicReader, apply_topics
from store.measurements import insert_measurements
from store.migrations import migrate
from tests.brokers import available_brokers, make_broker
from tests.clickhouses import EmbeddedClickHouse
from tests.role_process import RoleProcess, make_runtime

SIZE_MS = 1_000_000
START_MS = 1_767_000_000_000
ROWS = 1_500
HARMED = 2  # from this window on the old model guesses
TOPIC_ID = "00000000-0000-0001-0000-00000000000a"


@dataclass(frozen=True)
class World:
    """One model on shared servers, under names of its own."""

    runtime: Runtime
    ch: ClickHouse
    model: str
    rows: Callable[[int], Rows] = lambda number: make_rows(number)

    @classmethod
    def make(cls, bootstrap: str, clickhouse_url: str, name: str, folder: Path) -> World:
        runtime = make_runtime(bootstrap, clickhouse_url, name, folder, num_partitions=2)
        apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
        server = ClickHouse(ClickHouseConnection(clickhouse_url, database="default"))
        server.command(f"CREATE DATABASE IF NOT EXISTS {name} ENGINE = Atomic")
        server.close()
        ch = ClickHouse(runtime.clickhouse)
        migrate(ch)
        return cls(runtime, ch, "loans")

    def publish_spec(
        self, version: int = 1, changed: Mapping[str, Any] | None = None, **resources: Any
    ) -> PublishedSpec:
        """Publish the model's spec, with the keys of `changed` other than usual."""
        published = self.make_spec(RetrainSpec(resources=ResourceSpec(**resources)), version, changed)
        self.send("specs", published.key, encode_published(published))
        return published

    def make_spec(
        self, retrain: RetrainSpec, version: int = 1, changed: Mapping[str, Any] | None = None
    ) -> PublishedSpec:
        spec = ModelSpec(
            model=self.model,
            task="binary",
            reference=ReferenceSource(file="reference.parquet"),
            windows=WindowSpec(size_ms=SIZE_MS, lateness_ms=1000),
            features={"amount": FeatureSpec(type="number"), "country": FeatureSpec(type="category")},
            performance=default_performance("binary"),
            alerts=default_alerts(),
            retrain=retrain,
        )
        spec = msgspec.structs.replace(spec, **(changed or {}))
        return PublishedSpec(
            spec=spec, spec_version=version, effective_from=0, published_at=0, reference_hash="r", reference_rows=1
        )

    def send(self, topic: str, key: str, value: bytes) -> None:
        producer = Producer(self.runtime.kafka)
        producer.produce(self.runtime.topics(topic), key, value)
        producer.flush(20)
        producer.close()

    def store_window(self, number: int, share_labelled: float = 0.0, measured: bool = True) -> None:
        """Store a window's records and predictions, and labels of the first part of them."""
        rows = self.rows(number)
        insert_events(self.ch, rows.columns(self.model, "records"), "records", TOPIC_ID, 0)
        insert_events(self.ch, rows.columns(self.model, "predictions"), "predictions", TOPIC_ID, 0)
        if share_labelled:
            self.label_window(number, share_labelled)
        if measured:
            start = START_MS + number * SIZE_MS
            measurement = Measurement(
                model=self.model,
                model_version="",
                window_start=start,
                window_end=start + SIZE_MS,
                segment="",
                feature="",
                kind="quality",
                metric="num_rows",
                value=ROWS,
                status="ok",
                num_rows=ROWS,
                computed_at=SystemClock().now_ms(),
            )
            insert_measurements(self.ch, [measurement])

    def label_window(self, number: int, share: float = 1.0) -> None:
        columns = self.rows(number).columns(self.model, "labels").take(np.arange(int(ROWS * share)))
        insert_events(self.ch, columns, "labels", TOPIC_ID, 0)

    def correct_label(self, number: int) -> None:
        """Send the other label for a window's first record, later than the one that counts now."""
        columns = self.rows(number).columns(self.model, "labels").take(np.arange(1))
        assert columns.label is not None
        columns.label = 1 - columns.label
        columns.ts = columns.ts + SIZE_MS
        columns.offset = columns.offset + 1_000_000
        insert_events(self.ch, columns, "labels", TOPIC_ID, 0)

    def request(self, manual: bool = False, num_times: int = 1) -> str:
        """Ask for a retraining, as stage 3 does when the harm of the first harmed window is known."""
        start = START_MS + HARMED * SIZE_MS
        rule = "manual" if manual else "harm"
        request = RetrainRequest(
            request_id=request_id(self.model, rule, start),
            model=self.model,
            rule=rule,
            trigger_alert_id="a1",
            reason="performance fell",
            first_window_start=start,
            first_window_end=start + SIZE_MS,
            window_size_ms=SIZE_MS,
            requested_at=SystemClock().now_ms(),
            manual=manual,
        )
        producer = Producer(self.runtime.kafka)
        for _ in range(num_times):
            producer.produce(self.runtime.topics("retrain-requests"), self.model, encode_event(request))
        producer.flush(20)
        producer.close()
        return request.request_id

    def send_records(self, number: int) -> list[str]:
        """Send a window's records to the log; returns their ids."""
        rows = self.rows(number)
        producer = Producer(self.runtime.kafka)
        for index, record_id in enumerate(rows.ids):
            event = {
                "record_id": record_id,
                "model": self.model,
                "ts": int(rows.ts[index]),
                "features": {"amount": float(rows.amount[index]), "country": rows.country[index]},
            }
            producer.produce(self.runtime.topics("records"), record_id, json.dumps(event).encode())
        producer.flush(20)
        producer.close()
        return rows.ids

    def job(self, job_id: str) -> dict[str, object]:
        """The job's row as people read it; empty while there is none."""
        names = ("state", "reason", "attempt", "verdict", "version", "num_train_rows", "num_gate_rows", "data_hash")
        sql = f"SELECT {', '.join(names)} FROM jobs WHERE job_id = {{job:String}}"
        rows = self.ch.query(sql, {"job": job_id})
        return dict(zip(names, rows[0], strict=True)) if rows else {}


@dataclass(frozen=True)
class Rows:
    """One window's rows; `score` is what the old model says of them."""

    ids: list[str]
    ts: np.ndarray
    amount: np.ndarray
    country: list[str]
    label: np.ndarray
    score: np.ndarray
    first_offset: int

    def columns(self, model: str, kind: str) -> EventColumns:
        columns = EventColumns(
            kind=kind,  # type: ignore[arg-type]
            model=model,
            offset=np.arange(self.first_offset, self.first_offset + len(self.ids)),
            row=np.zeros(len(self.ids), np.int32),
            ts=self.ts,
            record_id=TextColumn.of(self.ids),
        )
        if kind == "records":
            columns.numbers = {"amount": self.amount}
            columns.texts = {"country": TextColumn.of(list(self.country))}
        elif kind == "predictions":
            columns.model_version = TextColumn.repeat("external", len(self.ids))
            columns.score = self.score
            columns.prediction = (self.score >= 0.5).astype(float)
            columns.has_features = np.zeros(len(self.ids), np.bool_)
        else:
            columns.label = self.label
        return columns


def make_rows(number: int) -> Rows:
    """A window's rows, the same whenever they are made."""
    rng = np.random.default_rng(number)
    deviation = rng.normal(size=ROWS)
    country = rng.choice(["DE", "FR", "US"], ROWS)
    logit = 2.0 * deviation + (country == "DE")
    score = 1 / (1 + np.exp(-logit))
    amount, truth = deviation, logit
    if number >= HARMED:
        # The relation turns round for amounts that were never there before, and the old model guesses.
        amount, truth, score = deviation + 8.0, -logit, rng.uniform(size=ROWS)
    return Rows(
        ids=[f"w{number}-{row}" for row in range(ROWS)],
        ts=START_MS + number * SIZE_MS + np.sort(rng.choice(SIZE_MS, ROWS, replace=False)).astype(np.int64),
        amount=amount,
        country=country.tolist(),
        label=(rng.random(ROWS) < 1 / (1 + np.exp(-truth))).astype(float),
        score=score,
        first_offset=number * ROWS,
    )


def wait_until(is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until true; AssertionError naming what did not come."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)


START = Callable[..., RoleProcess]

_NAMES = (f"retrain_{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="module", params=available_brokers())
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = make_broker(request.param, tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker.bootstrap
    broker.stop()


@contextmanager
def make_world(bootstrap: str, clickhouse_url: str, folder: Path) -> Iterator[World]:
    """Give a world of its own on shared servers, its spec published."""
    made = World.make(bootstrap, clickhouse_url, next(_NAMES), folder)
    try:
        made.publish_spec()
        yield made
    finally:
        made.ch.close()


@pytest.fixture
def world(bootstrap: str, clickhouse_url: str, tmp_path: Path) -> Iterator[World]:
    with make_world(bootstrap, clickhouse_url, tmp_path) as made:
        yield made


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[START]:
    """Starts a role; what still runs at the end is stopped, and must end in order."""
    running: list[RoleProcess] = []

    def begin(role: str, worker: str = "") -> RoleProcess:
        running.append(RoleProcess(role, world.runtime, tmp_path / f"{role}-{len(running)}.log", worker))
        return running[-1]

    yield begin
    for role in running:
        print(f"--- {role.log_path.name}\n{role.log}")
        if role.process.poll() is None:
            assert role.stop(60) == 0


def read_events(world: World, job_id: str) -> list[RetrainEvent]:
    reader = TopicReader(world.runtime.kafka, world.runtime.topics("retrain-events"))
    events = [decode_event(RetrainEvent, message.value or b"") for message in reader.read_to_end(20)]
    reader.close()
    return [event for event in events if event.job_id == job_id]
