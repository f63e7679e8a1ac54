"""How uncertain is each metric of a window: standard error and interval, by task.

Owns which formula of `measures.intervals` a metric has, and which rows count. That of the calibration error is for
labels alone: estimated from chances, it is not too large by chance as the one is that labels would show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from measures.chances import compute_average_precision
from measures.intervals import (
    UNKNOWN,
    Interval,
    bound_calibration_error,
    bound_counts,
    bound_errors,
    bound_macro,
    bound_macro_roc_auc,
    bound_mean,
    bound_roc_auc,
    bound_share,
)
from measures.performance import complete_predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_EPSILON = float(np.finfo(np.float64).eps)


def bound_binary(
    labels: Floats, predictions: Floats | None, scores: Floats | None, metrics: Sequence[str]
) -> dict[str, Interval]:
    """Give the interval of each realized metric of a binary model; rows count as in `measure_performance`."""
    found: dict[str, Interval] = {}
    if scores is not None:
        predictions = complete_predictions(predictions, scores)
        known = ~(np.isnan(labels) | np.isnan(scores))
        found |= bound_scores(labels[known], scores[known], metrics)
        if "calibration_error" in metrics:
            found["calibration_error"] = bound_calibration_error(labels[known], scores[known])
    if predictions is not None:
        known = ~(np.isnan(labels) | np.isnan(predictions))
        found |= bound_predictions(labels[known], predictions[known] == 1)
    return {metric: found.get(metric, UNKNOWN) for metric in metrics}


def bound_scores(chances: Floats, scores: Floats, metrics: Sequence[str]) -> dict[str, Interval]:
    """Give the intervals of a binary model's metrics of scores, of rows that are positive with a chance."""
    found: dict[str, Interval] = {}
    if "roc_auc" in metrics:
        found["roc_auc"] = bound_roc_auc(chances, scores)
    if "pr_auc" in metrics:
        # As many draws as there are positives (Boyd, Eng and Page 2013).
        found["pr_auc"] = bound_share(compute_average_precision(chances, scores), float(np.sort(chances).sum()))
    clipped = np.clip(scores, _EPSILON, 1.0 - _EPSILON)
    if "log_loss" in metrics:
        found["log_loss"] = _bound_losses(chances, -np.log(clipped), -np.log1p(-clipped))
    if "brier" in metrics:
        found["brier"] = _bound_losses(chances, (1.0 - scores) ** 2, scores**2)
    return found


def bound_predictions(chances: Floats, predicted: Bools) -> dict[str, Interval]:
    """Give the intervals of a binary model's metrics of predictions, of rows that are positive with a chance."""
    hits, negatives = np.sort(chances[predicted]), np.sort(chances[~predicted])
    true_positives, false_negatives = float(hits.sum()), float(negatives.sum())
    num_right = true_positives + len(negatives) - false_negatives
    accuracy = num_right / len(chances) if len(chances) else math.nan
    counts = bound_counts(true_positives, len(hits) - true_positives, false_negatives)
    return {"accuracy": bound_share(accuracy, len(chances)), **counts}


def bound_multiclass(
    chances: Floats,
    predicted: NDArray[np.int64],
    scores: Floats | None,
    values: dict[str, float],
    metrics: Sequence[str],
) -> dict[str, Interval]:
    """Give the intervals of a multiclass model's metrics, whose `values` are known.

    `chances` (rows, classes) says how likely each row is of each class, `predicted` has the places of the predicted
    classes, -1 where there is none; `scores` has the same columns.
    """
    num_rows, num_classes = chances.shape
    known = predicted >= 0
    confusion = np.zeros((num_classes, num_classes))
    for column in range(num_classes):
        rows = np.sort(chances[predicted == column], axis=0)
        confusion[:, column] = rows.sum(axis=0)
    found = {"accuracy": bound_share(values.get("accuracy", math.nan), int(np.count_nonzero(known)))}
    found |= bound_macro(confusion, values)
    if scores is not None:
        if "roc_auc" in metrics:
            found["roc_auc"] = bound_macro_roc_auc(chances, scores)
        if "log_loss" in metrics:
            losses = -np.log(np.clip(scores, _EPSILON, 1.0 - _EPSILON))
            mean, square = (float(np.sort((chances * each).sum(axis=1)).sum()) for each in (losses, losses**2))
            found["log_loss"] = bound_mean(mean / max(num_rows, 1), square / max(num_rows, 1), num_rows)
        if "pr_auc" in metrics:
            # Areas of classes are taken for independent, each of as many draws as it has rows.
            shares = [compute_average_precision(chances[:, c], scores[:, c]) for c in range(num_classes)]
            totals = np.sort(chances, axis=0).sum(axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                variance = math.fsum(s * (1.0 - s) / t for s, t in zip(shares, totals.tolist(), strict=True) if t > 0.0)
            value = math.fsum(shares) / num_classes
            spread = value * (1.0 - value)
            num_draws = spread * num_classes**2 / variance if variance > 0.0 else float(totals.min())
            found["pr_auc"] = bound_share(value, num_draws)
    return {metric: found.get(metric, UNKNOWN) for metric in metrics}


def bound_largest_scores(labels: NDArray[np.int64], scores: Floats) -> Interval:
    """Give the interval of a multiclass model's calibration error: of the largest score and whether it was right.

    `labels` are the places of the classes among the columns of `scores` (rows, classes).
    """
    return bound_calibration_error((labels == scores.argmax(axis=1)).astype(np.float64), scores.max(axis=1))


def bound_regression(labels: Floats, predictions: Floats | None, metrics: Sequence[str]) -> dict[str, Interval]:
    """Give the interval of each realized metric of a regression."""
    if predictions is None:
        return dict.fromkeys(metrics, UNKNOWN)
    known = ~(np.isnan(labels) | np.isnan(predictions))
    truth, errors = labels[known], labels[known] - predictions[known]
    found = bound_errors(errors, truth)
    found["mae"] = _bound_values(np.abs(errors))
    found["mape"] = _bound_values(np.abs(errors) / np.maximum(np.abs(truth), _EPSILON))
    return {metric: found.get(metric, UNKNOWN) for metric in metrics}


def _bound_losses(chances: Floats, if_positive: Floats, if_negative: Floats) -> Interval:
    num = len(chances)
    if not num:
        return UNKNOWN
    mean, square = (
        float(np.sort(chances * if_positive**power + (1.0 - chances) * if_negative**power).sum()) / num
        for power in (1, 2)
    )
    return bound_mean(mean, square, num)


def _bound_values(values: Floats) -> Interval:
    num = len(values)
    if not num:
        return UNKNOWN
    ordered = np.sort(values)
    return bound_mean(float(ordered.sum()) / num, float((ordered**2).sum()) / num, num)
