"""The same events in JSON and in Arrow give the same columns."""

from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pytest

from schemas.topics import INBOUND
from tests.samples import START_MS, arrow_of, as_rows, read, record

EVENTS = [
    record(
        record_id=f"r{i}",
        ts=f"2026-01-01T00:00:{i:02d}.250Z",
        features={
            "amount": None if i == 3 else i / 4, "vip": i % 2 == 0, "country": "DE" if i % 3 else None,
            "note": "n", "shape": [1.0, i / 8], "photo": {"uri": "s3://x", "sha256": None},
            "more": float(i), "word": "w", "all_null": None, "huge": 2**60 + i, "bag": {"a": [1.0, 2.0], "b": None},
        },
        segment={"tier": "gold" if i % 2 else None}, trace_id="t" if i == 1 else None, model_version=f"{i}",
        prediction=1.0 if i else None, score=i / 16, label=1.0, hello={"x": 1, "y": "z"},
    )
    for i in range(12)
]  # fmt: skip


@pytest.mark.parametrize("kind", INBOUND)
def test_json_and_arrow_give_equal_columns(kind):
    from_json = read(kind, [EVENTS])
    from_arrow = read(kind, [arrow_of(EVENTS)])
    assert from_json.dead == from_arrow.dead == []
    assert as_rows(from_json.columns) == as_rows(from_arrow.columns)
    (json_columns,), (arrow_columns,) = from_json.columns, from_arrow.columns
    for name in ("numbers", "texts", "segment", "scores"):
        assert getattr(json_columns, name).keys() == getattr(arrow_columns, name).keys()


@pytest.mark.parametrize(
    "broken",
    [
        {"record_id": None}, {"ts": "never"}, {"ts": None}, {"model": "nobody"}, {"features": None},
        {"segment": None, "score": None, "prediction": None},
    ],
)  # fmt: skip
def test_json_and_arrow_refuse_alike(broken):
    events = [*EVENTS[:3], {**EVENTS[3], **broken}, *EVENTS[4:]]
    from_json, from_arrow = read("predictions", [events]), read("predictions", [arrow_of(events)])
    assert as_rows(from_json.columns) == as_rows(from_arrow.columns)
    assert [(dead.reason, dead.path, dead.row, dead.message) for dead in from_json.dead] == [
        (dead.reason, dead.path, dead.row, dead.message) for dead in from_arrow.dead
    ]


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("us", "Europe/Berlin"),
        pa.timestamp("ns"),
        pa.int64(),
        pa.string(),
    ],
)
def test_arrow_times(kind):
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    value = START_MS if kind == pa.int64() else "2026-01-01T00:00:00Z" if kind == pa.string() else moment
    table = pa.Table.from_pylist([record()]).set_column(2, "ts", pa.array([value], kind))
    (row,) = as_rows(read("records", [_stream(table)]).columns)
    assert row["ts"] == START_MS


@pytest.mark.parametrize(
    "features",
    [
        pa.array([[("amount", 2.0), ("x", 1.0)]], pa.map_(pa.string(), pa.float64())),
        pa.array([{"amount": 2, "x": 1}], pa.struct([("amount", pa.int8()), ("x", pa.float32())])),
        pa.array([{"amount": 2, "x": True}], pa.struct([("amount", pa.uint64()), ("x", pa.bool_())])),
    ],
)
def test_arrow_layouts_of_features(features):
    table = pa.Table.from_pylist([record()]).set_column(3, "features", features)
    (row,) = as_rows(read("records", [_stream(table)]).columns)
    assert row["numbers"] == {"amount": 2, "x": 1}


def test_arrow_dictionaries_and_slices():
    countries = pa.array(["DE", "FR", None, "DE"]).dictionary_encode()
    table = pa.table(
        {
            "record_id": [f"r{i}" for i in range(4)],
            "model": pa.array(["fraud"] * 4).dictionary_encode(),
            "ts": [START_MS] * 4,
            "features": pa.StructArray.from_arrays([countries], ["country"]),
        }
    )
    (columns,) = read("records", [_stream(table.slice(1, 3))]).columns
    assert columns.texts["country"] == ["FR", None, "DE"]


def test_arrow_refuses_what_does_not_fit():
    table = pa.Table.from_pylist([record()])
    wrong = table.set_column(3, "features", pa.array(["x"]))
    assert [letter.path for letter in read("records", [_stream(wrong)]).dead] == ["features"]
    twice = pa.Table.from_arrays([*table.columns, table.column(0)], names=[*table.column_names, "record_id"])
    assert [letter.reason for letter in read("records", [_stream(twice)]).dead] == ["malformed"]
    cut = _stream(table)[:-60]
    assert [letter.reason for letter in read("records", [cut]).dead] == ["malformed"]


def test_dead_letter_of_an_arrow_row_can_be_sent_again_as_json():
    (letter,) = read("records", [arrow_of([record(model="froud")])]).dead
    assert as_rows(read("records", [json.loads(letter.raw) | {"model": "fraud"}]).columns)[0]["numbers"] == {
        "amount": 12.5
    }


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_whole_numbers_in_lists_have_one_text():
    whole, floating = record(features={"shape": [1, 2]}), record(features={"shape": [1.0, 2.0]})
    (from_json,) = read("records", [whole]).columns
    (from_arrow,) = read("records", [arrow_of([floating])]).columns
    assert from_json.texts["shape"] == from_arrow.texts["shape"] == ["[1,2]"]


def test_values_of_another_type_are_marked_in_every_encoding():
    given = [(1.5, "DE", "n"), (True, 7, "n"), (2, "FR", 0.5), (None, None, None)]
    events = [
        record(record_id=f"r{row}", features={"amount": amount, "country": country, "note": note, "vip": True})
        for row, (amount, country, note) in enumerate(given)
    ]
    marks = [{}, {"amount": True, "country": True}, {"note": True}, {}]
    one_message, many = read("records", [events]), read("records", events)
    assert one_message.dead == many.dead == []
    assert [row["coerced"] for row in as_rows(one_message.columns)] == marks
    assert [row["coerced"] for row in as_rows(many.columns)] == marks


def test_an_arrow_column_of_another_type_is_marked():
    features = pa.array([{"amount": True, "country": 7, "note": "n"}, {"amount": None, "country": None, "note": None}])
    table = pa.Table.from_pylist([record(record_id="a"), record(record_id="b")]).set_column(3, "features", features)
    rows = as_rows(read("records", [_stream(table)]).columns)
    assert [row["coerced"] for row in rows] == [{"amount": True, "country": True}, {}]
    assert rows[0]["numbers"]["amount"] == 1.0
    assert rows[0]["texts"]["country"] == "7"
