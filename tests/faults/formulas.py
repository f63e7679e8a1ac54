"""The oracle's statistics, from their definitions with NumPy, SciPy and scikit-learn; nothing of the product."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import rankdata, wasserstein_distance
from sklearn.isotonic import IsotonicRegression

Array = np.ndarray[Any, Any]

_EPSILON = float(np.finfo(np.float64).eps)
_U = np.uint64


def distance(kind: str, reference: Array, current: Array) -> float:
    """Of numbers Wasserstein's over the reference's deviation, of the rest Jensen and Shannon's; NaN of nothing."""
    if kind == "number":
        before, after = (np.sort(side[np.isfinite(side.astype(float))].astype(float)) for side in (reference, current))
        if not len(before) or not len(after):
            return math.nan
        return float(wasserstein_distance(before, after) / max(float(np.std(before)), 0.001))
    known, found = (Counter(str(v) for v in side.tolist() if v is not None and v == v) for side in (reference, current))
    if not known or not found:
        return math.nan
    values = sorted(known | found)
    return float(jensenshannon(*([side[value] / side.total() for value in values] for side in (known, found))))


def realized(metric: str, label: Array, score: Array | None, prediction: Array) -> float:
    """A metric on labelled rows; NaN where it is not defined."""
    if not len(label):
        return math.nan
    hits = int(np.sum((label == 1) & (prediction == 1)))
    if metric == "roc_auc":
        num_positive, num_negative = int(np.sum(label == 1)), int(np.sum(label != 1))
        if not num_positive or not num_negative:
            return math.nan
        ranks = rankdata(score)[label == 1].sum()
        return float((ranks - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))
    if metric == "accuracy":
        return float(np.sum(label == prediction)) / len(label)
    if metric == "f1":
        return 2 * hits / (int(np.sum(label == 1)) + int(np.sum(prediction == 1)))
    if metric == "log_loss":
        assert score is not None
        likelihood = np.clip(np.where(label == 1, score, 1 - score), _EPSILON, 1 - _EPSILON)
        return math.fsum(-np.log(likelihood)) / len(label)
    error = label - prediction
    if metric == "mae":
        return math.fsum(np.abs(error)) / len(error)
    assert metric == "rmse"
    return math.sqrt(math.fsum(error**2) / len(error))


class Confidence:
    """Expected metrics of unlabelled rows, from scores calibrated on the reference (CBPE)."""

    def __init__(self, label: Array, score: Array) -> None:
        self._calibration = IsotonicRegression(out_of_bounds="clip").fit(score, label)

    def estimate(self, metric: str, score: Array, prediction: Array) -> float:
        chance = self._calibration.predict(score)
        positive = prediction == 1
        expected_hits, expected_positives = math.fsum(chance[positive]), math.fsum(chance)
        if metric == "roc_auc":
            falling = np.sort(chance)[::-1]
            true, false = np.cumsum(falling), np.cumsum(1 - falling)
            if not true[-1] * false[-1] > 0:
                return math.nan
            return float(np.trapezoid(np.r_[0, true / true[-1]], np.r_[0, false / false[-1]]))
        if metric == "accuracy":
            return (expected_hits + math.fsum(1 - chance[~positive])) / len(score)
        if metric == "f1":
            return 2 * expected_hits / (expected_positives + int(positive.sum()))
        assert metric == "log_loss"
        likelihood = np.clip(score, _EPSILON, 1 - _EPSILON)
        return math.fsum(-(chance * np.log(likelihood) + (1 - chance) * np.log(1 - likelihood))) / len(score)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Three standard deviations around the mean of a metric's values in the reference's windows."""
    mean, deviation = float(np.mean(values)), float(np.std(values))
    return mean - 3 * deviation, mean + 3 * deviation


def is_harmful(metric: str, value: float, lower: float, upper: float) -> bool:
    return value > upper if metric in ("log_loss", "mae", "rmse") else value < lower


def sip_hash(texts: Sequence[str]) -> Array:
    """SipHash-2-4 with a key of zeros, as ClickHouse's sipHash64, of ASCII texts of eight characters each."""
    words = np.frombuffer("".join(texts).encode("ascii"), "<u8")
    assert len(words) == len(texts)
    initial = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    state = [np.full(len(words), value, _U) for value in initial]
    for block in (words, np.full(len(words), 8 << 56, _U)):
        state[3] = state[3] ^ block
        state = _mix(_mix(state))
        state[0] = state[0] ^ block
    state[2] = state[2] ^ _U(0xFF)
    for _ in range(4):
        state = _mix(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _mix(state: list[Array]) -> list[Array]:
    v0, v1, v2, v3 = state
    v0 = v0 + v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = v2 + v3
    v3 = _rotate(v3, 16) ^ v2
    v0 = v0 + v3
    v3 = _rotate(v3, 21) ^ v0
    v2 = v2 + v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return [v0, v1, v2, v3]


def _rotate(words: Array, num_bits: int) -> Array:
    return (words << _U(num_bits)) | (words >> _U(64 - num_bits))
