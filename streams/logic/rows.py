"""Rows of a window or of a reference in one shape, as columns, whatever they were read as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from schemas.columns import format_numbers

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]

OTHER = "__other__"
_SCORES = "scores:"


@dataclass(slots=True)
class Rows:
    """n rows; every array has n entries. NaN and None are missing; a column that is not there is not in its dict.

    `segments` has the values of segment keys, of which only the known ones have a segment of their own.
    """

    ts: Ints
    record_id: Texts | None = None
    numbers: dict[str, Floats] = field(default_factory=dict)
    texts: dict[str, Texts] = field(default_factory=dict)
    segments: dict[str, Texts] = field(default_factory=dict)
    score: Floats | None = None
    scores: dict[str, Floats] = field(default_factory=dict)
    prediction: Floats | None = None
    prediction_text: Texts | None = None
    label: Floats | None = None
    label_text: Texts | None = None

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, index: npt.NDArray[Any]) -> Rows:
        """Return the rows at `index` (positions, or a mask), in that order."""
        return Rows(**{each.name: _take(getattr(self, each.name), index) for each in fields(self)})

    def in_segment(self, segment: str, known: Mapping[str, list[str]]) -> Rows:
        """Return the rows of a segment such as "country=DE"; "" is all of them.

        "country=__other__" are the rows that have a value, none of the `known` ones.
        """
        if not segment:
            return self
        key, _, value = segment.partition("=")
        values = self.segments.get(key)
        if values is None:
            return self.take(np.zeros(len(self), dtype=np.bool_))
        if value != OTHER:
            return self.take(values == value)
        own = {None, "", *known.get(key, [])}
        return self.take(np.array([each not in own for each in values.tolist()], dtype=np.bool_))


def list_segments(known: Mapping[str, list[str]]) -> list[str]:
    """Return the names of all segments of a spec, the rest of each key last; the whole model ("") is not among them."""
    return [f"{key}={value}" for key, values in known.items() for value in [*values, OTHER]]


def from_window(table: pa.Table, segments: Mapping[str, Texts] | None = None) -> Rows:
    """Take rows as `store.events` reads windows: `f:`, `t:` and `s:` columns beside the outputs and the label."""
    columns = {name: table.column(name) for name in table.column_names}
    return Rows(
        ts=np.asarray(columns["ts"].cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64),
        record_id=_objects(columns["record_id"]),
        numbers={name[2:]: _floats(column) for name, column in columns.items() if name.startswith("f:")},
        texts={name[2:]: _objects(column) for name, column in columns.items() if name.startswith("t:")},
        segments=dict(segments or {}),
        score=_floats_or_none(columns.get("score")),
        scores={name[2:]: _floats(column) for name, column in columns.items() if name.startswith("s:")},
        prediction=_floats_or_none(columns.get("prediction")),
        prediction_text=_objects_or_none(columns.get("prediction_text")),
        label=_floats_or_none(columns.get("label")),
        label_text=_objects_or_none(columns.get("label_text")),
    )


def from_reference(frame: pd.DataFrame, segment_keys: list[str]) -> Rows:
    """Take rows as `store.reference` reads references; segments come from the features of that name."""
    rows = Rows(ts=frame["ts"].to_numpy(dtype="datetime64[ms]").astype(np.int64))
    for name in map(str, frame.columns):
        values = frame[name].to_numpy()
        is_text = values.dtype.kind == "O"
        if name.startswith(_SCORES):
            rows.scores[name.removeprefix(_SCORES)] = values.astype(np.float64)
        elif name == "score":
            rows.score = values.astype(np.float64)
        elif name in ("label", "prediction"):
            setattr(rows, f"{name}_text" if is_text else name, values if is_text else values.astype(np.float64))
        elif name != "ts" and is_text:
            rows.texts[name] = values
        elif name != "ts":
            rows.numbers[name] = values.astype(np.float64)
    rows.segments = {key: segment_texts(rows, key) for key in segment_keys}
    return rows


def segment_texts(rows: Rows, key: str) -> Texts:
    """Return each row's value of the feature `key` as a segment's value; None where missing."""
    texts = rows.texts.get(key)
    if texts is not None:
        return texts
    numbers = rows.numbers.get(key)
    if numbers is None:
        return np.full(len(rows), None, dtype=object)
    return np.array(format_numbers(numbers), dtype=object)


def _take(column: Any, index: npt.NDArray[Any]) -> Any:
    if isinstance(column, dict):
        return {name: values[index] for name, values in column.items()}
    return None if column is None else column[index]


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _objects(column: pa.ChunkedArray) -> Texts:
    return np.array(column.to_pylist(), dtype=object)


def _floats_or_none(column: pa.ChunkedArray | None) -> Floats | None:
    if column is None or column.null_count == len(column):
        return None
    return _floats(column)


def _objects_or_none(column: pa.ChunkedArray | None) -> Texts | None:
    if column is None or column.null_count == len(column):
        return None
    return _objects(column)
