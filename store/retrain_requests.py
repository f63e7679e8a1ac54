"""The table `retrain_requests`: what asked for a retraining and when, and what the triggers count.

Owns the queries; whether something may ask is decided in `streams.logic.policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from schemas.events import RetrainRequest
from store.client import ClickHouse


class StoredRequest(NamedTuple):
    """One request; `first` and `due` are event time, `requested_at` is by the clock, all epoch ms."""

    request_id: str
    rule: str
    first: int
    due: int
    requested_at: int
    request: str

    def decode(self) -> RetrainRequest:
        """Give the request as it was sent."""
        return msgspec.json.decode(self.request, type=RetrainRequest)


def insert_requests(ch: ClickHouse, requests: Sequence[tuple[RetrainRequest, int, int]]) -> None:
    """Record requests, each with `first` and `due`; safe to repeat."""
    rows = [
        {
            "model": request.model,
            "request_id": request.request_id,
            "rule": request.rule,
            "trigger_alert_id": request.trigger_alert_id,
            "reason": request.reason,
            "first": _instant(first),
            "due": _instant(due),
            "request": msgspec.json.encode(request).decode(),
            "requested_at": _instant(request.requested_at),
        }
        for request, first, due in requests
    ]
    if rows:
        ch.insert_rows("retrain_requests", rows)


def read_requests(ch: ClickHouse, model: str, num_max: int = 10_000) -> list[StoredRequest]:
    """Return the newest requests of a model, ascending by the event time at which they asked."""
    rows = ch.query(
        """
        SELECT request_id, rule, toUnixTimestamp64Milli(first), toUnixTimestamp64Milli(due) AS due_ms,
               toUnixTimestamp64Milli(requested_at), request
        FROM retrain_requests FINAL
        WHERE model = {model:String}
        ORDER BY due_ms DESC, request_id
        LIMIT {limit:UInt32}
        """,
        {"model": model, "limit": num_max},
    )
    return [StoredRequest(*row) for row in rows][::-1]


def read_untaken(ch: ClickHouse, model: str) -> list[str]:
    """Return the ids of requests that no trainer has made a job of yet."""
    rows = ch.query(
        """
        SELECT request_id FROM retrain_requests FINAL
        WHERE model = {model:String}
          AND request_id NOT IN (SELECT job_id FROM jobs WHERE model = {model:String})
        ORDER BY due, request_id
        """,
        {"model": model},
    )
    return [request_id for (request_id,) in rows]


def read_trained_to(ch: ClickHouse, model: str) -> int | None:
    """Return the event time (epoch ms) up to which rows were used by a training that ended, None if there is none."""
    rows = ch.query(
        "SELECT toUnixTimestamp64Milli(max(gate_to)) FROM jobs FINAL "
        "WHERE model = {model:String} AND state IN ('promoted', 'rejected') HAVING count() > 0",
        {"model": model},
    )
    return int(rows[0][0]) if rows else None


def count_labels(ch: ClickHouse, model: str, since_ms: int) -> int:
    """Count the records with a label of event time `since` or later (epoch ms)."""
    rows = ch.query(
        "SELECT uniqExact(record_id) FROM labels WHERE model = {model:String} "
        "AND ts >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') SETTINGS final = 0",
        {"model": model, "since": since_ms},
    )
    return int(rows[0][0])


class TriggerHarm(NamedTuple):
    """What an alert says of its harm: how much worse the metric is, and the rows of the window that said so."""

    harm: float
    num_rows: int
    window_start: int


def read_trigger_harm(ch: ClickHouse, model: str, alert_id: str) -> TriggerHarm | None:
    """Return the harm last told of an alert and the rows of that window, None where either is unknown."""
    rows = ch.query(
        """
        SELECT harm, num_rows, toUnixTimestamp64Milli(window_start)
        FROM
        (
            SELECT harm, window_start FROM alerts FINAL
            WHERE model = {model:String} AND alert_id = {alert:String} AND state = 'firing' AND isNotNull(harm)
            ORDER BY at DESC LIMIT 1
        ) AS told
        INNER JOIN
        (
            SELECT window_start, max(num_rows) AS num_rows FROM measurements
            WHERE model = {model:String} AND segment = '' GROUP BY window_start
        ) AS measured USING window_start
        """,
        {"model": model, "alert": alert_id},
    )
    return TriggerHarm(*rows[0]) if rows else None


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
