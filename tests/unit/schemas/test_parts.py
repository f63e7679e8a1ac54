"""Parts of a model's events are joined in the order of the log, however wide they are."""

from __future__ import annotations

import random

import numpy as np
import pytest

import schemas.parts
from schemas.columns import EventColumns
from schemas.parts import join_parts
from schemas.texts import TextColumn
from tests.samples import as_rows


def part_of(offsets: list[int]) -> EventColumns:
    """Give records, each with a feature of its own."""
    numbers = {f"n{offset}": np.where(np.array(offsets) == offset, 1.0 * offset, np.nan) for offset in offsets}
    return EventColumns(
        "records", "m", np.array(offsets), np.zeros(len(offsets), np.int32), np.array(offsets),
        TextColumn.of([f"r{offset}" for offset in offsets]),
        numbers={"declared": np.full(len(offsets), np.nan)} | numbers,
    )  # fmt: skip


@pytest.mark.parametrize("names_max", [1_000, 25])
def test_interleaved_parts_are_joined_in_order(names_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas.parts, "NAMES_MAX", names_max)
    rng = random.Random(names_max)
    owners = [rng.randrange(3) for _ in range(60)]
    parts = [part_of([offset for offset in range(60) if owners[offset] == owner]) for owner in range(3)]
    joined = join_parts(parts, {"declared"})
    assert [row["offset"] for row in as_rows(joined)] == [*range(60)]
    assert all(row["numbers"] == {f"n{row['offset']}": row["offset"]} for row in as_rows(joined))
    assert all(part.numbers.keys() - {"declared"} <= {f"n{offset}" for offset in part.offset} for part in joined)
    assert max(len(part.numbers) - 1 for part in joined) <= names_max
    assert (len(joined) == 1) == (names_max == 1_000)


def test_parts_one_after_the_other_are_joined_while_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas.parts, "NAMES_MAX", 5)
    joined = join_parts([part_of([2, 3]), part_of([0, 1]), part_of([4, 5])], {"declared"})
    assert [part.offset.tolist() for part in joined] == [[0, 1, 2, 3], [4, 5]]
