"""How well did a model do on labelled rows?

Owns the realized metrics of the three tasks. Every value is the same to the last bit in whatever
order the rows arrive: counts and ranks are summed as integers, floats after sorting. It must not
join labels with predictions, nor judge what it measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from measures.chances import compute_average_precision, compute_calibration_error

Task = Literal["binary", "multiclass", "regression"]
Floats = NDArray[np.float64]

# In the order in which people read them; the first is the one that alerts and gates look at.
_METRICS: dict[Task, tuple[str, ...]] = {
    "binary": (
        "roc_auc", "accuracy", "f1", "precision", "recall", "log_loss", "brier", "pr_auc", "calibration_error",
    ),
    "multiclass": ("accuracy", "f1", "log_loss", "roc_auc", "precision", "recall", "pr_auc", "calibration_error"),
    "regression": ("mae", "rmse", "mape", "r2"),
}  # fmt: skip
_LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "mae", "rmse", "mape"})
_EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn's floor for logarithms and divisions


def default_metrics(task: Task) -> tuple[str, ...]:
    """Return every metric of a task, the primary one first."""
    return _METRICS[task]


def primary_metric(task: Task) -> str:
    """Return the metric by which a task's models are judged: roc_auc, accuracy or mae."""
    return _METRICS[task][0]


def higher_is_better(metric: str) -> bool:
    """Say whether a larger value of `metric` is the better one; ValueError for a metric that does not exist."""
    if not any(metric in names for names in _METRICS.values()):
        raise ValueError(f"there is no metric {metric!r}")
    return metric not in _LOWER_IS_BETTER


def measure_performance(
    task: Task,
    labels: NDArray[Any],
    predictions: NDArray[Any] | None = None,
    scores: NDArray[Any] | None = None,
    classes: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> dict[str, float]:
    """Measure `metrics` (default: all of the task) on n labelled rows.

    - binary: labels and predictions 0 or 1, scores the probability of class 1. A row without a
      prediction predicts 1 if its score is at least 0.5.
    - multiclass: labels and predictions are strings, scores is (n, len(classes)) in the order of
      `classes`. A row without a prediction predicts the class of its largest score.
    - regression: labels and predictions are floats.

    Rows whose label is missing (NaN, None) count nowhere; rows without a score do not count in the
    metrics of scores, nor rows with neither prediction nor score in those of predictions. A metric
    that is undefined on the rows (no rows, one class only, no positive prediction for precision, a
    class without labels for the multiclass roc_auc) is NaN; nothing warns. Values equal
    scikit-learn's: f1, precision, recall, roc_auc and pr_auc (average precision) of multiclass are
    macro averages, one class against the rest, a class never predicted having precision 0; its
    calibration_error is that of the largest score. mape is a share, not per cent.

    Raises ValueError for a metric that the task does not have, and for scores without their classes.

    >>> measure_performance("binary", np.array([0, 1, 1]), scores=np.array([0.2, 0.4, 0.9]), metrics=["roc_auc"])
    {'roc_auc': 1.0}
    """
    wanted = _METRICS[task] if metrics is None else tuple(metrics)
    for name in wanted:
        if name not in _METRICS[task]:
            raise ValueError(f"metric {name!r} does not exist for task {task!r}; it has {', '.join(_METRICS[task])}")
    if task == "binary":
        truth = np.asarray(labels, dtype=np.float64)
        found = _measure_binary(truth, _to_floats(predictions), _to_floats(scores), wanted)
    elif task == "multiclass":
        found = _measure_multiclass(labels, predictions, _to_floats(scores), classes, wanted)
    else:
        found = _measure_regression(np.asarray(labels, dtype=np.float64), _to_floats(predictions))
    return {name: found.get(name, math.nan) for name in wanted}


def compute_roc_auc(labels: Floats, scores: Floats) -> float:
    """Return the area under the ROC curve from mid-ranks (Mann-Whitney); NaN unless both classes are there.

    Twice the rank sum of the positives is an integer, so only the last division rounds.
    """
    positive = labels == 1
    num_positive = int(np.count_nonzero(positive))
    num_negative = len(labels) - num_positive
    if num_positive == 0 or num_negative == 0:
        return math.nan
    negative_scores = np.sort(scores[~positive])
    positive_scores = np.sort(scores[positive])
    below = np.searchsorted(negative_scores, positive_scores, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(negative_scores, positive_scores, side="right").sum(dtype=np.int64)
    return (int(below) + int(not_above)) / (2 * num_positive * num_negative)


def mean_of(values: Floats) -> float:
    """Return the mean, the same to the last bit in whatever order the values come; NaN of none."""
    return float(np.sort(values).sum()) / len(values) if len(values) else math.nan


def complete_predictions(predictions: Floats | None, scores: Floats) -> Floats:
    """Give predictions of a binary model, NaN being missing: where none was sent, 1 from a score of 0.5 on."""
    by_score = np.where(np.isnan(scores), math.nan, scores >= 0.5)
    return by_score if predictions is None else np.where(np.isnan(predictions), by_score, predictions)


def _to_floats(values: NDArray[Any] | None) -> Floats | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def _measure_binary(
    labels: Floats, predictions: Floats | None, scores: Floats | None, wanted: Sequence[str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    if scores is not None:
        predictions = complete_predictions(predictions, scores)
        known = ~(np.isnan(labels) | np.isnan(scores))
        truth, score = labels[known], scores[known]
        if "roc_auc" in wanted:
            found["roc_auc"] = compute_roc_auc(truth, score)
        if "log_loss" in wanted:
            likelihood = np.clip(np.where(truth == 1, score, 1.0 - score), _EPSILON, 1.0 - _EPSILON)
            found["log_loss"] = mean_of(-np.log(likelihood))
        if "brier" in wanted:
            found["brier"] = mean_of((truth - score) ** 2)
        if "pr_auc" in wanted:
            found["pr_auc"] = compute_average_precision(truth, score)
        if "calibration_error" in wanted:
            found["calibration_error"] = compute_calibration_error(truth, score)
    if predictions is not None:
        known = ~(np.isnan(labels) | np.isnan(predictions))
        truth, predicted = labels[known] == 1, predictions[known] == 1
        num_true_positive = int(np.count_nonzero(truth & predicted))
        num_positive, num_predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
        found["accuracy"] = _divide(int(np.count_nonzero(truth == predicted)), truth.size)
        found["f1"] = _divide(2 * num_true_positive, num_positive + num_predicted)
        found["precision"] = _divide(num_true_positive, num_predicted)
        found["recall"] = _divide(num_true_positive, num_positive)
    return found


def _measure_multiclass(
    labels: NDArray[Any],
    predictions: NDArray[Any] | None,
    scores: Floats | None,
    classes: Sequence[str] | None,
    wanted: Sequence[str],
) -> dict[str, float]:
    found: dict[str, float] = {}
    labelled = ~_find_missing(labels)
    if scores is not None:
        if classes is None or scores.ndim != 2 or scores.shape[1] != len(classes):
            raise ValueError(f"multiclass scores of shape {scores.shape} need `classes`, one name a column")
        scored = ~np.isnan(scores).any(axis=1)
        known = labelled & scored
        found |= _measure_class_scores(labels[known], scores[known], classes, wanted)
        predictions = np.full(len(labels), None) if predictions is None else predictions.astype(object)
        open_rows = scored & _find_missing(predictions)
        predictions[open_rows] = np.asarray(list(classes), dtype=object)[scores[open_rows].argmax(axis=1)]
    if predictions is not None:
        known = labelled & ~_find_missing(predictions)
        truth, predicted = labels[known], predictions[known]
        found["accuracy"] = _divide(int(np.count_nonzero(truth == predicted)), truth.size)
        found |= _average_counts(truth, predicted)
    return found


def _measure_class_scores(
    labels: NDArray[Any], scores: Floats, classes: Sequence[str], wanted: Sequence[str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    if "log_loss" in wanted:
        column = {name: index for index, name in enumerate(classes)}
        index = np.fromiter((column.get(label, -1) for label in labels), dtype=np.int64, count=len(labels))
        # A label that the model does not know was given no probability at all.
        likelihood = np.where(index >= 0, scores[np.arange(len(labels)), index], 0.0)
        found["log_loss"] = mean_of(-np.log(np.clip(likelihood, _EPSILON, 1.0 - _EPSILON)))
    if "roc_auc" in wanted:
        found["roc_auc"] = _average_classes(compute_roc_auc, labels, scores, classes)
    if "pr_auc" in wanted:
        found["pr_auc"] = _average_classes(compute_average_precision, labels, scores, classes)
    if "calibration_error" in wanted and len(classes):
        best = scores.argmax(axis=1)
        hits = (labels == np.asarray(list(classes), dtype=object)[best]).astype(np.float64)
        found["calibration_error"] = compute_calibration_error(hits, scores.max(axis=1))
    return found


def _average_classes(
    measure: Callable[[Floats, Floats], float], labels: NDArray[Any], scores: Floats, classes: Sequence[str]
) -> float:
    """The mean over classes of a metric of each class against the rest."""
    values = [measure((labels == name).astype(np.float64), scores[:, i]) for i, name in enumerate(classes)]
    return math.fsum(values) / len(values) if values else math.nan


def _average_counts(labels: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """Macro F1, precision and recall over every class that is labelled or predicted."""
    names = sorted(set(labels.tolist()) | set(predictions.tolist()), key=str)
    values: dict[str, list[float]] = {"f1": [], "precision": [], "recall": []}
    for name in names:
        truth, predicted = labels == name, predictions == name
        num_hits = int(np.count_nonzero(truth & predicted))
        num_labelled, num_predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
        values["f1"].append(2 * num_hits / (num_labelled + num_predicted))
        values["precision"].append(num_hits / max(num_predicted, 1))
        values["recall"].append(num_hits / max(num_labelled, 1))
    return {metric: math.fsum(each) / len(each) if each else math.nan for metric, each in values.items()}


def _measure_regression(labels: Floats, predictions: Floats | None) -> dict[str, float]:
    if predictions is None:
        return {}
    known = ~(np.isnan(labels) | np.isnan(predictions))
    truth, error = labels[known], labels[known] - predictions[known]
    spread = mean_of((truth - mean_of(truth)) ** 2)
    squared_error = mean_of(error**2)
    return {
        "mae": mean_of(np.abs(error)),
        "rmse": math.sqrt(squared_error),
        "mape": mean_of(np.abs(error) / np.maximum(np.abs(truth), _EPSILON)),
        "r2": 1.0 - squared_error / spread if spread > 0.0 else math.nan,
    }


def _find_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark None and NaN (the only value that differs from itself) in an array of strings."""
    if values.dtype.kind == "U":
        return np.zeros(len(values), dtype=np.bool_)
    return np.fromiter((each is None or each != each for each in values), dtype=np.bool_, count=len(values))


def _divide(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
