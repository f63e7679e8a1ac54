"""Rows of a window or of a reference in one shape, as columns, whatever they were read as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from measures.samples import Vocabulary, code_categories, rank_category
from schemas.columns import format_numbers

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Objects = npt.NDArray[np.object_]

OTHER = "__other__"
_SCORES = "scores:"


@dataclass(slots=True)
class Coded:
    """n categories as places in a vocabulary (distinct, ascending by `rank_category`); -1 is missing."""

    codes: npt.NDArray[np.int32]
    vocabulary: Vocabulary

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Coded:
        """Code texts (None is missing) or numbers (NaN is)."""
        if values.dtype.kind != "f":
            codes, vocabulary = code_categories(values)
            return cls(codes.astype(np.int32), vocabulary)
        known = values == values
        # + 0.0 makes -0.0 equal to 0.0 in every bit.
        found, codes = np.unique(values[known] + 0.0, return_inverse=True)
        coded = np.full(len(values), -1, np.int32)
        coded[known] = codes
        return cls._rank(coded, found.tolist())

    @classmethod
    def of_arrow(cls, texts: pa.ChunkedArray | pa.Array) -> Coded:
        """Code an Arrow column of strings; null is missing."""
        joined = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        if isinstance(joined, pa.ChunkedArray):  # of no chunks
            joined = pa.array([], pa.string())
        encoded = joined.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return cls._rank(codes, encoded.dictionary.to_pylist())

    @classmethod
    def _rank(cls, codes: npt.NDArray[np.int32], found: Sequence[Any]) -> Coded:
        order = sorted(range(len(found)), key=lambda index: rank_category(found[index]))
        rank = np.empty(len(found) + 1, np.int32)
        rank[order] = np.arange(len(found))
        rank[-1] = -1  # where the code of missing, -1, points
        return cls(rank[codes], tuple(found[index] for index in order))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: npt.NDArray[Any]) -> Coded:
        return Coded(self.codes[index], self.vocabulary)

    @property
    def nbytes(self) -> int:
        """The memory of the codes."""
        return self.codes.nbytes

    @property
    def is_missing(self) -> npt.NDArray[np.bool_]:
        """Which rows have no value."""
        missing: npt.NDArray[np.bool_] = self.codes < 0
        return missing

    def decode(self) -> Objects:
        """Give the values, None where missing."""
        values: Objects = np.array([*self.vocabulary, None], dtype=object)[self.codes]
        return values

    def look_up(self, table: Mapping[Any, int], default: int, missing: int) -> Ints:
        """Give each row's number in a table of values: `default` where its value is not there."""
        numbers = np.array([*(table.get(value, default) for value in self.vocabulary), missing], np.int64)
        found: Ints = numbers[self.codes]
        return found

    def recode(self, vocabulary: Vocabulary) -> Coded:
        """Give the same over another vocabulary; as it is, where that lacks any of the values."""
        if self.vocabulary == vocabulary:
            return Coded(self.codes, vocabulary)
        place = {value: index for index, value in enumerate(vocabulary)}
        if any(value not in place for value in self.vocabulary):
            return self
        return Coded(self.look_up(place, -1, -1).astype(np.int32), vocabulary)


@dataclass(slots=True)
class Rows:
    """n rows; every column has n entries. NaN and None are missing; a column that is not there is not in its dict.

    `segments` has the values of segment keys, of which only the known ones have a segment of their own.
    """

    ts: Ints
    record_id: Objects | None = None
    numbers: dict[str, Floats] = field(default_factory=dict)
    texts: dict[str, Coded] = field(default_factory=dict)
    segments: dict[str, Coded] = field(default_factory=dict)
    score: Floats | None = None
    scores: dict[str, Floats] = field(default_factory=dict)
    prediction: Floats | None = None
    prediction_text: Objects | None = None
    label: Floats | None = None
    label_text: Objects | None = None

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, index: npt.NDArray[Any]) -> Rows:
        """Return the rows at `index` (positions, or a mask), in that order."""
        return Rows(**{each.name: _take(getattr(self, each.name), index) for each in fields(self)})

    def take_outcomes(self, index: npt.NDArray[Any]) -> Rows:
        """Return of the rows at `index` only what performance is measured on: outputs and labels."""
        kept = Rows(
            self.ts, None, score=self.score, scores=self.scores, prediction=self.prediction,
            prediction_text=self.prediction_text, label=self.label, label_text=self.label_text,
        )  # fmt: skip
        return kept.take(index)

    def split(self, known: Mapping[str, Sequence[str]]) -> dict[str, Ints]:
        """Return the positions, ascending, of the rows of each segment such as "country=DE" that has any.

        "country=__other__" are the rows that have a value, none of the `known` ones.
        """
        parts: dict[str, Ints] = {}
        for key, values in known.items():
            column = self.segments.get(key)
            if column is None:
                continue
            names = [*values, OTHER]
            table = {"": len(names)} | {value: index for index, value in enumerate(values)}
            numbers = column.look_up(table, len(values), len(names))
            order = np.argsort(_narrow(numbers, len(names)), kind="stable")
            ends = np.cumsum(np.bincount(numbers, minlength=len(names) + 1))
            for name, first, end in zip(names, [0, *ends[:-1].tolist()], ends.tolist(), strict=False):
                if end > first:
                    parts[f"{key}={name}"] = order[first:end]
        return parts


def list_segments(known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of all segments of a spec, the rest of each key last; the whole model ("") is not among them."""
    return [f"{key}={value}" for key, values in known.items() for value in [*values, OTHER]]


def from_window(table: pa.Table) -> Rows:
    """Take rows as `store.events` reads windows: `f:`, `t:`, `s:` and `g:` columns beside the outputs and the label."""
    columns = {name: table.column(name) for name in table.column_names}
    return Rows(
        ts=np.asarray(columns["ts"].cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64),
        record_id=_objects(columns["record_id"]),
        numbers={name[2:]: _floats(column) for name, column in columns.items() if name.startswith("f:")},
        texts={name[2:]: Coded.of_arrow(column) for name, column in columns.items() if name.startswith("t:")},
        segments={name[2:]: Coded.of_arrow(column) for name, column in columns.items() if name.startswith("g:")},
        score=_floats_or_none(columns.get("score")),
        scores={name[2:]: _floats(column) for name, column in columns.items() if name.startswith("s:")},
        prediction=_floats_or_none(columns.get("prediction")),
        prediction_text=_objects_or_none(columns.get("prediction_text")),
        label=_floats_or_none(columns.get("label")),
        label_text=_objects_or_none(columns.get("label_text")),
    )


def from_reference(frame: pd.DataFrame, segment_keys: Sequence[str]) -> Rows:
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
            rows.texts[name] = Coded.of(values)
        elif name != "ts":
            rows.numbers[name] = values.astype(np.float64)
    rows.segments = {key: code_segments(rows, key) for key in segment_keys}
    return rows


def code_segments(rows: Rows, key: str) -> Coded:
    """Return each row's value of the feature `key` as a segment's value; missing where it is."""
    texts = rows.texts.get(key)
    if texts is not None:
        return texts
    numbers = rows.numbers.get(key)
    if numbers is None:
        return Coded(np.full(len(rows), -1, np.int32), ())
    return code_numbers(numbers)


def code_numbers(values: Floats) -> Coded:
    """Code numbers as the texts that they are written as."""
    coded = Coded.of(values)
    texts = format_numbers(np.array(coded.vocabulary, dtype=np.float64))
    return Coded._rank(coded.codes, texts.tolist())


def sort_by_time(rows: Rows) -> Ints:
    """Return the positions of the rows in the order of (ts, record_id)."""
    # Arrow compares texts by their UTF-8 bytes, which is the order of Python's texts.
    keys = pa.table({"ts": pa.array(rows.ts), "record_id": pa.array(rows.record_id, pa.string())})
    order = pc.sort_indices(keys, sort_keys=[("ts", "ascending"), ("record_id", "ascending")])
    return order.to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]


def _narrow(numbers: Ints, largest: int) -> npt.NDArray[Any]:
    """NumPy sorts integers of 16 bits by radix, in a fifth of the time."""
    return numbers.astype(np.int16) if largest < np.iinfo(np.int16).max else numbers


def _take(column: Any, index: npt.NDArray[Any]) -> Any:
    if isinstance(column, dict):
        return {name: values[index] for name, values in column.items()}
    return None if column is None else column[index]


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _objects(column: pa.ChunkedArray) -> Objects:
    # Not to_pylist, which makes an Arrow scalar of each first and takes ten times as long.
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _floats_or_none(column: pa.ChunkedArray | None) -> Floats | None:
    if column is None or column.null_count == len(column):
        return None
    return _floats(column)


def _objects_or_none(column: pa.ChunkedArray | None) -> Objects | None:
    if column is None or column.null_count == len(column):
        return None
    return _objects(column)
