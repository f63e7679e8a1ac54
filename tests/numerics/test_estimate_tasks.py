"""Estimates without labels beyond the binary ones: multiclass, losses of a regression, and how far they may be off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from measures.estimate import ConfidenceEstimator
from measures.estimate_classes import ClassEstimator
from measures.estimate_losses import LossEstimator
from measures.performance import default_metrics, measure_performance

Floats = NDArray[np.float64]
CLASSES = ("a", "b", "c")
NAMES = np.array(CLASSES, dtype=object)
METRICS = default_metrics("multiclass")


def _draw_classes(rng: np.random.Generator, num_rows: int, spread: Floats) -> tuple[NDArray[Any], Floats]:
    """Labels drawn from true chances, and the overconfident scores that a model gives for them."""
    chances = rng.dirichlet(spread, num_rows)
    labels = NAMES[(rng.random(num_rows)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1)]
    scores = chances**1.6
    return labels, scores / scores.sum(axis=1, keepdims=True)


def test_class_chances_are_scikit_learn_s_isotonic_ones_scaled() -> None:
    labels, scores = _draw_classes(np.random.default_rng(1), 4000, np.array([1.0, 0.7, 0.5]))
    asked = scores[:500]
    columns = [
        IsotonicRegression(out_of_bounds="clip").fit(scores[:, i], labels == name).predict(asked[:, i])
        for i, name in enumerate(CLASSES)
    ]
    expected = np.column_stack(columns) / np.sum(columns, axis=0)[:, None]
    estimator = ClassEstimator.fit(labels, scores, CLASSES)
    assert estimator.calibrate(asked) == pytest.approx(expected, abs=1e-12)


def test_multiclass_estimates_are_what_labels_then_show() -> None:
    """The mix of rows changes, what scores mean does not: every metric must be met within its interval and some."""
    rng = np.random.default_rng(2)
    estimator = ClassEstimator.fit(*_draw_classes(rng, 60_000, np.array([1.0, 0.7, 0.5])), CLASSES)
    labels, scores = _draw_classes(rng, 40_000, np.array([2.0, 2.2, 2.6]))
    realized = measure_performance("multiclass", labels, None, scores, CLASSES)
    before, before_scores = _draw_classes(rng, 40_000, np.array([1.0, 0.7, 0.5]))
    unmoved = measure_performance("multiclass", before, None, before_scores, CLASSES)
    estimated, intervals = estimator.estimate(scores, None, METRICS)
    assert estimated == pytest.approx(realized, abs=0.012)
    # It is no matter of course: the metrics of the reference's mix are others.
    assert abs(unmoved["accuracy"] - realized["accuracy"]) > 0.05
    for metric in ("accuracy", "f1", "roc_auc", "log_loss", "precision", "recall"):
        assert abs(estimated[metric] - realized[metric]) < 5 * intervals[metric].error, metric


def test_two_classes_are_estimated_as_the_binary_model_they_are() -> None:
    rng = np.random.default_rng(3)
    score = rng.beta(0.8, 0.8, 5000)
    labels = (rng.random(5000) < score**1.5).astype(float)
    binary = ConfidenceEstimator.fit(labels, score)
    names = np.array(["no", "yes"], dtype=object)
    both = ClassEstimator.fit(names[labels.astype(int)], np.column_stack([1.0 - score, score]), ("no", "yes"))
    later = rng.beta(1.2, 0.8, 3000)
    expected = binary.estimate(later)
    found, intervals = both.estimate(np.column_stack([1.0 - later, later]), None, METRICS)
    for metric in ("accuracy", "log_loss"):
        assert found[metric] == pytest.approx(expected[metric], rel=1e-9)
    assert found["roc_auc"] == pytest.approx(expected["roc_auc"], abs=2e-4)  # ranked by scores, not by chances
    bounds = binary.bound(later, None, ("accuracy", "roc_auc"))
    assert intervals["accuracy"].error == pytest.approx(bounds["accuracy"].error, rel=1e-9)
    assert intervals["roc_auc"].error == pytest.approx(bounds["roc_auc"].error, rel=0.01)


def test_degenerate_references_and_windows_have_estimates_or_none() -> None:
    scores = np.eye(3)[[0, 1, 1]] * 0.8 + 0.1
    estimator = ClassEstimator.fit(np.array(["a", "b", "b"], dtype=object), scores, CLASSES)
    assert estimator.calibrate(scores).sum(axis=1) == pytest.approx(1.0)
    values, _ = estimator.estimate(np.full((2, 3), np.nan), None, METRICS)
    assert all(np.isnan(value) for value in values.values())
    with pytest.raises(ValueError, match="a label and a score of every class"):
        ClassEstimator.fit(np.array([None], dtype=object), scores[:1], CLASSES)


def test_the_interval_of_an_estimate_holds_what_labels_show() -> None:
    rng = np.random.default_rng(4)
    reference = rng.beta(0.6, 0.9, 200_000)
    estimator = ConfidenceEstimator.fit((rng.random(len(reference)) < reference).astype(float), reference)
    metrics = [each for each in default_metrics("binary") if each not in ("calibration_error", "pr_auc")]
    population = rng.beta(0.9, 0.9, 200_000)
    truth = measure_performance("binary", (rng.random(len(population)) < population).astype(float), None, population)
    counts = dict.fromkeys(metrics, 0)
    for _ in range(300):
        window = rng.beta(0.9, 0.9, 500)
        labels = (rng.random(500) < window).astype(float)
        realized = measure_performance("binary", labels, None, window, metrics=metrics)
        bounds = estimator.bound(window, None, metrics)
        for metric in metrics:
            counts[metric] += bounds[metric].lower <= truth[metric] <= bounds[metric].upper
            assert abs(realized[metric] - estimator.estimate(window)[metric]) < 6 * bounds[metric].error
    # An estimate varies less than what labels show: its interval, which is that of the latter, holds more often.
    for metric, count in counts.items():
        assert count >= 285, (metric, count)


def _draw_loss(rng: np.random.Generator, num_rows: int, noisy: float) -> tuple[Floats, Floats, Floats]:
    """Errors are three times as large where a category is 1, and grow with a number."""
    number, category = rng.random(num_rows), (rng.random(num_rows) < noisy).astype(float)
    predictions = 50.0 + 10.0 * number
    labels = predictions + rng.normal(size=num_rows) * (1.0 + number) * np.where(category == 1, 3.0, 1.0)
    return np.column_stack([number, category]), labels, predictions


def test_losses_follow_the_rows_that_are_hard() -> None:
    rng = np.random.default_rng(5)
    inputs, labels, predictions = _draw_loss(rng, 20_000, 0.2)
    estimator = LossEstimator.fit(inputs, [False, True], labels, predictions, default_metrics("regression"))
    assert list(estimator.losses) == ["mae", "rmse", "mape"]
    easy = measure_performance("regression", labels, predictions)
    for noisy in (0.2, 0.7):
        later, truth, said = _draw_loss(rng, 5000, noisy)
        realized = measure_performance("regression", truth, said)
        values, intervals = estimator.estimate(later, said)
        for metric in ("mae", "rmse", "mape"):
            assert values[metric] == pytest.approx(realized[metric], rel=0.05), (metric, noisy)
            assert intervals[metric].lower <= values[metric] <= intervals[metric].upper
            assert abs(values[metric] - realized[metric]) < 4 * intervals[metric].error
        if noisy > 0.5:
            assert realized["mae"] > 1.5 * easy["mae"]


def test_losses_do_not_depend_on_the_order_of_a_window_s_rows_nor_on_the_run() -> None:
    rng = np.random.default_rng(6)
    data = _draw_loss(rng, 1500, 0.3)
    later, _, said = _draw_loss(rng, 400, 0.3)
    said[:5], later[5:9, 0], later[9:12, 1] = np.nan, np.nan, np.nan
    order = rng.permutation(400)
    found = [
        LossEstimator.fit(data[0], [False, True], data[1], data[2], ["mae", "rmse"]).estimate(inputs, predictions)
        for inputs, predictions in ((later, said), (later[order], said[order]))
    ]
    assert found[0] == found[1]
    values, intervals = LossEstimator.fit(data[0], [False, True], data[1], data[2], ["mae"]).estimate(
        later[:5], said[:5]
    )
    assert np.isnan(values["mae"])
    assert np.isnan(intervals["mae"].error)
    with pytest.raises(ValueError, match="a label and a prediction"):
        LossEstimator.fit(data[0], [False, True], np.full(1500, np.nan), data[2], ["mae"])
