"""Valid events as columns: what validation gives, and what stage 1, the sink and the scorer take."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.texts import TextColumn, join_texts, no_texts

Kind = Literal["records", "predictions", "labels"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class EventColumns:
    """Events of one kind and one model, in log order; every column has `num_rows` entries.

    `numbers` holds NaN and `texts` null where a feature is null or missing; booleans are 0/1; lists, blobs and inline
    bytes are JSON in `texts`. A declared feature has its column always, an undeclared one where the batch has it.
    `coerced` tells of declared features whose values came in another type, and were read as theirs, which ones.
    `extra` is the JSON of unknown keys. `has_features` tells predictions that carried features from those that did not.
    """

    kind: Kind
    model: str
    offset: Ints
    row: npt.NDArray[np.int32]
    ts: Ints
    record_id: TextColumn
    model_version: TextColumn | None = None
    numbers: dict[str, Floats] = field(default_factory=dict)
    texts: dict[str, TextColumn] = field(default_factory=dict)
    coerced: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    segment: dict[str, TextColumn] = field(default_factory=dict)
    trace_id: TextColumn | None = None
    extra: TextColumn | None = None
    prediction: Floats | None = None
    prediction_text: TextColumn | None = None
    score: Floats | None = None
    scores: dict[str, Floats] = field(default_factory=dict)
    has_features: npt.NDArray[np.bool_] | None = None
    label: Floats | None = None
    label_text: TextColumn | None = None

    @property
    def num_rows(self) -> int:
        """The number of events."""
        return len(self.record_id)

    def take(self, index: npt.NDArray[Any]) -> EventColumns:
        """Give the rows at `index` (positions, or a mask), in that order."""
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return EventColumns(**{f.name: _take(getattr(self, f.name), positions) for f in fields(self)})

    def segment_values(self, key: str) -> TextColumn:
        """Give each row's value of a segment key: from the segment map, else from the feature of that name."""
        candidates = [column for column in (self.segment.get(key), self.texts.get(key)) if column is not None]
        values = candidates[0] if candidates else no_texts(self.num_rows)
        for column in candidates[1:]:
            values = values.fill_null(column)
        if key in self.numbers and values.is_null.any():
            values = values.fill_null(format_numbers(self.numbers[key]))
        return values


def format_number(value: float) -> str:
    """Write a number as ClickHouse's `toString` does: 1.0 is "1", 0.5 "0.5", 1e21 "1e21"."""
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"  # validation keeps no negative zeros, which ClickHouse would write as "-0"
    # Both write the shortest digits that round-trip; they differ in when and how the exponent is written.
    digits, exponent = np.format_float_scientific(value, trim="-").split("e")
    power = int(exponent)
    if -7 < power < 21:
        return np.format_float_positional(value, trim="-")
    return f"{digits}e{power}"


def format_numbers(values: Floats) -> TextColumn:
    """Write each number as `format_number` does; null for NaN."""
    distinct, codes = np.unique(values, return_inverse=True)
    return TextColumn.of_codes(codes, [None if value != value else format_number(value) for value in distinct.tolist()])


def concatenate(blocks: list[EventColumns]) -> EventColumns:
    """Join blocks of one kind and model, one after the other; a column that a block lacks is empty there."""
    if len(blocks) == 1:
        return blocks[0]
    sizes = [block.num_rows for block in blocks]
    joined: dict[str, Any] = {}
    for f in fields(EventColumns):
        parts = [getattr(block, f.name) for block in blocks]
        if f.name in ("kind", "model"):
            joined[f.name] = parts[0]
        elif isinstance(parts[0], dict):
            names = list(dict.fromkeys(name for part in parts for name in part))
            joined[f.name] = {name: _join([part.get(name) for part in parts], sizes) for name in names}
        else:
            joined[f.name] = _join(parts, sizes)
    return EventColumns(**joined)


def _take(column: Any, positions: npt.NDArray[Any]) -> Any:
    if isinstance(column, np.ndarray):
        return column[positions]
    if isinstance(column, TextColumn):
        return column.take(positions)
    if isinstance(column, dict):
        return {name: _take(part, positions) for name, part in column.items()}
    return column


def _join(parts: list[Any], sizes: list[int]) -> Any:
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    if isinstance(known, TextColumn):
        return join_texts([no_texts(size) if part is None else part for part, size in zip(parts, sizes, strict=True)])
    if known.dtype == np.bool_:
        return np.concatenate(
            [np.zeros(size, np.bool_) if part is None else part for part, size in zip(parts, sizes, strict=True)]
        )
    assert known.dtype == np.float64 or all(part is not None for part in parts)
    return np.concatenate(
        [np.full(size, np.nan) if part is None else part for part, size in zip(parts, sizes, strict=True)]
    )
