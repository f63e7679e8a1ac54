"""The table `reports`: pages of windows in which alerts began, and which fired alerts have none yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlencode

from schemas.connections import ClickHouseConnection
from store.client import ClickHouse

_DAYS_KEPT = 180
_LINKED = f"""\
SELECT if(count() = 0, 'There is no report of this alert: it is not made yet, or older than {_DAYS_KEPT} days.',
          argMax(html, created_at))
FROM reports WHERE model = {{model:String}} AND alert_id = {{alert:String}} FORMAT RawBLOB
"""  # noqa: S608 - the only insertion is a constant of this module
# ClickHouse 24.11 and later; without it a browser saves the page instead of showing it.
_HEADERS = "{'Content-Type': 'text/html; charset=UTF-8'}"


class StoredReport(NamedTuple):
    """One alert's page; instants are epoch ms. `transition_id` names the state change that asked for it."""

    model: str
    alert_id: str
    transition_id: str
    window_start: int
    window_end: int
    html: str
    created_at: int


class UnreportedAlert(NamedTuple):
    """A fired alert without a report; `first_window_start` is where it began (epoch ms)."""

    model: str
    rule: str
    segment: str
    alert_id: str
    transition_id: str
    first_window_start: int


def name_rows(segment: str) -> str:
    """Give the segment that an alert's report is of: one about a whole key, as of fairness, is about all rows."""
    return segment if "=" in segment else ""


def insert_reports(ch: ClickHouse, reports: Sequence[StoredReport]) -> None:
    """Insert pages; safe to repeat: of an alert's pages the last one counts."""
    instants = ("window_start", "window_end", "created_at")
    ch.insert_rows(
        "reports",
        [
            {**each._asdict(), **{name: datetime.fromtimestamp(getattr(each, name) / 1000, UTC) for name in instants}}
            for each in reports
        ],
    )


def read_report(ch: ClickHouse, model: str, alert_id: str) -> StoredReport | None:
    """Return an alert's page, if there is one."""
    rows = ch.query(
        """
        SELECT model, alert_id, transition_id, toUnixTimestamp64Milli(window_start), toUnixTimestamp64Milli(window_end),
               html, toUnixTimestamp64Milli(created_at)
        FROM reports FINAL
        WHERE model = {model:String} AND alert_id = {alert:String}
        """,
        {"model": model, "alert": alert_id},
    )
    return StoredReport(*rows[0]) if rows else None


def link_report(public: ClickHouseConnection, model: str, alert_id: str) -> str:
    """Give the address at which a browser shows an alert's page, or that there is none; `public` has no password."""
    parameters = {
        # The default user need not be named.
        **({} if public.user == "default" else {"user": public.user}),
        "database": public.database,
        "param_model": model,
        "param_alert": alert_id,
        "http_response_headers": _HEADERS,
        "query": " ".join(_LINKED.split()),
    }
    return f"{public.url}/?{urlencode(parameters)}"


def read_unreported(ch: ClickHouse, since_ms: int, num_max: int = 1000) -> list[UnreportedAlert]:
    """Return alerts that fired since then and have no report: those of all rows first, and what fired first.

    At most `num_max` of them.
    """
    rows = ch.query(
        """
        SELECT model, rule, segment, alert_id, argMinIf(transition_id, at, state = 'firing'),
               toUnixTimestamp64Milli(min(window_start)), minIf(at, state = 'firing') AS fired_at
        FROM alerts FINAL
        WHERE (model, alert_id) IN (
              SELECT model, alert_id FROM alerts
              WHERE state = 'firing' AND at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
          )
          AND (model, alert_id) NOT IN (SELECT model, alert_id FROM reports)
        GROUP BY model, rule, segment, alert_id
        ORDER BY segment != '', fired_at, model, alert_id
        LIMIT {limit:UInt32}
        """,
        {"since": since_ms, "limit": num_max},
    )
    return [UnreportedAlert(*row[:6]) for row in rows]
