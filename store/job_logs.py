"""The table `job_logs`: what the processes of jobs printed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from store.client import ClickHouse


class LogLine(NamedTuple):
    """One line of an attempt; `line` counts from 1, `at` is epoch ms."""

    job_id: str
    attempt: int
    line: int
    at: int
    text: str


def insert_log(ch: ClickHouse, lines: Sequence[LogLine]) -> None:
    """Store lines; safe to replay."""
    if lines:
        ch.insert_rows(
            "job_logs", [each._asdict() | {"at": datetime.fromtimestamp(each.at / 1000, UTC)} for each in lines]
        )


def read_log(ch: ClickHouse, job_id: str, after: tuple[int, int] = (0, 0)) -> list[LogLine]:
    """Return a job's lines behind (attempt, line), in order."""
    rows = ch.query(
        "SELECT job_id, attempt, line, toUnixTimestamp64Milli(at), text FROM job_logs FINAL "
        "WHERE job_id = {job_id:String} AND (attempt, line) > ({attempt:UInt32}, {line:UInt32}) ORDER BY attempt, line",
        {"job_id": job_id, "attempt": after[0], "line": after[1]},
    )
    return [LogLine(*row) for row in rows]
