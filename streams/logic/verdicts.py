"""What does the performance of a window say: harm, or nothing that can be decided yet?

Owns the reading of measurements; the lives of alerts are `streams.logic.alerts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from measures.harm import estimate_harm
from measures.performance import higher_is_better
from store.measurements import DriftRow, PerformanceRow
from streams.logic.alerts import Decision


@dataclass(frozen=True, slots=True)
class HarmVerdict:
    """What one window says of the headline version; `harm` is how much worse than the reference the metric is."""

    decision: Decision
    reading: PerformanceRow | None
    threshold: float | None
    harm: float | None


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """One window's verdict on the version that speaks for it."""

    window_start: int
    window_end: int
    model_version: str
    verdict: HarmVerdict


# Statuses of measurements from which nothing is decided.
_UNDECIDED = frozenset({"partial", "too_few_rows", "no_reference"})


def judge_harm(
    metric: str, performance: PerformanceRow | None, estimate: PerformanceRow | None, *, has_labels: bool
) -> HarmVerdict:
    """Decide one window from `metric` as realized and as estimated; realized outranks estimated.

    `has_labels` says that the model has ever had labels: then a good estimate alone decides nothing, because the
    labels will (an estimate is blind to a change of the relation between features and label).
    """
    for reading in (performance, estimate):
        if reading is None or reading.status in _UNDECIDED:
            continue
        outside = _is_outside(metric, reading)
        if outside is None:
            continue
        threshold = reading.lower if higher_is_better(metric) else reading.upper
        harm = _compute_harm(metric, reading)
        if outside:
            return HarmVerdict("alert", reading, threshold, harm)
        trusted = reading.kind == "performance" or not has_labels
        return HarmVerdict("ok" if trusted else "unknown", reading, threshold, harm)
    return HarmVerdict("unknown", None, None, None)


def is_harmful(metric: str, value: float, lower: float, upper: float) -> bool:
    """Say whether a value lies beyond its limits on the side that hurts; NaN limits bound nothing."""
    return value < lower if higher_is_better(metric) else value > upper


def choose_headline(champion: str | None, num_predictions: Mapping[str, int]) -> str | None:
    """Return the version that speaks for a window: its champion, else the version with most predictions.

    Ties go to the name that sorts first. None where there is neither.
    """
    if champion is not None:
        return champion
    if not num_predictions:
        return None
    return min(num_predictions, key=lambda version: (-num_predictions[version], version))


def choose_worst(readings: Sequence[DriftRow]) -> DriftRow | None:
    """Return the reading with the largest ratio; ties go to the feature that sorts first."""
    known = [each for each in readings if not math.isnan(each.ratio)]
    return min(known, key=lambda each: (-each.ratio, each.feature)) if known else None


def _is_outside(metric: str, reading: PerformanceRow) -> bool | None:
    """Compare a reading with its limits; None where value or the limit that matters is unknown."""
    limit = reading.lower if higher_is_better(metric) else reading.upper
    if reading.value is None or math.isnan(reading.value) or limit is None or math.isnan(limit):
        return None
    lower = -math.inf if reading.lower is None else reading.lower
    upper = math.inf if reading.upper is None else reading.upper
    return is_harmful(metric, reading.value, lower, upper)


def _compute_harm(metric: str, reading: PerformanceRow) -> float | None:
    if reading.lower is None or reading.upper is None:
        return None
    # Limits are symmetric about the reference's mean.
    return estimate_harm(reading.value, (reading.lower + reading.upper) / 2.0, metric)
