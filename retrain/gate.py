"""The gate: is the challenger better than the champion, surely enough to replace it?

Owns the rule and its words. Both models are judged on the same later rows; the bootstrap and the
recalibration are `measures`'. It must not promote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measures.performance import measure_performance
from measures.sampling import Comparison, compare_paired, recalibrate_two_fold
from retrain.target import Task
from schemas.spec import PromoteSpec

# A mean absolute error has the unit of its target, so its gain is counted as a share of the champion's.
_MIN_GAIN_SHARE = 0.01

_NAMES = {"roc_auc": "AUC", "accuracy": "accuracy", "mae": "mean absolute error"}


@dataclass(frozen=True, slots=True)
class GateRows:
    """n labelled rows with what both models say of them.

    Outputs are as in `measures.performance`: the probability of class 1 for binary, (n, len(classes))
    for multiclass, the prediction for regression; NaN where the champion said nothing.
    """

    task: Task
    labels: NDArray[Any]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    classes: Sequence[str] | None = None

    def select_comparable(self) -> GateRows:
        """Return the rows that both models scored."""
        missing = np.isnan(self.champion) | np.isnan(self.challenger)
        known = ~(missing.any(axis=1) if missing.ndim == 2 else missing)
        return GateRows(self.task, self.labels[known], self.champion[known], self.challenger[known], self.classes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger passed, why in plain words, and every figure behind it."""

    passed: bool
    words: str
    metrics: dict[str, float]


def judge_challenger(rows: GateRows, promote: PromoteSpec, min_rows: int) -> Verdict:
    """Compare challenger and champion; with fewer than `min_rows` rows that both scored, nothing passes.

    - binary: AUC gain of at least `min_gain` with its lower bound above 0, and a log loss below that of
      the champion recalibrated on these rows, with the whole interval;
    - multiclass: accuracy gain of at least `min_gain` with its lower bound above 0;
    - regression: mean absolute error at least 1 % lower, with the whole interval.
    """
    rows = rows.select_comparable()
    num_rows = len(rows.labels)
    if num_rows < min_rows:
        words = f"Refused: champion and challenger scored {num_rows} labelled rows in common, {min_rows} are needed."
        return Verdict(False, words, {"gate_rows": float(num_rows)})
    metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "mae"}[rows.task]
    main = _compare(rows, metric, rows.champion, promote)
    min_gain = _MIN_GAIN_SHARE * main.champion if metric == "mae" else promote.min_gain
    objections = _object_to_gain(main, min_gain)
    metrics = {"gate_rows": float(num_rows), **_record(main)}
    words = _describe(main, num_rows)
    if rows.task == "binary":
        loss = _compare(rows, "log_loss", recalibrate_two_fold(rows.labels, rows.champion), promote)
        metrics |= _record(loss)
        words += (
            f"; log loss {loss.challenger:.4f} against {loss.champion:.4f} of the recalibrated champion "
            f"(change {-loss.difference:+.4f}, {_interval(-loss.upper, -loss.lower, loss.confidence)})"
        )
        if not loss.lower > 0:
            objections.append("its log loss is not surely below the recalibrated champion's")
    metrics |= _measure_each(rows)
    passed = not objections
    words = f"{'Passed' if passed else 'Refused'}: {words}."
    if objections:
        words += f" The challenger is not accepted because {' and '.join(objections)}."
    return Verdict(passed, words, metrics)


def _compare(rows: GateRows, metric: str, champion: NDArray[np.float64], promote: PromoteSpec) -> Comparison:
    return compare_paired(
        rows.task, metric, rows.labels, champion, rows.challenger, confidence=promote.confidence, classes=rows.classes
    )


def _object_to_gain(comparison: Comparison, min_gain: float) -> list[str]:
    """Say what speaks against a gain; a NaN (metric undefined on these rows) is an objection, not a pass."""
    name = _NAMES[comparison.metric]
    if np.isnan(comparison.difference):
        return [f"{name} is undefined on these rows (one class only)"]
    objections = []
    if not comparison.difference >= min_gain:
        objections.append(f"its gain in {name} is below {min_gain:.4g}")
    if not comparison.lower > 0:
        objections.append(f"the gain in {name} is not surely above 0")
    return objections


def _describe(comparison: Comparison, num_rows: int) -> str:
    bounds = _interval(comparison.lower, comparison.upper, comparison.confidence)
    return (
        f"{_NAMES[comparison.metric]} {comparison.challenger:.4f} against {comparison.champion:.4f} of the champion "
        f"on {num_rows:,} later rows (gain {comparison.difference:+.4f}, {bounds})"
    )


def _interval(lower: float, upper: float, confidence: float) -> str:
    return f"{confidence:.4g} interval {lower:+.4f} to {upper:+.4f}"


def _record(comparison: Comparison) -> dict[str, float]:
    """Name a comparison's figures; a metric that is undefined has none, since NaN says nothing in a table."""
    name = "log_loss_recalibrated" if comparison.metric == "log_loss" else comparison.metric
    found = {
        f"champion_{name}": comparison.champion,
        f"{name}_gain": comparison.difference,
        f"{name}_gain_lower": comparison.lower,
        f"{name}_gain_upper": comparison.upper,
    }
    return {key: value for key, value in found.items() if not np.isnan(value)}


def _measure_each(rows: GateRows) -> dict[str, float]:
    """Measure every metric of both models, the champion's as it is, not recalibrated."""
    found: dict[str, float] = {}
    for prefix, outputs in (("", rows.challenger), ("champion_", rows.champion)):
        if rows.task == "regression":
            values = measure_performance(rows.task, rows.labels, predictions=outputs)
        else:
            values = measure_performance(rows.task, rows.labels, scores=outputs, classes=rows.classes)
        found |= {f"{prefix}{name}": value for name, value in values.items() if not np.isnan(value)}
    return found
