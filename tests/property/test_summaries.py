"""What a window's merged summary must not depend on: chunks, the number of partitions, order, and duplicates."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import EventColumns
from schemas.messages import MessageBatch
from schemas.spec import (
    Catalogue,
    FeatureSpec,
    ModelHistory,
    ModelSpec,
    PublishedSpec,
    ReferenceSource,
    WindowSpec,
    default_alerts,
    default_performance,
)
from schemas.texts import TextColumn
from schemas.validation import Validated
from store.summaries import Place, StoredPartition, SummaryRow
from streams.logic.partition import Partition
from streams.logic.summaries import Merged, merge_rows

SIZE = 100
TOPIC_ID = "00000000-0000-0000-0000-000000000001"

FEATURES = {
    "x": FeatureSpec(type="number", min=-1.0, max=1e6),
    "flag": FeatureSpec(type="boolean"),
    "c": FeatureSpec(type="category", values=["p", "q", "r"]),
    "note": FeatureSpec(type="text"),
}


def make_catalogue() -> Catalogue:
    spec = ModelSpec(
        model="m", task="binary", reference=ReferenceSource(file="r.csv"), features=FEATURES, segments=["c"],
        windows=WindowSpec(size_ms=SIZE, lateness_ms=50, retention=1000),
        performance=default_performance("binary"), alerts=default_alerts(),
    )  # fmt: skip
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="h", reference_rows=1,
        cuts={"x": [-0.5, 0.0, 0.5]}, categories={"c": ["p", "q"]}, segment_values={"c": ["p"]},
    )  # fmt: skip
    catalogue = Catalogue()
    catalogue.add(published)
    return catalogue


CATALOGUE = make_catalogue()

Event = tuple[str, int, float | None, float | None, str | None, str | None]

NUMBERS = st.one_of(st.none(), st.floats(-2, 2), st.floats(-1e9, 1e9), st.sampled_from([-0.5, 0.5, 0.0, -0.0, 1e300]))


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    size = draw(st.integers(1, 40))
    texts = st.sampled_from(["p", "q", "r", "other", None])
    return [
        (f"r{index}", draw(st.integers(0, 3 * SIZE)), draw(NUMBERS), draw(st.sampled_from([0.0, 1.0, None])),
         draw(texts), draw(st.sampled_from(["words", None])))
        for index in range(size)
    ]  # fmt: skip


def count(events: list[Event], cuts: Iterable[int], partition: int = 0) -> list[SummaryRow]:
    """Count events as one partition's log, delivered in chunks that end at `cuts`."""
    state = Partition.restore(Place("records", TOPIC_ID, partition), "records", StoredPartition(None), 0, CATALOGUE)
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for begin, end in pairwise(edges):
        offsets = np.arange(begin, end)
        batch = MessageBatch("records", TOPIC_ID, partition, offsets, offsets, [None] * len(offsets))
        validated = Validated([make_columns(events[begin:end], offsets)], num_events=end - begin)
        state.advance(state.compute(batch, validated, CATALOGUE), end)
    return state.snapshot().rows()


def make_columns(events: list[Event], offsets: np.ndarray) -> EventColumns:
    ids, ts, x, flag, c, note = ([event[field] for event in events] for field in range(6))
    return EventColumns(
        "records", "m", offsets, np.zeros(len(events), np.int32), np.array(ts, np.int64), TextColumn.of(ids),
        numbers={"x": np.array(x, np.float64), "flag": np.array(flag, np.float64)},
        texts={"c": TextColumn.of(c), "note": TextColumn.of(note)},
    )  # fmt: skip


def merge(rows: Iterable[SummaryRow]) -> list[Merged]:
    history = CATALOGUE.get("m")
    assert isinstance(history, ModelHistory)
    return merge_rows(rows, history)


def describe(merged: list[Merged], with_duplicates: bool = True) -> list[tuple[object, ...]]:
    """What must be the same, bit for bit; how many came after their window closed does depend on the order."""
    return [
        (m.segment, m.window_start, m.num_rows, m.summary.encode(), m.summary.num_duplicates if with_duplicates else 0)
        for m in merged
        if m.num_rows
    ]


@given(events(), st.sets(st.integers(0, 40)))
@settings(deadline=None, max_examples=40)
def test_chunks_do_not_matter(log: list[Event], cuts: set[int]) -> None:
    assert describe(merge(count(log, cuts))) == describe(merge(count(log, [])))


@given(events(), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_partitions_and_order_do_not_matter(log: list[Event], num: int, rng: random.Random) -> None:
    shuffled = list(log)
    rng.shuffle(shuffled)
    rows = [row for p in range(num) for row in count([e for e in shuffled if int(e[0][1:]) % num == p], [3, 9], p)]
    rng.shuffle(rows)
    assert describe(merge(rows)) == describe(merge(count(log, [])))


@given(events(), st.lists(st.integers(0, 39)))
@settings(deadline=None, max_examples=40)
def test_duplicates_count_once(log: list[Event], repeated: list[int]) -> None:
    again = [log[index % len(log)] for index in repeated]
    merged = merge(count([*log, *again], [len(log), len(log) + 1]))
    assert describe(merged, with_duplicates=False) == describe(merge(count(log, [])), with_duplicates=False)
    assert sum(m.summary.num_duplicates for m in merged if m.segment == "") == len(again)


@given(events())
@settings(deadline=None, max_examples=40)
def test_counts_are_those_of_a_plain_loop(log: list[Event]) -> None:
    merged = {(m.segment, m.window_start): m for m in merge(count(log, []))}
    for (segment, start), m in merged.items():
        chosen = [e for e in log if e[1] // SIZE * SIZE == start and segment in ("", _segment_of(e))]
        assert m.num_rows == len(chosen)
        x = [e[2] for e in chosen if e[2] is not None]
        number = m.numbers()[0]
        assert number.bins.tolist() == [sum(map(inside, x)) for inside in BINS]
        assert (number.num_null, number.num_below, number.num_above) == (
            len(chosen) - len(x), sum(v < -1 for v in x), sum(v > 1e6 for v in x)
        )  # fmt: skip
        assert (number.min, number.max) == ((min(x), max(x)) if x else (None, None))
        if x and max(map(abs, x)) < 1e100:
            assert number.mean is not None
            assert number.variance is not None
            # Each square is rounded once, so that the variance knows 2^-53 of the second moment.
            spread = 1e-9 + 4e-16 * max(map(abs, x)) ** 2
            np.testing.assert_allclose(number.mean, np.mean(x), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(number.variance, np.var(x), rtol=1e-9, atol=spread)
        c, flag = m.categories()
        assert c.counts.tolist() == [sum(e[4] == v for e in chosen) for v in "pq"] + [
            sum(e[4] in ("r", "other") for e in chosen)
        ]
        assert (c.num_null, c.num_not_allowed) == (
            sum(e[4] is None for e in chosen),
            sum(e[4] == "other" for e in chosen),
        )
        assert flag.counts.tolist() == [sum(e[3] == v for e in chosen) for v in (0.0, 1.0)] + [0]
        note = m.presences()[0]
        assert (note.num_values, note.num_null) == (
            sum(e[5] is not None for e in chosen), sum(e[5] is None for e in chosen)
        )  # fmt: skip


BINS: list[Callable[[float], bool]] = [
    lambda v: v <= -0.5,
    lambda v: -0.5 < v <= 0.0,
    lambda v: 0.0 < v <= 0.5,
    lambda v: v > 0.5,
]


def _segment_of(event: Event) -> str:
    return "c=p" if event[4] == "p" else "c=__other__"


def test_a_spec_version_that_is_unknown_is_left_out() -> None:
    rows = count([("r0", 5, 1.0, 1.0, "p", None)], [])
    assert merge([replace(row, spec_version=2) for row in rows]) == []
