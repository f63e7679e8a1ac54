"""How well is a multiclass model doing on rows without labels? Confidence-based estimation, one class against the rest.

Owns the calibration of a row's scores and the expected metrics under it; what it assumes is what `measures.estimate`
assumes. Source: the NannyML documentation, "Estimation of Performance of the Monitored Model", multiclass: the score of
every class is calibrated by itself, and a row's chances are then scaled to add up to 1. The implementation is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.chances import compute_average_precision, compute_calibration_error, place_rows
from measures.estimate import ConfidenceEstimator
from measures.intervals import Interval
from measures.uncertainty import bound_multiclass

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class ClassEstimator:
    """Chances of every class as a function of the scores of all of them, in the order of `classes`."""

    classes: tuple[str, ...]
    calibrations: tuple[ConfidenceEstimator, ...]

    @classmethod
    def fit(cls, labels: NDArray[Any], scores: Floats, classes: Sequence[str]) -> ClassEstimator:
        """Calibrate each column of `scores` on labels (names, None is missing); rows that miss anything are left out.

        A class that none or all of the rows have keeps that share. Raises ValueError where no row is complete.
        """
        known = ~np.isnan(scores).any(axis=1) & (labels != None)  # noqa: E711 - element by element
        if not known.any():
            raise ValueError("confidence-based estimation needs reference rows with a label and a score of every class")
        truth, score = labels[known], scores[known]
        return cls(tuple(classes), tuple(_fit_class(truth == name, score[:, i]) for i, name in enumerate(classes)))

    def calibrate(self, scores: Floats) -> Floats:
        """Return the chances (rows, classes) of n complete rows; they add up to 1."""
        chances = np.column_stack([each.calibrate(scores[:, i]) for i, each in enumerate(self.calibrations)])
        total = chances.sum(axis=1, keepdims=True)
        even = np.full_like(chances, 1.0 / len(self.classes))
        with np.errstate(invalid="ignore"):
            return np.where(total > 0.0, chances / total, even)

    def estimate(
        self, scores: Floats, predictions: NDArray[Any] | None, metrics: Sequence[str]
    ) -> tuple[dict[str, float], dict[str, Interval]]:
        """Return the expected metrics of n rows, under the names of the realized ones, and their intervals.

        A row without a prediction, or with one that is no class, predicts the class of its largest score. Rows that
        miss a score are left out. Precision, recall and F1 are ratios of expected counts, averaged over classes.
        """
        known = ~np.isnan(scores).any(axis=1)
        score = scores[known]
        predicted = score.argmax(axis=1)
        if predictions is not None:
            place = {name: index for index, name in enumerate(self.classes)}
            sent = np.array([place.get(name, -1) for name in predictions[known].tolist()], dtype=np.int64)
            predicted = np.where(sent >= 0, sent, predicted)
        chances = self.calibrate(score)
        values = self._expect(chances, score, predicted) if len(score) else {}
        values = {metric: values.get(metric, math.nan) for metric in metrics}
        return values, bound_multiclass(chances, predicted, score, values, metrics)

    def _expect(self, chances: Floats, scores: Floats, predicted: Ints) -> dict[str, float]:
        rows, num_rows = np.arange(len(scores)), len(scores)
        losses = -(chances * np.log(np.clip(scores, _EPSILON, 1.0 - _EPSILON))).sum(axis=1)
        best = scores.argmax(axis=1)
        right = np.sort(chances[rows, predicted])
        labelled = np.sort(chances, axis=0).sum(axis=0)
        sent = np.bincount(predicted, minlength=len(self.classes)).astype(np.float64)
        hits = np.array([np.sort(chances[predicted == c, c]).sum() for c in range(len(self.classes))])
        occurs = labelled + sent > 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = {
                "f1": 2.0 * hits / (labelled + sent),
                "precision": np.where(sent > 0, hits / sent, 0.0),
                "recall": np.where(labelled > 0, hits / labelled, 0.0),
            }
        areas, precisions = [], []
        for column, total in enumerate(labelled.tolist()):
            chance, score = chances[:, column], scores[:, column]
            above, _ = place_rows(chance, score)
            areas.append(float(np.sort(chance * above).sum()) / total if total > 0.0 else math.nan)
            precisions.append(compute_average_precision(chance, score))
        return {
            "accuracy": float(right.sum()) / num_rows,
            **{name: float(each[occurs].mean()) for name, each in shares.items()},
            "log_loss": float(np.sort(losses).sum()) / num_rows,
            "roc_auc": math.fsum(areas) / len(areas),
            "pr_auc": math.fsum(precisions) / len(precisions),
            "calibration_error": compute_calibration_error(chances[rows, best], scores.max(axis=1)),
        }


def _fit_class(is_class: NDArray[np.bool_], scores: Floats) -> ConfidenceEstimator:
    labels = is_class.astype(np.float64)
    if is_class.all() or not is_class.any():
        return ConfidenceEstimator(np.array([0.0, 1.0]), np.full(2, labels[0]))
    return ConfidenceEstimator.fit(labels, scores)
