"""Whatever arrives: no exception, every event accounted for, and no trace of where the log was cut."""

from __future__ import annotations

import itertools
import json

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.topics import INBOUND
from schemas.validation import validate
from tests.samples import KEY, SPEC, START_MS, arrow_of, as_rows, batch_of, catalogue_of, publish, read, record

KINDS = st.sampled_from(INBOUND)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(10**400), st.just("2026-01-01T00:00:00Z")
)
JSONS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
FEATURES = st.dictionaries(st.sampled_from(["amount", "vip", "country", "note", "shape", "photo", "x", "y"]), JSONS)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "record_id": st.text() | JSONS,
        "model": st.sampled_from(["fraud", "churn", "nobody"]) | JSONS,
        "ts": st.integers(START_MS - 10**6, START_MS + 10**6) | st.just("2026-01-01T00:00:00.5+01:00") | JSONS,
        "features": FEATURES | JSONS,
        "segment": JSONS,
        "trace_id": JSONS,
        "model_version": st.text() | JSONS,
        "prediction": JSONS,
        "score": JSONS,
        "scores": st.dictionaries(st.text(), st.floats()) | JSONS,
        "label": JSONS,
        "other": JSONS,
    },
)
CATALOGUE = catalogue_of(
    publish(), publish(SPEC.replace("fraud", "churn").replace("binary", "multiclass")),
    publish(SPEC.replace("amount: {type: number, min: 0}", "amount: text"), spec_version=2, effective_from=START_MS),
)  # fmt: skip


def outcome(kind, batches):
    """Give all that validation said of some batches, in log order."""
    found = [validate(kind, batch, CATALOGUE, KEY) for batch in batches]
    rows = sorted((row for one in found for row in as_rows(one.columns)), key=lambda row: (row["offset"], row["row"]))
    return rows, [letter for one in found for letter in one.dead], sum(one.num_events for one in found)


def place_all(values, cuts):
    """Cut a log of values into batches."""
    borders = sorted({0, len(values), *(cut % (len(values) + 1) for cut in cuts)})
    pairs = itertools.pairwise(borders)
    return [batch_of(values[start:end], first=start) for start, end in pairs]


def write(event):
    """Give an event's JSON; lone surrogates are written as escapes, NaN as Python writes it."""
    return json.dumps(event).encode()


@given(
    KINDS,
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"\xff\xff\xff\xff", b"{}", b"[]", b"[1, {}]"]) | st.none(),
        max_size=6,
    ),
)
def test_any_bytes_become_columns_or_dead_letters(kind, values):
    found = validate(kind, batch_of(values), CATALOGUE, KEY)
    assert found.num_events == len(found.dead) + sum(columns.num_rows for columns in found.columns)
    silent = sum(value == b"[]" for value in values)
    assert (
        len({letter.offset for letter in found.dead} | {row["offset"] for row in as_rows(found.columns)})
        == len(values) - silent
    )


@given(st.integers(0, 2_000), st.integers(0, 255), st.integers(1, 3))
@example(50, 0, 3)  # rows without columns
def test_damaged_arrow_never_raises(place, byte, width):
    whole = bytearray(arrow_of([record(record_id=str(i)) for i in range(3)]))
    place %= len(whole)
    whole[place : place + width] = bytes([byte]) * width
    validate("records", batch_of([b"\xff\xff\xff\xff" + bytes(whole[4:])]), CATALOGUE, KEY)


@given(KINDS, st.lists(EVENTS, max_size=6), st.lists(st.integers(0, 100), max_size=3))
def test_cuts_do_not_matter_and_every_event_is_accounted_for(kind, events, cuts):
    values = [write(event) for event in events]
    whole = outcome(kind, place_all(values, []))
    assert whole == outcome(kind, place_all(values, cuts))
    rows, dead, num_events = whole
    places = [(row["offset"], row["row"]) for row in rows] + [(letter.offset, letter.row) for letter in dead]
    assert sorted(places) == [(offset, 0) for offset in range(len(values))]
    assert num_events == len(values)


@given(KINDS, st.lists(EVENTS, min_size=1, max_size=5), EVENTS)
def test_a_neighbour_changes_nothing(kind, events, other):
    alone = outcome(kind, [batch_of([write(event) for event in events])])
    beside = outcome(kind, [batch_of([write(event) for event in [*events, other]])])
    assert beside[0][: len(alone[0])] == alone[0]
    assert [letter for letter in beside[1] if letter.offset < len(events)] == alone[1]


NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.none() | st.text(), st.none() | st.booleans(), st.lists(st.floats(-9, 9))))
)
def test_json_and_arrow_give_equal_columns(table):
    events = [
        record(record_id=f"r{i}", features={"amount": a, "x": b, "country": c, "vip": d, "shape": e, "y": c})
        for i, (a, b, c, d, e) in enumerate(table)
    ]
    from_json, from_arrow = read("records", [events]), read("records", [arrow_of(events)])
    assert as_rows(from_json.columns) == as_rows(from_arrow.columns)
    assert from_json.dead == from_arrow.dead == []
