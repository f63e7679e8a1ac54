"""References, frozen as rows under their hash: what windows are compared with."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from schemas.texts import TextColumn
from store.client import ClickHouse
from store.maps import number_columns, number_map, text_columns, text_map

SCORES = "scores:"
_OUTPUTS = ("ts", "label", "score", "prediction")

# Rows of one insert: enough to be quick, few enough for the memory of a small server.
_BLOCK = 200_000


def insert_reference(ch: ClickHouse, reference_hash: str, frame: pd.DataFrame) -> None:
    """Store a reference in the order of its rows; safe to replay.

    Columns: `ts` (datetime64 UTC, or epoch ms), `label`, `score`, `prediction`, `scores:CLASS` where there are any;
    every other column is a feature, numbers and booleans as numbers, the rest as texts.
    """
    for start in range(0, len(frame), _BLOCK):
        ch.insert_arrow("reference_rows", _rows(reference_hash, frame.iloc[start : start + _BLOCK], start))


def read_reference(ch: ClickHouse, reference_hash: str) -> pd.DataFrame:
    """The reference in the order of its rows; the columns that `insert_reference` was given and that hold anything."""
    table = ch.query_arrow(
        "SELECT ts, features, features_text, label, label_text, score, scores, prediction, prediction_text "
        "FROM reference_rows FINAL WHERE reference_hash = {hash:String} ORDER BY row_number",
        {"hash": reference_hash},
    )
    columns: dict[str, object] = {"ts": pd.to_datetime(table.column("ts").to_pandas(), utc=True)}
    columns.update(number_columns(table.column("features")))
    columns.update({name: _objects(values) for name, values in text_columns(table.column("features_text")).items()})
    for name in ("label", "prediction"):
        texts = table.column(f"{name}_text").to_pandas()
        if (texts != "").any():
            columns[name] = texts.where(texts != "", None).to_numpy(object)
        elif table.column(name).null_count < table.num_rows:
            columns[name] = _floats(table.column(name))
    if table.column("score").null_count < table.num_rows:
        columns["score"] = _floats(table.column("score"))
    columns.update({f"{SCORES}{name}": values for name, values in number_columns(table.column("scores")).items()})
    return pd.DataFrame(columns)


def has_reference(ch: ClickHouse, reference_hash: str) -> bool:
    """Whether any row stands under this hash."""
    sql = "SELECT 1 FROM reference_rows WHERE reference_hash = {hash:String} LIMIT 1 SETTINGS final = 0"
    return bool(ch.query(sql, {"hash": reference_hash}))


def _rows(reference_hash: str, frame: pd.DataFrame, first: int) -> pa.Table:
    num_rows = len(frame)
    numbers, texts, scores = {}, {}, {}
    for name in map(str, frame.columns):
        if name in _OUTPUTS:
            continue
        if name.startswith(SCORES):
            scores[name.removeprefix(SCORES)] = frame[name].to_numpy(np.float64, na_value=np.nan)
        elif _is_number(frame[name]):
            numbers[name] = frame[name].to_numpy(np.float64, na_value=np.nan)
        else:
            texts[name] = TextColumn.of(_texts(frame[name]))
    table = {
        "reference_hash": pa.repeat(pa.scalar(reference_hash, pa.string()), num_rows),
        "row_number": pa.array(np.arange(first, first + num_rows, dtype=np.uint32)),
        "ts": _instants(frame, num_rows),
        "features": number_map(numbers, num_rows),
        "features_text": text_map(texts, num_rows),
        "scores": number_map(scores, num_rows),
    }
    for name in ("label", "prediction", "score"):
        if name in frame and _is_number(frame[name]):
            values = frame[name].to_numpy(np.float64, na_value=np.nan)
            table[name] = pa.array(values, mask=np.isnan(values))
        elif name in frame and name != "score":
            table[f"{name}_text"] = pa.array(_texts(frame[name]), pa.string()).fill_null("")
    return pa.table(table)


def _instants(frame: pd.DataFrame, num_rows: int) -> pa.Array:
    if "ts" not in frame:
        return pa.array(np.zeros(num_rows, np.int64), pa.timestamp("ms", "UTC"))
    instants = frame["ts"]
    if not pd.api.types.is_numeric_dtype(instants):
        return pa.array(pd.to_datetime(instants, utc=True).dt.floor("ms"), pa.timestamp("ms", "UTC"), safe=False)
    return pa.array(instants.to_numpy(np.int64), pa.timestamp("ms", "UTC"))


def _is_number(column: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _texts(column: "pd.Series[Any]") -> list[str | None]:
    return [None if missing else str(value) for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _floats(column: pa.ChunkedArray) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _objects(values: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    return np.array(values.to_pylist(), dtype=object)
