"""Arrow IPC streams: thousands of events in one message, one feature a column of the struct `features`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codecs.blocks import Block, Mapping, Positions, Refusal
from schemas.problems import Problem, wrong_type
from schemas.values import Values, listed

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
MAGIC = b"\xff\xff\xff\xff"

# A compressed message may unfold: 10 MB of it to no more than this.
_UNFOLDED_BYTES_MAX = 512 * 1024 * 1024


class _Unfolded(Exception):
    """A stream unfolds beyond the limit."""


class ArrowBlock:
    """Rows of one message as an Arrow table of one chunk a column."""

    def __init__(self, table: pa.Table, message: Positions, row: npt.NDArray[np.int32]) -> None:
        self.table = table
        self.message = message
        self.row = row

    def column(self, name: str) -> Values:
        if name not in self.table.column_names:
            return [None] * len(self.row)
        return _single(self.table.column(name))

    def mapping(self, name: str) -> Mapping:
        values = self.column(name)
        if isinstance(values, pa.StructArray):
            columns = dict(zip(values.type.names, values.flatten(), strict=True))
            present = pc.is_valid(values).to_numpy(zero_copy_only=False)
            return Mapping({key: _single(columns[key]) for key in sorted(columns)}, present, {})
        maps: list[Any] = [_as_dictionary(value) for value in listed(values)]
        present = np.array([isinstance(value, dict) for value in maps], dtype=np.bool_)
        problems = {}
        for position in np.flatnonzero(~present).tolist():
            if maps[position] is not None:
                problems[position] = wrong_type(name, maps[position], "a struct or a map")
            maps[position] = {}
        keys = sorted(set().union(*maps))
        return Mapping({key: [value.get(key) for value in maps] for key in keys}, present, problems)

    def unknown_fields(self, known: frozenset[str]) -> list[dict[str, object] | None] | None:
        names = [name for name in self.table.column_names if name not in known]
        if not names:
            return None
        columns = [listed(self.column(name)) for name in names]
        return [
            {name: value for name, value in zip(names, values, strict=True) if value is not None} or None
            for values in zip(*columns, strict=True)
        ]

    def raw(self, position: int) -> bytes:
        event = {name: listed(self.column(name)[position : position + 1])[0] for name in self.table.column_names}
        return json.dumps(event, default=_write_other).encode()

    def take(self, positions: Positions) -> Block:
        return ArrowBlock(self.table.take(pa.array(positions)), self.message[positions], self.row[positions])


def decode_arrow(value: bytes, message: int) -> Iterator[Block | Refusal]:
    """Decode one message; a stream that cannot be read whole is refused whole."""
    try:
        table = _read_table(value)
    except _Unfolded:
        problem = Problem("too_large", "", "The Arrow stream unfolds to over 512 MiB. Send smaller batches.")
        yield Refusal(message, 0, problem, value)
    except (pa.ArrowException, ValueError, OSError, KeyError, NotImplementedError, MemoryError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        sentence = f"The message is no Arrow stream: {text}. Send a complete Arrow IPC stream."
        yield Refusal(message, 0, Problem("malformed", "", sentence), value)
    else:
        num_rows = table.num_rows
        if num_rows:
            yield ArrowBlock(table, np.full(num_rows, message, dtype=np.int64), np.arange(num_rows, dtype=np.int32))


def _read_table(value: bytes) -> pa.Table:
    batches, num_bytes = [], 0
    with pa.ipc.open_stream(value) as reader:
        for batch in reader:
            num_bytes += batch.nbytes
            if num_bytes > _UNFOLDED_BYTES_MAX:
                raise _Unfolded
            # What a stranger sends may point outside its own buffers: nothing is read before this says no.
            batch.validate(full=True)
            batches.append(batch)
        schema = reader.schema
    if len(set(schema.names)) != len(schema.names):
        raise ValueError("two columns have one name")
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _single(column: Any) -> pa.Array:
    """Give a plain array: one chunk, without dictionary or extension type."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column


def _as_dictionary(value: Any) -> Any:
    """Give a map's entries, which Arrow lists as pairs, as a dictionary."""
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return {str(key): part for key, part in value}
    return value


def _write_other(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
