"""Reading events: the rows of a window, joined with labels or not, each identity once and in one fixed order.

The order is (sipHash64(record_id), record_id), so that the first n rows are the same sample for everyone; training
rows come in the order of time. Values go into queries as parameters, never as text.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import pyarrow as pa

from store.client import ClickHouse
from store.maps import number_columns, text_columns

Source = Literal["records", "predictions"]
Place = tuple[str, str, int]

OTHER = "__other__"

# What the server sorts and joins at once of a training's rows: about a gigabyte of its memory.
_SLICE_ROWS = 2_000_000

_SAMPLE_ORDER = "sipHash64(record_id), record_id"
_FEATURES = "features, features_text"
_OUTPUTS = "model_version, prediction, nullIf(prediction_text, '') AS prediction_text, score, scores, has_features"


def read_window(
    ch: ClickHouse,
    model: str,
    start_ms: int,
    end_ms: int,
    source: Source,
    *,
    model_version: str | None = None,
    below: Mapping[Place, int] | None = None,
    limit: int | None = None,
    segment: str | None = None,
    segment_values: Sequence[str] = (),
    horizon_ms: int = 0,
    with_features: bool = True,
    segment_keys: Sequence[str] = (),
) -> pa.Table:
    """Rows with start ≤ ts < end in sample order, the first `limit` of them.

    Columns: record_id, ts, `f:NAME` (float64, NaN where missing), `t:NAME` (string, null where missing), `g:KEY` (the
    value of each of `segment_keys` as the row itself has it, null where it has none); predictions also model_version,
    prediction, prediction_text, score, `s:CLASS`, has_features. Without `model_version`,
    predictions are taken once per record_id, and only those that carry features.
    `below`: (topic, topic_id, partition) → offset; only rows before it, and none of a partition that is not named.
    `segment`: "country=DE", or "country=__other__" with the known `segment_values`.
    `horizon_ms`: how far around the window to look for an earlier event of the same identity with another ts.
    """
    query, parameters = _window_query(
        model, start_ms, end_ms, source, model_version, below, segment, segment_values, horizon_ms
    )
    columns = [
        "record_id",
        "ts",
        *([_FEATURES] if with_features else []),
        *([_OUTPUTS] if source == "predictions" else []),
        *_segment_columns(segment_keys, parameters),
    ]
    sql = f"SELECT {', '.join(columns)} FROM ({query}) ORDER BY {_SAMPLE_ORDER} {_limit(limit)}"  # noqa: S608
    return _flatten(ch.query_arrow(sql, parameters), segment_keys)


def read_labelled(
    ch: ClickHouse,
    model: str,
    model_version: str,
    start_ms: int,
    end_ms: int,
    *,
    below: Mapping[Place, int] | None = None,
    limit: int | None = None,
    segment: str | None = None,
    segment_values: Sequence[str] = (),
    horizon_ms: int = 0,
    with_features: bool = False,
    segment_keys: Sequence[str] = (),
) -> pa.Table:
    """The predictions of a version in a window, as `read_window` gives them, with the label that counts today.

    Adds label (float64, null where none or a text), label_text (string, null likewise) and has_label.
    """
    query, parameters = _window_query(
        model, start_ms, end_ms, "predictions", model_version, below, segment, segment_values, horizon_ms
    )
    columns = ", ".join(
        [
            "record_id",
            "ts",
            _OUTPUTS,
            *([_FEATURES] if with_features else []),
            *_segment_columns(segment_keys, parameters),
        ]
    )
    sql = f"""
        SELECT p.*, l.label AS label, nullIf(l.label_text, '') AS label_text, isNotNull(l.record_id) AS has_label
        FROM (SELECT {columns} FROM ({query}) ORDER BY {_SAMPLE_ORDER} {_limit(limit)}) AS p
        LEFT JOIN ({_labels_of("predictions")}) AS l ON l.record_id = p.record_id
        ORDER BY sipHash64(p.record_id), p.record_id
        SETTINGS join_use_nulls = 1
    """  # noqa: S608
    return _flatten(ch.query_arrow(sql, parameters), segment_keys)


def read_training_rows(ch: ClickHouse, model: str, start_ms: int, end_ms: int) -> Iterator[pa.Table]:
    """Give features with their labels, start ≤ ts < end, in the order of (ts, record_id), block by block.

    Rows without a label are left out. Features come from `records` if the model has any in the interval, else from
    predictions, once per record_id and hour. Columns: record_id, ts, `f:NAME`, `t:NAME`, label, label_text; a block
    that holds no value of a feature has no column of it. The server joins and orders some million rows at a time.
    """
    source = input_source(ch, model, start_ms, end_ms)
    for start, end in pairwise(_cut_at_hours(ch, model, start_ms, end_ms, source)):
        sql, parameters = describe_training_query(model, start, end, source)
        for block in ch.stream_arrow(sql, parameters):
            yield _flatten(pa.table(block))


def _cut_at_hours(ch: ClickHouse, model: str, start_ms: int, end_ms: int, source: Source) -> list[int]:
    """Return start, the hours between which there are more than _SLICE_ROWS rows or one hour's, and end."""
    hours = ch.query(
        f"SELECT toUnixTimestamp(toStartOfHour(ts)) AS hour, count() FROM {source} WHERE {_INTERVAL} "  # noqa: S608
        "GROUP BY hour ORDER BY hour SETTINGS final = 0",
        _interval(model, start_ms, end_ms),
    )
    cuts, num_rows = [start_ms], 0
    for hour, num_in_hour in hours:
        if num_rows and num_rows + num_in_hour > _SLICE_ROWS:
            cuts.append(hour * 1000)
            num_rows = 0
        num_rows += num_in_hour
    return [*cuts, end_ms]


def describe_training_query(model: str, start_ms: int, end_ms: int, source: Source) -> tuple[str, dict[str, Any]]:
    """Return the query of `read_training_rows` in one piece and its parameters, so that a model card names its rows."""
    # Since a record counts once an hour, it does not matter where between hours the rows are cut.
    query, parameters = _window_query(
        model, start_ms, end_ms, source, None, None, None, (), 0, once_by="toStartOfHour(ts), record_id"
    )
    sql = f"""
        SELECT r.record_id AS record_id, r.ts AS ts, {_FEATURES},
            l.label AS label, nullIf(l.label_text, '') AS label_text
        FROM ({query}) AS r
        INNER JOIN ({_labels_of(source)}) AS l ON l.record_id = r.record_id
        ORDER BY ts, record_id
    """  # noqa: S608
    return sql, parameters


def read_segment_values(
    ch: ClickHouse,
    model: str,
    start_ms: int,
    end_ms: int,
    source: Source,
    keys: Sequence[str],
    *,
    below: Mapping[Place, int] | None = None,
    horizon_ms: int = 0,
) -> dict[str, dict[str, str]]:
    """Return {key: {record_id: value}} of a window's rows: what was sent as segment, else the feature of that name.

    Rows without a value are left out; of several of one id the first in the log counts. `below` and `horizon_ms` as of
    `read_window`.
    """
    parameters = _interval(model, start_ms, end_ms) | {"horizon": horizon_ms}
    rows = "" if below is None else _limit_places(below, parameters)
    where = _INTERVAL + rows
    if horizon_ms > 0:
        where += f" AND (record_id, precedence) NOT IN ({_repeated(source, rows)})"
    values: dict[str, dict[str, str]] = {}
    for key in keys:
        found = ch.query(
            f"""
            SELECT record_id, {_SEGMENT_VALUE.replace("KEY", "segment_key")} AS value
            FROM {source} FINAL
            WHERE {where} AND value != ''
            ORDER BY precedence DESC
            LIMIT 1 BY record_id
            """,  # noqa: S608
            parameters | {"segment_key": key},
        )
        values[key] = dict(found)
    return values


def input_source(ch: ClickHouse, model: str, start_ms: int, end_ms: int) -> Source:
    """Where the inputs of an interval come from: `records` if the model has any there, else `predictions`."""
    found = ch.query(
        f"SELECT 1 FROM records WHERE {_INTERVAL} LIMIT 1 SETTINGS final = 0",  # noqa: S608
        _interval(model, start_ms, end_ms),
    )
    return "records" if found else "predictions"


_INTERVAL = """model = {model:String}
    AND ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"""
_AROUND = """model = {model:String}
    AND ts >= fromUnixTimestamp64Milli({start:Int64} - {horizon:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Milli({end:Int64} + {horizon:Int64}, 'UTC')"""
_VERSION = " AND model_version = {version:String}"
# A partition that is not named reads 0 in the map: none of its rows is below that.
_BELOW = """ AND offset < mapFromArrays({below_places:Array(String)}, {below_offsets:Array(UInt64)})[
    concat(toString(topic_id), '/', toString(partition))]"""
# As `EventColumns.segment_values` has it: what was sent as segment, else the feature of that name.
_SEGMENT_VALUE = """multiIf(mapContains(segment, {KEY:String}), segment[{KEY:String}],
    mapContains(features_text, {KEY:String}), features_text[{KEY:String}],
    ifNull(toString(features[{KEY:String}]), ''))"""


def _interval(model: str, start_ms: int, end_ms: int) -> dict[str, Any]:
    return {"model": model, "start": start_ms, "end": end_ms}


def _window_query(
    model: str,
    start_ms: int,
    end_ms: int,
    source: Source,
    model_version: str | None,
    below: Mapping[Place, int] | None,
    segment: str | None,
    segment_values: Sequence[str],
    horizon_ms: int,
    once_by: str = "record_id",
) -> tuple[str, dict[str, Any]]:
    """The window's rows, each identity once, and the parameters of that query."""
    parameters = _interval(model, start_ms, end_ms) | {"horizon": horizon_ms}
    rows = ""
    if source == "predictions" and model_version is None:
        rows += " AND has_features"
    elif source == "predictions":
        rows += _VERSION
        parameters["version"] = model_version
    if below is not None:
        rows += _limit_places(below, parameters)
    where = _INTERVAL + rows
    if horizon_ms > 0:
        where += f" AND (record_id, precedence) NOT IN ({_repeated(source, rows)})"
    if segment is not None:
        where += _segment_condition(segment, segment_values, parameters)
    query = f"SELECT * FROM {source} FINAL WHERE {where}"  # noqa: S608
    if source == "predictions" and model_version is None:
        # Several versions may have scored a record: its features count once, from the first in the log.
        query += f" ORDER BY precedence DESC LIMIT 1 BY {once_by}"
    return query, parameters


def _limit_places(below: Mapping[Place, int], parameters: dict[str, Any]) -> str:
    parameters["below_places"] = [f"{topic_id}/{partition}" for _, topic_id, partition in below]
    parameters["below_offsets"] = list(below.values())
    return _BELOW


def _repeated(source: Source, rows: str) -> str:
    """Rows of the window whose identity stands earlier in the log, at another hour around the window."""
    return f"""
        SELECT here.record_id, here.precedence
        FROM (SELECT record_id, precedence FROM {source} FINAL WHERE {_INTERVAL}{rows}) AS here
        INNER JOIN
        (
            SELECT record_id, max(precedence) AS first FROM {source}
            WHERE {_AROUND}{rows} AND record_id IN (SELECT record_id FROM {source} WHERE {_INTERVAL}{rows})
            GROUP BY record_id
        ) AS anywhere ON anywhere.record_id = here.record_id
        WHERE anywhere.first > here.precedence
    """  # noqa: S608


def _labels_of(source: Source) -> str:
    return f"""
        SELECT record_id, label, label_text FROM labels FINAL
        WHERE model = {{model:String}} AND record_id IN (SELECT record_id FROM {source} WHERE {_INTERVAL})
    """  # noqa: S608


def _segment_condition(segment: str, known: Sequence[str], parameters: dict[str, Any]) -> str:
    key, _, value = segment.partition("=")
    parameters["segment_key"] = key
    found = _SEGMENT_VALUE.replace("KEY", "segment_key")
    if value == OTHER:
        parameters["segment_known"] = ["", *known]
        return f" AND {found} NOT IN {{segment_known:Array(String)}}"
    parameters["segment_value"] = value
    return f" AND {found} = {{segment_value:String}}"


def _segment_columns(keys: Sequence[str], parameters: dict[str, Any]) -> list[str]:
    """What selects the value of each key, and the parameters that it needs."""
    parameters |= {f"segment_key_{index}": key for index, key in enumerate(keys)}
    values = [_SEGMENT_VALUE.replace("KEY", f"segment_key_{index}") for index in range(len(keys))]
    return [f"nullIf({value}, '') AS segment_value_{index}" for index, value in enumerate(values)]


def _limit(limit: int | None) -> str:
    return "" if limit is None else f"LIMIT {int(limit)}"


def _flatten(table: pa.Table, segment_keys: Sequence[str] = ()) -> pa.Table:
    """Give each map's keys columns of their own: `f:` numbers, `t:` texts, `s:` scores; and segments, `g:`."""
    columns: dict[str, Any] = {}
    segments = {f"segment_value_{index}": key for index, key in enumerate(segment_keys)}
    for name in table.column_names:
        column = table.column(name)
        if name == "features":
            columns.update({f"f:{key}": values for key, values in number_columns(column).items()})
        elif name == "features_text":
            columns.update({f"t:{key}": values for key, values in text_columns(column).items()})
        elif name == "scores":
            columns.update({f"s:{key}": values for key, values in number_columns(column).items()})
        else:
            columns[f"g:{segments[name]}" if name in segments else name] = column
    return pa.table(columns)
