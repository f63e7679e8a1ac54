"""Times, numbers' texts, units and what is inferred from a reference."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import format_number, format_numbers
from schemas.errors import ConfigurationError
from schemas.inference import find_cuts, infer_features, read_reference_features, summarise_reference
from schemas.instants import format_instant, parse_instant
from schemas.privacy import hash_text
from schemas.spec import FeatureSpec, parse_spec
from schemas.timestamps import read_times
from schemas.units import parse_bytes, parse_duration_ms
from tests.samples import KEY, SPEC

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
MOMENTS = st.datetimes(dt.datetime(1901, 1, 1), dt.datetime(2298, 12, 31), timezones=ZONES | st.just(dt.UTC))


@settings(deadline=None)
@given(st.lists(st.tuples(MOMENTS, st.sampled_from(["seconds", "milliseconds", "microseconds"]), st.booleans())))
def test_times_read_in_bulk_equal_pythons(moments):
    texts = [
        moment.isoformat(timespec=digits).replace("+00:00", "Z" if zulu else "+00:00")
        for moment, digits, zulu in moments
    ]
    expected = [(dt.datetime.fromisoformat(text) - EPOCH) // dt.timedelta(milliseconds=1) for text in texts]
    times, problems = read_times(texts)
    assert times.tolist() == expected
    assert problems == {}
    assert [parse_instant(text) for text in texts] == expected


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-01-01t00:00:00z", 1_767_225_600_000),
        ("2026-01-01 00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T00:00:00.1234567899Z", 1_767_225_600_123),
        ("2024-02-29T23:59:60Z", 1_709_251_200_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_unusual_times(text, ms):
    assert read_times([text])[0].tolist() == [ms]


@pytest.mark.parametrize(
    "text",
    ["2026-01-01", "2026-01-01T00:00:00", "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-01T24:00:00Z",
     "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00,5Z", "２026-01-01T00:00:00Z", "2026-01-01T00:00:00.Z", ""],
)  # fmt: skip
def test_no_times(text):
    times, problems = read_times(["2026-01-01T00:00:00Z", text])
    assert problems[1].reason == "wrong_type"
    assert times[0] == 1_767_225_600_000


def test_instants_are_written_as_they_are_read():
    assert format_instant(1_767_225_600_005) == "2026-01-01T00:00:00.005Z"
    assert parse_instant(format_instant(-1)) == -1


@pytest.mark.parametrize(
    ("value", "text"),  # as `SELECT toString(value)` gives them
    [(1.0, "1"), (0.5, "0.5"), (1e20, "100000000000000000000"), (1e21, "1e21"), (1e-6, "0.000001"), (1e-7, "1e-7"),
     (-2.5e-9, "-2.5e-9"), (123456789012345678901.0, "123456789012345680000"), (1.5e300, "1.5e300"), (0.1, "0.1")],
)  # fmt: skip
def test_numbers_are_written_as_in_clickhouse(value, text):
    assert format_number(value) == text
    assert format_numbers(np.array([value, np.nan])) == [text, None]


def test_units():
    assert [parse_duration_ms(text) for text in ("500ms", "5000s", "1.5h", "30d", "1w")] == [
        500, 5_000_000, 5_400_000, 2_592_000_000, 604_800_000,
    ]  # fmt: skip
    assert [parse_bytes(text) for text in ("4GiB", "1MB", "10B")] == [4 * 2**30, 10**6, 10]
    for text in ("", "1", "h", "-1h", "0s", "9999999d"):
        with pytest.raises(ValueError, match=f"^'{text}' is no"):
            parse_duration_ms(text)


def test_features_are_inferred():
    frame = pd.DataFrame(
        {
            "age": [1, 2, 3], "rate": [0.5, None, 1], "vip": [True, False, True], "maybe": [True, None, False],
            "code": pd.Categorical([1, 2, 1]), "country": ["DE", None, "FR"], "shape": [[1.0], [2.0], [3.0]],
            "note": [f"a long sentence about one thing {i}" for i in range(3)], "empty": [None] * 3,
        }
    )  # fmt: skip
    kinds = {name: spec.type for name, spec in infer_features(frame, {"age": FeatureSpec(type="auto", min=0)}).items()}
    assert kinds == {
        "age": "number", "rate": "number", "vip": "boolean", "maybe": "boolean", "code": "category",
        "country": "category", "shape": "embedding", "note": "text", "empty": "number",
    }  # fmt: skip
    assert infer_features(frame, {"age": FeatureSpec(type="auto", min=0)})["age"].min == 0
    with pytest.raises(ValueError, match="'gone' has no type"):
        infer_features(frame, {"gone": FeatureSpec(type="auto")})


def test_cuts_are_order_statistics():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    cuts = find_cuts(np.append(values, np.nan))
    assert cuts == [10, 25, *range(50, 1000, 50), 975, 990]
    assert find_cuts(np.array([2.0, 2.0, np.nan])) == [2.0]
    assert find_cuts(np.array([np.nan])) == []


def test_references_are_written_like_events():
    spec = parse_spec(
        SPEC.replace("country: category", "country: {policy: hash}\n  code: category")
        .replace("vip: boolean", "vip: {policy: drop}")
        + "segments: [country, amount]\n", "s",
    )  # fmt: skip
    frame = pd.DataFrame(
        {"amount": [1, 2, 2], "vip": [1, 0, 1], "country": ["DE", None, "FR"], "code": [3.0, None, 3.0],
         "note": ["a"] * 3, "shape": [[1.0]] * 3, "photo": [None] * 3}
    )  # fmt: skip
    stored = read_reference_features(frame, spec, KEY, "reference.csv")
    assert "vip" not in stored.columns
    assert stored["country"].tolist() == [hash_text("DE", KEY), None, hash_text("FR", KEY)]
    assert stored["code"].tolist() == ["3", None, "3"]
    summary = summarise_reference(stored, spec, score=[0.1, 0.2, 0.3], prediction=[1, 0, 1])
    assert summary.cuts == {"amount": [1, 2], "score": [0.1, 0.2, 0.3]}
    assert summary.categories["code"] == ["3"]
    assert summary.categories["prediction"] == ["1", "0"]
    assert summary.segment_values["amount"] == ["2", "1"]
    with pytest.raises(ConfigurationError, match=r"reference.csv: features.amount: row 1: amount is the text 'x'"):
        read_reference_features(frame.assign(amount=[1, "x", 2]), spec, KEY, "reference.csv")
    with pytest.raises(ConfigurationError, match="has no such column"):
        read_reference_features(frame.drop(columns="note"), spec, KEY, "reference.csv")
