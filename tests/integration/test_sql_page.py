"""Every query of docs/sql.md runs on the embedded ClickHouse with the real tables, and finds what it should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.connections import ClickHouseConnection
from store.client import ClickHouse
from store.migrations import migrate
from tests.clickhouses import EmbeddedClickHouse

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sql.md").read_text()
QUERIES = [query.strip() for query in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)]

TOPIC_ID = "5f1c1cf8-4e0c-4d6f-a0ce-3a3a5ef7b5b7"
AT = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
WINDOW = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC))


def place(topic: str, offset: int) -> dict[str, Any]:
    return {"topic": topic, "topic_id": TOPIC_ID, "partition": 0, "offset": offset, "row": 0}


def measure(computed_at: datetime, revision: int, **changes: Any) -> dict[str, Any]:
    return {
        "model": "fraud", "model_version": "external", "window_start": WINDOW[0], "window_end": WINDOW[1],
        "segment": "", "feature": "", "kind": "performance", "metric": "roc_auc", "value": 0.9, "lower": 0.8,
        "status": "ok", "num_rows": 500, "label_coverage": 1.0, "covered": revision, "revision": revision,
        "spec_version": 1, "computed_at": computed_at, **changes,
    }  # fmt: skip


def fill(store: ClickHouse) -> None:
    """One record with its outcome, delivered twice; a window restated; drift, an alert, a job and its version."""
    event = {"model": "fraud", "record_id": "r1", "ts": AT}
    features = {"features": {"amount": 12.5}, "features_text": {"country": "DE"}}
    for offset in (0, 7):
        store.insert_rows("records", [event | features | place("records", offset)])
        prediction = event | {"model_version": "external", "score": 0.75}
        store.insert_rows("predictions", [prediction | place("predictions", offset)])
        store.insert_rows("labels", [event | {"label": 1.0} | place("labels", offset)])
    refused = {"model": "fraud", "reason": "future", "message": "ts is late", "stage": "validate", "at": AT}
    store.insert_rows("dead_letters", [refused | place("records", 3)])
    then, later = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    now = datetime.now(UTC)  # what is kept for some time only must be new
    store.insert_rows("measurements", [measure(then, 1, value=0.9)])
    store.insert_rows("measurements", [measure(later, 2, value=0.7, status="alert")])
    store.insert_rows(
        "measurements",
        [
            measure(then, 1, model_version="", feature=feature, kind="drift", metric="ks_counts", value=value,
                    threshold=0.04, p_value=p_value, alpha=1e-5, status=status, lower=None)
            for feature, value, p_value, status in (("age", 0.02, 0.3, "ok"), ("amount", 0.4, 1e-9, "alert"))
        ],
    )  # fmt: skip
    alert = {"alert_id": "a1", "transition_id": "t1", "model": "fraud", "rule": "harm", "kind": "performance",
             "severity": "high", "state": "firing", "reason": "worse", "window_start": WINDOW[0],
             "window_end": WINDOW[1], "at": then}  # fmt: skip
    store.insert_rows("alerts", [alert])
    report = {"model": "fraud", "alert_id": "a1", "transition_id": "t1", "window_start": WINDOW[0],
              "window_end": WINDOW[1], "html": "<!DOCTYPE html>", "created_at": now}  # fmt: skip
    store.insert_rows("reports", [report])
    job = {"job_id": "j1", "model": "fraud", "trigger_alert_id": "a1", "state": "promoted", "version": "1",
           "train_from": WINDOW[0], "train_to": WINDOW[1], "sequence": 1}  # fmt: skip
    store.insert_rows("jobs", [job])
    asked = {
        "model": "fraud",
        "request_id": "j1",
        "rule": "harm",
        "trigger_alert_id": "a1",
        "first": later,
        "due": later,
    }
    store.insert_rows("retrain_requests", [asked])
    store.insert_rows("versions", [{"model": "fraud", "version": "1", "job_id": "j1", "sha256": "abc"}])
    gate = {
        "model": "fraud",
        "version": "1",
        "job_id": "j1",
        "name": "gain",
        "passed": True,
        "value": 0.1,
        "limit": 0.003,
    }
    store.insert_rows("gates", [gate])
    store.insert_rows("job_logs", [{"job_id": "j1", "attempt": 1, "line": 1, "at": now, "text": "epoch 1"}])
    store.insert_rows("roles", [{"model": "fraud", "version": "1", "role": "champion", "epoch": 1}])
    spec = '{"performance": {"metrics": ["roc_auc"]}}'
    store.insert_rows("specs", [{"model": "fraud", "spec_version": 1, "spec": spec}])
    store.insert_rows(
        "stage1_markers",
        [
            {"job": "j", "topic": "records", "topic_id": TOPIC_ID, "partition": number, "next_offset": 8,
             "format": 4, "at_end_at": later,
             "watermarks": json.dumps({"fraud": {"": [1_000 * number, 2_000]}, "rent": {}})}
            for number in (1, 2)
        ],
    )  # fmt: skip
    detection = {"model": "fraud", "detector": "adwin", "on": "score", "record_id": "r1", "ts": AT}
    store.insert_rows("detections", [detection])
    store.insert_rows("deliveries", [{"subscription": "s", "alert_id": "a1", "outcome": "failed", "at": then}])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    server = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    store = ClickHouse(ClickHouseConnection(server.url))
    try:
        migrate(store)
        fill(store)
        yield store
    finally:
        store.close()
        server.stop()


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_the_query_runs_and_finds_something(store: ClickHouse, query: str) -> None:
    assert store.query_dicts(query)


def find(store: ClickHouse, part: str) -> list[dict[str, Any]]:
    (query,) = [query for query in QUERIES if part in query]
    return store.query_dicts(query)


def test_the_page_has_the_questions_that_people_ask() -> None:
    assert len(QUERIES) >= 12


def test_a_redelivered_record_counts_once(store: ClickHouse) -> None:
    assert [row["num_records"] for row in find(store, "num_records")] == [1]
    (joined,) = find(store, "r.features['amount']")
    assert (joined["amount"], joined["country"], joined["score"], joined["label"]) == (12.5, "DE", 0.75, 1.0)


def test_what_was_known_then_is_not_what_is_known_now(store: ClickHouse) -> None:
    (then,) = find(store, "computed_at <=")
    assert (then["known"], then["last_revision"]) == (0.9, 1)
    assert [row["realized"] for row in find(store, "FROM performance_by_segment")] == [0.7]
    (health,) = find(store, "FROM model_health")
    assert (health["health"], health["champion"], health["realized"]) == ("harmed", "1", 0.7)


def test_the_newest_message_of_any_partition_says_how_fresh_a_model_is(store: ClickHouse) -> None:
    (row,) = find(store, "FROM freshness")
    assert (row["model"], row["topic"]) == ("fraud", "records")
    assert (row["watermark"].timestamp(), row["last_message_at"].timestamp()) == (2.0, 2.0)
    assert row["age_s"] > 86_400


def test_the_surest_drift_comes_first(store: ClickHouse) -> None:
    assert [row["feature"] for row in find(store, "FROM drift_now")] == ["amount", "age"]


def test_a_record_leads_to_the_version_that_it_helped_to_train(store: ClickHouse) -> None:
    assert find(store, "INNER JOIN lineage") == [{"version": "1", "role": "champion", "job_id": "j1"}]
