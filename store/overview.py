"""What people look at: the queries behind `driftloop status`, `models`, `alerts` and the demo's story."""

from __future__ import annotations

from typing import Any

from store.client import ClickHouse

Rows = list[dict[str, Any]]


def read_primary(ch: ClickHouse, model: str, metric: str) -> Rows:
    """Realized and estimated values of one metric, per window and version, in order of time.

    Keys: window_start, window_end (epoch ms), model_version, kind (performance, estimate), value, lower, upper,
    status, label_coverage, num_rows, revision.
    """
    return ch.query_dicts(
        """
        SELECT toUnixTimestamp64Milli(window_start) AS window_start, toUnixTimestamp64Milli(window_end) AS window_end,
               model_version, kind, value, lower, upper, status, label_coverage, num_rows, revision
        FROM measurements_now
        WHERE model = {model:String} AND metric = {metric:String} AND kind IN ('performance', 'estimate')
          AND segment = '' AND feature = ''
        ORDER BY window_start, kind, model_version
        """,
        {"model": model, "metric": metric},
    )


def read_drift(ch: ClickHouse, model: str, window_start_ms: int | None = None) -> Rows:
    """Input drift per window and feature, the most drifted (value against threshold) first within a window."""
    return ch.query_dicts(
        """
        SELECT toUnixTimestamp64Milli(window_start) AS window_start, feature, metric, value, threshold, status
        FROM measurements_now
        WHERE model = {model:String} AND kind = 'drift' AND segment = '' AND model_version = ''
          AND ({start:Int64} = 0 OR window_start = fromUnixTimestamp64Milli({start:Int64}))
        ORDER BY window_start, value / threshold DESC, feature
        """,
        {"model": model, "start": window_start_ms or 0},
    )


def read_alert_changes(ch: ClickHouse, model: str = "", num_max: int = 1000) -> Rows:
    """State changes of alerts, oldest first; of one model, or of all."""
    return ch.query_dicts(
        """
        SELECT at, model, model_version, rule, state, severity, feature, metric, segment, value, threshold, harm,
               reason, toUnixTimestamp64Milli(window_start) AS window_start,
               toUnixTimestamp64Milli(window_end) AS window_end,
               alert_id, transition_id, toBool((model, alert_id) IN (SELECT model, alert_id FROM reports)) AS has_report
        FROM (
            SELECT * FROM alerts FINAL
            WHERE {model:String} = '' OR model = {model:String}
            ORDER BY at DESC, transition_id LIMIT {num_max:UInt32}
        )
        ORDER BY at, window_start, indexOf(['pending', 'firing', 'resolved'], state), transition_id
        """,
        {"model": model, "num_max": num_max},
    )


def read_open_alerts(ch: ClickHouse, model: str = "") -> Rows:
    """Alerts that are not resolved, the most severe first."""
    return ch.query_dicts(
        """
        SELECT opened_at, model, model_version, rule, state, severity, feature, segment, value, threshold, harm, reason,
               alert_id, has_report
        FROM open_alerts
        WHERE {model:String} = '' OR model = {model:String}
        ORDER BY indexOf(['critical', 'high', 'low', 'info'], severity), opened_at
        """,
        {"model": model},
    )


def read_jobs(ch: ClickHouse, model: str = "") -> Rows:
    """Retraining jobs, oldest first; instants as epoch ms where they are windows, else as times."""
    return ch.query_dicts(
        """
        SELECT job_id, model, state, verdict, reason, attempt, version, num_train_rows, num_gate_rows, metrics, device,
               toUnixTimestamp64Milli(train_from) AS train_from, toUnixTimestamp64Milli(train_to) AS train_to,
               toUnixTimestamp64Milli(gate_from) AS gate_from, toUnixTimestamp64Milli(gate_to) AS gate_to,
               trigger_alert_id, requested_at, started_at, finished_at, updated_at, sequence
        FROM jobs FINAL
        WHERE {model:String} = '' OR model = {model:String}
        ORDER BY requested_at, job_id
        """,
        {"model": model},
    )


def read_health(ch: ClickHouse) -> Rows:
    """One row per model: the view model_health."""
    return ch.query_dicts("SELECT * FROM model_health ORDER BY model")


def read_versions(ch: ClickHouse, model: str = "") -> Rows:
    """Trained versions with the role that each has now; one that lost its last role is `retired`."""
    return ch.query_dicts(
        """
        SELECT v.model AS model, v.version AS version, v.architecture AS architecture, v.metrics AS metrics,
               v.job_id AS job_id, v.created_at AS created_at,
               if(r.role = '' AND (v.model, v.version) IN (SELECT model, version FROM roles), 'retired', r.role) AS role
        FROM (SELECT * FROM versions FINAL) AS v
        LEFT JOIN (
            SELECT model, version, role FROM roles FINAL
            WHERE (model, epoch) IN (SELECT model, max(epoch) FROM roles GROUP BY model)
        ) AS r ON r.model = v.model AND r.version = v.version
        WHERE {model:String} = '' OR v.model = {model:String}
        ORDER BY model, created_at
        """,
        {"model": model},
    )


def read_outside_roles(ch: ClickHouse, model: str) -> Rows:
    """Roles of versions that are not ours, such as `external`; keys version and role."""
    return ch.query_dicts(
        """
        SELECT version, role FROM roles
        WHERE model = {model:String} AND epoch = (SELECT max(epoch) FROM roles WHERE model = {model:String})
          AND version NOT IN (SELECT version FROM versions WHERE model = {model:String})
        ORDER BY role
        """,
        {"model": model},
    )


def count_events(ch: ClickHouse) -> dict[str, int]:
    """How many events, dead letters and measurements there are."""
    tables = ("records", "predictions", "labels", "dead_letters", "measurements")
    counts = ch.query(f"SELECT {', '.join(f'(SELECT count() FROM {table})' for table in tables)}")[0]  # noqa: S608
    return dict(zip(tables, map(int, counts), strict=True))


def count_scored(ch: ClickHouse, model: str, start_ms: int, end_ms: int, version: str) -> tuple[int, int]:
    """Records of [start, end), and how many of them the version has scored."""
    row = ch.query(
        """
        SELECT (SELECT uniqExact(record_id) FROM records
                WHERE model = {model:String} AND ts >= fromUnixTimestamp64Milli({start:Int64})
                  AND ts < fromUnixTimestamp64Milli({end:Int64})),
               (SELECT uniqExact(record_id) FROM predictions
                WHERE model = {model:String} AND model_version = {version:String}
                  AND ts >= fromUnixTimestamp64Milli({start:Int64}) AND ts < fromUnixTimestamp64Milli({end:Int64}))
        """,
        {"model": model, "start": start_ms, "end": end_ms, "version": version},
    )[0]
    return int(row[0]), int(row[1])


def read_newest_ts(ch: ClickHouse, model: str) -> int | None:
    """The largest event time (epoch ms) of the model's stored records and predictions; None without any."""
    ((count, newest),) = ch.query(
        """
        SELECT count(), toUnixTimestamp64Milli(max(ts)) FROM (
            SELECT ts FROM records WHERE model = {model:String}
            UNION ALL SELECT ts FROM predictions WHERE model = {model:String}
        ) SETTINGS final = 0
        """,
        {"model": model},
    )
    return int(newest) if count else None
