"""The estimator survives storage, refuses what cannot be estimated, and is silent on the undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.estimate import ConfidenceEstimator


@pytest.fixture
def estimator() -> ConfidenceEstimator:
    rng = np.random.default_rng(0)
    scores = rng.random(500)
    return ConfidenceEstimator.fit((rng.random(500) < scores).astype(float), scores)


def test_round_trip_keeps_every_bit(estimator: ConfidenceEstimator) -> None:
    restored = ConfidenceEstimator.from_bytes(estimator.to_bytes())
    scores = np.random.default_rng(1).random(200)
    assert np.array_equal(restored.calibrate(scores), estimator.calibrate(scores))
    assert restored.estimate(scores) == estimator.estimate(scores)


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"format":"driftloop.confidence-estimator/2"}', b"\x80\x05K\x01."])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        ConfidenceEstimator.from_bytes(data)


def test_one_class_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="of 3 rows 2 are 0 and 0 are 1"):
        ConfidenceEstimator.fit(np.array([0.0, 0.0, math.nan]), np.array([0.1, 0.2, 0.9]))


def test_missing_scores_are_left_out(estimator: ConfidenceEstimator) -> None:
    scores = np.array([0.1, 0.5, 0.9])
    with_missing = np.array([math.nan, 0.1, 0.5, math.nan, 0.9])
    assert estimator.estimate(with_missing) == estimator.estimate(scores)
    assert np.isnan(estimator.calibrate(with_missing)).tolist() == [True, False, False, True, False]


def test_a_row_without_a_prediction_predicts_by_its_score(estimator: ConfidenceEstimator) -> None:
    scores = np.array([0.1, 0.5, 0.9, 0.3])
    assert estimator.estimate(scores, np.full(4, math.nan)) == estimator.estimate(scores)
    sent = estimator.estimate(scores, np.array([1.0, math.nan, math.nan, 0.0]))
    assert sent == estimator.estimate(scores, np.array([1.0, 1.0, 1.0, 0.0]))


def test_no_rows_have_no_estimate(estimator: ConfidenceEstimator) -> None:
    assert all(math.isnan(value) for value in estimator.estimate(np.array([])).values())


def test_certain_scores_have_no_area() -> None:
    certain = ConfidenceEstimator(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert math.isnan(certain.estimate_roc_auc(np.array([0.2, 0.8])))
