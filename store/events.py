"""Writing events: columns of one kind and model become rows of `records`, `predictions` or `labels`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import EventColumns
from schemas.texts import TextColumn
from store.client import ClickHouse
from store.event_reads import (
    describe_training_query,
    input_source,
    read_labelled,
    read_segment_values,
    read_training_rows,
    read_window,
)
from store.maps import number_map, text_map

__all__ = [
    "describe_training_query",
    "event_rows",
    "input_source",
    "insert_event_rows",
    "insert_events",
    "read_labelled",
    "read_segment_values",
    "read_training_rows",
    "read_window",
]


def insert_events(ch: ClickHouse, columns: EventColumns, topic: str, topic_id: str, partition: int) -> None:
    """Store events of one partition; safe to replay, since equal places and identities count once."""
    ch.insert_arrow(columns.kind, event_rows(columns, topic, topic_id, partition))


def insert_event_rows(ch: ClickHouse, kind: str, blocks: Sequence[pa.Table]) -> None:
    """Store blocks of `event_rows` of one kind, of any models and partitions, in one insert."""
    if blocks:
        ch.insert_arrow(kind, pa.concat_tables(blocks))


def event_rows(columns: EventColumns, topic: str, topic_id: str, partition: int) -> pa.Table:
    """Rows of the table of this kind, in the order of the events."""
    num_rows = columns.num_rows
    table: dict[str, pa.Array] = {
        "model": _constant(columns.model, num_rows),
        "record_id": _texts(columns.record_id, num_rows),
        "ts": pa.array(columns.ts, pa.timestamp("ms", "UTC")),
        "model_version": _texts(columns.model_version, num_rows),
        "segment": text_map(columns.segment, num_rows),
        "trace_id": _texts(columns.trace_id, num_rows),
        "extra": _texts(columns.extra, num_rows),
        "topic": _constant(topic, num_rows),
        "topic_id": _constant(topic_id, num_rows),
        "partition": pa.array(np.full(num_rows, partition, dtype=np.uint32)),
        "offset": pa.array(columns.offset.astype(np.uint64)),
        "row": pa.array(columns.row.astype(np.uint32)),
    }
    if columns.kind == "labels":
        table["label"] = _numbers(columns.label, num_rows)
        table["label_text"] = _texts(columns.label_text, num_rows)
        return pa.table(table)
    table["features"] = number_map(columns.numbers, num_rows)
    table["features_text"] = text_map(columns.texts, num_rows)
    if columns.kind == "predictions":
        table["prediction"] = _numbers(columns.prediction, num_rows)
        table["prediction_text"] = _texts(columns.prediction_text, num_rows)
        table["score"] = _numbers(columns.score, num_rows)
        table["scores"] = number_map(columns.scores, num_rows)
        has_features = columns.has_features
        table["has_features"] = pa.array(np.zeros(num_rows, np.bool_) if has_features is None else has_features)
    return pa.table(table)


def _constant(text: str, num_rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), num_rows)


def _texts(values: TextColumn | None, num_rows: int) -> pa.Array:
    if values is None:
        return _constant("", num_rows)
    return TextColumn(values.buffer, values.start, np.maximum(values.length, 0)).to_arrow(pa.string())


def _numbers(values: npt.NDArray[np.float64] | None, num_rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(num_rows, pa.float64())
    is_null = np.isnan(values)
    return pa.array(values, pa.float64(), mask=is_null) if is_null.any() else pa.array(values)
