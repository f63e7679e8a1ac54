"""What is undefined is NaN and silent; missing values are left out where they matter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.performance import default_metrics, higher_is_better, measure_performance, primary_metric

NAN = math.nan


def test_nothing_is_defined_on_no_rows() -> None:
    none = np.array([], dtype=float)
    for measured in (
        measure_performance("binary", none, none, none),
        measure_performance("multiclass", none.astype(object), none.astype(object), none.reshape(0, 2), ("a", "b")),
        measure_performance("regression", none, none),
    ):
        assert all(math.isnan(value) for value in measured.values())


def test_one_class_only() -> None:
    scores = np.array([0.1, 0.2])
    measured = measure_performance("binary", np.zeros(2), np.zeros(2), scores)
    assert [name for name, value in measured.items() if math.isnan(value)] == [
        "roc_auc", "f1", "precision", "recall", "pr_auc",
    ]  # fmt: skip
    assert measured["accuracy"] == 1.0
    assert measured["brier"] == pytest.approx(0.025)


def test_a_class_without_labels_has_no_multiclass_area() -> None:
    labels = np.array(["a", "b", "a"], dtype=object)
    measured = measure_performance("multiclass", labels, scores=np.eye(3)[[0, 1, 0]], classes=("a", "b", "c"))
    assert math.isnan(measured["roc_auc"])
    assert measured["accuracy"] == measured["f1"] == 1.0


def test_a_label_that_the_model_does_not_know_is_a_certain_miss() -> None:
    scores = np.array([[1.0, 0.0]])
    measured = measure_performance("multiclass", np.array(["new"], dtype=object), scores=scores, classes=("a", "b"))
    assert measured["accuracy"] == 0.0
    assert measured["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps))


def test_missing_values_are_left_out_where_they_matter() -> None:
    labels = np.array([1, 0, 1, 0, NAN, 1])
    scores = np.array([0.9, 0.7, NAN, 0.4, 0.3, 0.8])
    predictions = np.array([1, NAN, 0, 0, 1, 1])
    measured = measure_performance("binary", labels, predictions, scores)
    assert measured["brier"] == pytest.approx(np.mean((labels - scores)[[0, 1, 3, 5]] ** 2))
    # Row 1 sent no prediction: its score predicts 1, which is wrong, as is row 2; row 4 has no label.
    assert measured["accuracy"] == 3 / 5
    assert measure_performance("binary", labels, predictions)["accuracy"] == 3 / 4


def test_missing_multiclass_values() -> None:
    labels = np.array(["a", None, "b", "b"], dtype=object)
    predictions = np.array(["a", "a", None, None], dtype=object)
    assert measure_performance("multiclass", labels, predictions)["accuracy"] == 1.0
    scores = np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8], [NAN, 0.9]])
    measured = measure_performance("multiclass", labels, predictions, scores, ("a", "b"))
    assert measured["accuracy"] == 1.0
    assert measured["log_loss"] == pytest.approx(-(math.log(0.1) + math.log(0.8)) / 2)
    assert predictions[2] is None  # the caller's array is left alone


def test_constant_labels_have_no_r2() -> None:
    measured = measure_performance("regression", np.full(3, 5.0), np.array([5.0, 5.0, 8.0]))
    assert math.isnan(measured["r2"])
    assert measured["mae"] == 1.0


def test_metrics_are_chosen_and_checked() -> None:
    labels = np.array([0.0, 1.0])
    assert measure_performance("binary", labels, scores=labels, metrics=["brier", "roc_auc"]) == {
        "brier": 0.0,
        "roc_auc": 1.0,
    }
    with pytest.raises(ValueError, match="'mae' does not exist for task 'binary'"):
        measure_performance("binary", labels, metrics=["mae"])
    with pytest.raises(ValueError, match="need `classes`"):
        measure_performance("multiclass", np.array(["a"], dtype=object), scores=np.ones((1, 2)), classes=("a",))


def test_directions() -> None:
    assert [primary_metric(task) for task in ("binary", "multiclass", "regression")] == ["roc_auc", "accuracy", "mae"]
    lower = {name for task in ("binary", "multiclass", "regression") for name in default_metrics(task)}
    assert {name for name in lower if not higher_is_better(name)} == {
        "log_loss", "brier", "calibration_error", "mae", "rmse", "mape",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no metric 'auc'"):
        higher_is_better("auc")
