"""No measurement depends, to its last bit, on the order in which rows arrive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from measures.composition import explain_composition
from measures.drift import METHODS, Distance, measure_distance
from measures.estimate import ConfidenceEstimator
from measures.performance import compute_roc_auc, measure_performance

finite = st.floats(-1e100, 1e100)
# Few distinct values beside many, so that ties are common.
numbers = st.lists(st.one_of(finite, st.sampled_from([0.0, -0.0, 1.0, 0.1, math.nan])), max_size=80)
names = st.lists(st.one_of(st.sampled_from(["a", "b", "c", None]), st.text(max_size=3)), max_size=80)
probabilities = st.floats(0.0, 1.0)


def _bits(values: dict[str, float]) -> dict[str, bytes]:
    return {name: np.float64(value).tobytes() for name, value in values.items()}


def _shuffle(data: st.DataObject, *columns: NDArray[Any]) -> list[NDArray[Any]]:
    order = np.random.default_rng(data.draw(st.integers(0, 2**32))).permutation(len(columns[0]))
    return [column[order] for column in columns]


def _same(one: Distance, other: Distance) -> bool:
    return _bits({"value": one.value, "p": one.p_value or 0.0}) == _bits(
        {"value": other.value, "p": other.p_value or 0.0}
    )


@given(numbers, numbers, st.data())
@settings(deadline=None, max_examples=150)
def test_drift_of_numbers(reference: list[float], current: list[float], data: st.DataObject) -> None:
    before, after = np.array(reference, dtype=float), np.array(current, dtype=float)
    for method in (name for name, each in METHODS.items() if "number" in each.kinds):
        measured = measure_distance(before, after, "number", method)
        assert math.isnan(measured.value) or measured.value >= 0.0
        again = measure_distance(_shuffle(data, before)[0], _shuffle(data, after)[0], "number", method)
        assert _same(measured, again), method


@given(names, names, st.data())
@settings(deadline=None, max_examples=150)
def test_drift_and_composition_of_categories(reference: list[Any], current: list[Any], data: st.DataObject) -> None:
    before, after = np.array(reference, dtype=object), np.array(current, dtype=object)
    shuffled = _shuffle(data, before)[0], _shuffle(data, after)[0]
    for method in (name for name, each in METHODS.items() if "category" in each.kinds):
        measured = measure_distance(before, after, "category", method)
        assert math.isnan(measured.value) or measured.value >= 0.0
        assert _same(measured, measure_distance(*shuffled, "category", method)), method
    changes = explain_composition(before, after, top=1000)
    assert changes == explain_composition(*shuffled, top=1000)
    assert math.isclose(math.fsum(each.change for each in changes), 0.0, abs_tol=1e-9)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, math.nan]), probabilities), max_size=150), st.data())
def test_binary_performance_and_its_estimate(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    table = np.array(rows, dtype=float).reshape(-1, 2)
    labels, scores = table[:, 0], table[:, 1]
    shuffled = _shuffle(data, labels, scores)
    measured = measure_performance("binary", labels, scores=scores)
    assert _bits(measured) == _bits(measure_performance("binary", shuffled[0], scores=shuffled[1]))
    if 0.0 in labels and 1.0 in labels:
        estimator, again = ConfidenceEstimator.fit(labels, scores), ConfidenceEstimator.fit(*shuffled)
        assert estimator.to_bytes() == again.to_bytes()
        assert _bits(estimator.estimate(scores)) == _bits(again.estimate(shuffled[1]))
        assert np.all(np.diff(estimator.probabilities) >= 0.0)


@given(st.lists(st.tuples(finite, finite), max_size=150), st.data())
def test_regression_performance(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    table = np.array(rows, dtype=float).reshape(-1, 2)
    shuffled = _shuffle(data, table[:, 0], table[:, 1])
    measured = measure_performance("regression", table[:, 0], table[:, 1])
    assert _bits(measured) == _bits(measure_performance("regression", *shuffled))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.tuples(*[probabilities] * 3)), max_size=100), st.data())
def test_multiclass_performance(rows: list[tuple[str, tuple[float, ...]]], data: st.DataObject) -> None:
    labels = np.array([label for label, _ in rows], dtype=object)
    scores = np.array([each for _, each in rows], dtype=float).reshape(-1, 3)
    measured = measure_performance("multiclass", labels, None, scores, "abc")
    shuffled = _shuffle(data, labels, scores)
    assert _bits(measured) == _bits(measure_performance("multiclass", shuffled[0], None, shuffled[1], "abc"))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_roc_auc_counts_pairs(rows: list[tuple[bool, int]]) -> None:
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    area = compute_roc_auc(np.array([float(r[0]) for r in rows]), np.array([float(r[1]) for r in rows]))
    if positives and negatives:
        won = sum((high > low) + (high == low) / 2 for high in positives for low in negatives)
        assert area == won / (len(positives) * len(negatives))
    else:
        assert math.isnan(area)
