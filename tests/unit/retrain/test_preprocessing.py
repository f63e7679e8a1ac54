"""Preprocessing: what is learnt from training rows, and that its JSON form encodes the same."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from retrain.preprocessing import FeatureRows, Preprocessing, fit_preprocessing
from schemas.errors import ConfigurationError
from schemas.spec import FeatureSpec

FEATURES = {
    "amount": FeatureSpec(type="number"),
    "flag": FeatureSpec(type="boolean"),
    "country": FeatureSpec(type="category"),
    "secret": FeatureSpec(type="number", policy="drop"),
    "note": FeatureSpec(type="text"),
}


def make_rows() -> FeatureRows:
    countries = ["DE"] * 6 + ["FR"] * 5 + ["XX"] + [None]
    return FeatureRows(
        {"amount": np.array([1.0, 2.0, math.nan, *range(10)]), "flag": np.array([0.0, 1.0] * 6 + [1.0])},
        {"country": pa.array(countries, pa.string())},
        13,
    )


def test_encodes_numbers_indicators_and_codes() -> None:
    rows = make_rows()
    preprocessing = fit_preprocessing(rows, FEATURES)
    assert preprocessing.ignored == ("note",)
    assert [column.name for column in preprocessing.numbers] == ["amount", "flag"]
    # Only amount was ever missing; XX is too rare to have a code of its own.
    assert [column.indicator for column in preprocessing.numbers] == [True, False]
    assert preprocessing.categories[0].values == ("DE", "FR")

    encoded = preprocessing.encode(rows)
    known = np.delete(rows.numbers["amount"], 2)
    assert encoded.dense[:, 0] == pytest.approx(np.insert((known - known.mean()) / known.std(), 2, 0.0), abs=1e-6)
    assert encoded.dense[:, 1].tolist() == [0.0, 0.0, 1.0] + [0.0] * 10
    assert encoded.codes[:, 0].tolist() == [2] * 6 + [3] * 5 + [1] + [0]


def test_json_form_encodes_the_same_and_alone_or_together() -> None:
    rows = make_rows()
    preprocessing = fit_preprocessing(rows, FEATURES)
    again = msgspec.json.decode(msgspec.json.encode(preprocessing), type=Preprocessing)
    assert again == preprocessing
    together = again.encode(rows)
    for row in range(rows.num_rows):
        numbers = {name: values[row : row + 1] for name, values in rows.numbers.items()}
        alone = again.encode(FeatureRows(numbers, {"country": rows.texts["country"][row : row + 1]}, 1))
        assert np.array_equal(alone.dense[0], together.dense[row])
        assert np.array_equal(alone.codes[0], together.codes[row])


def test_unseen_missing_and_extreme_values_are_encoded() -> None:
    preprocessing = fit_preprocessing(make_rows(), FEATURES)
    strange = FeatureRows({"amount": np.array([1e300, math.nan])}, {"country": pa.array(["ZZ", None])}, 2)
    encoded = preprocessing.encode(strange)
    assert encoded.dense[:, 0].tolist() == [10.0, 0.0]  # clipped, and the mean
    assert encoded.codes[:, 0].tolist() == [1, 0]
    assert np.isfinite(encoded.dense).all()


def test_category_sent_as_a_number_reads_as_its_text() -> None:
    spec = {"code": FeatureSpec(type="category")}
    preprocessing = fit_preprocessing(FeatureRows({}, {"code": pa.array(["1"] * 5 + ["2"] * 6)}, 11), spec)
    encoded = preprocessing.encode(FeatureRows({"code": np.array([1.0, 2.0, math.nan])}, {}, 3))
    assert encoded.codes[:, 0].tolist() == [3, 2, 0]


def test_nothing_to_learn_from_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="none can be read"):
        fit_preprocessing(FeatureRows({}, {}, 0), {"note": FeatureSpec(type="text")})
