"""Between which limits a version's metrics are at home, by what its spec declares as `limits`. Pure.

Owns the choice between fixed deviations and limits at the level of the budget, and how the reference is cut for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from measures.budget import give_level, restate_level, share_of_look
from measures.harm_limits import NUM_RESAMPLES, RESAMPLED_ROWS_MAX, Spread, learn_spread
from measures.limits import Limits, limits_3sd, limits_bootstrap
from schemas.spec import ModelSpec, PublishedSpec
from streams.logic.rows import Rows

Reading = Literal["performance", "estimate"]
Measure = Callable[[ModelSpec, Rows], dict[str, float]]

UNBOUNDED = Limits(math.nan, math.nan, math.nan)

# Resampling is part of measuring, and measuring again must give the same.
_SEED = 0


@dataclass(frozen=True, slots=True)
class ReferenceLimits:
    """What a version's reference says of its metrics: fixed limits, or spreads that give limits for a window's size."""

    fixed: Mapping[str, Limits] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)

    def of(self, spec: ModelSpec, metric: str, num_rows: int, reading: Reading, look: int) -> Limits:
        """Give a metric's limits in a window of `num_rows` measured rows, at the look-th look at it, from 1."""
        spread = self.spreads.get(metric)
        if spread is None:
            return self.fixed.get(metric, UNBOUNDED)
        return spread.limit(num_rows, find_level(spec, reading, look))


def find_level(spec: ModelSpec, reading: Reading, look: int) -> float:
    """Give the level of one reading of one window: realized and estimated performance share the budget.

    Realized performance is judged again and again as labels come, from `min_label_coverage` on: charged as growth. An
    estimate is there at once; late events are a second look.
    """
    allowed, performance = spec.performance.false_alarms, spec.performance
    num_readings = 1 if performance.estimate == "none" else 2
    level = give_level(allowed.count, allowed.per_ms, spec.windows.size_ms, num_readings)
    if reading == "estimate":
        return level * share_of_look(max(look, 1))
    return restate_level(level, performance.min_label_coverage)


def find_limits(
    published: PublishedSpec, reference: Rows, labelled: Rows, measure: Measure, own: bool
) -> ReferenceLimits:
    """Derive limits from reference rows, of which `labelled` have a label.

    The model's reference is cut into windows as the spec cuts time, a short last one included. A trained version's
    `own` reference is a single labelled set: its limits come from resampling it.
    """
    spec = published.spec
    deviations = spec.performance.limits_sd
    if deviations is not None:
        found = _resample(spec, reference) if own else _limit_windows(published, reference, measure)
        return ReferenceLimits(fixed={metric: _widen(each, deviations) for metric, each in found.items()})
    if spec.performance.limits != "calibrated" or not len(labelled):
        return ReferenceLimits()
    starts = np.zeros(len(labelled), np.int64) if own else published.window_of(labelled.ts)
    windows = [labelled.take_outcomes(starts == each) for each in np.unique(starts)]
    values, sizes = [measure(spec, each) for each in windows], [len(each) for each in windows]
    rng, num_rows = np.random.default_rng(_SEED), min(int(np.median(sizes)), RESAMPLED_ROWS_MAX)
    resampled = [
        measure(spec, labelled.take_outcomes(rng.integers(len(labelled), size=max(num_rows, 1))))
        for _ in range(NUM_RESAMPLES)
    ]
    return ReferenceLimits(
        spreads={
            metric: learn_spread(metric, [each[metric] for each in values], sizes, [each[metric] for each in resampled])
            for metric in spec.performance.metrics
        }
    )


def _limit_windows(published: PublishedSpec, reference: Rows, measure: Measure) -> dict[str, Limits]:
    starts = published.window_of(reference.ts)
    windows = [measure(published.spec, reference.take(starts == each)) for each in np.unique(starts)]
    return {metric: limits_3sd([window[metric] for window in windows]) for metric in published.spec.performance.metrics}


def _resample(spec: ModelSpec, rows: Rows) -> dict[str, Limits]:
    classes = sorted(rows.scores) if spec.task == "multiclass" else []
    labels: npt.NDArray[Any] | None = rows.label_text if spec.task == "multiclass" else rows.label
    predictions: npt.NDArray[Any] | None = rows.prediction_text if spec.task == "multiclass" else rows.prediction
    scores = np.column_stack([rows.scores[name] for name in classes]) if classes else None
    if spec.task == "binary":
        scores = rows.score
    if labels is None:
        return {}
    return {
        metric: limits_bootstrap(spec.task, metric, labels, predictions, scores, classes or None, len(rows))
        for metric in spec.performance.metrics
    }


def _widen(limits: Limits, deviations: float) -> Limits:
    """Turn limits at 3 standard deviations into limits at `deviations`."""
    if deviations == 3.0:
        return limits
    return Limits(
        limits.mean - (limits.mean - limits.lower) * deviations / 3.0,
        limits.mean + (limits.upper - limits.mean) * deviations / 3.0,
        limits.mean,
    )
