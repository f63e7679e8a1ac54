"""Columns of texts behave like lists of texts, and their hashes are the library's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from schemas.texts import TextColumn, join_texts, no_texts

TEXTS = st.lists(st.none() | st.text(max_size=20) | st.sampled_from(["DE", "FR", "", "é"]), max_size=60)


@settings(deadline=None)
@given(TEXTS, TEXTS, st.data())
def test_a_column_is_like_a_list(first: list[str | None], second: list[str | None], data: st.DataObject) -> None:
    column = TextColumn.of(first)
    assert column.tolist() == first
    assert column == first
    assert list(column) == [column[position] for position in range(len(first))]
    assert join_texts([column, no_texts(2), TextColumn.of(second)]) == [*first, None, None, *second]
    positions = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=30)) if first else []
    taken = column.take(np.array(positions, np.int64))
    assert taken == [first[position] for position in positions]
    codes, distinct = taken.factorize()
    assert distinct == list(dict.fromkeys(text for text in taken if text is not None))
    assert [None if code < 0 else distinct[code] for code in codes.tolist()] == taken.tolist()


@settings(deadline=None)
@given(st.lists(st.text("ab", max_size=20), max_size=300))
def test_texts_that_differ_in_one_byte_have_different_numbers(texts: list[str]) -> None:
    codes, distinct = TextColumn.of(texts).factorize()
    assert distinct == list(dict.fromkeys(texts))
    assert [distinct[code] for code in codes.tolist()] == texts


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | st.text(max_size=9), st.none() | st.sampled_from(["", "DE", "é"]))))
def test_gaps_are_filled(pairs: list[tuple[str | None, str | None]]) -> None:
    first, second = TextColumn.of([a for a, _ in pairs]), TextColumn.of([b for _, b in pairs])
    assert first.fill_null(second) == [b if a is None else a for a, b in pairs]
    assert second.fill_null("") == ["" if b is None else b for _, b in pairs]
    codes, distinct = first.factorize()
    assert TextColumn.of_codes(codes, distinct) == first
    assert first.has_text == any(a is not None for a, _ in pairs)
    for kind in (pa.string(), pa.large_string()):
        arrow = first.to_arrow(kind)
        arrow.validate(full=True)
        assert arrow == pa.array(first, kind) == pa.array([a for a, _ in pairs], kind)
        assert TextColumn.of_arrow(arrow[1:]) == first[1:]


def test_of_large_buffers_only_the_texts_are_joined() -> None:
    large = TextColumn.of([f"{number:09d}" for number in range(2_000)])
    few = large.take(np.array([7, 8]))
    joined = join_texts([few, TextColumn.of(["x", None])])
    assert joined == ["000000007", "000000008", "x", None]
    assert len(joined.buffer) == 19
    assert TextColumn(few.buffer, few.start, np.array([9, -1], np.int32)).fill_null("x") == ["000000007", "x"]


def test_columns_of_one_buffer_are_joined_without_copying_it() -> None:
    column = TextColumn.of(["DE", None, "FR"])
    joined = join_texts([column[1:], column.take(np.array([0, 0]))])
    assert joined.buffer is column.buffer
    assert joined == [None, "FR", "DE", "DE"]


def test_many_distinct_texts_are_numbered() -> None:
    texts = [f"r{number % 5000}" for number in range(12_000)]
    codes, distinct = TextColumn.of(texts).factorize()
    assert [distinct[code] for code in codes.tolist()] == texts
    assert len(distinct) == 5000


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=300), st.integers(0, 2**64 - 1)), max_size=30))
def test_hashes_are_the_librarys(pairs: list[tuple[str, int]]) -> None:
    seeds = np.array([seed for _, seed in pairs], np.uint64)
    hashes = TextColumn.of([text for text, _ in pairs]).hash(seeds)
    assert hashes.tolist() == [xxh3_64_intdigest(text.encode(), seed) for text, seed in pairs]


def test_a_hash_of_every_length_is_the_librarys() -> None:
    texts = ["".join(chr(33 + (place * 7) % 90) for place in range(length)) for length in range(400)]
    hashes = TextColumn.of(texts).hash(np.full(len(texts), 2**63 + 12345, np.uint64))
    assert hashes.tolist() == [xxh3_64_intdigest(text.encode(), 2**63 + 12345) for text in texts]
