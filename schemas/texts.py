"""Columns of texts without an object per text: slices of one buffer, which become Python texts where somebody asks.

To whoever does not care a `TextColumn` is a sequence of `str | None`, like the lists that it stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from schemas.native import address, kernels

Ints = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

Decoded = TypeVar("Decoded")

NULL_LENGTH = -1

_STRING_BYTES_MAX = 2**31 - 1

# Buffers are joined as they are unless they hold so many times more bytes than the texts, and more than a few.
_SPARSE = 2
_SMALL_BYTES = 4_096

# So few are decoded sooner one by one.
_FEW = 32

# What the kernel takes; the library hashes longer ones.
_HASHED_LENGTH_MAX = 240


class TextColumn(Sequence[str | None]):
    """`buffer` uint8[bytes] in UTF-8; text i is `buffer[start[i] : start[i] + length[i]]`, null where length is -1."""

    __slots__ = ("_factors", "buffer", "length", "start")

    def __init__(self, buffer: Bytes, start: Ints, length: Lengths) -> None:
        self.buffer = buffer
        self.start = start
        self.length = length
        self._factors: tuple[npt.NDArray[np.int32], list[str]] | None = None

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> TextColumn:
        """Make a column of Python texts."""
        if isinstance(texts, TextColumn):
            return texts
        return cls.of_arrow(pa.array(texts, pa.large_string()))

    @classmethod
    def of_codes(cls, codes: npt.NDArray[Any], distinct: Sequence[str | None]) -> TextColumn:
        """Make a column of the texts at these positions in `distinct`; a code below 0 is a null."""
        texts = cls.of([*distinct, None])
        return texts.take(np.where(codes < 0, len(distinct), codes))

    @classmethod
    def repeat(cls, text: str, size: int) -> TextColumn:
        """Make a column of one text over and over."""
        data = np.array(bytearray(text.encode()), np.uint8)
        return cls(data, np.zeros(size, np.int64), np.full(size, len(data), np.int32))

    @classmethod
    def of_arrow(cls, array: pa.Array) -> TextColumn:
        """Make a column of an Arrow array of strings or large strings, sharing its buffers."""
        width = np.dtype(np.int64 if pa.types.is_large_string(array.type) else np.int32)
        validity, ends_buffer, data = array.buffers()
        size = len(array)
        if not size:
            return cls(np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int32))
        ends = np.frombuffer(ends_buffer, width, size + 1, array.offset * width.itemsize)
        length = (ends[1:] - ends[:-1]).astype(np.int32, copy=False)
        if array.null_count:
            # Not `is_null`, for which PyArrow first imports all its functions: a tenth of a second at a role's start.
            bits = np.unpackbits(np.frombuffer(validity, np.uint8), count=array.offset + size, bitorder="little")
            length[bits[array.offset :] == 0] = NULL_LENGTH
        buffer = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
        return cls(buffer, ends[:-1].astype(np.int64), length)

    def __len__(self) -> int:
        return len(self.length)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> TextColumn: ...
    def __getitem__(self, index: int | slice) -> str | TextColumn | None:
        if isinstance(index, slice):
            return TextColumn(self.buffer, self.start[index], self.length[index])
        length = int(self.length[index])
        if length == NULL_LENGTH:
            return None
        start = int(self.start[index])
        return self.buffer[start : start + length].tobytes().decode()

    def __iter__(self) -> Iterator[str | None]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same texts."""
        return isinstance(other, Sequence) and not isinstance(other, str) and self.tolist() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextColumn.of({self.tolist()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TextColumn.of, (self.tolist(),)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.object_]:
        texts: npt.NDArray[np.object_] = self.to_arrow().to_numpy(zero_copy_only=False)
        return texts

    def __arrow_array__(self, type: Any = None) -> pa.Array:
        return self.to_arrow(pa.large_string() if type is None else type)

    @property
    def is_null(self) -> npt.NDArray[np.bool_]:
        """Which are null: bool[n]."""
        null: npt.NDArray[np.bool_] = self.length == NULL_LENGTH
        return null

    @property
    def has_text(self) -> bool:
        """True unless every one is null."""
        return bool((self.length != NULL_LENGTH).any())

    def take(self, positions: npt.NDArray[Any]) -> TextColumn:
        """Give the texts at these positions, in that order."""
        return TextColumn(self.buffer, self.start[positions], self.length[positions])

    def fill_null(self, other: TextColumn | str) -> TextColumn:
        """Give the texts, and where they are null those of the other column, or the one text."""
        is_null = self.is_null
        if not is_null.any():
            return self
        if isinstance(other, str):
            other = TextColumn.repeat(other, len(self))
        if is_null.all():
            return other
        buffer, (start, other_start) = _share_buffer([self, other])
        return TextColumn(buffer, np.where(is_null, other_start, start), np.where(is_null, other.length, self.length))

    def tolist(self) -> list[str | None]:
        """Give them as Python texts."""
        if len(self) <= _FEW:
            return [self[index] for index in range(len(self))]
        # Not to_pylist, which makes an Arrow scalar of each first and takes ten times as long.
        return self.to_arrow().to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]

    def to_arrow(self, kind: Any = None) -> pa.Array:
        """Give them as an Arrow array of large strings, or of another type of texts."""
        kind = pa.large_string() if kind is None else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return self.to_arrow().cast(kind)
        data, ends = self._gather()
        is_null = self.is_null
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little")) if is_null.any() else None
        if pa.types.is_string(kind):
            if len(data) > _STRING_BYTES_MAX:
                raise OverflowError("texts of over 2 GB do not fit into one array of strings")
            ends = ends.astype(np.int32)
        return pa.Array.from_buffers(kind, len(self), [validity, pa.py_buffer(ends), pa.py_buffer(data)])

    def compact(self) -> TextColumn:
        """Give the same texts in a buffer that has nothing else."""
        data, ends = self._gather()
        return TextColumn(data, ends[:-1], self.length)

    def _gather(self) -> tuple[Bytes, Ints]:
        """Put the texts one behind the other: the bytes, and where each begins and the last one ends."""
        start, length = np.ascontiguousarray(self.start), np.ascontiguousarray(self.length)
        ends = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.maximum(length, 0), out=ends[1:])
        data = np.empty(int(ends[-1]), np.uint8)
        kernels.gather_texts(
            address(self.buffer), address(start), address(length), len(self), address(ends), address(data)
        )
        return data, ends

    def factorize(self) -> tuple[npt.NDArray[np.int32], list[str]]:
        """Number the texts in the order of first appearance: int32[n], -1 where null, and the distinct texts."""
        if self._factors is None:
            codes, first = np.empty(len(self), np.int32), np.empty(len(self), np.int64)
            start, length = np.ascontiguousarray(self.start), np.ascontiguousarray(self.length)
            num_distinct = kernels.factorize_texts(
                address(self.buffer), address(start), address(length), len(self), address(codes), address(first)
            )
            if num_distinct < 0:
                raise MemoryError("no memory to number texts")
            distinct = self.take(first[:num_distinct]).tolist()
            self._factors = codes, distinct  # type: ignore[assignment]
        assert self._factors is not None
        return self._factors

    def hash(self, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Hash each text in UTF-8 by xxh3_64 with its seed (uint64[n]); there must be no nulls."""
        hashes = np.empty(len(self), np.uint64)
        start, length = np.ascontiguousarray(self.start), np.ascontiguousarray(self.length)
        assert len(seeds) == len(self)
        kernels.hash_texts(
            address(self.buffer), address(start), address(length), len(self),
            address(np.ascontiguousarray(seeds)), address(hashes),
        )  # fmt: skip
        for position in np.flatnonzero(length > _HASHED_LENGTH_MAX).tolist():
            text = self.buffer[start[position] : start[position] + length[position]].tobytes()
            hashes[position] = xxh3_64_intdigest(text, int(seeds[position]))
        return hashes


def join_texts(columns: Sequence[TextColumn]) -> TextColumn:
    """Give the texts of several columns one after the other."""
    if len(columns) == 1:
        return columns[0]
    buffer, starts = _share_buffer(columns)
    return TextColumn(buffer, np.concatenate(starts), np.concatenate([column.length for column in columns]))


def no_texts(size: int) -> TextColumn:
    """Give a column of nulls."""
    return TextColumn(np.empty(0, np.uint8), np.zeros(size, np.int64), np.full(size, NULL_LENGTH, np.int32))


def _share_buffer(columns: Sequence[TextColumn]) -> tuple[Bytes, list[Ints]]:
    """Give one buffer that has the texts of all columns, and where they begin in it."""
    # Columns of one batch are slices of one buffer, which is not copied then.
    buffers = {id(column.buffer): column.buffer for column in columns}
    if len(buffers) == 1:
        return columns[0].buffer, [column.start for column in columns]
    num_bytes = sum(int(np.maximum(column.length, 0).sum(dtype=np.int64)) for column in columns)
    if sum(map(len, buffers.values())) > _SPARSE * num_bytes + _SMALL_BYTES:
        columns = [column.compact() for column in columns]
        buffers = {id(column.buffer): column.buffer for column in columns}
    sizes = np.cumsum([0, *map(len, buffers.values())])
    places = dict(zip(buffers, sizes.tolist(), strict=False))
    return np.concatenate(list(buffers.values())), [column.start + places[id(column.buffer)] for column in columns]


def decode_each(texts: TextColumn, decoder: msgspec.json.Decoder[Decoded]) -> Iterator[tuple[int, Decoded]]:
    """Give each text's row and what its JSON says; nulls, empty texts and what does not fit are left out."""
    sent = memoryview(texts.buffer)  # type: ignore[arg-type]
    starts, lengths = texts.start.tolist(), texts.length.tolist()
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        if length <= 0:
            continue
        try:
            value = decoder.decode(sent[start : start + length])
        except msgspec.DecodeError:
            continue
        yield row, value
