"""Arrow IPC streams: thousands of events in one message, one feature a column of the struct `features`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codecs.blocks import Block, Mapping, Positions, Refusal
from schemas.problems import Problem, wrong_type
from schemas.texts import TextColumn
from schemas.values import Values, listed

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
MAGIC = b"\xff\xff\xff\xff"

# A compressed message may unfold: 10 MB of it to no more than this.
_UNFOLDED_BYTES_MAX = 512 * 1024 * 1024
# Columns of nulls take no bytes at all: 100 million cells are 10,000 columns of 10,000 rows.
_UNFOLDED_CELLS_MAX = 100_000_000


# Messages that share a block have no more than this together.
_JOINED_BYTES_MAX = 64 * 1024 * 1024
_JOINED_CELLS_MAX = 20_000_000


class _Unfolded(Exception):
    """A stream unfolds beyond the limit."""


class ArrowBlock:
    """Rows of messages with one schema as Arrow arrays by field."""

    def __init__(self, columns: dict[str, pa.Array], message: Positions, row: npt.NDArray[np.int32]) -> None:
        self.columns = columns
        self.message = message
        self.row = row

    def column(self, name: str) -> Values:
        column = self.columns.get(name)
        return pa.nulls(len(self.row)) if column is None else column

    def mapping(self, name: str) -> Mapping:
        values = self.column(name)
        if isinstance(values, pa.NullArray):
            return Mapping({}, np.zeros(len(values), dtype=np.bool_), {})
        if isinstance(values, pa.StructArray):
            columns = dict(zip(values.type.names, values.flatten(), strict=True))
            present = np.ones(len(values), dtype=np.bool_)
            if values.null_count:
                present = values.is_valid().to_numpy(zero_copy_only=False)
            return Mapping({key: columns[key] for key in sorted(columns)}, present, {})
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
        names = [name for name in self.columns if name not in known]
        if not names:
            return None
        columns = [listed(self.columns[name]) for name in names]
        return [
            {name: value for name, value in zip(names, values, strict=True) if value is not None} or None
            for values in zip(*columns, strict=True)
        ]

    def num_names(self) -> int:
        # Decoding has seen to it that there are not too many for the rows.
        return 0

    def raw(self, positions: list[int]) -> list[bytes]:
        index = pa.array(positions, pa.int64())
        columns = [listed(column.take(index)) for column in self.columns.values()]
        events = [dict(zip(self.columns, values, strict=True)) for values in zip(*columns, strict=True)]
        return [json.dumps(event, default=_write_other).encode() for event in events]

    def take(self, positions: Positions) -> Block:
        index = pa.array(positions)
        columns = {name: column.take(index) for name, column in self.columns.items()}
        return ArrowBlock(columns, self.message[positions], self.row[positions])


def decode_arrow(values: Sequence[bytes], messages: Sequence[int]) -> Iterator[Block | Refusal]:
    """Decode messages; a stream that cannot be read whole is refused whole. Those of one schema share blocks."""
    group = _Group()
    for value, message in zip(values, messages, strict=True):
        try:
            table = _read_table(value)
        except _Unfolded:
            problem = Problem("too_large", "", "The Arrow stream unfolds to too much. Send smaller batches.")
            yield Refusal(message, 0, problem, value)
        except (pa.ArrowException, ValueError, OSError, KeyError, NotImplementedError, MemoryError) as error:
            text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            sentence = f"The message is no Arrow stream: {text}. Send a complete Arrow IPC stream."
            yield Refusal(message, 0, Problem("malformed", "", sentence), value)
        else:
            if group.tables and not group.takes(table):
                yield group.make_block()
                group = _Group()
            if table.num_rows:
                group.add(table, message)
    if group.tables:
        yield group.make_block()


class _Group:
    """Messages that will share a block."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self._messages: list[int] = []
        self._num_bytes = 0
        self._num_rows = 0

    def takes(self, table: pa.Table) -> bool:
        """Tell whether the block would not be too large with one more, and of one schema."""
        num_cells = (self._num_rows + table.num_rows) * _num_leaves(table.schema)
        is_small = self._num_bytes + table.nbytes <= _JOINED_BYTES_MAX and num_cells <= _JOINED_CELLS_MAX
        return is_small and bool(table.schema.equals(self.tables[0].schema))

    def add(self, table: pa.Table, message: int) -> None:
        """Take in one more."""
        self.tables.append(table)
        self._messages.append(message)
        self._num_bytes += table.nbytes
        self._num_rows += table.num_rows

    def make_block(self) -> Block:
        """Give all of them as one block."""
        table = pa.concat_tables(self.tables)
        columns = {name: _one_chunk(table.column(name)) for name in table.schema.names}
        sizes = [table.num_rows for table in self.tables]
        row = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
        return ArrowBlock(columns, np.repeat(np.array(self._messages), sizes), row)


class _Budget:
    """What one message may still unfold to."""

    def __init__(self) -> None:
        self._num_bytes = _UNFOLDED_BYTES_MAX
        self._num_cells = _UNFOLDED_CELLS_MAX

    def spend(self, num_bytes: int, num_cells: int = 0) -> None:
        """Raise _Unfolded where it is not enough."""
        self._num_bytes -= num_bytes
        self._num_cells -= num_cells
        if self._num_bytes < 0 or self._num_cells < 0:
            raise _Unfolded


def _read_table(value: bytes) -> pa.Table:
    batches, budget = [], _Budget()
    with pa.ipc.open_stream(value) as reader:
        for batch in reader:
            budget.spend(batch.nbytes, batch.num_rows * _num_leaves(batch.schema))
            # What a stranger sends may point outside its own buffers: nothing is read before this says no.
            batch.validate(full=True)
            batches.append(batch)
        schema = reader.schema
    if not schema.names and any(batch.num_rows for batch in batches):
        raise ValueError("it has rows and no columns")
    if len(set(schema.names)) != len(schema.names):
        raise ValueError("two columns have one name")
    table = pa.Table.from_batches(batches, schema)
    if all(_is_settled(field.type, field.name == "ts") for field in schema):
        return table
    columns = [_simplify(_one_chunk(table.column(name)), name, budget) for name in schema.names]
    return pa.table(columns, names=schema.names)


@lru_cache(maxsize=1_000)
def _num_leaves(kind: pa.Schema | pa.DataType) -> int:
    """Count the columns of a schema, those within structs too; where there are none, rows still count."""
    fields = [kind.field(index).type for index in range(len(kind) if isinstance(kind, pa.Schema) else kind.num_fields)]
    return max(1, sum(_num_leaves(field) if pa.types.is_struct(field) else 1 for field in fields))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@lru_cache(maxsize=1_000)
def _is_settled(kind: pa.DataType, is_time: bool) -> bool:
    """True for types that the readers know as they are."""
    if pa.types.is_struct(kind):
        return len(set(kind.names)) == kind.num_fields > 0 and all(_is_settled(field.type, False) for field in kind)
    return _is_plain(kind) or (is_time and pa.types.is_timestamp(kind))


def _simplify(array: pa.Array, name: str, budget: _Budget) -> pa.Array:
    """Give an array of the types that the readers know; ValueError for one that no event field can have.

    It is done here, before any row is looked at, so that a stranger's exotic type refuses the message as a whole.
    """
    kind = array.type
    if _is_settled(kind, name == "ts"):
        return array
    if isinstance(array, pa.ExtensionArray):
        return _simplify(array.storage, name, budget)
    if isinstance(array, pa.DictionaryArray):
        budget.spend(_measure_decoded(array))
        return _simplify(array.dictionary_decode(), name, budget)
    if isinstance(array, pa.StructArray):
        names = kind.names
        if len(set(names)) != len(names):
            raise ValueError(f"two fields of {name} have one name")
        parts = [_simplify(part, f"{name}.{key}", budget) for key, part in zip(names, array.flatten(), strict=True)]
        # A struct without fields has no parts to take its length from.
        return pa.StructArray.from_arrays(parts, names=names, mask=array.is_null()) if parts else array
    if pa.types.is_temporal(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    raise ValueError(f"{name} is of type {kind}, which no field of an event has")


def _measure_decoded(array: pa.DictionaryArray) -> int:
    """Give the bytes that an array takes without its dictionary, at most: one long text may stand in every row."""
    dictionary = array.dictionary
    if pa.types.is_string(dictionary.type) and len(dictionary):
        length = np.maximum(TextColumn.of_arrow(dictionary).length, 0)
        return int(length[array.indices.drop_null().to_numpy()].sum(dtype=np.int64))
    if pa.types.is_primitive(dictionary.type):
        return 8 * len(array)
    return len(array) * int(dictionary.nbytes)


def _is_plain(kind: pa.DataType) -> bool:
    """True for the types whose Python values are JSON's, or bytes."""
    if pa.types.is_map(kind):
        return _is_plain(kind.key_type) and _is_plain(kind.item_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))
    checks = (
        pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64,
        pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary,
    )  # fmt: skip
    return any(check(kind) for check in checks)


def _as_dictionary(value: Any) -> Any:
    """Give a map's entries, which Arrow lists as pairs, as a dictionary."""
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return {str(key): part for key, part in value}
    return value


def _write_other(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
