"""JSON events straight to columns, by the kernel; what is no usual event is left to the reader of any JSON.

Both give the same values: which of them reads a message is a matter of speed alone.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codecs.blocks import MAPS, MESSAGE_BYTES_MAX, NAMES_MAX, Block, Mapping, Positions
from schemas.messages import MessageValues
from schemas.native import address, kernels
from schemas.problems import wrong_type
from schemas.shredded import MAP, MISSING, NULL, ShreddedColumn
from schemas.values import Values

# A block has at most as many cells: 13 bytes each, written only where events have such a column.
_CELLS_MAX = 8_000_000
_ROWS_MAX = 32_768
_BYTES_MAX = 16_000_000
# The kernel looks as far beyond a message's end; each is followed by a zero byte, which no JSON has.
_PADDING = 128
_END = b"\0"
# Columns lie a whole and odd number of cache lines apart: at a power of two they would push each other out.
_LINE = 64

_POWER_MIN, _POWER_MAX = -342, 308
_SEED = secrets.randbits(63)
_WRONG_NUMBER, _IS_FULL = -2, -3
_FEW_COLUMNS = 128

# Behind the messages stand the names of the maps, and what is only looked at.
_TAIL = np.frombuffer("".join(MAPS).encode() + bytes(_PADDING), np.uint8)
_MAP_LENGTHS = np.array([len(name) for name in MAPS])
_MAP_STARTS = np.cumsum(_MAP_LENGTHS) - _MAP_LENGTHS


def _list_powers() -> npt.NDArray[np.uint64]:
    """Give the first 128 bits of 5^q, upper half and lower, for each power of ten that the kernel multiplies with."""
    powers = []
    for q in range(_POWER_MIN, _POWER_MAX + 1):
        five = 5 ** abs(q)
        if q >= 0:
            bits = five << 128 >> five.bit_length()
        else:
            # Rounded up, as the proof wants it; the smallest keep one bit more than they are cut to.
            bits = (1 << ((five - 1).bit_length() + 127 if q >= -27 else 2 * (five - 1).bit_length() + 128)) // five + 1
            bits >>= max(0, bits.bit_length() - 128)
        powers.append((bits >> 64, bits & (1 << 64) - 1))
    return np.array(powers, np.uint64)


_POWERS = _list_powers()


class _Job(ctypes.Structure):
    """What the kernel takes, see `native/json.c`."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("end", "n", "stride", "capacity", "num_maps", "stops_when_full", "seed")),
        *((name, ctypes.c_void_p) for name in ("powers", "start", "tags", "slots", "lengths")),
        *((name, ctypes.c_void_p) for name in ("key_start", "key_length", "owner", "kinds", "is_usual")),
    )


class _Shredded:
    """Messages taken apart: columns by name, those of maps by (map, key); `is_usual` bool[n] tells which were."""

    def __init__(self, values: MessageValues) -> None:
        self.num = len(values)
        self.is_usual = np.empty(self.num, np.bool_)
        self.columns: dict[str, ShreddedColumn] = {}
        self.maps: dict[str, dict[str, ShreddedColumn]] = {name: {} for name in MAPS}
        self._start = np.empty(self.num + 1, np.int64)
        # Few columns are the rule, and memory for all that there may be would be fetched anew each time.
        found = self._run(values, _FEW_COLUMNS)
        if found == _IS_FULL:
            found = self._run(values, NAMES_MAX)
        if found == _WRONG_NUMBER:
            whole = [b"" if value is None or _END in value else value for value in values]
            found = self._run(MessageValues.of(whole), NAMES_MAX)
        if found < 0:
            raise MemoryError("no memory to take events apart")
        self.is_usual &= np.diff(self._start) - len(_END) <= MESSAGE_BYTES_MAX

    def _run(self, values: MessageValues, num_columns_max: int) -> int:
        num = self.num
        buffer, end = _copy(values)
        stride = (num // _LINE | 1) * _LINE
        stride += 2 * _LINE * (stride < num)
        capacity = min(num_columns_max, _CELLS_MAX // stride)
        shape = (capacity, stride)
        tags, slots, lengths = np.empty(shape, np.uint8), np.empty(shape, np.float64), np.empty(shape, np.int32)
        key_start, key_length = np.empty(capacity, np.int64), np.empty(capacity, np.int32)
        key_start[: len(MAPS)], key_length[: len(MAPS)] = _MAP_STARTS + end, _MAP_LENGTHS
        owner, kinds = np.empty(capacity, np.int32), np.empty(capacity, np.uint32)
        arrays = (_POWERS, self._start, tags, slots, lengths, key_start, key_length, owner, kinds, self.is_usual)
        job = _Job(
            address(buffer), end, num, stride, capacity, len(MAPS), num_columns_max < NAMES_MAX, _SEED,
            *(address(array) for array in arrays),
        )  # fmt: skip
        num_columns = int(kernels.shred_json(ctypes.byref(job)))
        for index in np.flatnonzero(kinds[: max(num_columns, 0)]).tolist():
            key = buffer[key_start[index] : key_start[index] + key_length[index]].tobytes().decode()
            siblings = self.columns if owner[index] < 0 else self.maps[MAPS[owner[index]]]
            siblings[key] = ShreddedColumn(
                buffer, tags[index, :num], slots[index, :num], lengths[index, :num], int(kinds[index])
            )
        return num_columns


def _copy(values: MessageValues) -> tuple[npt.NDArray[np.uint8], int]:
    """Put messages one behind the other, each with its end mark; gives them and where they end."""
    behind = np.cumsum(values.length + np.int64(len(_END)))
    end = int(behind[-1])
    buffer = np.empty(end + len(_TAIL), np.uint8)
    start = behind - values.length - len(_END)
    kernels.gather_texts(
        address(values.buffer), address(np.ascontiguousarray(values.start)),
        address(np.ascontiguousarray(values.length)), len(values), address(start), address(buffer),
    )  # fmt: skip
    buffer[behind - len(_END)] = 0
    buffer[end:] = _TAIL
    return buffer, end


class ShreddedBlock:
    """Usual events, at `index` of the messages that were taken apart together (None: all of them)."""

    def __init__(self, shredded: _Shredded, sent: MessageValues, messages: Positions, index: Positions | None) -> None:
        self._shredded = shredded
        self._sent = sent
        self._messages = messages
        self._index = index
        self.message = messages if index is None else messages[index]
        self.row = np.zeros(len(self.message), np.int32)

    def column(self, name: str) -> Values:
        column = self._shredded.columns.get(name)
        if column is None:
            return pa.nulls(len(self.row))
        return self._list_maps(name) if name in MAPS else self._take(column)

    def mapping(self, name: str) -> Mapping:
        column = self._shredded.columns.get(name)
        if column is None:
            return Mapping({}, np.zeros(len(self.row), np.bool_), {})
        column = self._take(column)
        present = column.tags == MAP
        problems = {
            position: wrong_type(name, column[position], "an object")
            for position in np.flatnonzero(~present & (column.tags > NULL)).tolist()
        }
        return Mapping(dict(self._take_present(self._shredded.maps[name])), present, problems)

    def unknown_fields(self, known: frozenset[str]) -> list[dict[str, object] | None] | None:
        fields = {name: column for name, column in self._shredded.columns.items() if name not in known}
        if not fields:
            return None
        events: list[dict[str, object]] = [{} for _ in range(len(self.row))]
        for name, column in self._take_present(fields).items():
            values = self._list_maps(name) if name in MAPS else column.tolist()
            for position in np.flatnonzero(column.tags != MISSING).tolist():
                events[position][name] = values[position]
        return [event or None for event in events]

    def num_names(self) -> int:
        return sum(map(len, self._shredded.maps.values()))

    def raw(self, positions: list[int]) -> list[bytes]:
        index = positions if self._index is None else self._index[positions].tolist()
        return [self._sent[position] or b"" for position in index]

    def take(self, positions: Positions) -> Block:
        index = positions if self._index is None else self._index[positions]
        if len(self._shredded.columns) + self.num_names() > _FEW_COLUMNS:
            # Of many columns few may be left: to look for them in each would take longer than to read again.
            sent = self._sent.take(index)
            return ShreddedBlock(_Shredded(sent), sent, self._messages[index], None)
        return ShreddedBlock(self._shredded, self._sent, self._messages, index)

    def _take(self, column: ShreddedColumn) -> ShreddedColumn:
        return column if self._index is None else column.take(self._index)

    def _take_present(self, columns: dict[str, ShreddedColumn]) -> dict[str, ShreddedColumn]:
        """Give those of the columns that any of the events has, sorted by key."""
        taken = {key: self._take(columns[key]) for key in sorted(columns)}
        return {key: column for key, column in taken.items() if self._index is None or column.tags.any()}

    def _list_maps(self, name: str) -> list[Any]:
        """Give a map of each event as a dictionary, or what was sent instead of one."""
        column = self._take(self._shredded.columns[name])
        values = column.tolist()
        for position in np.flatnonzero(column.tags == MAP).tolist():
            values[position] = {}
        for key, part in self._take_present(self._shredded.maps[name]).items():
            parts = part.tolist()
            for position in np.flatnonzero(part.tags != MISSING).tolist():
                values[position][key] = parts[position]
        return values


def shred_json(values: MessageValues, messages: Positions) -> Iterator[tuple[Block | None, Positions]]:
    """Take messages apart; `messages` are their indices in the batch. Gives blocks of usual ones, and which were not.

    Each must have a value.
    """
    first = 0
    while first < len(values):
        # Wide events have many columns: the fewer of them share a block the more columns it may have.
        end = first + max(1, min(_ROWS_MAX, _BYTES_MAX // max(1, int(values.length[first]))))
        sent = values[first:end]
        shredded = _Shredded(sent)
        places = messages[first:end]
        is_usual = shredded.is_usual
        if is_usual.all():
            yield ShreddedBlock(shredded, sent, places, None), places[:0]
        else:
            index = np.flatnonzero(is_usual)
            yield ShreddedBlock(shredded, sent, places, index) if len(index) else None, places[~is_usual]
        first = end
