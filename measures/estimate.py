"""How well is a binary model doing on rows without labels? Confidence-based performance estimation (CBPE).

Owns the calibration of scores and the expected metrics under it. It must not be used to say that
the relation between features and label is unchanged: the method assumes just that, and is blind to
its change wherever the scores stay the same.

Source: Kivimäki, Białek, Kuberski and Nurminen, "Performance Estimation in Binary Classification
Using Calibrated Confidence", 2025, arXiv:2505.05295, and for the ROC AUC the NannyML documentation,
"Estimation of Performance of the Monitored Model". The implementation is ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.chances import compute_average_precision, compute_calibration_error
from measures.intervals import UNKNOWN, Interval
from measures.uncertainty import bound_predictions, bound_scores

Floats = NDArray[np.float64]

_FORMAT = "driftloop.confidence-estimator/1"
_EPSILON = float(np.finfo(np.float64).eps)
_RESOLUTION = float(np.finfo(np.float64).resolution)


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceEstimator:
    """Calibrated probability as a function of the score: straight lines between knots, clipped outside.

    `knots` are increasing scores, `probabilities` the non-decreasing P(label = 1 | score) there.
    """

    knots: Floats
    probabilities: Floats

    @classmethod
    def fit(cls, labels: NDArray[Any], scores: NDArray[Any]) -> ConfidenceEstimator:
        """Fit isotonic regression of labels (0 or 1) on scores; rows that miss either are left out.

        Raises ValueError unless both classes are there: nothing can be estimated from one.
        """
        truth, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        known = ~(np.isnan(truth) | np.isnan(score))
        truth, score = truth[known], score[known]
        if not (np.any(truth == 0) and np.any(truth == 1)):
            raise ValueError(
                f"confidence-based estimation needs reference rows of both classes with a label and a score; "
                f"of {len(known)} rows {int(np.count_nonzero(truth == 0))} are 0 and "
                f"{int(np.count_nonzero(truth == 1))} are 1"
            )
        return cls(*_fit_isotonic(truth, score))

    def calibrate(self, scores: NDArray[Any]) -> Floats:
        """Return P(label = 1) for every score; NaN where the score is missing."""
        score = np.asarray(scores, dtype=np.float64)
        calibrated = np.interp(score, self.knots, self.probabilities)
        return np.where(np.isnan(score), math.nan, calibrated)

    def estimate_roc_auc(self, scores: NDArray[Any]) -> float:
        """Return the expected area under the ROC curve over n unlabelled rows; NaN if no area is defined.

        Rows by falling probability; each adds its probability to the true positives and the rest to
        the false positives; normalise both, then integrate by trapezoids. Rows of equal probability
        lie on one straight line, so their order does not matter.
        """
        probability = self.calibrate(scores)
        falling = np.sort(probability[~np.isnan(probability)])[::-1]
        true_positives = np.concatenate([[0.0], np.cumsum(falling)])
        false_positives = np.concatenate([[0.0], np.cumsum(1.0 - falling)])
        area = true_positives[-1] * false_positives[-1]
        if not area > 0.0:
            return math.nan
        heights = (true_positives[1:] + true_positives[:-1]) / 2.0
        return float((np.diff(false_positives) * heights).sum() / area)

    def estimate(self, scores: NDArray[Any], predictions: NDArray[Any] | None = None) -> dict[str, float]:
        """Return the expected value of every metric of a binary model, under the names of the realized ones.

        A row without a prediction predicts 1 if its score is at least 0.5. Rows without a score are
        left out.
        Precision, recall and f1 are ratios of expected counts. NaN where nothing is defined.
        """
        score = np.asarray(scores, dtype=np.float64)
        known = ~np.isnan(score)
        predicted = score >= 0.5
        if predictions is not None:
            sent = np.asarray(predictions, dtype=np.float64)
            predicted = np.where(np.isnan(sent), predicted, sent == 1)
        score, predicted = score[known], predicted[known]
        # One order for all sums: the values do not depend on that of the rows, to the last bit.
        order = np.lexsort((predicted, score))
        score, predicted = score[order], predicted[order]
        probability = self.calibrate(score)
        true_positives, positives = float(probability[predicted].sum()), float(probability.sum())
        true_negatives = float((1.0 - probability[~predicted]).sum())
        num_predicted, num_rows = int(np.count_nonzero(predicted)), len(score)
        likelihood = np.clip(score, _EPSILON, 1.0 - _EPSILON)
        log_losses = -(probability * np.log(likelihood) + (1.0 - probability) * np.log1p(-likelihood))
        squares = probability * (1.0 - score) ** 2 + (1.0 - probability) * score**2
        return {
            "roc_auc": self.estimate_roc_auc(score),
            "accuracy": _divide(true_positives + true_negatives, num_rows),
            "f1": _divide(2.0 * true_positives, positives + num_predicted),
            "precision": _divide(true_positives, num_predicted),
            "recall": _divide(true_positives, positives),
            "log_loss": _divide(float(log_losses.sum()), num_rows),
            "brier": _divide(float(squares.sum()), num_rows),
            "pr_auc": compute_average_precision(probability, score),
            "calibration_error": compute_calibration_error(probability, score),
        }

    def bound(
        self, scores: NDArray[Any], predictions: NDArray[Any] | None, metrics: Sequence[str]
    ) -> dict[str, Interval]:
        """Give the interval of each expected metric: that of the metric which labels of n such rows would show.

        It has the chance of the draw in it, not a wrong calibration.
        """
        score = np.asarray(scores, dtype=np.float64)
        known = ~np.isnan(score)
        predicted = score >= 0.5
        if predictions is not None:
            sent = np.asarray(predictions, dtype=np.float64)
            predicted = np.where(np.isnan(sent), predicted, sent == 1)
        probability = self.calibrate(score[known])
        found = bound_scores(probability, score[known], metrics) | bound_predictions(probability, predicted[known])
        return {metric: found.get(metric, UNKNOWN) for metric in metrics}

    def to_bytes(self) -> bytes:
        """Return the estimator as JSON; floats survive the round trip to the last bit."""
        state = {"format": _FORMAT, "knots": self.knots.tolist(), "probabilities": self.probabilities.tolist()}
        return json.dumps(state, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ConfidenceEstimator:
        """Read what `to_bytes` wrote; ValueError for anything else."""
        state = json.loads(data)
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise ValueError(f"not a confidence estimator of format {_FORMAT!r}")
        return cls(np.array(state["knots"], dtype=np.float64), np.array(state["probabilities"], dtype=np.float64))


def _fit_isotonic(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return knots and values of the isotonic regression of labels on scores, bit for bit as scikit-learn's.

    Its class spends 2 s on imports, its algorithm is SciPy's (pool adjacent violators): equal scores count as one row
    with their mean, and knots within a flat stretch are left out.
    """
    from scipy.optimize import isotonic_regression  # half a second to import; only fitting needs it

    knots, place = np.unique(scores, return_inverse=True)
    firsts = _find_apart(knots)
    place = np.searchsorted(firsts, place, side="right") - 1
    weights = np.bincount(place).astype(np.float64)
    fitted = isotonic_regression(np.bincount(place, weights=labels) / weights, weights=weights).x
    is_kept = np.ones(len(fitted), dtype=np.bool_)
    is_kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return knots[firsts][is_kept], np.asarray(fitted[is_kept], dtype=np.float64)


def _find_apart(ascending: Floats) -> NDArray[np.int64]:
    """Return the positions of the values that lie at least 1e-15 above the last such one: scikit-learn's resolution."""
    if not np.any(np.diff(ascending) < _RESOLUTION):
        return np.arange(len(ascending))
    found = [0]
    for index, value in enumerate(ascending.tolist()):
        if value - ascending[found[-1]] >= _RESOLUTION:
            found.append(index)
    return np.array(found)


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.nan
