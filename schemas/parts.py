"""The parts of a model's events, one from each block, joined in the order of the log and within bounds."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from schemas.codecs.blocks import NAMES_MAX
from schemas.columns import EventColumns, concatenate
from schemas.texts import TextColumn

# One table has at most as many values: 50 million numbers take 400 MB.
CELLS_MAX = 50_000_000


def join_parts(parts: list[EventColumns], declared: Collection[str]) -> list[EventColumns]:
    """Join the parts of a model, into several where events with ever new feature names would make too wide a table.

    Events of one part are in the order of the log, and may lie between those of another. So are those of the result,
    where each begins behind the one before it.
    """
    parts = sorted(parts, key=_first_place)
    if not all(_last_place(part) < _first_place(after) for part, after in pairwise(parts)):
        return _interleave(parts, declared)
    groups: list[list[EventColumns]] = [[]]
    for part in parts:
        if groups[-1] and not _fit([*groups[-1], part], declared):
            groups.append([])
        groups[-1].append(part)
    return [concatenate(group) for group in groups]


def prune(columns: EventColumns, declared: Collection[str]) -> EventColumns:
    """Leave out what no valid row has, so that columns do not tell which bad rows stood beside them."""
    columns.numbers = {
        name: values for name, values in columns.numbers.items() if name in declared or not np.isnan(values).all()
    }
    columns.texts = {name: values for name, values in columns.texts.items() if name in declared or values.has_text}
    columns.segment = {key: values for key, values in columns.segment.items() if values.has_text}
    columns.scores = {name: values for name, values in columns.scores.items() if not np.isnan(values).all()}
    columns.trace_id = columns.trace_id if _any_text(columns.trace_id) else None
    columns.extra = columns.extra if _any_text(columns.extra) else None
    return columns


def _any_text(values: TextColumn | None) -> bool:
    return values is not None and values.has_text


def _interleave(parts: list[EventColumns], declared: Collection[str]) -> list[EventColumns]:
    """Join parts whose events lie between each other's."""
    order = np.lexsort([np.concatenate([part.row for part in parts]), np.concatenate([part.offset for part in parts])])
    if _fit(parts, declared):
        return [concatenate(parts).take(order)]
    # The first half of the events, and the second: each has the fewer names.
    owner = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts])
    num_before = np.bincount(owner[order[: len(order) // 2]], minlength=len(parts)).tolist()
    halves: tuple[list[EventColumns], list[EventColumns]] = [], []
    for part, num_first in zip(parts, num_before, strict=True):
        for half, positions in zip(halves, np.split(np.arange(part.num_rows), [num_first]), strict=True):
            if len(positions):
                half.append(prune(part.take(positions), declared))
    return join_parts(halves[0], declared) + join_parts(halves[1], declared)


def _fit(parts: list[EventColumns], declared: Collection[str]) -> bool:
    """Tell whether one table may have them all."""
    names = set[str]()
    for part in parts:
        names |= part.numbers.keys() | part.texts.keys() | part.segment.keys() | part.scores.keys()
    num_rows = sum(part.num_rows for part in parts)
    return (len(names) <= NAMES_MAX or names.issubset(declared)) and len(names) * num_rows <= CELLS_MAX


def _first_place(part: EventColumns) -> tuple[int, int]:
    return int(part.offset[0]), int(part.row[0])


def _last_place(part: EventColumns) -> tuple[int, int]:
    return int(part.offset[-1]), int(part.row[-1])
