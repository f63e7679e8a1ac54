"""The notifier against a real broker, a real store and a receiver that misbehaves."""

import itertools
import json
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from consumers.deliveries import RetryPolicy
from consumers.notify import Notifier
from consumers.webhooks import verify_signature
from driftloop.settings import format_clickhouse_url
from schemas.connections import Runtime
from schemas.events import Alert, DeadLetter, decode_event, encode_event
from schemas.identity import webhook_id
from store.client import ClickHouse
from store.log import Producer, TopicReader, apply_topics
from store.migrations import migrate
from store.reports import StoredReport, insert_reports
from store.subscriptions import Subscription, add_subscription, list_subscriptions, remove_subscription
from tests.brokers import AnyBroker, available_brokers, make_broker
from tests.clickhouses import EmbeddedClickHouse
from tests.role_process import RoleProcess, make_runtime

FAST = RetryPolicy(first_s=0.05, max_s=0.2, deadline_s=60, answer_s=5)
numbers = itertools.count(1)


class Receiver:
    """An HTTP server whose paths answer by script: the n-th request to a path gets the n-th status, then 200."""

    def __init__(self) -> None:
        self.requests: dict[str, list[tuple[float, dict[str, str], bytes]]] = defaultdict(list)
        self.scripts: dict[str, list[int]] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.gates: dict[str, threading.Event] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                seen = outer.requests[self.path]
                seen.append((time.monotonic(), dict(self.headers), body))
                script = outer.scripts.get(self.path, [])
                if self.path in outer.gates:
                    outer.gates[self.path].wait(30)
                status = script[len(seen) - 1] if len(seen) <= len(script) else 200
                self.send_response(status)
                for name, value in outer.headers.get(self.path, {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ids(self, path: str) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests[path]]

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self._server.shutdown()
        self._server.server_close()


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
def runtime(broker: AnyBroker, server: EmbeddedClickHouse, tmp_path: Path) -> Runtime:
    made = make_runtime(broker.bootstrap, server.url, f"t{time.time_ns()}", tmp_path)
    apply_topics(made.kafka, made.topics, made.num_partitions)
    return made


@pytest.fixture
def ch(runtime: Runtime) -> Iterator[ClickHouse]:
    store = ClickHouse(runtime.clickhouse)
    migrate(store)
    yield store
    store.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def start(runtime: Runtime, ch: ClickHouse) -> Iterator[Callable[[RetryPolicy], None]]:
    """Starts the notifier in a thread; it must end cleanly within its five seconds."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def run(policy: RetryPolicy = FAST) -> None:
        notifier = Notifier(runtime, policy)
        threads.append(threading.Thread(target=notifier.run, args=(stop,)))
        threads[-1].start()

    yield run
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_deliveries_are_signed_matched_and_recorded(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, start: Callable[..., None]
) -> None:
    fraud = _subscribe(ch, receiver, "/fraud", model="fraud", severity_min="high")
    _subscribe(ch, receiver, "/all", severity_min="info")
    start()
    sent = [
        _send(runtime, model="fraud", severity="high"),
        _send(runtime, model="fraud", severity="info", kind="drift"),
        _send(runtime, model="churn", severity="critical"),
        _send(runtime, model="fraud", severity="high", state="pending"),
    ]
    _wait_until(lambda: len(receiver.requests["/fraud"]) == 1 and len(receiver.requests["/all"]) == 3)
    ((_, headers, body),) = receiver.requests["/fraud"]
    assert verify_signature(fraud.secret, headers, body, time.time())
    assert headers["webhook-id"] == webhook_id(sent[0].transition_id, fraud.name)
    assert json.loads(body)["alerts"][0]["labels"]["severity"] == "high"
    _wait_until(lambda: ch.query("SELECT count() FROM deliveries WHERE outcome = 'delivered'") == [(4,)])
    assert ch.query("SELECT alert_id, status_code, attempt FROM deliveries WHERE subscription = {n:String}", {
        "n": fraud.name
    }) == [(sent[0].alert_id, 200, 1)]  # fmt: skip


def test_failures_are_repeated_under_one_id_and_every_attempt_is_a_row(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, start: Callable[..., None]
) -> None:
    _subscribe(ch, receiver, "/flaky")
    receiver.scripts["/flaky"] = [500, 502, 301]
    start()
    _send(runtime)
    _wait_until(lambda: len(receiver.requests["/flaky"]) == 4)
    assert len(set(receiver.ids("/flaky"))) == 1
    assert len({body for _, _, body in receiver.requests["/flaky"]}) == 1
    rows = [(1, 500, "failed"), (2, 502, "failed"), (3, 301, "failed"), (4, 200, "delivered")]
    _wait_until(lambda: ch.query("SELECT attempt, status_code, outcome FROM deliveries ORDER BY attempt") == rows)


def test_429_waits_as_long_as_it_is_asked_to(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, start: Callable[..., None]
) -> None:
    _subscribe(ch, receiver, "/busy")
    receiver.scripts["/busy"] = [429]
    receiver.headers["/busy"] = {"retry-after": "2"}
    start()
    _send(runtime)
    _wait_until(lambda: len(receiver.requests["/busy"]) == 2)
    (first, _, _), (second, _, _) = receiver.requests["/busy"]
    assert second - first >= 2


def test_410_disables_the_subscription(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, start: Callable[..., None]
) -> None:
    gone = _subscribe(ch, receiver, "/gone")
    _subscribe(ch, receiver, "/here")
    receiver.scripts["/gone"] = [410]
    start()
    _send(runtime)
    _wait_until(lambda: {s.name: s.disabled for s in list_subscriptions(ch)}[gone.name])
    _send(runtime)
    _wait_until(lambda: len(receiver.requests["/here"]) == 2)
    assert len(receiver.requests["/gone"]) == 1
    assert "410" in next(s.reason for s in list_subscriptions(ch) if s.name == gone.name)
    assert not _subscribe(ch, receiver, "/gone").disabled
    assert remove_subscription(ch, gone.name, int(time.time() * 1000) + 1)
    assert [s.name for s in list_subscriptions(ch)] == ["/here"]


def test_a_silent_receiver_holds_nobody_back(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, start: Callable[..., None]
) -> None:
    receiver.gates["/slow"] = threading.Event()
    _subscribe(ch, receiver, "/slow")
    _subscribe(ch, receiver, "/quick")
    start()
    for _ in range(20):
        _send(runtime)
    _wait_until(lambda: len(receiver.requests["/quick"]) == 20)
    assert len(set(receiver.ids("/slow"))) == 1
    receiver.gates["/slow"].set()
    _wait_until(lambda: len(set(receiver.ids("/slow"))) == 20)


def test_what_cannot_be_delivered_becomes_a_dead_letter(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, start: Callable[..., None]
) -> None:
    _subscribe(ch, receiver, "/broken")
    receiver.scripts["/broken"] = [500] * 1000
    start(RetryPolicy(first_s=0.05, max_s=0.1, deadline_s=0.5, answer_s=5))
    alert = _send(runtime)
    reader = TopicReader(runtime.kafka, runtime.topics("dead-letters"))
    letters: list[Any] = []
    _wait_until(lambda: bool(letters.extend(reader.read_to_end()) or letters))
    reader.close()
    letter = decode_event(DeadLetter, letters[0].value)
    assert (letter.reason, letter.stage, letter.model) == ("undeliverable", "notify", "fraud")
    assert json.loads(letter.raw)["alerts"][0]["annotations"]["transition_id"] == alert.transition_id
    _wait_until(lambda: ch.query("SELECT count() FROM deliveries WHERE outcome = 'given_up'") == [(1,)])
    assert len(receiver.requests["/broken"]) == ch.query("SELECT count() FROM deliveries")[0][0]


def test_a_killed_notifier_delivers_the_rest_under_the_same_ids(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, tmp_path: Path
) -> None:
    name = _subscribe(ch, receiver, "/hook").name
    receiver.gates["/stuck"] = threading.Event()
    _subscribe(ch, receiver, "/stuck")
    first = RoleProcess("notify", runtime, tmp_path / "first.log")
    alerts = [_send(runtime) for _ in range(10)]
    _wait_until(lambda: len(receiver.requests["/hook"]) == 10 and len(receiver.requests["/stuck"]) == 1)
    first.kill()
    alerts += [_send(runtime) for _ in range(10)]
    receiver.gates["/stuck"].set()
    second = RoleProcess("notify", runtime, tmp_path / "second.log")
    try:
        expected = {webhook_id(alert.transition_id, name) for alert in alerts}
        _wait_until(lambda: set(receiver.ids("/hook")) == expected, f"{tmp_path}/second.log")
        _wait_until(lambda: len(set(receiver.ids("/stuck"))) == 20)
        # At least once: only what was not recorded as delivered may come twice.
        assert max(Counter(receiver.ids("/hook")).values()) <= 2
        assert second.stop() == 0
    finally:
        if second.process.poll() is None:
            second.kill()


def test_a_notification_links_to_the_report_of_its_alert(
    runtime: Runtime, ch: ClickHouse, receiver: Receiver, tmp_path: Path
) -> None:
    def follow(url: str) -> tuple[str, str]:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.headers["content-type"], answer.read().decode()

    rules = {"harm": True, "drift": False}
    spec = {"alerts": [{"when": rule, "for": 1, "severity": "high", "report": rules[rule]} for rule in rules]}
    ch.insert_rows("specs", [{"model": "fraud", "spec_version": 1, "spec": json.dumps(spec)}])
    _subscribe(ch, receiver, "/linked")
    public = {"DRIFTLOOP_CLICKHOUSE_PUBLIC_URL": format_clickhouse_url(runtime.clickhouse)}
    notifier = RoleProcess("notify", runtime, tmp_path / "notify.log", more=public)
    try:
        alert = _send(runtime, model="fraud", rule="harm")
        for others in ({"rule": "drift"}, {"rule": "fairness", "segment": "country"}, {"model": "m", "rule": "harm"}):
            _send(runtime, **{"model": "fraud", **others})
        _wait_until(lambda: len(receiver.requests["/linked"]) == 4, f"{tmp_path}/notify.log")
        told = [json.loads(body)["alerts"][0]["annotations"] for _, _, body in receiver.requests["/linked"]]
        (linked,) = [each for each in told if "report_url" in each]
        assert linked["alert_id"] == alert.alert_id
        assert linked["report"] == f"driftloop report fraud --alert {alert.alert_id}"
        kind, text = follow(linked["report_url"])
        assert kind == "text/html; charset=UTF-8"
        assert text.startswith("There is no report of this alert")
        page = "<!DOCTYPE html>\n<p>größer</p>\\\t\0"
        insert_reports(ch, [StoredReport("fraud", alert.alert_id, alert.transition_id, 0, 1, page, 1_900_000_000_000)])
        assert follow(linked["report_url"]) == ("text/html; charset=UTF-8", page)
    finally:
        notifier.kill()


def _subscribe(ch: ClickHouse, receiver: Receiver, path: str, **more: str) -> Subscription:
    return add_subscription(ch, name=path, url=receiver.url + path, now_ms=int(time.time() * 1000), **more)


def _send(runtime: Runtime, **changes: Any) -> Alert:
    n = next(numbers)
    fields = {
        "alert_id": f"alert-{n}", "transition_id": f"transition-{n}", "model": "fraud", "model_version": "1",
        "rule": "harm", "kind": "performance", "feature": "", "metric": "roc_auc", "segment": "",
        "severity": "high", "state": "firing", "value": 0.8, "threshold": 0.9, "harm": 0.1, "reason": "AUC fell",
        "window_start": 1_767_225_600_000, "window_end": 1_767_229_200_000, "at": 1_767_229_300_000,
    }  # fmt: skip
    alert = Alert(**{**fields, **changes})
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics("alerts"), alert.model, encode_event(alert))
    producer.flush()
    return alert


def _wait_until(condition: Callable[[], bool], log_path: str = "", timeout_s: float = 120) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, Path(log_path).read_text() if log_path else f"not in {timeout_s} s"
        time.sleep(0.05)
