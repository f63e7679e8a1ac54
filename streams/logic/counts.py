"""Counts a batch of events by group, every row once, in a compiled kernel. Pure.

Texts are numbered first, so that the kernel sees numbers only; what a number of a category means in the vector of
counts is a small table. Groups are (window, value of one segment key); what they have in common is their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.columns import EventColumns, format_number
from schemas.native import address, kernels
from schemas.texts import TextColumn
from streams.logic.exact_sums import NUM_LIMBS, read_sums
from streams.logic.layouts import PREDICTION, SCORE, CategoryField, Layout
from streams.logic.summaries import Summary

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CodedText:
    """Texts by number: `codes` int32[n], -1 where null, and what the numbers mean."""

    codes: Codes
    distinct: list[str]

    def map_to(self, numbers: dict[str, int], other: int) -> Codes:
        """Give what each text is mapped to: int32[n]; nulls and texts that are not there give `other`."""
        table = np.array([other, *(numbers.get(text, other) for text in self.distinct)], np.int32)
        mapped: Codes = table[self.codes + 1]
        return mapped


class CodedRows:
    """The rows of a batch, ready to be counted for one layout; keeps alive what the kernel reads."""

    def __init__(self, layout: Layout, columns: EventColumns) -> None:
        self.layout = layout
        self._coerced = {
            slot: columns.coerced[name]
            for name, slot in layout.coerced_slots.items()
            if layout.part == "inputs" and name in columns.coerced
        }
        self._numbers = [_find_number(layout, columns, number.name) for number in layout.numbers]
        coded = [_code_category(layout, columns, category) for category in layout.categories]
        coded += [_code_presence(columns, presence.name) for presence in layout.presences]
        self._codes = [each.codes for each in coded]
        # Of each category one entry for null, then one for each number.
        self._slot_begin = np.cumsum([0, *(len(each.distinct) + 1 for each in coded)])[:-1].astype(np.int64)
        self._slots = np.empty(sum(len(each.distinct) + 1 for each in coded), np.int32)
        self._outside = np.full(len(self._slots), -1, np.int32)
        for begin, each, category in zip(self._slot_begin.tolist(), coded, layout.categories, strict=False):
            self._place_category(begin, each, category)
        for begin, presence in zip(self._slot_begin[len(layout.categories) :].tolist(), layout.presences, strict=True):
            self._slots[begin : begin + 2] = presence.slot + 1, presence.slot

    def _place_category(self, begin: int, coded: CodedText, category: CategoryField) -> None:
        other = category.slot + len(category.values)
        self._slots[begin] = category.slot + category.codes[None]
        for position, text in enumerate(coded.distinct, begin + 1):
            code = category.codes.get(text)
            self._slots[position] = other if code is None else category.slot + code
            if category.allowed is not None and text not in category.allowed:
                self._outside[position] = other + 2

    @cached_property
    def _columns(self) -> npt.NDArray[np.uint64]:
        return np.array([address(column) for column in self._numbers], np.uint64)

    @cached_property
    def _code_columns(self) -> npt.NDArray[np.uint64]:
        return np.array([address(codes) for codes in self._codes], np.uint64)

    def count(self, rows: Ints, group: Codes, num_groups: int) -> GroupCounts:
        """Count rows (their positions) by group (int32, 0…num_groups-1)."""
        found = GroupCounts.empty(self.layout, num_groups)
        rows, group = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(group, np.int32)
        kernels.count_rows(
            self.layout.kernel.address, address(self._columns), address(self._code_columns), address(self._slots),
            address(self._outside), address(self._slot_begin), address(rows), address(group), len(rows),
            address(found.counts), address(found.low), address(found.high), address(found.limbs),
        )  # fmt: skip
        found.num_rows += np.bincount(group, minlength=num_groups)
        for slot, coerced in self._coerced.items():
            found.counts[:, slot] += np.bincount(group[coerced[rows]], minlength=num_groups)
        return found


@dataclass(slots=True)
class GroupCounts:
    """What the kernel found: `counts` int64[groups, slots], `low` and `high` float64[groups, numbers],

    `limbs` int64[groups, 2, numbers, NUM_LIMBS], `num_rows` int64[groups].
    """

    counts: Ints
    low: Floats
    high: Floats
    limbs: Ints
    num_rows: Ints

    @classmethod
    def empty(cls, layout: Layout, num_groups: int) -> GroupCounts:
        """Give the counts of no rows."""
        size = len(layout.numbers)
        return cls(
            np.zeros((num_groups, layout.num_slots), np.int64),
            np.full((num_groups, size), np.inf),
            np.full((num_groups, size), -np.inf),
            np.zeros((num_groups, 2, size, NUM_LIMBS), np.int64),
            np.zeros(num_groups, np.int64),
        )

    def join(self, num_parts: int) -> GroupCounts:
        """Put `num_parts` consecutive groups together."""
        # Not -1: of a layout without numbers there is nothing to infer it from.
        shape = (len(self.num_rows) // num_parts, num_parts)
        return GroupCounts(
            self.counts.reshape(*shape, *self.counts.shape[1:]).sum(axis=1),
            self.low.reshape(*shape, *self.low.shape[1:]).min(axis=1),
            self.high.reshape(*shape, *self.high.shape[1:]).max(axis=1),
            self.limbs.reshape(*shape, *self.limbs.shape[1:]).sum(axis=1),
            self.num_rows.reshape(shape).sum(axis=1),
        )

    def read(self, groups: Ints) -> list[Summary]:
        """Give the summaries of some groups."""
        sums = read_sums(self.limbs[groups])
        num_sums = 2 * self.low.shape[1]
        return [
            Summary(
                self.counts[group].copy(), self.low[group].copy(), self.high[group].copy(),
                sums[position * num_sums : (position + 1) * num_sums], int(self.num_rows[group]),
            )
            for position, group in enumerate(groups.tolist())
        ]  # fmt: skip


def tally_rows(
    offset: Ints, rows: Ints, group: Codes, is_new: Mask, is_late: Mask, num_groups: int
) -> tuple[Ints, Ints, Ints]:
    """Give by group the number of duplicates, that of late events, and the offset behind the last event.

    `offset` int64 has an entry for every row of a batch, `rows` are positions there, in log order, the rest is theirs.
    """
    num_duplicates, num_late, ends = (np.zeros(num_groups, np.int64) for _ in range(3))
    columns = (np.ascontiguousarray(column) for column in (offset, rows, group, is_new, is_late))
    kernels.tally_rows(*map(address, columns), len(rows), address(num_duplicates), address(num_late), address(ends))
    return num_duplicates, num_late, ends


def code_texts(texts: TextColumn) -> CodedText:
    """Number texts."""
    return CodedText(*texts.factorize())


def _find_number(layout: Layout, columns: EventColumns, name: str) -> Floats:
    column = _number_column(layout, columns, name)
    return np.full(columns.num_rows, np.nan) if column is None else np.ascontiguousarray(column, np.float64)


def _number_column(layout: Layout, columns: EventColumns, name: str) -> Floats | None:
    if layout.part == "inputs":
        return columns.numbers.get(name)
    assert name in (SCORE, PREDICTION)
    return columns.score if name == SCORE else columns.prediction


def _code_category(layout: Layout, columns: EventColumns, category: CategoryField) -> CodedText:
    name = category.name
    texts = columns.texts.get(name) if layout.part == "inputs" else columns.prediction_text
    if texts is not None:
        return code_texts(texts)
    numbers = _number_column(layout, columns, name)
    if numbers is None:
        return CodedText(np.full(columns.num_rows, -1, np.int32), [])
    unique, inverse = np.unique(numbers, return_inverse=True)
    num_known = len(unique) - int(np.isnan(unique).any())  # NaN comes last
    codes = inverse.astype(np.int32)
    codes[codes >= num_known] = -1
    return CodedText(codes, [format_number(value) for value in unique[:num_known].tolist()])


def _code_presence(columns: EventColumns, name: str) -> CodedText:
    """Tell only whether there is a text; what it says may be long."""
    texts = columns.texts.get(name)
    codes = np.full(columns.num_rows, -1, np.int32)
    if texts is not None:
        codes[~texts.is_null] = 0
    return CodedText(codes, [""])
