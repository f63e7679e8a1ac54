"""Which windows were measured, and what is there now that the last measurement had not seen: labels, new versions.

Owns the queries that find work for stage 2. Each part of a window's measurements ends with one row that says that all
others are there: `drift`/`num_drifted` for the tests of counts, `quality`/`num_rows` of the whole model for what needs
rows, and the primary metric of `performance` per version for what needs labels.
"""

from __future__ import annotations

from typing import NamedTuple

from store.client import ClickHouse
from store.measurements import NUM_DRIFTED
from store.summaries import FORMAT


class MeasuredWindow(NamedTuple):
    """One window's last measurement without labels; instants are epoch ms."""

    window_start: int
    window_end: int
    spec_version: int
    covered: int
    revision: int


class LabelCount(NamedTuple):
    """How many stored predictions of a window and version have a label; `label_stamps` sums their offsets + 1.

    `num_records` are the window's records where they matter: they say which segment a prediction belongs to.
    """

    window_start: int
    model_version: str
    num_predictions: int
    num_labels: int
    label_stamps: int
    num_records: int = 0

    @property
    def covered(self) -> int:
        """What a measurement of these predictions and labels covers; it grows with each of them."""
        return self.num_predictions + self.num_labels + self.label_stamps + self.num_records


class MeasuredLabels(NamedTuple):
    """One window's and version's last measurement with labels; instants are epoch ms."""

    window_start: int
    window_end: int
    model_version: str
    covered: int
    revision: int
    label_coverage: float


def read_measured_windows(ch: ClickHouse, model: str, since_ms: int) -> dict[tuple[int, int], MeasuredWindow]:
    """Return the last measurement of every window that begins at or after `since_ms`, by (start, end)."""
    return _read_marked(ch, model, since_ms, "quality", "num_rows")


def read_newest_window(ch: ClickHouse, model: str) -> int | None:
    """Return the start (epoch ms) of the last window that is measured."""
    ((count, newest),) = ch.query(
        "SELECT count(), toUnixTimestamp64Milli(max(window_start)) FROM measurements "
        "WHERE model = {model:String} AND kind = 'quality' AND metric = 'num_rows' SETTINGS final = 0",
        {"model": model},
    )
    return int(newest) if count else None


def read_tested_windows(ch: ClickHouse, model: str, since_ms: int) -> dict[tuple[int, int], MeasuredWindow]:
    """Return the last test of every window, single or merged, that begins at or after `since_ms`, by (start, end)."""
    return _read_marked(ch, model, since_ms, "drift", NUM_DRIFTED)


def _read_marked(
    ch: ClickHouse, model: str, since_ms: int, kind: str, metric: str
) -> dict[tuple[int, int], MeasuredWindow]:
    rows = ch.query(
        """
        SELECT toUnixTimestamp64Milli(window_start) AS start, toUnixTimestamp64Milli(window_end) AS end,
               max(m.spec_version) AS last_spec, argMax(m.covered, (m.spec_version, m.covered)),
               argMax(m.revision, (m.spec_version, m.covered))
        FROM measurements AS m FINAL
        WHERE model = {model:String} AND model_version = '' AND segment = '' AND feature = ''
          AND kind = {kind:String} AND metric = {metric:String}
          AND window_start >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
        GROUP BY window_start, window_end
        ORDER BY window_start, window_end
        """,
        {"model": model, "since": since_ms, "kind": kind, "metric": metric},
    )
    return {(row[0], row[1]): MeasuredWindow(*row) for row in rows}


def read_measured_labels(ch: ClickHouse, model: str, metric: str, since_ms: int) -> list[MeasuredLabels]:
    """Return the last measurement with labels (primary metric `metric`) of every window and version, ascending."""
    rows = ch.query(
        """
        SELECT toUnixTimestamp64Milli(window_start), toUnixTimestamp64Milli(window_end), model_version,
               max(m.covered), argMax(m.revision, m.covered),
               ifNull(argMax(m.label_coverage, m.covered), 0)
        FROM measurements AS m FINAL
        WHERE model = {model:String} AND segment = '' AND feature = ''
          AND kind = 'performance' AND metric = {metric:String}
          AND window_start >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
        GROUP BY window_start, window_end, model_version
        ORDER BY window_start, window_end, model_version
        """,
        {"model": model, "metric": metric, "since": since_ms},
    )
    return [MeasuredLabels(*row) for row in rows]


def read_label_counts(
    ch: ClickHouse,
    model: str,
    size_ms: int,
    origin_ms: int,
    start_ms: int,
    end_ms: int,
    ingested_since_ms: int | None = None,
    *,
    with_records: bool = False,
) -> list[LabelCount]:
    """Count predictions and labels of every window and version within [start, end), windows aligned with the origin.

    With `ingested_since_ms`, from the first to the last window that labels stored since then belong to: the cheap
    question, asked often. `with_records` is for models with segments.
    """
    if ingested_since_ms is not None:
        interval = _find_labelled_interval(ch, model, size_ms, origin_ms, start_ms, end_ms, ingested_since_ms)
        if interval is None:
            return []
        start_ms, end_ms = interval
    rows = ch.query(
        """
        SELECT p.window_start_ms, p.model_version, count(), countIf(l.stamp > 0), sum(l.stamp)
        FROM
        (
            SELECT record_id, model_version,
                   intDiv(toUnixTimestamp64Milli(ts) - {origin:Int64}, {size:Int64}) * {size:Int64} + {origin:Int64}
                       AS window_start_ms
            FROM predictions FINAL
            WHERE model = {model:String}
              AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
              AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
        ) AS p
        LEFT JOIN
        (
            SELECT record_id, offset + 1 AS stamp FROM labels FINAL
            WHERE model = {model:String} AND record_id IN
            (
                SELECT record_id FROM predictions
                WHERE model = {model:String}
                  AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
                  AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
            )
        ) AS l ON l.record_id = p.record_id
        GROUP BY p.window_start_ms, p.model_version
        ORDER BY p.window_start_ms, p.model_version
        """,
        {"model": model, "size": size_ms, "origin": origin_ms, "start": start_ms, "end": end_ms},
    )
    num_records: dict[int, int] = {}
    if with_records and rows:
        num_records = _count_records(ch, model, size_ms, origin_ms, int(rows[0][0]), int(rows[-1][0]) + size_ms)
    return [
        LabelCount(int(start), version, int(size), int(labels), int(stamps), num_records.get(int(start), 0))
        for start, version, size, labels, stamps in rows
    ]


def _count_records(
    ch: ClickHouse, model: str, size_ms: int, origin_ms: int, start_ms: int, end_ms: int
) -> dict[int, int]:
    rows = ch.query(
        """
        SELECT intDiv(toUnixTimestamp64Milli(ts) - {origin:Int64}, {size:Int64}) * {size:Int64} + {origin:Int64}
                   AS window_start_ms,
               count()
        FROM records FINAL
        WHERE model = {model:String}
          AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
          AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
        GROUP BY window_start_ms
        """,
        {"model": model, "size": size_ms, "origin": origin_ms, "start": start_ms, "end": end_ms},
    )
    return {int(start): int(count) for start, count in rows}


def _find_labelled_interval(
    ch: ClickHouse, model: str, size_ms: int, origin_ms: int, start_ms: int, end_ms: int, ingested_since_ms: int
) -> tuple[int, int] | None:
    """Return the interval of whole windows, within [start, end), that labels stored since then belong to."""
    ((count, first, last),) = ch.query(
        """
        SELECT count(), min(window_start_ms), max(window_start_ms)
        FROM
        (
            SELECT intDiv(toUnixTimestamp64Milli(ts) - {origin:Int64}, {size:Int64}) * {size:Int64} + {origin:Int64}
                AS window_start_ms
            FROM predictions
            WHERE model = {model:String}
              AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
              AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
              AND record_id IN
              (
                  SELECT record_id FROM labels
                  WHERE model = {model:String}
                    AND ingested_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
              )
        )
        SETTINGS final = 0
        """,
        {
            "model": model,
            "size": size_ms,
            "origin": origin_ms,
            "start": start_ms,
            "end": end_ms,
            "since": ingested_since_ms,
        },
    )
    return (int(first), int(last) + size_ms) if count else None


def read_last_label_at(ch: ClickHouse, model: str) -> int | None:
    """Return when (epoch ms, the store's clock) the newest label of a model was stored; None without labels."""
    ((count, last),) = ch.query(
        "SELECT count(), toUnixTimestamp64Milli(max(ingested_at)) FROM labels WHERE model = {model:String} "
        "SETTINGS final = 0",
        {"model": model},
    )
    return int(last) if count else None


def read_last_labels_at(ch: ClickHouse) -> dict[str, int]:
    """Return the same of every model that has labels."""
    rows = ch.query(
        "SELECT model, toUnixTimestamp64Milli(max(ingested_at)) FROM labels GROUP BY model SETTINGS final = 0"
    )
    return {model: int(last) for model, last in rows}


def read_version_references(ch: ClickHouse, model: str) -> dict[str, str]:
    """Return the hash of the reference rows of every trained version that has its own."""
    rows = ch.query(
        "SELECT version, reference_hash FROM versions FINAL WHERE model = {model:String} AND reference_hash != ''",
        {"model": model},
    )
    return dict(rows)


def read_unmeasured(ch: ClickHouse, job: str) -> dict[str, list[tuple[int, int]]]:
    """Return, by model, (start, end) of the windows whose summaries go beyond their last measurement; epoch ms."""
    # The largest stamp and the largest measurement are right without FINAL, which would sort all of them.
    rows = ch.query(
        """
        SELECT counted.model, toUnixTimestamp64Milli(counted.window_start), toUnixTimestamp64Milli(counted.window_end)
        FROM
        (
            SELECT model, window_start, window_end, sum(reached) AS covered
            FROM
            (
                SELECT model, window_start, window_end, topic, topic_id, partition, max(stamp) AS reached
                FROM summaries
                WHERE job = {job:String} AND format = {format:UInt16}
                GROUP BY model, window_start, window_end, topic, topic_id, partition
            )
            GROUP BY model, window_start, window_end
        ) AS counted
        LEFT JOIN
        (
            SELECT model, window_start, window_end, max(m.covered) AS covered
            FROM measurements AS m
            WHERE model_version = '' AND segment = '' AND feature = '' AND kind = 'quality' AND metric = 'num_rows'
              AND window_start >= (SELECT min(window_start) FROM summaries WHERE job = {job:String})
            GROUP BY model, window_start, window_end
        ) AS measured USING (model, window_start, window_end)
        WHERE counted.covered > measured.covered
        ORDER BY counted.model, counted.window_start
        SETTINGS final = 0
        """,
        {"job": job, "format": FORMAT},
    )
    unmeasured: dict[str, list[tuple[int, int]]] = {}
    for model, start, end in rows:
        unmeasured.setdefault(model, []).append((int(start), int(end)))
    return unmeasured
