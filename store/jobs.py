"""The tables `jobs` and `epochs`, and what a waiting job asks the store.

Owns the queries; whether a job may start is `retrain`'s decision.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from store.client import ClickHouse

JobState = Literal["waiting", "running", "accepted", "promoted", "rejected", "failed", "cancelled"]
OPEN_STATES: tuple[JobState, ...] = ("waiting", "running")

_INSTANTS = frozenset(
    {
        "first_window_start",
        "train_from",
        "train_to",
        "gate_from",
        "gate_to",
        "requested_at",
        "started_at",
        "finished_at",
        "updated_at",
    }
)


class JobRow(msgspec.Struct, kw_only=True):
    """A job as of `sequence`; of one job's rows the one with the largest counts. Instants are epoch ms.

    A field that is not known yet is zero or empty. `request` is the JSON of the request. `worker` is
    empty when nobody holds the job.
    """

    job_id: str
    model: str
    rule: str
    request: str
    requested_at: int
    state: JobState = "waiting"
    trigger_alert_id: str = ""
    verdict: str = ""
    reason: str = ""
    attempt: int = 0
    worker: str = ""
    first_window_start: int = 0
    train_from: int = 0
    train_to: int = 0
    gate_from: int = 0
    gate_to: int = 0
    num_train_rows: int = 0
    num_gate_rows: int = 0
    data_hash: str = ""
    version: str = ""
    metrics: dict[str, float] = {}
    device: str = ""
    manual: bool = False
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_gpu_memory_bytes: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    updated_at: int = 0
    sequence: int = 0


class EpochRow(msgspec.Struct, kw_only=True):
    """One epoch of one attempt; `at` is epoch ms."""

    job_id: str
    model: str
    attempt: int
    epoch: int
    loss: float
    validation_loss: float
    metric_name: str
    metric: float
    seconds: float
    at: int


class LabelCoverage(NamedTuple):
    """How many of an interval's rows have a label."""

    num_rows: int
    num_labels: int

    @property
    def share(self) -> float:
        """The labelled share, 0 without rows."""
        return self.num_labels / self.num_rows if self.num_rows else 0.0


_COLUMNS = tuple(JobRow.__struct_fields__)
_SELECTED = ", ".join(
    f"toUnixTimestamp64Milli({name}) AS {name}_ms" if name in _INSTANTS else name for name in _COLUMNS
)


def insert_job(ch: ClickHouse, job: JobRow) -> None:
    """Record a job as it is now; safe to replay, since the largest `sequence` counts."""
    ch.insert_rows("jobs", [_to_row(job)])


def read_job(ch: ClickHouse, job_id: str) -> JobRow | None:
    """Return a job, None if there is none of this id."""
    sql = f"SELECT {_SELECTED} FROM jobs FINAL WHERE job_id = {{job_id:String}}"  # noqa: S608 - names of our columns
    rows = ch.query(sql, {"job_id": job_id})
    return _of_row(rows[0]) if rows else None


def find_jobs(ch: ClickHouse, prefix: str) -> list[JobRow]:
    """Return the jobs whose id begins so."""
    sql = f"SELECT {_SELECTED} FROM jobs FINAL WHERE startsWith(job_id, {{prefix:String}}) ORDER BY requested_at"  # noqa: S608
    return [_of_row(row) for row in ch.query(sql, {"prefix": prefix})]


def read_open_jobs(ch: ClickHouse) -> list[JobRow]:
    """Return every job that waits or runs, the oldest request first."""
    sql = f"SELECT {_SELECTED} FROM jobs FINAL WHERE state IN {{states:Array(String)}} ORDER BY requested_at, job_id"  # noqa: S608
    return [_of_row(row) for row in ch.query(sql, {"states": list(OPEN_STATES)})]


def insert_epoch(ch: ClickHouse, epoch: EpochRow) -> None:
    """Record an epoch; safe to replay."""
    ch.insert_rows("epochs", [_to_row(epoch)])


def read_label_coverage(ch: ClickHouse, model: str, model_version: str, start_ms: int, end_ms: int) -> LabelCoverage:
    """Count the rows of [start, end), and those with a label: a version's predictions, or if it has none, records."""
    parameters = {"model": model, "version": model_version, "start": start_ms, "end": end_ms}
    coverage = LabelCoverage(0, 0)
    for source in (_PREDICTIONS, _RECORDS):
        sql = f"""
            SELECT (SELECT uniqExact(record_id) {source}),
                   (SELECT uniqExact(record_id) FROM labels
                    WHERE model = {{model:String}} AND record_id IN (SELECT record_id {source}))
            SETTINGS final = 0
        """  # noqa: S608 - the insertions are constants of this module
        coverage = LabelCoverage(*ch.query(sql, parameters)[0])
        if coverage.num_rows:
            break
    return coverage


_INTERVAL = """model = {model:String}
    AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"""
_RECORDS = f"FROM records WHERE {_INTERVAL}"
_PREDICTIONS = f"FROM predictions WHERE {_INTERVAL} AND model_version = {{version:String}}"


def count_labelled(ch: ClickHouse, model: str, start_ms: int, end_ms: int) -> int:
    """Count the records of [start, end) that have a label, whoever scored them."""
    rows = ch.query(
        f"""
        SELECT uniqExact(record_id) FROM labels
        WHERE model = {{model:String}} AND record_id IN
        (
            SELECT record_id {_RECORDS}
            UNION ALL SELECT record_id FROM predictions WHERE {_INTERVAL}
        )
        SETTINGS final = 0
        """,  # noqa: S608 - the insertions are constants of this module
        {"model": model, "start": start_ms, "end": end_ms},
    )
    return int(rows[0][0])


def read_gpu_ms(ch: ClickHouse, model: str, since_ms: int, now_ms: int) -> int:
    """Return what a model's jobs used of GPUs between two instants of the clock (ms), summed over GPUs.

    Of a job that was under way at one of the instants it is the part of its time that lies between them. Those that
    run are included, as far as they have told.
    """
    rows = ch.query(
        """
        WITH toUnixTimestamp64Milli(assumeNotNull(started_at)) AS start,
             greatest(start + 1, toUnixTimestamp64Milli(ifNull(finished_at, updated_at))) AS end
        SELECT sum(1000 * gpu_seconds * greatest(0, least(end, {now:Int64}) - greatest(start, {since:Int64}))
                   / (end - start))
        FROM jobs FINAL
        WHERE model = {model:String} AND isNotNull(started_at)
        """,
        {"model": model, "since": since_ms, "now": now_ms},
    )
    return round(float(rows[0][0]))


def read_last_training_ms(ch: ClickHouse, model: str) -> int | None:
    """Return how long the model's last training took that came to a verdict (ms), None if there is none."""
    rows = ch.query(
        """
        SELECT toUnixTimestamp64Milli(assumeNotNull(finished_at)) - toUnixTimestamp64Milli(assumeNotNull(started_at))
        FROM jobs FINAL
        WHERE model = {model:String} AND state IN ('promoted', 'rejected')
          AND isNotNull(started_at) AND isNotNull(finished_at)
        ORDER BY finished_at DESC LIMIT 1
        """,
        {"model": model},
    )
    return int(rows[0][0]) if rows else None


def read_main_version(ch: ClickHouse, model: str, start_ms: int, end_ms: int) -> str:
    """Return the version with most predictions in [start, end), of equals the first by name; "external" if none."""
    rows = ch.query(
        f"SELECT model_version FROM predictions WHERE {_INTERVAL} "  # noqa: S608
        "GROUP BY model_version ORDER BY uniqExact(record_id) DESC, model_version LIMIT 1 SETTINGS final = 0",
        {"model": model, "start": start_ms, "end": end_ms},
    )
    return str(rows[0][0]) if rows else "external"


def read_first_row_at(ch: ClickHouse, model: str) -> int | None:
    """Return the event time of a model's oldest stored row in epoch ms, None without rows."""
    rows = ch.query(
        """
        SELECT toUnixTimestamp64Milli(min(ts)) FROM
        (
            SELECT ts FROM records WHERE model = {model:String}
            UNION ALL SELECT ts FROM predictions WHERE model = {model:String}
        )
        HAVING count() > 0
        SETTINGS final = 0
        """,
        {"model": model},
    )
    return int(rows[0][0]) if rows else None


def read_measured_to(ch: ClickHouse, model: str) -> int | None:
    """Return the end of a model's latest measured window in epoch ms, None when none was measured."""
    rows = ch.query(
        "SELECT toUnixTimestamp64Milli(max(window_end)) FROM measurements WHERE model = {model:String} "
        "HAVING count() > 0 SETTINGS final = 0",
        {"model": model},
    )
    return int(rows[0][0]) if rows else None


def _to_row(job: JobRow | EpochRow) -> dict[str, Any]:
    row = msgspec.structs.asdict(job)
    for name in (*_INSTANTS, "at"):
        if row.get(name) is not None:
            row[name] = datetime.fromtimestamp(row[name] / 1000, UTC)
    return row


def _of_row(row: tuple[Any, ...]) -> JobRow:
    return JobRow(**dict(zip(_COLUMNS, row, strict=True)))
