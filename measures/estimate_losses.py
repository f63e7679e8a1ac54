"""How large are a regression's errors on rows without labels? Direct loss estimation (DLE).

Owns the models of the loss. Source: the NannyML documentation, "Direct Loss Estimation": a second model learns on the
reference, from features and prediction, how large the error of a row will be; the mean of what it says of a window is
the estimate. It assumes that errors depend on features and prediction as they did, and is blind to a change of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.intervals import UNKNOWN, Interval, bound_mean

Floats = NDArray[np.float64]

# What can be estimated: the loss of a row, whose mean (or the root of it) is the metric. R² needs the labels' spread.
ESTIMATED = ("mae", "rmse", "mape")
NUM_CATEGORIES_MAX = 254  # scikit-learn's bins are bytes, one of them for missing values

_EPSILON = float(np.finfo(np.float64).eps)
# A reference of 50,000 rows and 15 columns is learnt in about a second.
_NUM_TREES = 100


@dataclass(frozen=True, slots=True)
class _Loss:
    """A fitted model of one loss; `ratio` is the mean square of the loss over its squared mean, on the reference."""

    model: Any
    ratio: float


@dataclass(frozen=True, slots=True)
class LossEstimator:
    """Gradient-boosted trees for each loss."""

    losses: Mapping[str, _Loss]

    @classmethod
    def fit(
        cls, inputs: Floats, is_category: Sequence[bool], labels: Floats, predictions: Floats, metrics: Sequence[str]
    ) -> LossEstimator:
        """Learn from n reference rows; `inputs` (n, columns) are numbers and codes below NUM_CATEGORIES_MAX.

        NaN is missing. The prediction is one more column. Deterministic: one thread, no sampling, no early stop.
        Raises ValueError where fewer than 2 rows have label and prediction.
        """
        from sklearn.ensemble import HistGradientBoostingRegressor  # 2 s, and few ask

        known = ~(np.isnan(labels) | np.isnan(predictions))
        if np.count_nonzero(known) < 2:
            raise ValueError("loss estimation needs reference rows with a label and a prediction")
        columns = np.column_stack([predictions, inputs])[known]
        losses = {}
        for metric in (each for each in ESTIMATED if each in metrics):
            target = _measure_loss(metric, labels[known], predictions[known])
            model = HistGradientBoostingRegressor(
                max_iter=_NUM_TREES, early_stopping=False, random_state=0, categorical_features=[False, *is_category]
            )
            with _one_thread():
                model.fit(columns, target)
            mean = float(target.mean())
            losses[metric] = _Loss(model, float((target**2).mean()) / mean**2 if mean > 0.0 else 1.0)
        return cls(losses)

    def estimate(self, inputs: Floats, predictions: Floats) -> tuple[dict[str, float], dict[str, Interval]]:
        """Return the expected metrics of n rows and their intervals; rows without a prediction are left out."""
        known = ~np.isnan(predictions)
        num_rows = int(np.count_nonzero(known))
        columns = np.column_stack([predictions, inputs])[known]
        values, intervals = {}, {}
        for metric, loss in self.losses.items():
            values[metric], intervals[metric] = math.nan, UNKNOWN
            if num_rows:
                with _one_thread():
                    said = np.sort(np.maximum(loss.model.predict(columns), 0.0))
                mean = float(said.sum()) / num_rows
                interval = bound_mean(mean, loss.ratio * mean**2, num_rows)
                values[metric], intervals[metric] = _to_metric(metric, mean, interval)
        return values, intervals


def _measure_loss(metric: str, labels: Floats, predictions: Floats) -> Floats:
    errors = np.abs(labels - predictions)
    if metric == "rmse":
        return errors**2
    return errors if metric == "mae" else errors / np.maximum(np.abs(labels), _EPSILON)


def _to_metric(metric: str, mean: float, interval: Interval) -> tuple[float, Interval]:
    if metric != "rmse" or math.isnan(interval.error):
        return (math.sqrt(mean) if metric == "rmse" else mean), interval
    root = math.sqrt(mean)
    error = interval.error / (2.0 * root) if root > 0.0 else 0.0
    return root, Interval(error, math.sqrt(interval.lower), math.sqrt(interval.upper))


def _one_thread() -> Any:
    """Two threads on a machine that has other work take longer than one, and sums stay in one order."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)
