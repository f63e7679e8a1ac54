"""Rows as columns: categories as codes, segments as positions, and the order in which detectors are fed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streams.logic.distances import SampledRows
from streams.logic.rows import Coded, Rows, code_numbers, sort_by_time

texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "DE", "FR", "é"]), st.text(max_size=3)), max_size=40)


@given(texts)
def test_coding_loses_nothing(values: list[str | None]) -> None:
    coded = Coded.of_arrow(pa.chunked_array([values[:3], values[3:]], pa.string()))
    assert coded.decode().tolist() == values
    assert list(coded.vocabulary) == sorted({value for value in values if value is not None})
    assert coded.is_missing.tolist() == [value is None for value in values]
    again = Coded.of(np.array([*values, None], dtype=object)[: len(values)])
    assert (again.codes.tolist(), again.vocabulary) == (coded.codes.tolist(), coded.vocabulary)


@given(texts, texts)
def test_coding_anew_changes_no_value(values: list[str | None], others: list[str | None]) -> None:
    coded, vocabulary = Coded.of_arrow(pa.array(values, pa.string())), tuple(sorted({*filter(None, others)}))
    again = coded.recode(vocabulary)
    assert again.decode().tolist() == values
    if set(coded.vocabulary) <= set(vocabulary):
        assert again.vocabulary is vocabulary


def test_numbers_are_coded_as_they_are_written() -> None:
    coded = code_numbers(np.array([10.0, 2.0, np.nan, -0.0, 0.0, 2.5]))
    assert coded.decode().tolist() == ["10", "2", None, "0", "0", "2.5"]
    assert coded.vocabulary == ("0", "10", "2", "2.5")


@given(texts, st.lists(st.sampled_from(["DE", "FR", "IT"]), unique=True))
def test_segments_are_those_of_each_row(values: list[str | None], known: list[str]) -> None:
    rows = Rows(ts=np.arange(len(values)), segments={"country": Coded.of_arrow(pa.array(values, pa.string()))})
    expected: dict[str, list[int]] = {}
    for position, value in enumerate(values):
        if value:
            expected.setdefault(f"country={value if value in known else '__other__'}", []).append(position)
    parts = rows.split({"country": known, "plan": ["a"]})
    assert {name: positions.tolist() for name, positions in parts.items()} == expected
    assert list(parts) == [each for each in [*(f"country={v}" for v in known), "country=__other__"] if each in expected]


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3)), max_size=40))
def test_detectors_are_fed_in_the_order_of_time_then_identity(events: list[tuple[int, str]]) -> None:
    rows = Rows(
        ts=np.array([ts for ts, _ in events], np.int64),
        record_id=np.array([record_id for _, record_id in events], dtype=object),
    )
    assert [events[position] for position in sort_by_time(rows)] == sorted(events)


def test_samples_are_made_once_and_counted() -> None:
    country = np.array(["DE", "FR"] * 50, dtype=object)
    sampled = SampledRows(
        Rows(
            ts=np.arange(100),
            numbers={"amount": np.arange(100.0)},
            texts={"country": Coded.of(country)},
            segments={"country": Coded.of(country)},
        ),
        {"country": ["DE"]},
    )
    before = sampled.num_bytes
    german = sampled.sample("amount", "number", "country=DE")
    assert german is sampled.sample("amount", "number", "country=DE")
    assert german is not None
    assert german.values.tolist() == list(range(0, 100, 2))  # type: ignore[union-attr]
    assert sampled.sample("amount", "number", "country=IT") is None
    assert (sampled.count(""), sampled.count("country=DE"), sampled.count("country=IT")) == (100, 50, 0)
    assert sampled.num_bytes == before + 50 * 8
