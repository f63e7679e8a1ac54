"""The gates of the whole: is the challenger better than the champion, surely, and are its probabilities right?

Owns these comparisons and their words. Both models are judged on the same rows; bootstrap and recalibration are
`measures`'.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from measures.performance import Task
from measures.sampling import Comparison, compare_paired, recalibrate_two_fold
from retrain.gate_rows import GateRows
from schemas.spec import PromoteSpec
from store.gates import Gate

# A mean absolute error has the unit of its target, so its gain is counted as a share of the champion's.
MIN_GAIN_SHARE = 0.01

METRIC_OF: dict[Task, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "mae"}
NAMES = {"roc_auc": "AUC", "accuracy": "accuracy", "mae": "mean absolute error"}


def compare(rows: GateRows, metric: str, champion: NDArray[np.float64], confidence: float) -> Comparison:
    """Compare both models' `metric`, with `champion` in place of what the champion says."""
    return compare_paired(
        rows.task, metric, rows.labels, champion, rows.challenger, confidence=confidence, classes=rows.classes
    )


def judge_gain(rows: GateRows, promote: PromoteSpec) -> tuple[Comparison, list[Gate]]:
    """Ask for a gain of at least `min_gain` in the primary metric, with its lower bound above 0.

    A NaN (metric undefined on these rows) is an objection, not a pass.
    """
    found = compare(rows, METRIC_OF[rows.task], rows.champion, promote.confidence)
    name = NAMES[found.metric]
    if np.isnan(found.difference):
        words = f"{name} is undefined on these rows (one class only)"
        return found, [Gate(name="gain", passed=False, value=None, limit=None, words=words)]
    min_gain = MIN_GAIN_SHARE * found.champion if found.metric == "mae" else promote.min_gain
    enough, sure = bool(found.difference >= min_gain), bool(found.lower > 0)
    enough_words = f"its gain in {name} is {'at least' if enough else 'below'} {min_gain:.4g}"
    sure_words = f"the gain in {name} is {'' if sure else 'not '}surely above 0"
    return found, [
        Gate(name="gain", passed=enough, value=found.difference, limit=min_gain, words=enough_words),
        Gate(name="gain_lower", passed=sure, value=found.lower, limit=0.0, words=sure_words),
    ]


def judge_calibration(rows: GateRows, promote: PromoteSpec) -> tuple[Comparison, Gate]:
    """Ask a binary challenger for a log loss below that of the champion recalibrated on these rows, surely."""
    found = compare(rows, "log_loss", recalibrate_two_fold(rows.labels, rows.champion), promote.confidence)
    passed = bool(found.lower > 0)
    words = f"its log loss is {'' if passed else 'not '}surely below the recalibrated champion's"
    value = None if np.isnan(found.lower) else found.lower
    return found, Gate(name="calibration", passed=passed, value=value, limit=0.0, words=words)


def describe_gain(found: Comparison, num_rows: int) -> str:
    """Say what both models reach, and how sure the difference is."""
    return (
        f"{NAMES[found.metric]} {found.challenger:.4f} against {found.champion:.4f} of the champion "
        f"on {num_rows:,} later rows (gain {found.difference:+.4f}, {_interval(found.lower, found.upper, found)})"
    )


def describe_calibration(found: Comparison) -> str:
    """Say what the log losses are."""
    return (
        f"log loss {found.challenger:.4f} against {found.champion:.4f} of the recalibrated champion "
        f"(change {-found.difference:+.4f}, {_interval(-found.upper, -found.lower, found)})"
    )


def _interval(lower: float, upper: float, found: Comparison) -> str:
    return f"{found.confidence:.4g} interval {lower:+.4f} to {upper:+.4f}"
