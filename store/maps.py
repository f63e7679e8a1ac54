"""Columns to Arrow maps and back: the shape in which features, segments and scores stand in the tables.

A missing key reads NULL there, so nulls are left out; a map is built and taken apart without a loop over rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]


def number_map(columns: Mapping[str, Floats], num_rows: int) -> pa.MapArray:
    """Map(String, Float64) of each row from float64 columns; NaN is left out."""
    if not columns:
        return _empty_map(num_rows, pa.float64())
    table = np.column_stack([np.asarray(values, dtype=np.float64) for values in columns.values()])
    present = ~np.isnan(table)
    return _map(list(columns), present, pa.array(table[present], pa.float64()))


def text_map(columns: Mapping[str, Sequence[str | None]], num_rows: int) -> pa.MapArray:
    """Map(String, String) of each row from columns of texts; None is left out."""
    if not columns:
        return _empty_map(num_rows, pa.string())
    # Column after column; the n-th row's k-th entry stands at k * num_rows + n.
    stacked = pa.concat_arrays([pa.array(values, pa.string()) for values in columns.values()])
    present = stacked.is_valid().to_numpy(zero_copy_only=False).reshape(len(columns), num_rows).T
    positions = np.arange(len(stacked), dtype=np.int64).reshape(len(columns), num_rows).T
    return _map(list(columns), present, stacked.take(pa.array(positions[present])))


def number_columns(maps: pa.ChunkedArray | pa.Array) -> dict[str, Floats]:
    """Float64 column of each key that occurs, NaN where a row lacks it; sorted by key."""
    names, codes, rows, items = _entries(maps)
    values = items.to_numpy(zero_copy_only=False).astype(np.float64)
    columns = {}
    for code in np.argsort(np.array(names, dtype=object)).tolist():
        column = np.full(len(maps), np.nan)
        mask = codes == code
        column[rows[mask]] = values[mask]
        columns[names[code]] = column
    return columns


def text_columns(maps: pa.ChunkedArray | pa.Array) -> dict[str, pa.Array]:
    """String column of each key that occurs, null where a row lacks it; sorted by key."""
    names, codes, rows, items = _entries(maps)
    columns = {}
    for code in np.argsort(np.array(names, dtype=object)).tolist():
        position = np.zeros(len(maps), dtype=np.int64)
        absent = np.ones(len(maps), dtype=np.bool_)
        entries = np.flatnonzero(codes == code)
        position[rows[entries]] = entries
        absent[rows[entries]] = False
        columns[names[code]] = items.take(pa.array(position, mask=absent))
    return columns


def _map(names: list[str], present: npt.NDArray[np.bool_], items: pa.Array) -> pa.MapArray:
    offsets = np.zeros(len(present) + 1, dtype=np.int32)
    np.cumsum(present.sum(axis=1), out=offsets[1:])
    key_codes = np.broadcast_to(np.arange(len(names), dtype=np.int32), present.shape)[present]
    return pa.MapArray.from_arrays(pa.array(offsets), pa.array(names, pa.string()).take(pa.array(key_codes)), items)


def _empty_map(num_rows: int, kind: pa.DataType) -> pa.MapArray:
    offsets = pa.array(np.zeros(num_rows + 1, dtype=np.int32))
    return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), pa.array([], kind))


def _entries(
    maps: pa.ChunkedArray | pa.Array,
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64], pa.Array]:
    """Distinct keys, and of each entry its key's position there, its row, and its item."""
    array = pa.concat_arrays(maps.chunks) if isinstance(maps, pa.ChunkedArray) else maps
    if len(array) == 0:
        return [], np.array([], np.int64), np.array([], np.int64), pa.array([], pa.null())
    offsets = array.offsets.to_numpy()
    first, end = int(offsets[0]), int(offsets[-1])
    keys = pc.cast(array.keys, pa.string()).slice(first, end - first).dictionary_encode()
    rows = np.repeat(np.arange(len(array), dtype=np.int64), np.diff(offsets))
    codes = keys.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return keys.dictionary.to_pylist(), codes, rows, array.items.slice(first, end - first)
