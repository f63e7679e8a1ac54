"""The table `alerts`: state changes as rows, and the last state of every rule and segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from schemas.events import Alert
from schemas.spec import Severity
from store.client import ClickHouse

_INSTANT = pa.timestamp("ms", tz="UTC")
_SCHEMA = pa.schema(
    [
        ("alert_id", pa.string()),
        ("transition_id", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("rule", pa.string()),
        ("kind", pa.string()),
        ("feature", pa.string()),
        ("metric", pa.string()),
        ("segment", pa.string()),
        ("severity", pa.string()),
        ("state", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("harm", pa.float64()),
        ("reason", pa.string()),
        ("window_start", _INSTANT),
        ("window_end", _INSTANT),
        ("at", _INSTANT),
        ("revision", pa.uint32()),
        ("evidence", pa.string()),
    ]
)
# States only move on, so the furthest one is the last.
_STEP = "indexOf(['pending', 'firing', 'resolved'], state)"
_COLUMNS = (
    "alert_id, transition_id, model, model_version, rule, kind, feature, metric, segment, severity, state, value, "
    "threshold, harm, reason, toUnixTimestamp64Milli(window_start), toUnixTimestamp64Milli(window_end), "
    "toUnixTimestamp64Milli(at), revision, evidence"
)


class LastAlert(NamedTuple):
    """The last alert of a rule and segment; instants are epoch ms. `window_start` is of its last state change.

    `severity` and `harm` are what was last said of it.
    """

    rule: str
    segment: str
    alert_id: str
    state: str
    first_window_start: int
    window_start: int
    severity: Severity
    harm: float | None


class FiredAlert(NamedTuple):
    """One alert that fired; instants are epoch ms. `fired_at` is by the clock, `reason` what was said as it fired."""

    rule: str
    segment: str
    alert_id: str
    first_window_start: int
    fired_window_end: int
    resolved_window_start: int | None
    fired_at: int
    reason: str


def insert_alerts(ch: ClickHouse, alerts: Sequence[Alert]) -> None:
    """Insert state changes; safe to repeat."""
    if alerts:
        rows = [
            {**msgspec.to_builtins(each), "evidence": msgspec.json.encode(each.evidence).decode()} for each in alerts
        ]
        ch.insert_arrow("alerts", pa.Table.from_pylist(rows, schema=_SCHEMA))


def read_last_alerts(ch: ClickHouse, model: str) -> dict[tuple[str, str], LastAlert]:
    """Return the last alert of every (rule, segment) of a model: the one whose first window is the latest."""
    return {(each.rule, each.segment): each for _, each in _read_last(ch, "model = {model:String}", {"model": model})}


def read_last_of_rule(ch: ClickHouse, rule: str) -> dict[tuple[str, str], LastAlert]:
    """Return the last alert of a rule by (model, segment), of all models."""
    return {(model, each.segment): each for model, each in _read_last(ch, "rule = {rule:String}", {"rule": rule})}


def _read_last(ch: ClickHouse, where: str, parameters: dict[str, str]) -> list[tuple[str, LastAlert]]:
    rows = ch.query(
        f"""
        SELECT model, rule, segment, alert_id, argMax(state, {_STEP}) AS last_state,
               toUnixTimestamp64Milli(min(a.window_start)) AS first_window_start,
               toUnixTimestamp64Milli(argMax(a.window_start, ({_STEP}, at))), argMax(severity, ({_STEP}, at)),
               tupleElement(argMax(tuple(harm), ({_STEP}, at)), 1)
        FROM alerts AS a FINAL
        WHERE {where}
        GROUP BY model, rule, segment, alert_id
        ORDER BY first_window_start DESC
        LIMIT 1 BY model, rule, segment
        """,  # noqa: S608 - the only insertions are constants of this module
        parameters,
    )
    return [(row[0], LastAlert(*row[1:])) for row in rows]


def read_fired_alerts(ch: ClickHouse, model: str, num_max: int = 1000) -> list[FiredAlert]:
    """Return the newest alerts that ever fired, ascending by first window."""
    rows = ch.query(
        """
        SELECT rule, segment, alert_id, toUnixTimestamp64Milli(min(a.window_start)) AS first_window_start,
               toUnixTimestamp64Milli(minIf(a.window_end, state = 'firing')),
               if(countIf(state = 'resolved') = 0, NULL,
                  toUnixTimestamp64Milli(maxIf(a.window_start, state = 'resolved'))),
               toUnixTimestamp64Milli(minIf(a.at, state = 'firing')),
               argMinIf(a.reason, a.at, state = 'firing')
        FROM alerts AS a FINAL
        WHERE model = {model:String}
        GROUP BY rule, segment, alert_id
        HAVING countIf(state = 'firing') > 0
        ORDER BY first_window_start DESC, rule, segment
        LIMIT {limit:UInt32}
        """,
        {"model": model, "limit": num_max},
    )
    return [FiredAlert(*row) for row in rows][::-1]


def read_transitions(ch: ClickHouse, model: str, alert_ids: Sequence[str]) -> list[Alert]:
    """Return all state changes of some alerts, each alert's in order."""
    rows = ch.query(
        f"""
        SELECT {_COLUMNS} FROM alerts AS a FINAL
        WHERE model = {{model:String}} AND alert_id IN {{ids:Array(String)}}
        ORDER BY alert_id, {_STEP}, at
        """,  # noqa: S608 - the only insertions are constants of this module
        {"model": model, "ids": list(alert_ids)},
    )
    return [_to_alert(row) for row in rows]


def _to_alert(row: tuple[object, ...]) -> Alert:
    names = [name for name in _SCHEMA.names if name != "evidence"]
    fields = dict(zip(names, row[:-1], strict=True))
    return msgspec.convert({**fields, "evidence": msgspec.json.decode(str(row[-1]) or "{}")}, Alert)
