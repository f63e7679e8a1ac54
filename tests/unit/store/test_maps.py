"""Columns become maps of each row, and columns again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import store.maps
from schemas.texts import TextColumn
from store.maps import number_columns, number_map, text_columns, text_map

NAMES = st.lists(st.text(max_size=12), unique=True, max_size=5)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[float | None]], list[list[str | None]], int]:
    names, num_rows = draw(NAMES), draw(st.integers(0, 8))
    gappy = draw(st.booleans())
    numbers = st.none() | st.floats(allow_nan=False) if gappy else st.floats(allow_nan=False)
    texts = st.none() | st.text(max_size=9) if gappy else st.text(max_size=9)
    rows = st.integers(num_rows, num_rows)
    draw_columns = [[[draw(values) for _ in range(draw(rows))] for _ in names] for values in (numbers, texts)]
    return names, draw_columns[0], draw_columns[1], num_rows


@settings(deadline=None)
@given(tables())
def test_maps_hold_what_is_not_null(table: tuple[list[str], list[list[float | None]], list[list[str | None]], int]):
    names, numbers, texts, num_rows = table
    number_columns_ = dict(zip(names, (np.array(column, np.float64) for column in numbers), strict=True))
    text_columns_ = dict(zip(names, map(TextColumn.of, texts), strict=True))
    for found, columns in (
        (number_map(number_columns_, num_rows), numbers),
        (text_map(text_columns_, num_rows), texts),
    ):
        found.validate(full=True)
        assert len(found) == num_rows
        assert found.to_pylist() == [
            [(name, column[row]) for name, column in zip(names, columns, strict=True) if column[row] is not None]
            for row in range(num_rows)
        ]


def test_the_types_are_those_of_the_tables() -> None:
    assert number_map({}, 2).type == number_map({"a": np.zeros(2)}, 2).type == pa.map_(pa.string(), pa.float64())
    assert (
        text_map({}, 2).type == text_map({"a": TextColumn.of(["x", None])}, 2).type == pa.map_(pa.string(), pa.string())
    )


def test_columns_come_back() -> None:
    numbers = {"a": np.array([1.0, np.nan, 3.0]), "b": np.array([np.nan, np.nan, 2.0])}
    back = number_columns(number_map(numbers, 3))
    assert {name: values.tolist()[2] for name, values in back.items()} == {"a": 3.0, "b": 2.0}
    texts = {"c": TextColumn.of(["x", None, ""])}
    assert text_columns(text_map(texts, 3))["c"].to_pylist() == ["x", None, ""]


def test_an_answer_without_chunks_has_no_columns() -> None:
    nothing = pa.chunked_array([], pa.map_(pa.string(), pa.float64()))
    assert number_columns(nothing) == {}
    assert text_columns(nothing) == {}


def test_more_bytes_than_an_array_holds_become_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.maps, "_BYTES_MAX", 10)
    numbers = {"name": np.arange(9.0), "other": np.full(9, np.nan)}
    found = number_map(numbers, 9)
    assert isinstance(found, pa.ChunkedArray)
    assert found.num_chunks > 1
    assert found.to_pylist() == [[("name", float(row))] for row in range(9)]
    texts = {"n": TextColumn.of([str(row) * 4 for row in range(9)])}
    assert text_map(texts, 9).to_pylist() == [[("n", str(row) * 4)] for row in range(9)]
