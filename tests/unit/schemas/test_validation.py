"""Every reason of a dead letter, what is accepted, and what it becomes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from schemas.identity import hash_ids
from schemas.privacy import hash_text
from schemas.validation import FUTURE_MS, RAW_BYTES_MAX, validate
from tests.samples import (
    ARRIVED_MS,
    ARROW,
    KEY,
    SPEC,
    START_MS,
    arrow_of,
    as_rows,
    batch_of,
    catalogue_of,
    publish,
    read,
    record,
)

MULTICLASS = SPEC.replace("task: binary", "task: multiclass")
REGRESSION = SPEC.replace("task: binary", "task: regression")

# value, reason, path
REFUSED = [
    (b"{not json", "malformed", ""),
    (b"\xff\xfe{}", "malformed", ""),
    (b'{"record_id": "\\ud800"}', "malformed", ""),
    (b"[" * 100_000, "malformed", ""),
    (b"7", "wrong_type", "event"),
    (b"", "empty", ""),
    (None, "empty", ""),
    (b"\x00\x00\x00\x00\x05rest", "unknown_encoding", ""),
    (b"\xff\xff\xff\xff\x00\x01\x00\x00junk", "malformed", ""),
    (b'{"x": "' + b"a" * 10_000_000 + b'"}', "too_large", ""),
    (record(model=None), "missing_field", "model"),
    (record(model=7), "wrong_type", "model"),
    (record(model="froud"), "unknown_model", "model"),
    (record(record_id=None), "missing_field", "record_id"),
    (record(record_id=""), "missing_field", "record_id"),
    (record(record_id=5), "wrong_type", "record_id"),
    (record(ts=None), "missing_field", "ts"),
    (record(ts="yesterday"), "wrong_type", "ts"),
    (record(ts="2026-02-30T00:00:00Z"), "wrong_type", "ts"),
    (record(ts=True), "wrong_type", "ts"),
    (record(ts=1_767_225_600), "seconds", "ts"),
    (record(ts=1_767_225_600.25), "seconds", "ts"),
    (record(ts=0), "seconds", "ts"),
    (record(ts="1850-01-01T00:00:00Z"), "out_of_range", "ts"),
    (record(ts=10**400), "out_of_range", "ts"),
    (record(ts=ARRIVED_MS + FUTURE_MS + 1), "future", "ts"),
    (record(features=None), "missing_field", "features"),
    (record(features=[1]), "wrong_type", "features"),
    (record(features={"amount": "12.5"}), "wrong_type", "features.amount"),
    (record(features={"amount": [1]}), "wrong_type", "features.amount"),
    (record(features={"vip": 2}), "wrong_type", "features.vip"),
    (record(features={"vip": "yes"}), "wrong_type", "features.vip"),
    (record(features={"shape": [1, "a"]}), "wrong_type", "features.shape"),
    (record(features={"photo": "a.png"}), "wrong_type", "features.photo"),
    (record(features={"amount": float("nan")}), "not_finite", "features.amount"),
    (record(features={"undeclared": float("-inf")}), "not_finite", "features.undeclared"),
    (b'{"record_id": "r", "model": "fraud", "ts": 1767225600000, "features": {"amount": 1e999}}', "not_finite",
     "features.amount"),
    (record(segment="DE"), "wrong_type", "segment"),
    (record(trace_id=1), "wrong_type", "trace_id"),
    (record(note=json.loads("[" * 40 + "]" * 40)), "malformed", "extra"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "reason", "path"), REFUSED)
def test_refused_event_is_one_dead_letter_and_the_rest_stays(value, reason, path):
    found = read("records", [record(record_id="before"), value, record(record_id="after")])
    assert [row["record_id"] for row in as_rows(found.columns)] == ["before", "after"]
    (letter,) = found.dead
    assert (letter.reason, letter.path, letter.offset, letter.row) == (reason, path, 1, 0)
    assert (letter.topic, letter.partition, letter.at, letter.stage) == ("records", 3, ARRIVED_MS, "validate")
    assert letter.message.endswith(".")
    assert found.num_events == 3
    sent = batch_of([value]).values[0] or b""
    if letter.raw_encoding == "utf-8":
        assert letter.raw == sent[:RAW_BYTES_MAX].decode()


def test_wrong_type_says_what_came_and_what_is_expected():
    (letter,) = read("records", [record(features={"amount": "12.5"})]).dead
    assert letter.message == (
        "features.amount is the text '12.5'; a number is expected. Send the number without quotes."
    )
    assert letter.model == "fraud"


def test_only_the_first_problem_of_an_event_is_reported():
    (letter,) = read("records", [record(record_id=None, ts=5, features={"amount": "x", "vip": "y"})]).dead
    assert letter.path == "record_id"


def test_large_raw_is_cut_off():
    (letter,) = read("records", [b'{"x": "' + "ü".encode() * RAW_BYTES_MAX]).dead
    assert len(letter.raw.encode()) in (RAW_BYTES_MAX, RAW_BYTES_MAX - 1)
    (letter,) = read("records", [b"\xff" * RAW_BYTES_MAX * 2]).dead
    assert letter.raw_encoding == "base64"


def test_unknown_content_type_is_refused_by_its_header():
    found = read("records", [record()], headers=[("content-type", b"application/avro")])
    assert [letter.reason for letter in found.dead] == ["unknown_encoding"]
    assert "application/avro" in found.dead[0].message


@pytest.mark.parametrize("content_type", [b"application/json", b"application/json; charset=utf-8", b""])
def test_json_content_types(content_type):
    assert read("records", [record()], headers=[("content-type", content_type)]).columns[0].num_rows == 1


def test_unknown_models_are_named_for_the_caller():
    found = read("records", [record(model="a"), record(), record(model="b"), record(model="a")])
    assert found.unknown_models == {"a", "b"}
    assert [(letter.offset, letter.model) for letter in found.dead] == [(0, "a"), (2, "b"), (3, "a")]


def test_rows_of_an_array_have_their_own_places_and_fates():
    array = [record(record_id="a"), record(ts=5), 3, record(record_id="b")]
    found = read("records", [record(record_id="0"), array, record(record_id="c")])
    rows = [(row["record_id"], row["offset"], row["row"]) for row in as_rows(found.columns)]
    assert rows == [("0", 0, 0), ("a", 1, 0), ("b", 1, 3), ("c", 2, 0)]
    assert [(letter.offset, letter.row, letter.reason) for letter in found.dead] == [
        (1, 1, "seconds"),
        (1, 2, "wrong_type"),
    ]
    assert json.loads(found.dead[0].raw) == record(ts=5)


def test_array_with_a_nan_loses_only_that_event():
    found = read("records", [[record(record_id="a"), record(features={"amount": float("nan")})]])
    assert [row["record_id"] for row in as_rows(found.columns)] == ["a"]
    assert [(letter.reason, letter.row) for letter in found.dead] == [("not_finite", 1)]
    assert '"amount": NaN' in found.dead[0].raw


def test_models_of_one_batch_are_told_apart_in_log_order():
    other = publish(
        SPEC.replace("model: fraud", "model: churn").replace("amount: {type: number, min: 0}", "amount: text")
    )
    values = [record(record_id=str(i), model="fraud" if i % 3 else "churn") for i in range(9)]
    found = read("records", values, publish(), other)
    assert {columns.model: columns.record_id for columns in found.columns} == {
        "churn": ["0", "3", "6"],
        "fraud": ["1", "2", "4", "5", "7", "8"],
    }
    churn = next(columns for columns in found.columns if columns.model == "churn")
    assert churn.texts["amount"] == ["12.5"] * 3


def test_each_event_is_read_under_the_spec_in_force_at_its_time():
    later = publish(
        SPEC.replace("amount: {type: number, min: 0}", "amount: category"),
        spec_version=2, effective_from=START_MS + 60_000,
    )  # fmt: skip
    values = [record(record_id=str(i), ts=START_MS + (i % 2) * 60_000) for i in range(4)]
    (columns,) = read("records", values, publish(), later).columns
    assert columns.record_id == ["0", "1", "2", "3"]
    assert columns.texts["amount"] == [None, "12.5", None, "12.5"]
    np.testing.assert_array_equal(columns.numbers["amount"], [12.5, np.nan, 12.5, np.nan])


def test_features_by_type():
    features = {
        "amount": 3, "vip": True, "country": 3.0, "note": "long", "shape": [1, 2.5],
        "photo": {"uri": "s3://a", "media_type": "image/png", "sha256": None},
        "more": 7, "flag": False, "word": "x", "bag": {"b": 1, "a": [True, "z"]},
    }  # fmt: skip
    (row,) = as_rows(read("records", [record(features=features, segment={"tier": 1}, trace_id="t", hello=[1])]).columns)
    assert row["numbers"] == {"amount": 3, "vip": 1, "more": 7, "flag": 0}
    assert row["texts"] == {
        "country": "3", "note": "long", "shape": "[1,2.5]",
        "photo": '{"media_type":"image/png","uri":"s3://a"}', "word": "x", "bag": '{"a":[true,"z"],"b":1}',
    }  # fmt: skip
    assert (row["segment"], row["trace_id"], row["extra"]) == ({"tier": "1"}, "t", '{"hello":[1]}')


def test_declared_features_are_always_columns_and_others_only_with_values():
    (columns,) = read("records", [record(features={"x": None})]).columns
    assert set(columns.numbers) == {"amount", "vip"}
    assert set(columns.texts) == {"country", "note", "shape", "photo"}
    assert columns.trace_id is None
    assert columns.extra is None


def test_undeclared_feature_of_mixed_types():
    (columns,) = read("records", [record(features={"x": value}) for value in (1, "a", None, True)]).columns
    np.testing.assert_array_equal(columns.numbers["x"], [1, np.nan, np.nan, 1])
    assert columns.texts["x"] == [None, "a", None, None]


def test_personal_data_is_protected():
    spec = publish(
        SPEC.replace("country: category", "country: {policy: hash}")
        .replace("note: text", "note: {type: text, policy: mask}")
        .replace("vip: boolean", "vip: {type: boolean, policy: drop}")
    )
    event = record(features={"country": "DE", "note": "hi", "vip": 1}, segment={"country": "FR", "vip": "1"})
    (row,) = as_rows(read("records", [event], spec).columns)
    assert row["texts"] == {"country": hash_text("DE", KEY), "note": "***"}
    assert row["numbers"] == {}
    assert row["segment"] == {"country": hash_text("FR", KEY)}
    assert hash_text("DE", KEY) != hash_text("DE", b"another")


def prediction(**changes):
    return {**record(features=None), "prediction": 1, "score": 0.75, **changes}


def test_predictions():
    found = read(
        "predictions",
        [prediction(), prediction(model_version="7", features={"amount": 1}), prediction(prediction=None)],
    )
    (columns,) = found.columns
    assert columns.model_version == ["external", "7", "external"]
    np.testing.assert_array_equal(columns.prediction, [1, 1, np.nan])
    np.testing.assert_array_equal(columns.score, [0.75] * 3)
    assert columns.has_features.tolist() == [False, True, False]
    np.testing.assert_array_equal(columns.numbers["amount"], [np.nan, 1, np.nan])


@pytest.mark.parametrize(
    ("changes", "reason", "path"),
    [
        ({"prediction": None, "score": None}, "missing_field", "prediction"),
        ({"prediction": "yes"}, "wrong_type", "prediction"),
        ({"prediction": 0.7}, "out_of_range", "prediction"),
        ({"score": "0.7"}, "wrong_type", "score"),
        ({"score": 1.7}, "out_of_range", "score"),
        ({"score": -0.01}, "out_of_range", "score"),
        ({"scores": [1]}, "wrong_type", "scores"),
        ({"scores": {"a": "x"}}, "wrong_type", "scores.a"),
        ({"model_version": 7}, "wrong_type", "model_version"),
        ({"features": 1}, "wrong_type", "features"),
    ],
)
def test_refused_predictions(changes, reason, path):
    (letter,) = read("predictions", [prediction(**changes)]).dead
    assert (letter.reason, letter.path) == (reason, path)


def test_a_binary_score_may_be_off_by_rounding_and_others_may_be_anything():
    (columns,) = read("predictions", [prediction(score=score) for score in (0, 1, 1.0000001)]).columns
    np.testing.assert_array_equal(columns.score, [0, 1, 1.0000001])
    (columns,) = read("predictions", [prediction(score=7)], publish(MULTICLASS)).columns
    assert columns.num_rows == 1


def test_multiclass_predictions():
    values = [
        prediction(prediction=1, score=None),
        prediction(prediction=None, score=None, scores={"b": 0.8, "a": 0.2}),
        prediction(prediction=None, score=None, scores={"b": 0.5, "a": 0.5}),
    ]
    (columns,) = read("predictions", values, publish(MULTICLASS)).columns
    assert columns.prediction_text == ["1", "b", "a"]
    assert columns.prediction is None
    np.testing.assert_array_equal(columns.scores["a"], [np.nan, 0.2, 0.5])


def test_regression_predictions():
    (columns,) = read("predictions", [prediction(prediction=3.4, score=None)], publish(REGRESSION)).columns
    assert columns.prediction.tolist() == [3.4]


def test_labels():
    (columns,) = read("labels", [{**record(features=None), "label": value} for value in (1, False)]).columns
    assert columns.label.tolist() == [1, 0]
    (columns,) = read("labels", [{**record(), "label": value} for value in (1, "b")], publish(MULTICLASS)).columns
    assert columns.label_text == ["1", "b"]
    assert columns.numbers == {}
    assert json.loads(columns.extra[0]) == {"features": {"amount": 12.5, "country": "DE"}}


@pytest.mark.parametrize(
    ("label", "reason"),
    [(None, "missing_field"), ("1", "wrong_type"), (2, "out_of_range"), (float("nan"), "not_finite")],
)
def test_refused_labels(label, reason):
    (letter,) = read("labels", [{**record(), "label": label}]).dead
    assert (letter.reason, letter.path) == (reason, "label")


def test_watermarks():
    batch = batch_of([None, record(), None, None, None], first=10)
    batch.headers = {index: [("driftloop-watermark", b"1767225600000")] for index in (0, 2, 4)}
    batch.headers[2] = [("driftloop-watermark", b"soon")]
    batch.keys = {0: b"fraud", 2: b"fraud", 3: b"fraud", 4: b"froud"}
    found = validate("records", batch, catalogue_of(), KEY)
    assert found.watermarks == [(10, "fraud", 1_767_225_600_000)]
    assert [(letter.offset, letter.reason) for letter in found.dead] == [
        (12, "malformed"), (13, "empty"), (14, "unknown_model"),
    ]  # fmt: skip
    assert found.unknown_models == {"froud"}


def test_arrow_rows_have_their_own_places_and_fates():
    events = [record(record_id=str(i), features={"amount": float(i), "country": "DE"}) for i in range(5)]
    events[2]["ts"] = "never"
    events[3]["features"]["amount"] = float("nan")
    found = read("records", [record(record_id="json"), arrow_of(events)])
    rows = [(row["record_id"], row["offset"], row["row"]) for row in as_rows(found.columns)]
    assert rows == [("json", 0, 0), ("0", 1, 0), ("1", 1, 1), ("4", 1, 4)]
    assert [(letter.offset, letter.row, letter.reason) for letter in found.dead] == [
        (1, 2, "wrong_type"), (1, 3, "not_finite"),
    ]  # fmt: skip
    assert json.loads(found.dead[0].raw)["record_id"] == "2"


def test_arrow_is_known_by_header_too():
    assert read("records", [arrow_of([record()])], headers=ARROW).columns[0].num_rows == 1
    (letter,) = read("records", [record()], headers=ARROW).dead
    assert letter.reason == "malformed"


def test_identity_takes_the_column():
    (columns,) = read("predictions", [prediction(), prediction(record_id="another")]).columns
    assert len(set(hash_ids(columns.model, columns.record_id).tolist())) == 2


def test_empty_batch():
    found = read("records", [])
    assert (found.columns, found.dead, found.num_events) == ([], [], 0)


def test_ever_new_feature_names_stay_bounded():
    events = [record(record_id=f"{i}", features={f"f{i}-{j}": j for j in range(500)}) for i in range(60)]
    found = read("records", [events[:30], *events[30:]])
    assert found.dead == []
    assert len(found.columns) > 1
    assert all(len(columns.numbers) <= 10_001 for columns in found.columns)
    rows = as_rows(found.columns[-1:])
    assert rows[-1]["numbers"] == {f"f59-{j}": j for j in range(500)}
    assert sum(columns.num_rows for columns in found.columns) == 60


def test_too_many_features_are_refused():
    (letter,) = read("records", [record(features={f"f{j}": j for j in range(10_001)})]).dead
    assert (letter.reason, letter.path) == ("too_large", "features")


def test_columns_of_nulls_cannot_fill_the_memory():
    table = pa.table({f"c{i}": pa.nulls(1_000_000) for i in range(101)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert [letter.reason for letter in read("records", [sink.getvalue().to_pybytes()]).dead] == ["too_large"]


def test_rows_without_columns_are_refused_with_their_message():
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * 3, pa.struct([])))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    (letter,) = read("records", [sink.getvalue().to_pybytes()]).dead
    assert (letter.reason, "it has rows and no columns" in letter.message) == ("malformed", True)
