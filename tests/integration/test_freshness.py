"""Data that stays away: an alert fires and resolves once, whoever dies in between; a monitor that lags opens none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schemas.clock import ManualClock
from schemas.connections import ClickHouseConnection, Runtime
from schemas.errors import Retryable
from schemas.events import Alert, decode_event
from schemas.spec import ModelHistory, PublishedSpec, encode_published, parse_spec
from store.client import ClickHouse
from store.log import Producer, TopicReader
from store.specs import insert_spec
from store.summaries import Marker, Place, insert_markers, read_markers
from streams.app import name_job
from streams.freshness import FreshnessJudge
from tests.brokers import available_brokers
from tests.role_process import RoleProcess, run_command
from tests.servers import run_servers
from tests.stored import JOB, TOPIC_IDS, SentEvents, run_store

MAX_AGE_S = 12
WAIT_S = 240
EVERY_S = 0.5
START_MS = 1_750_000_000_000


def make_published(alerts: str, version: int = 1) -> PublishedSpec:
    text = f"model: m\ntask: binary\nreference: {{file: r.csv}}\nwindows: {{size: 1d}}\nalerts: {alerts}\n"
    return PublishedSpec(
        spec=parse_spec(text, "m.yaml"), spec_version=version, effective_from=0, published_at=START_MS,
        reference_hash="h", reference_rows=1,
    )  # fmt: skip


# --- on a store, with markers as stage 1 writes them


class Judged:
    """Judges of one store, as several workers are, with one clock; what they send is kept apart."""

    def __init__(self, connection: ClickHouseConnection) -> None:
        self.ch = ClickHouse(connection)
        for table in ("alerts", "stage1_markers", "specs"):
            self.ch.command("TRUNCATE TABLE {name:Identifier}", {"name": table})
        self.clock = ManualClock(START_MS)
        self.rule = "[{when: freshness, max_age: {predictions: 1m, labels: 1h}, severity: critical}]"
        self.history = ModelHistory([make_published(self.rule)])
        insert_spec(self.ch, self.history.latest)

    def make_judge(self) -> tuple[FreshnessJudge, SentEvents]:
        sent, sizes = SentEvents(), {(kind, TOPIC_IDS[kind]): 1 for kind in TOPIC_IDS}
        topic_of = {kind: kind for kind in TOPIC_IDS}
        return FreshnessJudge(self.ch, JOB, topic_of, lambda: sizes, sent, self.clock), sent

    def mark(self, kind: str, newest_ms: int, offset: int) -> None:
        """Say that a topic was read to its end just now."""
        place = Place(kind, TOPIC_IDS[kind], 0)
        insert_markers(self.ch, JOB, [Marker(place, offset, {"m": {"": (0, newest_ms)}}, self.clock.now_ms())])

    def stored(self) -> list[tuple[str, str, str]]:
        return self.ch.query("SELECT segment, state, severity FROM alerts ORDER BY at, state")

    def health(self) -> tuple[str, int]:
        ((health, num),) = self.ch.query("SELECT health, num_open_alerts FROM model_health")
        return health, num


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConnection]:
    with run_store(tmp_path_factory.mktemp("clickhouse")) as known:
        yield known


@pytest.fixture
def judged(connection: ClickHouseConnection) -> Iterator[Judged]:
    made = Judged(connection)
    yield made
    made.ch.close()


def test_several_judges_and_one_that_dies_before_it_has_sent_tell_of_one_silence(judged: Judged) -> None:
    (first, sent), histories = judged.make_judge(), {"m": judged.history}
    judged.mark("predictions", START_MS, 10)
    judged.clock.advance_ms(59_999)
    judged.mark("predictions", START_MS, 10)
    assert first.judge(histories) == []
    judged.clock.advance_ms(1)
    # The clock alone says nothing: nobody has looked since.
    assert first.judge(histories) == []
    judged.mark("predictions", START_MS, 10)
    sent.num_until_away = 0
    with pytest.raises(Retryable):
        first.judge(histories)
    assert judged.stored() == [("predictions", "firing", "critical")]
    assert sent.events == {}
    # Others begin where it broke off, and it does itself.
    workers = [(first, sent), judged.make_judge(), judged.make_judge()]
    for judge, _ in workers:
        for _ in range(3):
            assert judge.judge(histories) == []
            judged.clock.advance_ms(10_000)
            judged.mark("predictions", START_MS, 10)
    told = [[each for each in outlet.events["alerts"] if isinstance(each, Alert)] for _, outlet in workers]
    assert [len(each) for each in told] == [1, 1, 1]
    assert len({each.transition_id for (each,) in told}) == 1
    assert told[0][0].value == 60.0
    assert told[0][0].threshold == 60.0
    assert judged.stored() == [("predictions", "firing", "critical")]
    assert judged.health() == ("no data", 1)
    # Labels have been away since the declaration, which is long enough only now.
    judged.clock.advance_ms(3_600_000)
    judged.mark("predictions", judged.clock.now_ms() - 1, 11)
    judged.mark("labels", 0, 0)
    resolved, fired = first.judge(histories)
    assert (resolved.segment, resolved.state, resolved.alert_id) == ("predictions", "resolved", told[0][0].alert_id)
    assert (fired.segment, fired.state) == ("labels", "firing")
    assert judged.health() == ("noted", 1)
    assert first.judge(histories) == []


def test_a_rule_that_is_taken_out_takes_its_alerts_along(judged: Judged) -> None:
    judge, _ = judged.make_judge()
    judged.mark("predictions", START_MS, 10)
    judged.clock.advance_ms(60_000)
    judged.mark("predictions", START_MS, 10)
    assert [each.state for each in judge.judge({"m": judged.history})] == ["firing"]
    without = ModelHistory([*judged.history.versions, make_published("[]", 2)])
    ((resolved),) = judge.judge({"m": without})
    assert (resolved.state, resolved.severity) == ("resolved", "critical")
    assert resolved.reason == "the spec does not ask for events on predictions any more"
    assert judge.judge({"m": without}) == []
    assert judge.judge({"m": judged.history}) == []


# --- real processes


@dataclass
class Stack:
    runtime: Runtime
    store: ClickHouse
    reader: TopicReader
    folder: Path
    num_sent: int = 0

    def __post_init__(self) -> None:
        self.told: list[Alert] = []

    def start(self) -> RoleProcess:
        return RoleProcess("monitor", self.runtime, self.folder / "monitor.log", "m-0")

    def send(self) -> None:
        """Send an event, and know when the broker took it."""
        producer = Producer(self.runtime.kafka)
        event: dict[str, Any] = {"record_id": f"r{self.num_sent}", "model": "m", "ts": START_MS, "score": 0.5}
        producer.produce(self.runtime.topics("predictions"), event["record_id"], json.dumps(event).encode())
        producer.flush()
        producer.close()
        self.num_sent += 1

    def num_counted(self) -> int:
        return sum(marker.next_offset for marker in read_markers(self.store, name_job(self.runtime)))

    def read_to_ms(self) -> int:
        """Up to when every partition of the topic was read to its end; 0 while one was not."""
        name = self.runtime.topics("predictions")
        ends = [each.at_end_at for each in read_markers(self.store, name_job(self.runtime), [name])]
        return min(ends) if len(ends) == self.runtime.num_partitions else 0

    def stored(self) -> list[tuple[str, str]]:
        """State and id of every state change."""
        return self.store.query("SELECT state, alert_id FROM alerts WHERE rule = 'freshness' ORDER BY at, state")

    def hear(self) -> list[Alert]:
        self.told += [decode_event(Alert, each.value) for each in self.reader.read_to_end() if each.value]
        return self.told


@pytest.fixture(params=available_brokers())
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    with run_servers(request.param, tmp_path) as servers:
        reader = TopicReader(servers.runtime.kafka, servers.runtime.topics("alerts"))
        yield Stack(servers.runtime, servers.store, reader, tmp_path)
        reader.close()


def wait_until(is_true: Callable[[], bool], role: RoleProcess, meanwhile: Callable[[], None] | None = None) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_true():
        assert role.process.poll() is None, role.log
        assert time.monotonic() < deadline_s, role.log
        if meanwhile is not None:
            meanwhile()
        time.sleep(EVERY_S)


def test_silence_is_told_once_through_a_kill_and_lag_is_no_silence(stack: Stack) -> None:
    published = make_published(f"[{{when: freshness, max_age: {MAX_AGE_S}s}}]")
    insert_spec(stack.store, published)
    producer = Producer(stack.runtime.kafka)
    producer.produce(stack.runtime.topics("specs"), published.key, encode_published(published))
    producer.flush()
    producer.close()
    stack.send()
    monitor = stack.start()
    try:
        wait_until(lambda: stack.num_counted() == stack.num_sent, monitor)
        # Away for longer than the limit while events go on: what it finds then is lag.
        monitor.kill()
        killed_s = time.monotonic()
        while time.monotonic() < killed_s + 1.5 * MAX_AGE_S:
            stack.send()
            time.sleep(EVERY_S)
        monitor = stack.start()
        looked_ms = time.time_ns() // 1_000_000 + 2 * MAX_AGE_S * 1000
        wait_until(lambda: stack.read_to_ms() > looked_ms, monitor, stack.send)
        assert stack.stored() == []
        # Nothing comes any more.
        wait_until(lambda: bool(stack.hear()), monitor)
        ((state, alert_id),) = stack.stored()
        assert state == "firing"
        assert (stack.told[0].alert_id, stack.told[0].state, stack.told[0].segment) == (alert_id, state, "predictions")
        assert stack.told[0].window_end - stack.told[0].window_start >= MAX_AGE_S * 1000
        code, out, error = run_command(stack.runtime, "alerts", "--json")
        assert code == 0, error
        assert [(each["rule"], each["segment"], each["state"]) for each in json.loads(out)] == [
            ("freshness", "predictions", "firing")
        ]
        # The next process says it again, as it cannot know whether it was sent; it is the same state change.
        monitor.kill()
        monitor = stack.start()
        wait_until(lambda: len(stack.hear()) > 1, monitor)
        assert len({each.transition_id for each in stack.told}) == 1
        assert stack.stored() == [("firing", alert_id)]
        stack.send()
        wait_until(lambda: stack.hear()[-1].state == "resolved", monitor)
        assert stack.stored()[:2] == [("firing", alert_id), ("resolved", alert_id)]
        assert [each.alert_id for each in stack.told if each.state == "resolved"] == [alert_id]
    finally:
        monitor.kill()
