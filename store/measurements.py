"""The table `measurements`: writing what was measured, and reading the last revisions that judging needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from schemas.events import Measurement
from store.client import ClickHouse

_INSTANT = pa.timestamp("ms", tz="UTC")
_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("window_start", _INSTANT),
        ("window_end", _INSTANT),
        ("segment", pa.string()),
        ("feature", pa.string()),
        ("kind", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("p_value", pa.float64()),
        ("alpha", pa.float64()),
        ("threshold", pa.float64()),
        ("status", pa.string()),
        ("scale", pa.uint16()),
        ("source", pa.string()),
        ("num_rows", pa.uint64()),
        ("num_sampled", pa.uint64()),
        ("label_coverage", pa.float64()),
        ("covered", pa.uint64()),
        ("revision", pa.uint32()),
        ("spec_version", pa.uint32()),
        ("computed_at", _INSTANT),
        ("sampling_error", pa.float64()),
        ("interval_lower", pa.float64()),
        ("interval_upper", pa.float64()),
    ]
)

# What the tests of counts are measured as: the effect on a number (Kolmogorov-Smirnov at the cuts) and on a category
# (L-infinity); and how many columns these have found, which says that all of a window's are stored.
TESTED_NUMBER, TESTED_CATEGORY = "ks_counts", "linf_counts"
NUM_DRIFTED = "num_drifted"

# Of one measurement's revisions the last counts: of the newest spec, computed from most of the log.
_LAST = "(m.spec_version, m.covered, m.revision)"

# The ratio of what is not drift, although its p-value alone would be.
_BELOW_ONE = 0.999


class PerformanceRow(NamedTuple):
    """The last revision of one performance metric of a window and version; instants are epoch ms."""

    window_start: int
    window_end: int
    model_version: str
    kind: str
    value: float | None
    lower: float | None
    upper: float | None
    status: str
    revision: int
    label_coverage: float | None
    num_rows: int


class FairnessRow(NamedTuple):
    """The last revision of one disparity of a window and version; `segment` is the key that it is about."""

    window_start: int
    window_end: int
    segment: str
    model_version: str
    metric: str
    value: float
    threshold: float
    status: str
    revision: int
    num_rows: int


class DriftRow(NamedTuple):
    """The most drifted column of a window, segment and version ('': inputs), and how many columns drifted.

    `ratio` is value / threshold for distances and alpha / p for tests: drift begins at 1, and below it stays what does
    not reach its floor. `num_rows` are the window's of that segment and version; `scale` windows are merged in it.
    """

    window_start: int
    window_end: int
    segment: str
    model_version: str
    feature: str
    metric: str
    value: float
    threshold: float
    ratio: float
    num_drifted: int
    revision: int
    scale: int = 1
    num_rows: int = 0
    p_value: float | None = None
    alpha: float | None = None


def insert_measurements(ch: ClickHouse, rows: Sequence[Measurement]) -> None:
    """Insert measurements in one block; safe to repeat."""
    if rows:
        table = pa.Table.from_pylist([msgspec.to_builtins(row) for row in rows], schema=_SCHEMA)
        ch.insert_arrow("measurements", table)


def read_performance(
    ch: ClickHouse, model: str, metric: str, since_ms: int, num_windows_max: int = 5000
) -> list[PerformanceRow]:
    """Return the last revisions of `metric`, realized and estimated, of the newest windows from `since_ms` on.

    The whole model only (no segments); ascending by window, then version and kind.
    """
    rows = ch.query(
        f"""
        SELECT toUnixTimestamp64Milli(m.window_start), toUnixTimestamp64Milli(m.window_end), m.model_version, m.kind,
               tupleElement(argMax(tuple(m.value), {_LAST}), 1), tupleElement(argMax(tuple(m.lower), {_LAST}), 1),
               tupleElement(argMax(tuple(m.upper), {_LAST}), 1), argMax(m.status, {_LAST}), argMax(m.revision, {_LAST}),
               tupleElement(argMax(tuple(m.label_coverage), {_LAST}), 1), argMax(m.num_rows, {_LAST})
        FROM measurements AS m FINAL
        WHERE model = {{model:String}} AND segment = '' AND feature = '' AND metric = {{metric:String}}
          AND kind IN ('performance', 'estimate')
          AND window_start >= fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
        GROUP BY window_start, window_end, model_version, kind
        ORDER BY window_start DESC, window_end DESC, model_version DESC, kind DESC
        LIMIT {{limit:UInt32}}
        """,  # noqa: S608 - the only insertion is a constant of this module
        {"model": model, "metric": metric, "since": since_ms, "limit": num_windows_max},
    )
    return [PerformanceRow(*row) for row in rows][::-1]


def read_drift(
    ch: ClickHouse, model: str, since_ms: int, *, is_calibrated: bool, num_rows_max: int = 5000
) -> list[DriftRow]:
    """Return per window, segment and version ('': inputs) the most drifted column, ascending by window.

    Of the windows, single or merged, that end after `since_ms`: the tests of counts, or the distances. Columns with
    too few rows are left out. Ties go to the feature that sorts first.
    """
    rows = ch.query(
        f"""
        SELECT toUnixTimestamp64Milli(window_start), toUnixTimestamp64Milli(window_end), segment, model_version,
               argMin(feature, worst), argMin(metric, worst), argMin(last_value, worst), argMin(last_threshold, worst),
               -min(tupleElement(worst, 1)), countIf(last_ratio >= 1), max(last_revision), max(scale), max(last_rows),
               tupleElement(argMin(last_p_value, worst), 1), tupleElement(argMin(last_alpha, worst), 1)
        FROM
        (
            SELECT m.window_start AS window_start, m.window_end AS window_end, m.segment AS segment,
                   m.model_version AS model_version, m.feature AS feature, m.metric AS metric,
                   argMax(ifNull(m.value, nan), {_LAST}) AS last_value,
                   argMax(ifNull(m.threshold, nan), {_LAST}) AS last_threshold,
                   argMax(tuple(m.p_value), {_LAST}) AS last_p_value,
                   argMax(tuple(m.alpha), {_LAST}) AS last_alpha,
                   argMax(m.status, {_LAST}) AS last_status,
                   ifNull(tupleElement(last_alpha, 1) / greatest(tupleElement(last_p_value, 1), 1e-300),
                          last_value / last_threshold) AS plain_ratio,
                   if({{calibrated:Bool}} AND last_status != 'alert', least(plain_ratio, {_BELOW_ONE}), plain_ratio)
                       AS last_ratio,
                   max(m.revision) AS last_revision, argMax(m.num_rows, {_LAST}) AS last_rows, max(m.scale) AS scale,
                   (-last_ratio, feature) AS worst
            FROM measurements AS m FINAL
            WHERE m.model = {{model:String}} AND m.kind = 'drift' AND m.feature != ''
              AND (m.metric IN ('{TESTED_NUMBER}', '{TESTED_CATEGORY}')) = {{calibrated:Bool}}
              AND m.window_end > fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
            GROUP BY window_start, window_end, segment, model_version, feature, metric
            HAVING last_status NOT IN ('too_few_rows', 'no_reference', 'uncalibrated') AND isFinite(last_ratio)
        )
        GROUP BY window_start, window_end, segment, model_version
        ORDER BY window_end DESC, window_start DESC, segment DESC, model_version DESC
        LIMIT {{limit:UInt32}}
        """,  # noqa: S608 - the only insertions are constants of this module
        {"model": model, "since": since_ms, "calibrated": is_calibrated, "limit": num_rows_max},
    )
    return [DriftRow(*row) for row in rows][::-1]


def read_fairness(ch: ClickHouse, model: str, since_ms: int, num_rows_max: int = 5000) -> list[FairnessRow]:
    """Return the disparities of the newest windows from `since_ms` on that can be decided, ascending by window."""
    rows = ch.query(
        f"""
        SELECT toUnixTimestamp64Milli(m.window_start), toUnixTimestamp64Milli(m.window_end), m.segment, m.model_version,
               m.metric, argMax(ifNull(m.value, nan), {_LAST}) AS last_value,
               argMax(ifNull(m.threshold, nan), {_LAST}), argMax(m.status, {_LAST}) AS last_status,
               max(m.revision), argMax(m.num_rows, {_LAST})
        FROM measurements AS m FINAL
        WHERE m.model = {{model:String}} AND m.kind = 'fairness'
          AND m.window_start >= fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
        GROUP BY m.window_start, m.window_end, m.segment, m.model_version, m.metric
        HAVING last_status IN ('ok', 'alert')
        ORDER BY m.window_start DESC, m.segment DESC, m.model_version DESC, m.metric DESC
        LIMIT {{limit:UInt32}}
        """,  # noqa: S608 - the only insertion is a constant of this module
        {"model": model, "since": since_ms, "limit": num_rows_max},
    )
    return [FairnessRow(*row) for row in rows][::-1]


def read_most_drifted(ch: ClickHouse, model: str, window_start: int, num_features: int) -> list[tuple[str, str, float]]:
    """Return (feature, metric, value) of the input columns of a window that drifted most by their distance."""
    rows = ch.query(
        f"""
        SELECT m.feature, m.metric, argMax(m.value, {_LAST}) AS last_value
        FROM measurements AS m FINAL
        WHERE m.model = {{model:String}} AND m.kind = 'drift' AND m.model_version = '' AND m.segment = ''
          AND m.window_start = fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')
          AND isNotNull(m.value) AND m.threshold > 0
          AND m.scale = 1 AND m.metric NOT IN ('{TESTED_NUMBER}', '{TESTED_CATEGORY}')
        GROUP BY m.feature, m.metric
        ORDER BY last_value / argMax(m.threshold, {_LAST}) DESC, m.feature
        LIMIT {{limit:UInt32}}
        """,  # noqa: S608 - the only insertions are constants of this module
        {"model": model, "start": window_start, "limit": num_features},
    )
    return [(feature, metric, value) for feature, metric, value in rows]


def has_labels(ch: ClickHouse, model: str) -> bool:
    """Say whether any window of the model was ever measured with labels."""
    return bool(
        ch.query(
            "SELECT 1 FROM measurements WHERE model = {model:String} AND kind = 'performance' LIMIT 1", {"model": model}
        )
    )
