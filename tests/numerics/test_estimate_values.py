"""Confidence-based estimation on two public data sets, against published figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.isotonic import IsotonicRegression

from measures.estimate import ConfidenceEstimator
from measures.harm_limits import NUM_RESAMPLES, learn_spread
from measures.limits import limits_3sd
from measures.performance import compute_roc_auc, measure_performance
from measures.sampling import recalibrate_two_fold

WINDOW_NUM_ROWS = 5000
Reader = Callable[[str], pd.DataFrame]

CAR_LOAN_REALIZED = [
    0.970962, 0.970248, 0.976282, 0.967721, 0.969886, 0.96005, 0.95853, 0.959041, 0.963094, 0.957556,
]  # fmt: skip
CAR_LOAN_ESTIMATED = [
    0.970744, 0.971011, 0.971407, 0.971091, 0.971123, 0.96109, 0.961825, 0.961073, 0.962533, 0.961316,
]  # fmt: skip


def _windows(num_rows: int) -> list[slice]:
    return [slice(start, start + WINDOW_NUM_ROWS) for start in range(0, num_rows, WINDOW_NUM_ROWS)]


def _measure_windows(labels: np.ndarray, scores: np.ndarray) -> list[float]:
    return [compute_roc_auc(labels[each], scores[each]) for each in _windows(len(labels))]


def test_car_loan(read_dataset: Reader) -> None:
    reference = read_dataset("synthetic_car_loan_reference.csv")
    scores = read_dataset("synthetic_car_loan_analysis.csv")["y_pred_proba"].to_numpy(float)
    labels = read_dataset("synthetic_car_loan_analysis_target.csv")["repaid"].to_numpy(float)
    reference_labels = reference["repaid"].to_numpy(float)
    reference_scores = reference["y_pred_proba"].to_numpy(float)
    estimator = ConfidenceEstimator.fit(reference_labels, reference_scores)
    realized = _measure_windows(labels, scores)
    estimated = [estimator.estimate_roc_auc(scores[each]) for each in _windows(len(scores))]
    assert realized == pytest.approx(CAR_LOAN_REALIZED, abs=5e-7)
    assert estimated == pytest.approx(CAR_LOAN_ESTIMATED, abs=1e-6)
    limits = limits_3sd(_measure_windows(reference_labels, reference_scores))
    assert (limits.lower, limits.upper) == pytest.approx((0.963317, 0.978660), abs=1e-6)
    for series in (realized, estimated):
        assert [i for i, value in enumerate(series) if not limits.lower <= value <= limits.upper] == [5, 6, 7, 8, 9]
    last = slice(8 * WINDOW_NUM_ROWS, None)
    recalibrated = recalibrate_two_fold(labels[last], scores[last])
    log_loss = measure_performance("binary", labels[last], scores=recalibrated, metrics=["log_loss"])["log_loss"]
    assert log_loss == pytest.approx(0.2365, abs=5e-4)


def test_employment(read_dataset: Reader) -> None:
    reference = read_dataset("employment_MA_reference.pq")
    scores = read_dataset("employment_MA_analysis.pq")["predicted_probability"].to_numpy(float)
    labels = read_dataset("employment_MA_analysis_target.pq")["employed"].to_numpy(float)
    reference_labels = reference["employed"].to_numpy(float)
    reference_scores = reference["predicted_probability"].to_numpy(float)
    estimator = ConfidenceEstimator.fit(reference_labels, reference_scores)
    realized = _measure_windows(labels, scores)
    estimated = [estimator.estimate_roc_auc(scores[each]) for each in _windows(len(scores))]
    assert (len(realized), realized[27], realized[28]) == pytest.approx((42, 0.8035, 0.8642), abs=5e-5)
    assert (estimated[27], estimated[28]) == pytest.approx((0.8368, 0.8729), abs=5e-5)
    limits = limits_3sd(_measure_windows(reference_labels, reference_scores))
    assert (limits.lower, limits.upper) == pytest.approx((0.8934, 0.9134), abs=5e-5)
    assert [i for i, value in enumerate(realized) if value < limits.lower] == [27, 28]
    assert [i for i, value in enumerate(estimated) if value < limits.lower] == [27, 28]
    assert [i for i, value in enumerate(realized) if value > limits.upper] == [19]
    # Limits at the level of a budget, one false alarm in 30 days of daily or hourly windows, say the same.
    rng, num_rows = np.random.default_rng(0), len(reference_labels)
    drawn = [rng.integers(num_rows, size=WINDOW_NUM_ROWS) for _ in range(NUM_RESAMPLES)]
    spread = learn_spread(
        "roc_auc",
        _measure_windows(reference_labels, reference_scores),
        [len(reference_labels[each]) for each in _windows(num_rows)],
        [compute_roc_auc(reference_labels[index], reference_scores[index]) for index in drawn],
    )
    for level in (1 / 30, 1 / 720):
        calibrated = spread.limit(WINDOW_NUM_ROWS, level)
        assert [i for i, value in enumerate(realized) if value < calibrated.lower] == [27, 28]
        assert [i for i, value in enumerate(estimated) if value < calibrated.lower] == [27, 28]


def test_calibration_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores = np.round(rng.random(3000), 3)
    labels = (rng.random(3000) < scores**2).astype(float)
    model = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    asked = np.concatenate([rng.random(500), [-1.0, 2.0]])
    assert ConfidenceEstimator.fit(labels, scores).calibrate(asked) == pytest.approx(model.predict(asked), abs=1e-12)


def test_estimates_of_calibrated_scores_are_what_labels_then_show() -> None:
    """Labels drawn from the scores themselves: every expected metric must be met within sampling error."""
    rng = np.random.default_rng(2)
    reference, later = rng.beta(0.6, 0.9, 60_000), rng.beta(0.9, 0.9, 60_000)
    estimator = ConfidenceEstimator.fit((rng.random(60_000) < reference).astype(float), reference)
    predictions = (later >= 0.4).astype(float)
    realized = measure_performance("binary", (rng.random(60_000) < later).astype(float), predictions, later)
    assert estimator.estimate(later, predictions) == pytest.approx(realized, abs=0.008)


@pytest.mark.parametrize("seed", range(40))
def test_the_calibration_is_scikit_learn_s_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_rows = int(rng.choice([2, 3, 10, 500, 5000]))
    scores = rng.random(num_rows) ** rng.integers(1, 30)  # the larger the power, the more lie within 1e-15
    if seed % 3 == 0:
        scores = np.round(scores, 2)
    labels = (rng.random(num_rows) < scores).astype(float)
    labels[:2] = 0.0, 1.0
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    fitted = ConfidenceEstimator.fit(labels, scores)
    assert fitted.knots.tolist() == expected.X_thresholds_.tolist()
    assert fitted.probabilities.tolist() == expected.y_thresholds_.tolist()
