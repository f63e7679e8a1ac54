"""The reference counted as stage 1 counts windows, so that both compare cell by cell. Pure.

Counts are computed from the reference's rows where they are needed, and kept there: a published spec that carried them
for a hundred segments of fifty features would be a message of a megabyte, sent to every process.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.spec import PublishedSpec
from streams.logic.layouts import OTHER, PREDICTION, SCORE, CategoryField, Layout, NumberField, Part, lay_out
from streams.logic.rows import Coded, Floats, Rows, code_numbers

Ints = npt.NDArray[np.int64]


def count_reference(published: PublishedSpec, rows: Rows, part: Part) -> dict[str, Ints]:
    """Give int64[layout.num_slots] for the whole reference ("") and for each segment of the spec, rows or none.

    Rows without a value of a segment's key count as `__other__`, as events do.
    """
    layout = lay_out(published, part)
    slots = np.stack(_code(layout, rows))
    found = {"": _count(slots, np.zeros(len(rows), np.int64), 1, layout.num_slots)[0]}
    for key in published.spec.segments:
        values = published.segment_values.get(key, [])
        counts = _count(slots, _number_segments(rows, key, values), len(values) + 1, layout.num_slots)
        found |= {f"{key}={value}": counts[index] for index, value in enumerate([*values, OTHER])}
    return found


def count_reference_windows(published: PublishedSpec, rows: Rows, part: Part, segment: str = "") -> tuple[Ints, Ints]:
    """Give the starts (epoch ms, ascending) of the windows that the reference's times fall in, and their counts.

    Counts are int64[windows, layout.num_slots], of one segment's rows.
    """
    layout = lay_out(published, part)
    if segment:
        key, _, value = segment.partition("=")
        values = published.segment_values.get(key, [])
        wanted = values.index(value) if value in values else len(values)
        rows = rows.take(_number_segments(rows, key, values) == wanted)
    starts, window = np.unique(published.window_of(rows.ts), return_inverse=True)
    return starts, _count(np.stack(_code(layout, rows)), window, len(starts), layout.num_slots)


def code_cells(published: PublishedSpec, rows: Rows, feature: str) -> Ints | None:
    """Give which cell of a feature's counts each row is in, nulls the last one; None if it is not counted by value."""
    layout = lay_out(published, "inputs")
    for number in layout.numbers:
        if number.name == feature:
            values = _find_numbers(layout, rows, feature)
            return np.where(np.isnan(values), number.num_bins, np.searchsorted(number.cuts, values, side="left"))
    for category in layout.categories:
        if category.name == feature:
            other = len(category.values)
            codes = {value: code for code, value in enumerate(category.values)}
            return _find_texts(layout, rows, feature).look_up(codes, other, other + 1)
    return None


def _count(slots: Ints, group: Ints, num_groups: int, num_slots: int) -> Ints:
    """Give int64[groups, slots]; `slots` is [columns, rows], its last value being discarded."""
    size = num_slots + 1
    counts = np.zeros(num_groups * size, np.int64)
    for column in slots:
        counts += np.bincount(group * size + column, minlength=num_groups * size)
    return counts.reshape(num_groups, size)[:, :-1]


def _number_segments(rows: Rows, key: str, values: list[str]) -> Ints:
    texts = rows.segments.get(key)
    if texts is None:
        return np.full(len(rows), len(values))
    return texts.look_up({value: code for code, value in enumerate(values)}, len(values), len(values))


def _code(layout: Layout, rows: Rows) -> list[Ints]:
    """Give for each column which slot each row counts in; the last slot of all is discarded."""
    coded = [np.full(len(rows), layout.num_slots)]
    for number in layout.numbers:
        coded += _code_numbers(number, _find_numbers(layout, rows, number.name), layout.num_slots)
    for category in layout.categories:
        coded += _code_texts(category, _find_texts(layout, rows, category.name), layout.num_slots)
    for presence in layout.presences:
        coded.append(presence.slot + _find_texts(layout, rows, presence.name).is_missing.astype(np.int64))
    return coded


def _code_numbers(number: NumberField, values: Floats, discarded: int) -> list[Ints]:
    null = number.slot + number.num_bins
    bins = number.slot + np.searchsorted(number.cuts, values, side="left")
    outside = np.full(len(values), discarded)
    if number.minimum is not None:
        outside[values < number.minimum] = null + 1
    if number.maximum is not None:
        outside[values > number.maximum] = null + 2
    return [np.where(np.isnan(values), null, bins), outside]


def _code_texts(category: CategoryField, texts: Coded, discarded: int) -> list[Ints]:
    other = len(category.values)
    codes = {value: code for code, value in enumerate(category.values)}
    coded = [category.slot + texts.look_up(codes, other, other + 1)]
    if category.allowed is not None:
        coded.append(texts.look_up(dict.fromkeys(category.allowed, discarded), category.slot + other + 2, discarded))
    return coded


def _find_numbers(layout: Layout, rows: Rows, name: str) -> Floats:
    if layout.part == "inputs":
        values = rows.numbers.get(name)
    else:
        assert name in (SCORE, PREDICTION)
        values = rows.score if name == SCORE else rows.prediction
    return np.full(len(rows), np.nan) if values is None else values


def _find_texts(layout: Layout, rows: Rows, name: str) -> Coded:
    if layout.part == "outputs" and rows.prediction_text is not None:
        return Coded.of(rows.prediction_text)
    texts = rows.texts.get(name) if layout.part == "inputs" else None
    return texts if texts is not None else code_numbers(_find_numbers(layout, rows, name))
