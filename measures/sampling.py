"""Is the challenger better than the champion on the same rows, and how sure is that?

Owns the paired bootstrap over rows and the recalibration that makes log losses comparable. It must
not decide on a promotion: the gate's rules are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.performance import Task, default_metrics, higher_is_better, measure_performance

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_EPSILON = float(np.finfo(np.float64).eps)

# A score of 0 or 1 has an infinite logit. 1e-7 is a float32's resolution next to 1: no score that
# a network put out is moved.
_SCORE_MARGIN = 1e-7

# Weights of logit, score and 1 that leave a score as it is, and the pull towards them, in squared
# units: a thousandth of a row. It moves nothing where there are data, and keeps the fit finite
# where scores separate the classes.
_UNCHANGED = np.array([1.0, 0.0, 0.0])
_RIDGE = 1e-3
_NEWTON_STEPS_MAX = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """Challenger against champion on the same rows; `difference` is positive where the challenger is better."""

    metric: str
    champion: float
    challenger: float
    difference: float
    lower: float
    upper: float
    confidence: float
    num_rows: int
    num_resamples: int


def compare_paired(
    task: Task,
    metric: str,
    labels: NDArray[Any],
    champion_scores: NDArray[Any],
    challenger_scores: NDArray[Any],
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Comparison:
    """Compare two models' `metric` on n rows, with bounds by a paired percentile bootstrap over rows.

    Scores are as in `measure_performance`: probabilities of class 1 for binary, (n, len(classes))
    for multiclass, predictions for regression. Rows where label or either score is missing are left
    out, for both models alike. Each resample draws n rows with replacement and measures both models
    on the same draw. `lower` and `upper` are the two ends of the central interval: of 0.95, the 2.5th
    and 97.5th percentile of the difference. All NaN where the metric is undefined on the rows.
    Deterministic in seed and row order. About 1 s for roc_auc on 20,000 rows and 1,000 resamples.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if not 0.0 < confidence < 1.0 or num_resamples < 1:
        raise ValueError(f"confidence {confidence} must lie within 0 and 1, and num_resamples {num_resamples} be ≥ 1")
    if metric not in default_metrics(task):
        raise ValueError(
            f"metric {metric!r} does not exist for task {task!r}; it has {', '.join(default_metrics(task))}"
        )
    known = _find_known(labels) & _find_known(champion_scores) & _find_known(challenger_scores)
    num_rows = int(np.count_nonzero(known))
    measures = [
        _prepare(task, metric, labels[known], np.asarray(scores, dtype=np.float64)[known], classes)
        for scores in (champion_scores, challenger_scores)
    ]
    sign = 1.0 if higher_is_better(metric) else -1.0
    once = np.ones(num_rows, dtype=np.int64)
    champion, challenger = (measure(once) for measure in measures)
    difference = sign * (challenger - champion)
    lower = upper = math.nan
    if not math.isnan(difference):
        differences = sign * _resample(
            lambda counts: measures[1](counts) - measures[0](counts), num_rows, num_resamples, seed
        )
        tail = (1.0 - confidence) / 2.0
        # A resample without one of the classes has no value; it says nothing either way.
        lower, upper = (float(bound) for bound in np.nanquantile(differences, [tail, 1.0 - tail]))
    return Comparison(metric, champion, challenger, difference, lower, upper, confidence, num_rows, num_resamples)


def recalibrate_two_fold(labels: NDArray[Any], scores: NDArray[Any]) -> Floats:
    """Return the scores of a binary model recalibrated on these n rows, each row by a fit that never saw it.

    Rows of even position are recalibrated by a logistic fit on the odd ones and the reverse, so
    that an old model's log loss suffers from its ranking, not from a shift of the base rate that
    any newly trained model is spared. The fit sees the logit and the score itself: the logit alone
    is Platt's method, and right for sigmoid-like distortions, but makes scores that are rounded to 0
    and 1 look worse than they are, and so any challenger look better.

    A missing score stays NaN and a missing label is not fitted; a half without both classes
    recalibrates nothing.

    Source: after Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    truth = np.asarray(labels, dtype=np.float64)
    score = np.asarray(scores, dtype=np.float64)
    bounded = np.clip(score, _SCORE_MARGIN, 1.0 - _SCORE_MARGIN)
    design = np.stack([np.log(bounded) - np.log1p(-bounded), score, np.ones_like(score)], axis=1)
    recalibrated = score.copy()
    for judged, fitted in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        known = ~(np.isnan(truth[fitted]) | np.isnan(score[fitted]))
        fit_labels = truth[fitted][known]
        if np.any(fit_labels == 0) and np.any(fit_labels == 1):
            theta = _fit_logistic(fit_labels, design[fitted][known], start=_UNCHANGED)
            recalibrated[judged] = _squash(design[judged] @ theta)
    return recalibrated


def _resample(difference_of: Callable[[Counts], float], num_rows: int, num_resamples: int, seed: int) -> Floats:
    """Return the difference on each bootstrap resample, given as how often it drew each row."""
    rng = np.random.default_rng(seed)
    draws = (np.bincount(rng.integers(num_rows, size=num_rows), minlength=num_rows) for _ in range(num_resamples))
    return np.fromiter((difference_of(counts) for counts in draws), dtype=np.float64, count=num_resamples)


def _prepare(
    task: Task, metric: str, labels: NDArray[Any], scores: Floats, classes: Sequence[str] | None
) -> Callable[[Counts], float]:
    """Return the metric as a function of how often each row counts, with all sorting done beforehand."""
    if task == "binary" and metric == "roc_auc":
        return _prepare_roc_auc(np.asarray(labels, dtype=np.float64), scores)
    losses = _compute_losses(task, metric, labels, scores, classes)
    if losses is not None:
        # Not `counts @ losses`, whose last bits may follow the number of threads.
        return lambda counts: float((counts * losses).sum()) / len(losses) if len(losses) else math.nan
    rows = np.arange(len(labels))

    def measure(counts: Counts) -> float:
        index = np.repeat(rows, counts)
        predictions, chosen = (scores[index], None) if task == "regression" else (None, scores[index])
        return measure_performance(task, labels[index], predictions, chosen, classes, [metric])[metric]

    return measure


def _prepare_roc_auc(labels: Floats, scores: Floats) -> Callable[[Counts], float]:
    """Weighted Mann-Whitney: each positive wins against the negatives below it, and half against equals.

    Counts are integers, so every sum is exact.
    """
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    positive = positive[np.argsort(scores[positive], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    not_above = np.searchsorted(scores[negative], scores[positive], side="right")
    cumulated = np.zeros(len(negative) + 1, dtype=np.int64)

    def measure(counts: Counts) -> float:
        np.cumsum(counts[negative], out=cumulated[1:])
        weights = counts[positive]
        num_pairs = int(weights.sum()) * int(cumulated[-1])
        twice_won = int(weights @ (cumulated[below] + cumulated[not_above]))
        return twice_won / (2 * num_pairs) if num_pairs else math.nan

    return measure


def _compute_losses(
    task: Task, metric: str, labels: NDArray[Any], scores: Floats, classes: Sequence[str] | None
) -> Floats | None:
    """Return each row's part of a metric that is a plain mean over rows; None for any other metric."""
    if task == "multiclass":
        if metric != "accuracy" or classes is None:
            return None
        predicted = np.asarray(list(classes), dtype=object)[scores.argmax(axis=1)]
        return np.asarray(predicted == labels, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.float64)
    losses: Floats | None = None
    if metric == "log_loss":
        losses = -np.log(np.clip(np.where(truth == 1, scores, 1.0 - scores), _EPSILON, 1.0 - _EPSILON))
    elif metric == "brier":
        losses = (truth - scores) ** 2
    elif metric == "accuracy":
        losses = ((scores >= 0.5) == (truth == 1)).astype(np.float64)
    elif metric == "mae":
        losses = np.abs(truth - scores)
    return losses


def _fit_logistic(labels: Floats, design: Floats, start: Floats) -> Floats:
    """Return the weights θ of P(1) = 1 / (1 + exp(−design·θ)), by Newton's method with halved steps."""
    theta = start.copy()

    def loss(at: Floats) -> float:
        line = design @ at
        return float((np.logaddexp(0.0, line) - labels * line).sum() + _RIDGE / 2.0 * ((at - start) ** 2).sum())

    for _ in range(_NEWTON_STEPS_MAX):
        probability = _squash(design @ theta)
        gradient = design.T @ (probability - labels) + _RIDGE * (theta - start)
        curvature = (design.T * (probability * (1.0 - probability))) @ design + _RIDGE * np.eye(len(theta))
        step = np.linalg.solve(curvature, gradient)
        length, before = 1.0, loss(theta)
        while loss(theta - length * step) > before and length > 1e-6:
            length /= 2.0
        theta = theta - length * step
        if float(np.abs(step).max()) < 1e-10:
            break
    return theta


def _squash(values: Floats) -> Floats:
    # The logistic function by tanh, which does not overflow.
    return np.asarray(0.5 * (1.0 + np.tanh(values / 2.0)))


def _find_known(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the rows that miss nothing; strings are missing where None."""
    array = np.asarray(values)
    if array.dtype.kind in "OU":
        return np.fromiter((each is not None and each == each for each in array), dtype=np.bool_, count=len(array))
    missing: NDArray[np.bool_] = np.isnan(np.asarray(array, dtype=np.float64))
    return np.logical_not(missing.any(axis=1)) if missing.ndim == 2 else np.logical_not(missing)
