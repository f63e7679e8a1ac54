"""Live tables equal the declared ones; the views answer; every query of the cookbook runs."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.connections import ClickHouseConnection
from schemas.errors import DriftloopError
from store.client import ClickHouse
from store.migrations import load_migrations, migrate
from store.tables import declared_tables, declared_views, diff_tables
from tests.clickhouses import EmbeddedClickHouse

COOKBOOK = Path(__file__).resolve().parents[2] / "docs" / "sql-cookbook.md"
QUERIES = re.findall(r"## (.*?)\n.*?```sql\n(.*?)```", COOKBOOK.read_text(), re.S)
DAY = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    clickhouse = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    clickhouse.start()
    yield clickhouse
    clickhouse.stop()


@pytest.fixture
def ch(server: EmbeddedClickHouse, request: pytest.FixtureRequest) -> Iterator[ClickHouse]:
    name = re.sub(r"\W", "_", request.node.name)
    store = ClickHouse(ClickHouseConnection(server.url, database=name))
    migrate(store)
    yield store
    store.close()


def test_live_tables_equal_the_declared_ones(ch: ClickHouse) -> None:
    assert {"records", "predictions", "labels", "measurements", "alerts"} <= declared_tables().keys()
    assert declared_views() == {
        "measurements_now", "drift_now", "open_alerts", "performance_by_segment", "model_health", "retrain_history",
        "lineage", "freshness",
    }  # fmt: skip
    assert diff_tables(ch) == []


def test_differences_are_named(ch: ClickHouse) -> None:
    ch.command("ALTER TABLE records DROP COLUMN trace_id")
    ch.command("ALTER TABLE labels MODIFY COLUMN label_text LowCardinality(String)")
    ch.command("ALTER TABLE alerts ADD COLUMN mine String")
    ch.command("DROP VIEW lineage")
    assert diff_tables(ch) == [
        "alerts.mine is String, declared not at all",
        "labels.label_text is LowCardinality(String), declared String",
        "records.trace_id is missing, declared String",
        "view lineage is missing",
    ]


def test_several_processes_may_migrate_at_once(server: EmbeddedClickHouse) -> None:
    stores = [ClickHouse(ClickHouseConnection(server.url, database="together")) for _ in range(4)]
    errors: list[Exception] = []

    def run(store: ClickHouse) -> None:
        try:
            migrate(store)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert diff_tables(stores[0]) == []
    assert migrate(stores[0]) == []
    assert stores[0].query("SELECT count() FROM migrations") == [(len(load_migrations()),)]
    for store in stores:
        store.close()


def test_a_newer_database_is_refused(ch: ClickHouse) -> None:
    ch.insert_rows("migrations", [{"name": "9999_future"}])
    with pytest.raises(DriftloopError, match="9999_future"):
        migrate(ch)


def test_only_the_last_revision_counts_now(ch: ClickHouse) -> None:
    _measure(ch, 0, value=0.1, revision=0, covered=10)
    _measure(ch, 0, value=None, revision=1, covered=20, status="too_few_rows")
    _measure(ch, 0, value=0.2, revision=0, covered=15)
    assert ch.query("SELECT value, status, revision, covered FROM measurements_now") == [(None, "too_few_rows", 1, 20)]
    assert ch.query("SELECT revision, value, covered FROM measurements ORDER BY revision") == [
        (0, 0.2, 15),
        (1, None, 20),
    ]


def test_drift_now_is_the_last_window(ch: ClickHouse) -> None:
    _measure(ch, 0, value=0.1, feature="amount")
    _measure(ch, 1, value=0.3, feature="amount", status="alert")
    _measure(ch, 0, value=0.2, feature="amount", status="ok", scale=6)
    found = ch.query("SELECT feature, value, status, scale FROM drift_now ORDER BY scale")
    assert found == [("amount", 0.3, "alert", 1), ("amount", 0.2, "ok", 6)]


def test_open_alerts_are_those_not_resolved(ch: ClickHouse) -> None:
    _alert(ch, "a", "firing", 1)
    _alert(ch, "a", "resolved", 2)
    _alert(ch, "b", "pending", 1)
    _alert(ch, "b", "firing", 2)
    assert ch.query("SELECT alert_id, state, opened_at FROM open_alerts") == [("b", "firing", DAY + HOUR)]


def test_an_open_alert_says_whether_it_has_a_report(ch: ClickHouse) -> None:
    now = datetime.now(UTC)
    for alert_id in ("a", "b", "c"):
        _alert(ch, alert_id, "firing", 1)
    for model, alert_id, age in [("fraud", "a", 0), ("other", "b", 0), ("fraud", "c", 181)]:
        report = {"model": model, "alert_id": alert_id, "html": "<p>", "created_at": now - timedelta(days=age)}
        ch.insert_rows("reports", [report])
    ch.command("OPTIMIZE TABLE reports FINAL")
    found = ch.query("SELECT alert_id, has_report FROM open_alerts ORDER BY alert_id")
    # Of another model, and older than a report is kept.
    assert found == [("a", True), ("b", False), ("c", False)]


def test_health_is_the_champions_in_its_last_window(ch: ClickHouse) -> None:
    _model(ch)
    for version, value, num_rows in [("1", 0.97, 100), ("external", 0.95, 900)]:
        performance = {"kind": "performance", "metric": "roc_auc", "model_version": version, "num_rows": num_rows}
        _measure(ch, 0, value=value, **performance)
        _measure(ch, 1, value=value - 0.01, lower=0.9, **performance)
    _measure(ch, 1, value=0.3, feature="amount", status="alert")
    _measure(ch, 1, value=0.2, threshold=0.1, feature="age", status="uncalibrated")
    _measure(ch, 1, value=0.05, threshold=0.1, feature="country", status="uncalibrated")
    _alert(ch, "a", "firing", 1)
    ((champion, version, start, realized, lower, drifted, alerts, severity, health),) = ch.query(
        "SELECT champion, model_version, window_start, realized, lower, num_drifted_features, num_open_alerts, "
        "worst_severity, health FROM model_health"
    )
    assert (champion, version, start, realized, lower) == ("1", "1", DAY + HOUR, 0.96, 0.9)
    assert (drifted, alerts, severity, health) == (2, 1, "high", "harmed")


@pytest.mark.parametrize(
    ("rule", "status", "health"),
    [
        ("harm", "ok", "harmed"), ("drift", "ok", "noted"), ("drift", "alert", "harmed"), ("rollback", "ok", "harmed"),
        ("freshness", "ok", "no data"), ("freshness", "alert", "no data"),
    ],
)  # fmt: skip
def test_drift_that_hurt_once_is_no_harm_to_a_champion_within_its_limits(
    ch: ClickHouse, rule: str, status: str, health: str
) -> None:
    _model(ch)
    _measure(ch, 1, kind="performance", metric="roc_auc", model_version="1", value=0.9, status=status)
    _alert(ch, "a", "firing", 1, rule=rule)
    assert ch.query("SELECT health, worst_severity FROM model_health") == [(health, "high")]


def test_lineage_leads_from_the_data_to_the_role(ch: ClickHouse) -> None:
    _model(ch)
    _alert(ch, "a", "firing", 1)
    _job(ch, "j", trigger_alert_id="a", version="2", state="promoted")
    _job(ch, "k", trigger_alert_id="a", version="", state="failed")
    rows = ch.query(
        "SELECT job_id, alert_id, alert_reason, job_state, version, sha256, role, role_epoch FROM lineage "
        "ORDER BY job_id"
    )
    assert rows == [
        ("j", "a", "AUC fell", "promoted", "2", "abc", "challenger", 1),
        ("k", "a", "AUC fell", "failed", "", "", "", 0),
    ]
    ch.insert_rows("epochs", [
        {"job_id": "j", "model": "fraud", "attempt": 1, "epoch": n, "loss": 1.0, "validation_loss": 1.0,
         "metric_name": "roc_auc", "metric": 0.9, "seconds": 1.0, "at": DAY} for n in range(3)
    ])  # fmt: skip
    assert ch.query("SELECT job_id, num_epochs, architecture FROM retrain_history ORDER BY job_id") == [
        ("j", 3, "mlp"),
        ("k", 0, ""),
    ]


def test_the_whole_cookbook_runs(ch: ClickHouse) -> None:
    assert len(QUERIES) >= 12
    _model(ch)
    for title, query in QUERIES:
        try:
            ch.query(query)
        except Exception as error:
            pytest.fail(f"{title}: {error}")


def _measure(ch: ClickHouse, window: int, **more: Any) -> None:
    row = {
        "model": "fraud", "model_version": "", "window_start": DAY + window * HOUR,
        "window_end": DAY + (window + 1) * HOUR, "segment": "", "feature": "", "kind": "drift", "metric": "ks",
        "value": None, "lower": None, "status": "ok", "num_rows": 100, "covered": 1, "revision": 0,
        "spec_version": 1, "computed_at": DAY,
    }  # fmt: skip
    ch.insert_rows("measurements", [{**row, **more}])


def _alert(ch: ClickHouse, alert_id: str, state: str, hour: int, rule: str = "harm") -> None:
    ch.insert_rows("alerts", [{
        "alert_id": alert_id, "transition_id": f"{alert_id}{state}", "model": "fraud", "rule": rule,
        "severity": "high", "state": state, "reason": "AUC fell", "window_start": DAY, "window_end": DAY + HOUR,
        "at": DAY + hour * HOUR,
    }])  # fmt: skip


def _job(ch: ClickHouse, job_id: str, **more: Any) -> None:
    times = dict.fromkeys(("first_window_start", "train_from", "train_to", "gate_from", "gate_to"), DAY)
    row = {"job_id": job_id, "model": "fraud", "attempt": 1, "requested_at": DAY, "updated_at": DAY, "sequence": 1}
    ch.insert_rows("jobs", [{**times, **row, **more}])


def _model(ch: ClickHouse) -> None:
    ch.insert_rows("specs", [{
        "model": "fraud", "spec_version": 1, "effective_from": DAY, "published_at": DAY, "reference_hash": "h",
        "reference_rows": 1, "spec": '{"performance": {"metrics": ["roc_auc", "f1"]}}', "removed": False,
    }])  # fmt: skip
    roles = [("1", "champion"), ("2", "challenger")]
    ch.insert_rows("roles", [
        {"model": "fraud", "version": version, "role": role, "epoch": 1, "at": DAY, "changed_at": DAY, "reason": "",
         "job_id": ""} for version, role in roles
    ])  # fmt: skip
    ch.insert_rows("versions", [
        {"model": "fraud", "version": version, "job_id": "j" if version == "2" else "", "architecture": "mlp",
         "sha256": "abc", "created_at": DAY} for version, _ in roles
    ])  # fmt: skip
