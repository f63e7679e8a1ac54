"""Realized metrics against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from measures.performance import compute_roc_auc, default_metrics, measure_performance

Floats = NDArray[np.float64]


def _binary(num_rows: int, decimals: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(num_rows)
    labels = (rng.random(num_rows) < 0.3).astype(float)
    scores = 1.0 / (1.0 + np.exp(-(2.0 * labels - 1.0 + rng.normal(size=num_rows))))
    return labels, np.round(scores, decimals)


@pytest.mark.parametrize("decimals", [1, 2, 12])  # one decimal: nearly all scores are tied, some are 0 or 1
def test_binary(decimals: int) -> None:
    labels, scores = _binary(4000, decimals)
    predictions = (scores >= 0.7).astype(float)
    expected = {
        "roc_auc": sk.roc_auc_score(labels, scores),
        "accuracy": sk.accuracy_score(labels, predictions),
        "f1": sk.f1_score(labels, predictions),
        "precision": sk.precision_score(labels, predictions),
        "recall": sk.recall_score(labels, predictions),
        "log_loss": sk.log_loss(labels, scores),
        "brier": sk.brier_score_loss(labels, scores),
        "pr_auc": sk.average_precision_score(labels, scores),
    }
    measured = measure_performance("binary", labels, predictions, scores)
    assert tuple(measured) == default_metrics("binary")
    del measured["calibration_error"]  # scikit-learn has none
    assert measured == pytest.approx(expected, rel=1e-12)


def test_multiclass() -> None:
    rng = np.random.default_rng(3)
    classes = ("bird", "cat", "dog", "fish")
    index = rng.choice(4, 2000, p=[0.1, 0.4, 0.3, 0.2])
    raw = rng.gamma(1.0, size=(2000, 4)) + 1.5 * np.eye(4)[index]
    scores = raw / raw.sum(axis=1, keepdims=True)
    labels = np.array(classes, dtype=object)[index]
    predictions = np.array(classes, dtype=object)[scores.argmax(axis=1)]
    expected = {
        "accuracy": sk.accuracy_score(labels, predictions),
        "f1": sk.f1_score(labels, predictions, average="macro"),
        "log_loss": sk.log_loss(labels, scores),
        "roc_auc": sk.roc_auc_score(labels, scores, multi_class="ovr", labels=list(classes)),
        "precision": sk.precision_score(labels, predictions, average="macro"),
        "recall": sk.recall_score(labels, predictions, average="macro"),
        "pr_auc": sk.average_precision_score(np.eye(4)[index], scores, average="macro"),
    }
    names = tuple(expected)
    found = measure_performance("multiclass", labels, predictions, scores, classes, names)
    assert found == pytest.approx(expected, rel=1e-12)
    # Without predictions, the class of the largest score is meant.
    found = measure_performance("multiclass", labels, None, scores, classes, names)
    assert found == pytest.approx(expected, rel=1e-12)
    best = scores.max(axis=1)
    bins, hits = np.minimum((best * 10).astype(int), 9), predictions == labels
    gaps = [abs((hits - best)[bins == each].sum()) for each in range(10)]
    error = measure_performance("multiclass", labels, None, scores, classes, ["calibration_error"])
    assert error["calibration_error"] == pytest.approx(sum(gaps) / 2000, rel=1e-9)


def test_regression() -> None:
    rng = np.random.default_rng(4)
    labels = rng.normal(100.0, 20.0, 3000)
    predictions = labels + rng.normal(1.0, 5.0, 3000)
    expected = {
        "mae": sk.mean_absolute_error(labels, predictions),
        "rmse": sk.root_mean_squared_error(labels, predictions),
        "mape": sk.mean_absolute_percentage_error(labels, predictions),
        "r2": sk.r2_score(labels, predictions),
    }
    assert measure_performance("regression", labels, predictions) == pytest.approx(expected, rel=1e-12)


def test_roc_auc_is_exact_on_a_case_counted_by_hand() -> None:
    # Positives .9 .5 .5, negatives .5 .1: won 2 + 1 + 1, and half of two ties, of six pairs.
    labels, scores = np.array([1.0, 1, 1, 0, 0]), np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    assert compute_roc_auc(labels, scores) == 5 / 6
