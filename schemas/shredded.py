"""Columns of JSON values as the kernel leaves them: a kind each, and numbers and slices of text instead of objects."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.texts import NULL_LENGTH, Bytes, Ints, Lengths, TextColumn

Floats = npt.NDArray[np.float64]

# The kinds of a cell, as the kernel numbers them.
MISSING, NULL, FALSE, TRUE, WHOLE, FRACTIONAL, TEXT, OTHER, MAP = range(9)

_NUMBER_KINDS = sum(1 << kind for kind in (MISSING, NULL, FALSE, TRUE, WHOLE, FRACTIONAL))
_TEXT_KINDS = sum(1 << kind for kind in (MISSING, NULL, TEXT))
_GAP_KINDS = sum(1 << kind for kind in (MISSING, NULL))

_DECODER = msgspec.json.Decoder()


class ShreddedColumn:
    """`tags` uint8[n] are the kinds of the cells, and `kinds` has a bit for each kind that may be among them.

    `slots` float64[n] is the number of a cell (booleans are 0 and 1), NaN where it is missing or null; of a text, or of
    any other value as JSON, it holds the bits of an int64: where it begins in `buffer`. `length` int32[n] is the length
    of those in bytes, -1 where the cell is missing or null.
    """

    __slots__ = ("buffer", "kinds", "length", "slots", "tags")

    def __init__(self, buffer: Bytes, tags: npt.NDArray[np.uint8], slots: Floats, length: Lengths, kinds: int) -> None:
        self.buffer = buffer
        self.tags = tags
        self.slots = slots
        self.length = length
        self.kinds = kinds

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, position: int) -> Any:
        return self.take(np.array([position])).tolist()[0]

    @property
    def start(self) -> Ints:
        """Where texts and other values begin; nothing of a cell that is neither."""
        start: Ints = self.slots.view(np.int64)
        return start

    def take(self, positions: npt.NDArray[Any]) -> ShreddedColumn:
        """Give the cells at these positions, in that order."""
        return ShreddedColumn(
            self.buffer, self.tags[positions], self.slots[positions], self.length[positions], self.kinds
        )

    def numbers(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Give float64[n], NaN where there is no number or boolean, and the positions of what is neither null."""
        if not self.kinds & ~_NUMBER_KINDS:
            return self.slots, np.empty(0, np.int64)
        is_other = self.tags >= TEXT
        return np.where(is_other, np.nan, self.slots), np.flatnonzero(is_other)

    def texts(self) -> tuple[TextColumn, npt.NDArray[np.int64]]:
        """Give the texts, null where there is none, and the positions of what is neither a text nor null."""
        if self.kinds & ~_TEXT_KINDS:
            is_text = self.tags == TEXT
            texts = TextColumn(
                self.buffer, np.where(is_text, self.start, 0), np.where(is_text, self.length, np.int32(NULL_LENGTH))
            )
            return texts, np.flatnonzero(~is_text & (self.tags > NULL))
        start = np.where(self.length < 0, 0, self.start) if self.kinds & _GAP_KINDS else self.start
        return TextColumn(self.buffer, start, self.length), np.empty(0, np.int64)

    def tolist(self) -> list[Any]:
        """Give them as Python values, None where missing or null."""
        values = np.full(len(self), None, object)
        for kind, value in ((FALSE, False), (TRUE, True)):
            values[self.tags == kind] = value
        is_whole, is_fractional = self.tags == WHOLE, self.tags == FRACTIONAL
        values[is_whole] = self.slots[is_whole].astype(np.int64)
        values[is_fractional] = self.slots[is_fractional]
        is_text = np.flatnonzero(self.tags == TEXT)
        if len(is_text):
            values[is_text] = TextColumn(self.buffer, self.start[is_text], self.length[is_text])
        sent = memoryview(self.buffer)  # type: ignore[arg-type]
        for position in np.flatnonzero(self.tags == OTHER).tolist():
            start = int(self.start[position])
            values[position] = _DECODER.decode(sent[start : start + int(self.length[position])])
        return values.tolist()
