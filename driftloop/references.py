"""The reference of a spec: read, made into events, and taken through the one validation that events go through.

So a reference row means what an event with the same content means: the same types, texts and personal-data policy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from clickhouse_connect.driver.exceptions import DatabaseError

from driftloop.replay.source import match_pattern, read_table, read_times, require_column
from schemas.columns import EventColumns, Kind, concatenate
from schemas.declarations import DEFAULT_INTERVAL_MS, ModelSpec
from schemas.descriptors import DESCRIPTORS
from schemas.errors import ConfigurationError
from schemas.messages import MessageBatch
from schemas.spec import Catalogue, PublishedSpec
from schemas.validation import validate
from store.client import ClickHouse
from store.event_reads import read_labelled

# Some time that is valid for an event.
_KAFKA_TIME_MS = 1_767_225_600_000
ROWS_A_MESSAGE = 20_000


@dataclass(frozen=True, slots=True)
class ReferenceTable:
    """A reference as it was found: features by their names, and what else each row has, in row order."""

    features: pd.DataFrame
    ts_ms: np.ndarray
    label: pd.Series | None
    score: pd.Series | None
    prediction: pd.Series | None
    scores: dict[str, pd.Series]
    origin: str

    @property
    def num_rows(self) -> int:
        return len(self.features)


def load_reference(spec: ModelSpec, folder: Path, store: ClickHouse) -> ReferenceTable:
    """Read the reference from its file, query or interval; ConfigurationError for what is missing in it."""
    source = spec.reference
    if source.file is not None:
        path = folder / source.file
        return split_columns(read_table(path), spec, str(path))
    if source.sql is not None:
        return split_columns(query_reference(store, source.sql), spec, "reference.sql")
    assert source.from_ is not None
    assert source.to is not None
    stored = read_stored(store, spec.model, source.from_, source.to)
    return split_columns(restore_contents(stored, spec), spec, "reference.from")


def query_reference(store: ClickHouse, sql: str) -> pd.DataFrame:
    """Rows of the spec's own query; a query that ClickHouse refuses is a mistake in the spec."""
    try:
        return store.query_frame(sql)
    except DatabaseError as error:
        raise ConfigurationError(str(error).splitlines()[0], key="reference.sql") from error


def read_stored(store: ClickHouse, model: str, from_ms: int, to_ms: int) -> pd.DataFrame:
    """Stored predictions of outside versions with their labels, as a table of features, score, prediction and label."""
    table: pd.DataFrame = read_labelled(store, model, "external", from_ms, to_ms, with_features=True).to_pandas()
    if table.empty:
        raise ConfigurationError(
            f"there are no predictions of {model} stored between these times",
            key="reference",
            remedy="Check from and to",
        )
    frame = table.rename(columns={name: name[2:] for name in table.columns if name[:2] in ("f:", "t:")})
    frame = frame.drop(columns=["has_label", "has_features", "model_version"], errors="ignore")
    for name in ("label", "prediction"):
        text = f"{name}_text"
        if text in frame:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), frame[text].replace("", None))
            frame = frame.drop(columns=text)
    frame = frame.rename(columns={"record_id": "id"})
    return frame.sort_values(["ts", "id"], ignore_index=True)


def restore_contents(frame: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """The table as events brought it: lists and blobs that are declared so, and no descriptors, which are computed."""
    names = {f"{name}.{each}" for name in frame.columns for of_type in DESCRIPTORS.values() for each in of_type}
    frame = frame.drop(columns=names.intersection(frame.columns))
    for name, feature in spec.features.items():
        if feature.type in ("embedding", "image") and name in frame:
            values = [msgspec.json.decode(text) if isinstance(text, str) else None for text in frame[name]]
            frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def split_columns(frame: pd.DataFrame, spec: ModelSpec, origin: str) -> ReferenceTable:
    """Tell the features of a table from its id, time, label and outputs."""
    if frame.empty:
        raise ConfigurationError("the reference has no rows", file=origin, key="reference")
    declared = spec.reference.columns
    names: dict[str, str | None] = {}
    for role in ("label", "score", "prediction", "id", "ts"):
        named = getattr(declared, role)
        require_column(frame, named, Path(origin))
        names[role] = named or (role if role in frame.columns and role not in spec.features else None)
    scores = match_pattern(frame, declared.scores, Path(origin), "reference.columns.scores")
    used = {name for name in names.values() if name} | set(scores.values())
    features = [str(name) for name in frame.columns if name not in used]
    missing = [name for name in spec.features if name not in frame.columns]
    if missing:
        raise ConfigurationError(
            f"lacks the features {', '.join(missing)}", file=origin, key="features",
            remedy=f"The columns are: {', '.join(map(str, frame.columns))}",
        )  # fmt: skip
    if spec.features:
        features = list(spec.features)

    def column(role: str) -> pd.Series | None:
        name = names[role]
        return frame[name] if name else None

    return ReferenceTable(
        frame[features], reference_times(frame, names["ts"], spec, origin), column("label"), column("score"),
        column("prediction"), {name: frame[c] for name, c in scores.items()}, origin,
    )  # fmt: skip


def reference_times(frame: pd.DataFrame, column: str | None, spec: ModelSpec, origin: str) -> np.ndarray:
    """The time column, or `interval` from row to row in file order, beginning at the windows' origin."""
    if column is None or spec.reference.interval_ms is not None:
        interval_ms = spec.reference.interval_ms or DEFAULT_INTERVAL_MS
        return spec.windows.origin_ms + np.arange(len(frame), dtype=np.int64) * interval_ms
    return read_times(frame, column, Path(origin))


def freeze_reference(table: ReferenceTable, spec: ModelSpec, privacy_key: bytes) -> pd.DataFrame:
    """The reference as it is stored: columns by feature name, `ts` (epoch ms), label, score, prediction, scores:CLASS.

    Raises ConfigurationError naming the first row that an event with the same content would be refused for.
    """
    inputs = run_validation("predictions" if has_outputs(table) else "records", table, spec, privacy_key)
    frame = pd.DataFrame({"ts": table.ts_ms})
    for name, numbers in inputs.numbers.items():
        frame[name] = numbers
    for name, texts in inputs.texts.items():
        frame[name] = np.array(texts, dtype=object)
    if has_outputs(table):
        add_outputs(frame, inputs)
    if table.label is not None:
        labels = run_validation("labels", table, spec, privacy_key)
        rows = np.array([int(record_id or "") for record_id in labels.record_id])
        values = labels.label if spec.task != "multiclass" else labels.label_text
        column = np.full(len(frame), np.nan) if spec.task != "multiclass" else np.full(len(frame), None, object)
        column[rows] = np.array(values, dtype=column.dtype)
        frame["label"] = column
    return frame.copy()


def has_outputs(table: ReferenceTable) -> bool:
    return table.score is not None or table.prediction is not None or bool(table.scores)


def add_outputs(frame: pd.DataFrame, inputs: EventColumns) -> None:
    if inputs.score is not None and not np.isnan(inputs.score).all():
        frame["score"] = inputs.score
    if inputs.prediction is not None and not np.isnan(inputs.prediction).all():
        frame["prediction"] = inputs.prediction
    elif inputs.prediction_text is not None and any(inputs.prediction_text):
        frame["prediction"] = np.array(inputs.prediction_text, dtype=object)
    for name, values in inputs.scores.items():
        frame[f"scores:{name}"] = values


def run_validation(kind: Kind, table: ReferenceTable, spec: ModelSpec, privacy_key: bytes) -> EventColumns:
    """The valid events of the reference; rows are numbered by their record_id."""
    catalogue = Catalogue()
    catalogue.add(
        PublishedSpec(
            spec=spec,
            spec_version=1,
            effective_from=0,
            published_at=0,
            reference_hash="",
            reference_rows=table.num_rows,
        )
    )
    messages, rows = encode_messages(kind, table, spec)
    num = len(messages)
    batch = MessageBatch("reference", "", 0, np.arange(num), np.full(num, _KAFKA_TIME_MS), list(messages))
    validated = validate(kind, batch, catalogue, privacy_key)
    if validated.dead:
        first = validated.dead[0]
        row = rows[first.offset * ROWS_A_MESSAGE + first.row]
        raise ConfigurationError(
            f"row {row} is not valid ({len(validated.dead)} rows are not): {first.message}",
            file=table.origin, key=first.path or "reference",
        )  # fmt: skip
    return concatenate(validated.columns)


def encode_messages(kind: Kind, table: ReferenceTable, spec: ModelSpec) -> tuple[list[bytes], np.ndarray]:
    """Arrow messages of ROWS_A_MESSAGE rows each, and which row of the table each row is: not all have a label."""
    columns: dict[str, pa.Array] = {
        "record_id": pa.array([str(row) for row in range(table.num_rows)]),
        "model": pa.array([spec.model] * table.num_rows),
        # Times of a reference are no event times: synthetic ones may begin in 1970.
        "ts": pa.array(np.full(table.num_rows, _KAFKA_TIME_MS)),
    }
    keep = np.arange(table.num_rows)
    if kind == "labels":
        assert table.label is not None
        columns["label"] = to_arrow(table.label)
        keep = np.flatnonzero(table.label.notna().to_numpy())
    else:
        names = list(table.features.columns)
        values = [to_arrow(table.features[name]) for name in names]
        columns["features"] = pa.StructArray.from_arrays(values, names=names)
    if kind == "predictions":
        if table.score is not None:
            columns["score"] = to_arrow(table.score)
        if table.prediction is not None:
            columns["prediction"] = to_arrow(table.prediction)
        if table.scores:
            columns["scores"] = pa.StructArray.from_arrays(
                [to_arrow(values) for values in table.scores.values()], names=list(table.scores)
            )
    rows = pa.table(columns).take(pa.array(keep))
    starts = range(0, max(1, rows.num_rows), ROWS_A_MESSAGE)
    return [encode_stream(rows.slice(start, ROWS_A_MESSAGE)) for start in starts], keep


def encode_stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return bytes(sink.getvalue())


def to_arrow(column: pd.Series) -> pa.Array:
    """A column as Arrow, NaN as null; mixed types as text."""
    try:
        array = pa.Array.from_pandas(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        array = pa.array([None if value is None or value != value else str(value) for value in column])
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def hash_reference(frame: pd.DataFrame) -> str:
    """Content hash of a frozen reference: its columns by name and its rows in order."""
    digest = hashlib.sha256()
    for name in sorted(frame.columns):
        digest.update(name.encode() + b"\0")
        digest.update(pd.util.hash_pandas_object(frame[name], index=False).to_numpy().tobytes())
    return digest.hexdigest()[:32]
