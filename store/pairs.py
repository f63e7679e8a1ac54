"""Windows in which two versions scored the same records: how many they share, and how many of those are labelled."""

from __future__ import annotations

from typing import NamedTuple

from store.client import ClickHouse


class PairedWindow(NamedTuple):
    """A window's records: scored by the first version, by both, and by both with a label. Instants are epoch ms."""

    window_start: int
    window_end: int
    num_first: int
    num_both: int
    num_labelled: int


def read_paired_windows(
    ch: ClickHouse, model: str, first: str, second: str, since_ms: int, until_ms: int, size_ms: int, origin_ms: int
) -> list[PairedWindow]:
    """Count the windows of [since, until) that have predictions of the first version, in order of time."""
    rows = ch.query(
        """
        SELECT intDiv(toUnixTimestamp64Milli(p.at) - {phase:Int64}, {size:Int64}) * {size:Int64} + {phase:Int64}
                   AS start,
               countIf(p.has_first) AS num_first, countIf(p.has_first AND p.has_second) AS num_both,
               countIf(p.has_first AND p.has_second AND l.record_id != '') AS num_labelled
        FROM
        (
            SELECT record_id, min(ts) AS at, countIf(model_version = {first:String}) > 0 AS has_first,
                   countIf(model_version = {second:String}) > 0 AS has_second
            FROM predictions
            WHERE model = {model:String} AND model_version IN ({first:String}, {second:String})
              AND ts >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
              AND ts < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
            GROUP BY record_id
        ) AS p
        LEFT JOIN
        (
            SELECT DISTINCT record_id FROM labels
            WHERE model = {model:String} AND record_id IN
            (
                SELECT record_id FROM predictions
                WHERE model = {model:String} AND model_version = {second:String}
                  AND ts >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
                  AND ts < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
            )
        ) AS l ON l.record_id = p.record_id
        GROUP BY start
        HAVING num_first > 0
        ORDER BY start
        SETTINGS final = 0
        """,
        {
            "model": model,
            "first": first,
            "second": second,
            "since": since_ms,
            "until": until_ms,
            "size": size_ms,
            # Not negative and below the size, so that the division rounds down.
            "phase": origin_ms % size_ms,
        },
    )
    return [PairedWindow(int(start), int(start) + size_ms, int(a), int(b), int(c)) for start, a, b, c in rows]
