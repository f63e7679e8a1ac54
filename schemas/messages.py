"""Consecutive Kafka messages of one partition as columns, cheap to build from either client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

NULL_LENGTH = -1


class MessageValues(Sequence[bytes | None]):
    """Values of messages as slices of one buffer: `buffer[start[i] : start[i] + length[i]]`, no value where -1."""

    __slots__ = ("buffer", "length", "start")

    def __init__(
        self, buffer: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int32]
    ) -> None:
        self.buffer = buffer
        self.start = start
        self.length = length

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> MessageValues:
        """Put values into one buffer."""
        if isinstance(values, MessageValues):
            return values
        sent = [value or b"" for value in values] if None in values else values
        length = np.fromiter(map(len, sent), np.int32, len(sent))  # type: ignore[arg-type]  # there is no None left
        start = np.cumsum(length, dtype=np.int64) - length
        buffer = np.frombuffer(b"".join(sent), np.uint8)  # type: ignore[arg-type]
        if sent is not values:
            length[[value is None for value in values]] = NULL_LENGTH
        return cls(buffer, start, length)

    def take(self, positions: npt.NDArray[np.int64]) -> MessageValues:
        """Give the values at these positions, in that order."""
        return MessageValues(self.buffer, self.start[positions], self.length[positions])

    def __len__(self) -> int:
        return len(self.length)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> MessageValues: ...
    def __getitem__(self, index: int | slice) -> bytes | MessageValues | None:
        if isinstance(index, slice):
            return MessageValues(self.buffer, self.start[index], self.length[index])
        length = int(self.length[index])
        if length == NULL_LENGTH:
            return None
        start = int(self.start[index])
        return self.buffer[start : start + length].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        for start, length in zip(self.start.tolist(), self.length.tolist(), strict=True):
            yield None if length == NULL_LENGTH else self.buffer[start : start + length].tobytes()

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same values."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"MessageValues.of({list(self)!r})"


@dataclass(slots=True)
class MessageBatch:
    """`offsets` int64[n], `timestamps` int64[n] (ms) and `values` have one entry a message.

    `headers` has only the messages with headers, `keys` only those without a value (or whatever the caller has), both
    by index.
    """

    topic: str
    topic_id: str
    partition: int
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    values: Sequence[bytes | None]
    headers: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    keys: dict[int, bytes | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)
