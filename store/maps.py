"""Columns to Arrow maps and back: the shape in which features, segments and scores stand in the tables.

A missing key reads NULL there, so nulls are left out; a map is built and taken apart without a loop over rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.native import address, kernels
from schemas.texts import TextColumn

Floats = npt.NDArray[np.float64]
Ends = npt.NDArray[np.int32]

# Arrow counts the bytes of an array of strings in 31 bits.
_BYTES_MAX = 2**31 - 1


def number_map(columns: Mapping[str, Floats], num_rows: int) -> pa.MapArray | pa.ChunkedArray:
    """Map(String, Float64) of each row from float64 columns; NaN is left out."""
    if not columns:
        return _empty_map(num_rows, pa.float64())
    values = [np.ascontiguousarray(column, np.float64) for column in columns.values()]
    pointers = _point_to(values)
    counts = np.empty(len(values), np.int64)
    kernels.count_numbers(address(pointers), len(values), num_rows, address(counts))
    names = _Names(list(columns))
    num_key_bytes = names.measure(counts)
    if num_key_bytes > _BYTES_MAX and num_rows > 1:
        halves = [{name: column[half] for name, column in columns.items()} for half in _halve(num_rows)]
        return _chain([number_map(half, len(next(iter(half.values())))) for half in halves])
    num_entries = int(counts.sum())
    ends, key_ends = np.zeros(num_rows + 1, np.int32), np.zeros(num_entries + 1, np.int32)
    keys, items = np.empty(num_key_bytes, np.uint8), np.empty(num_entries, np.float64)
    kernels.write_number_map(
        address(pointers), len(values), num_rows, address(names.data), address(names.ends), address(ends[1:]),
        address(keys), address(key_ends[1:]), address(items),
    )  # fmt: skip
    return pa.MapArray.from_arrays(pa.array(ends), _strings(key_ends, keys), pa.array(items))


def text_map(columns: Mapping[str, TextColumn], num_rows: int) -> pa.MapArray | pa.ChunkedArray:
    """Map(String, String) of each row from columns of texts; null is left out."""
    if not columns:
        return _empty_map(num_rows, pa.string())
    buffers = [column.buffer for column in columns.values()]
    starts = [np.ascontiguousarray(column.start) for column in columns.values()]
    lengths = [np.ascontiguousarray(column.length) for column in columns.values()]
    counts = np.array([int((length >= 0).sum()) for length in lengths], np.int64)
    names = _Names(list(columns))
    num_key_bytes = names.measure(counts)
    num_bytes = sum(int(np.maximum(length, 0).sum(dtype=np.int64)) for length in lengths)
    if max(num_key_bytes, num_bytes) > _BYTES_MAX and num_rows > 1:
        parts = [{name: column[half] for name, column in columns.items()} for half in _halve(num_rows)]
        return _chain([text_map(part, len(next(iter(part.values())))) for part in parts])
    num_entries = int(counts.sum())
    ends = np.zeros(num_rows + 1, np.int32)
    key_ends, item_ends = np.zeros(num_entries + 1, np.int32), np.zeros(num_entries + 1, np.int32)
    keys, items = np.empty(num_key_bytes, np.uint8), np.empty(num_bytes, np.uint8)
    pointers = [_point_to(buffers), _point_to(starts), _point_to(lengths)]
    kernels.write_text_map(
        *(address(pointer) for pointer in pointers), len(columns), num_rows, address(names.data), address(names.ends),
        address(ends[1:]), address(keys), address(key_ends[1:]), address(items), address(item_ends[1:]),
    )  # fmt: skip
    return pa.MapArray.from_arrays(pa.array(ends), _strings(key_ends, keys), _strings(item_ends, items))


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


def _empty_map(num_rows: int, kind: pa.DataType) -> pa.MapArray:
    ends = pa.array(np.zeros(num_rows + 1, dtype=np.int32))
    return pa.MapArray.from_arrays(ends, pa.array([], pa.string()), pa.array([], kind))


class _Names:
    """Names one behind the other, and where each ends."""

    def __init__(self, names: list[str]) -> None:
        encoded = [name.encode() for name in names]
        self._lengths = np.array([len(name) for name in encoded], np.int64)
        self.data = np.array(bytearray(b"".join(encoded)), np.uint8)
        self.ends = np.cumsum(self._lengths).astype(np.int32)

    def measure(self, counts: npt.NDArray[np.int64]) -> int:
        """Give the bytes of the names, each so many times."""
        return int((counts * self._lengths).sum())


def _point_to(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    return np.array([address(array) for array in arrays], np.uint64)


def _strings(ends: Ends, data: npt.NDArray[np.uint8]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])


def _halve(num_rows: int) -> tuple[slice, slice]:
    return slice(0, num_rows // 2), slice(num_rows // 2, num_rows)


def _chain(parts: list[pa.MapArray | pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for part in parts for chunk in getattr(part, "chunks", [part])])


def _entries(
    maps: pa.ChunkedArray | pa.Array,
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64], pa.Array]:
    """Distinct keys, and of each entry its key's position there, its row, and its item."""
    if len(maps) == 0:  # the answer to a query that finds nothing has no chunk at all
        return [], np.array([], np.int64), np.array([], np.int64), pa.array([], pa.null())
    array = pa.concat_arrays(maps.chunks) if isinstance(maps, pa.ChunkedArray) else maps
    offsets = array.offsets.to_numpy()
    first, end = int(offsets[0]), int(offsets[-1])
    keys = array.keys.cast(pa.string()).slice(first, end - first).dictionary_encode()
    rows = np.repeat(np.arange(len(array), dtype=np.int64), np.diff(offsets))
    codes = keys.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return keys.dictionary.to_pylist(), codes, rows, array.items.slice(first, end - first)
