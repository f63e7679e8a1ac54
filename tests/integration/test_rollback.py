"""The story of a promotion that reality contradicts, from events alone, through every role as a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.applying import apply_spec
from driftloop.replay.driver import Pace, Progress, Replay, Step
from driftloop.replay.source import ReplayColumns, build_source
from schemas.events import Alert, RoleMap, decode_event
from store.client import ClickHouse
from store.log import TopicReader
from store.subscriptions import add_subscription
from tests.integration.test_notify import Receiver
from tests.roles_watch import watching_roles
from tests.stacks import BROKER_KINDS, RunningStack, run_stack, wait_until, why_not

MODEL = "loans"
SIZE_MS = 1_000_000
START_MS = 1_767_000_000_000  # a multiple of SIZE_MS
ROWS = 1_000

# Amounts grow and the relation turns round, and the old model guesses; a challenger learns that from the harmed window
# and is judged on the next one. From BACK on the old model is right again, and what the challenger learnt is wrong.
HARMED, GATE, BACK, LAST = 1, 2, 4, 6
BAD = [START_MS + number * SIZE_MS for number in (BACK, BACK + 1)]
ROLES_CHANGED_AT = [START_MS + number * SIZE_MS for number in (GATE + 1, LAST)]
OLD, NEW = "external", "1"

SPEC = """\
model: loans
task: binary
reference: {file: reference.parquet, columns: {label: repaid, score: y_proba, ts: at}}
windows: {size: 1000s, lateness: 10s}
features: {amount: number, country: category}
retrain: {on: [harm], cooldown: 1d}
"""


def make_rows(number: int) -> pd.DataFrame:
    """A window's rows, with what the old model says of them; windows below 0 are the reference's."""
    rng = np.random.default_rng(100 + number)
    deviation, country = rng.normal(size=ROWS), rng.choice(["DE", "FR", "US"], ROWS)
    logit = 2.0 * deviation + (country == "DE")
    is_turned = HARMED <= number < BACK
    truth = -logit if is_turned else logit
    return pd.DataFrame({
        "at": START_MS + number * SIZE_MS + np.arange(ROWS) * (SIZE_MS // ROWS),
        "id": [f"w{number}-{row}" for row in range(ROWS)],
        "amount": deviation + 8.0 * (number >= HARMED),
        "country": country,
        "repaid": (rng.random(ROWS) < 1 / (1 + np.exp(-truth))).astype(int),
        "y_proba": rng.uniform(size=ROWS) if is_turned else 1 / (1 + np.exp(-logit)),
    })  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def read_topic(running: RunningStack, topic: str, kind: Any) -> list[Any]:
    reader = TopicReader(running.runtime.kafka, running.runtime.topics(topic))
    found = [decode_event(kind, message.value or b"") for message in reader.read_to_end(20)]
    reader.close()
    return found


def read_told(receiver: Receiver, rule: str) -> list[dict[str, Any]]:
    """What the subscriber was told of a rule, each state change once, in order."""
    told: dict[str, dict[str, Any]] = {}
    for _, headers, body in list(receiver.requests["/people"]):
        (alert,) = json.loads(body)["alerts"]
        if alert["labels"]["rule"] == rule:
            told.setdefault(headers["webhook-id"], alert)
    return list(told.values())


def read_realized(store: ClickHouse) -> dict[tuple[int, str], tuple[float, str]]:
    """What the monitor has measured on labels: (AUC, status) by window and version, all of them on all rows."""
    rows = store.query(
        "SELECT toUnixTimestamp64Milli(window_start), model_version, realized, realized_status, num_rows "
        "FROM performance_by_segment WHERE metric = 'roc_auc' AND segment = ''"
    )
    assert {row[4] for row in rows} == {ROWS}
    return {((start - START_MS) // SIZE_MS, version): (value, status) for start, version, value, status, _ in rows}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", BROKER_KINDS)
def test_promotion_that_reality_contradicts_is_rolled_back_and_told(
    tmp_path: Path, kind: str, receiver: Receiver
) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)
    reference = pd.concat([make_rows(-number) for number in range(1, 7)])
    reference.drop(columns="id").to_parquet(tmp_path / "reference.parquet")
    (tmp_path / "loans.yaml").write_text(SPEC)
    stream = pd.concat([make_rows(number) for number in range(LAST + 1)])

    with run_stack(tmp_path, kind, num_partitions=2, environ={"DRIFTLOOP_WARM_JOBS": "0"}) as running:
        published, _ = apply_spec(running.runtime, tmp_path / "loans.yaml")
        store = ClickHouse(running.runtime.clickhouse)
        add_subscription(store, url=f"{receiver.url}/people", now_ms=1, model=MODEL, severity_min="high")
        columns = ReplayColumns(time="at", record_id="id", label="repaid", score="y_proba")
        source = build_source(stream, tmp_path / "stream.parquet", published.spec, columns)
        with watching_roles(running.runtime) as watch:

            def follow(step: Step, _: Progress) -> None:
                if step.end_ms == BAD[-1] + SIZE_MS:
                    wait_until(lambda: len(watch.champions(MODEL)) == 2, 60, "the rollback")
                    # Whether it has told of it already or not: the next one tells what is left, under the same ids.
                    running.kill("train")

            Replay(running.runtime, published.spec, source, Pace(lockstep=True), on_step=follow).run(120)
            for rule, num in (("rollback", 2), ("harm", 4), ("drift", 2)):
                wait_until(lambda rule=rule, num=num: len(read_told(receiver, rule)) >= num, 60, f"{rule} to be told")  # type: ignore[misc]

        # The monitor saw from the events alone how each version did.
        realized = read_realized(store)
        assert {key: status for key, (_, status) in realized.items()} == {
            (0, OLD): "ok", (HARMED, OLD): "alert", (GATE, OLD): "alert",
            (GATE + 1, NEW): "ok", (GATE + 1, OLD): "alert",
            (BACK, NEW): "alert", (BACK, OLD): "ok", (BACK + 1, NEW): "alert", (BACK + 1, OLD): "ok",
            (LAST, OLD): "ok",  # what is retired is scored no longer
        }  # fmt: skip

        # One message promoted and one rolled back; what the trainer compared is what the monitor measured, but for rows
        # that were still on their way to the store.
        promoted, rolled_back = read_topic(running, "models", RoleMap)
        assert (promoted.cause, promoted.roles) == ("gates", {"champion": NEW, "shadow": OLD})
        assert (rolled_back.cause, rolled_back.roles) == ("rollback", {"champion": OLD, "retired": NEW})
        assert [watch.champions(MODEL), promoted.at, rolled_back.at] == [[NEW, OLD], *ROLES_CHANGED_AT]
        assert rolled_back.reason.startswith("version 1 is rolled back to external: in 2 windows in a row")
        evidence = rolled_back.evidence
        assert evidence["windows"] == BAD
        assert evidence["first"] == pytest.approx(realized[BACK + 1, NEW][0], abs=0.1)
        assert evidence["second"] == pytest.approx(realized[BACK + 1, OLD][0], abs=0.1)
        query = "SELECT role FROM roles FINAL WHERE version = '1' ORDER BY epoch"
        assert store.query(query) == [("champion",), ("retired",)]

        # Its alert fired once and was resolved once, in the store, in the log and for the subscriber.
        fired, resolved = read_told(receiver, "rollback")
        assert (fired["status"], resolved["status"]) == ("firing", "resolved")
        assert fired["fingerprint"] == resolved["fingerprint"]
        assert (fired["labels"]["severity"], fired["labels"]["model_version"]) == ("high", NEW)
        assert fired["annotations"]["description"] == rolled_back.reason
        assert "version external is within its limits again" in resolved["annotations"]["description"]
        told = [fired["annotations"]["transition_id"], resolved["annotations"]["transition_id"]]
        sent = [each for each in read_topic(running, "alerts", Alert) if each.rule == "rollback"]
        assert list(dict.fromkeys(each.transition_id for each in sent)) == told
        query = "SELECT transition_id FROM alerts FINAL WHERE rule = 'rollback' ORDER BY at, state"
        assert [name for (name,) in store.query(query)] == told

        # Each harm is that of the champion of its time.
        assert [(each["status"], each["labels"]["model_version"]) for each in read_told(receiver, "harm")] == [
            ("firing", OLD), ("resolved", NEW), ("firing", NEW), ("resolved", OLD),
        ]  # fmt: skip

        # The drift goes on. Who was told that it hurts is told that the new champion has made up for it.
        hurt, made_up = read_told(receiver, "drift")
        assert (hurt["labels"]["severity"], made_up["labels"]["severity"]) == ("high", "info")
        assert hurt["annotations"]["description"].startswith("this drift goes on; performance is harmed")
        assert made_up["annotations"]["description"].startswith(
            f"this drift goes on; version 1 has made up for it: realized ROC AUC {realized[GATE + 1, NEW][0]:.4f} is"
        )
        assert (hurt["status"], made_up["status"]) == ("firing", "firing")
        assert hurt["fingerprint"] == made_up["fingerprint"]
        query = "SELECT champion, health, num_open_alerts, worst_severity FROM model_health"
        assert store.query(query) == [(OLD, "noted", 1, "info")]
        store.close()
