"""How differently a version treats the values of each declared segment key: measurements of kind `fairness`.

One row a key, whose name stands as `segment`. Only what the spec's `fairness` names is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from measures.fairness import Disparity, measure_gap, measure_ratio
from measures.performance import complete_predictions
from schemas.events import Measurement
from streams.logic.measured import WindowContext
from streams.logic.rows import OTHER, Rows

Bools = npt.NDArray[np.bool_]
Parts = Mapping[str, npt.NDArray[np.int64]]

DEMOGRAPHIC_PARITY, DISPARATE_IMPACT = "demographic_parity", "disparate_impact"
EQUAL_OPPORTUNITY = "equal_opportunity"


def measure_parity(
    context: WindowContext, rows: Rows, parts: Parts, num_rows: int, model_version: str
) -> list[Measurement]:
    """Compare how often each group is predicted positive: the gap of these rates, and their ratio."""
    fairness = context.spec.fairness
    if fairness.demographic_parity is None and fairness.disparate_impact is None:
        return []
    positive, known = _predict(rows)
    found = []
    for key in context.spec.segments:
        hits, sizes = _count_groups(context, key, parts, positive & known, known)
        for metric, limit, disparity in (
            (DEMOGRAPHIC_PARITY, fairness.demographic_parity, measure_gap(hits, sizes)),
            (DISPARATE_IMPACT, fairness.disparate_impact, measure_ratio(hits, sizes)),
        ):
            if limit is not None:
                found.append(_make(context, metric, key, disparity, limit, num_rows, sum(sizes), model_version))
    return found


def measure_opportunity(
    context: WindowContext, rows: Rows, parts: Parts, num_rows: int, coverage: float, model_version: str
) -> list[Measurement]:
    """Compare how many of the positives of each group are found: the gap of these rates, on labelled rows."""
    limit = context.spec.fairness.equal_opportunity
    if limit is None or rows.label is None:
        return []
    positive, known = _predict(rows)
    known &= rows.label == 1
    found = []
    for key in context.spec.segments:
        hits, sizes = _count_groups(context, key, parts, positive & known, known)
        disparity = measure_gap(hits, sizes)
        found.append(
            _make(context, EQUAL_OPPORTUNITY, key, disparity, limit, num_rows, sum(sizes), model_version, coverage)
        )
    return found


def _predict(rows: Rows) -> tuple[Bools, Bools]:
    """Which rows are predicted positive, by their score where no prediction was sent; and of which that is known."""
    nothing = np.full(len(rows), math.nan)
    predicted = complete_predictions(rows.prediction, nothing if rows.score is None else rows.score)
    return predicted == 1, ~np.isnan(predicted)


def _count_groups(
    context: WindowContext, key: str, parts: Parts, hits: Bools, known: Bools
) -> tuple[list[int], list[int]]:
    """Count hits and rows of the groups that have enough rows; the rest of a key is no group of its own."""
    num_hits, num_rows = [], []
    for value in context.published.segment_values.get(key, []):
        positions = parts.get(f"{key}={value}")
        if positions is None or value == OTHER:
            continue
        size = int(np.count_nonzero(known[positions]))
        if size >= context.spec.windows.min_rows:
            num_hits.append(int(np.count_nonzero(hits[positions])))
            num_rows.append(size)
    return num_hits, num_rows


def _make(
    context: WindowContext,
    metric: str,
    key: str,
    disparity: Disparity,
    limit: float,
    num_rows: int,
    num_sampled: int,
    model_version: str,
    coverage: float | None = None,
) -> Measurement:
    return context.make(
        "fairness",
        metric,
        disparity.value,
        _judge(context, metric, disparity, limit, coverage),
        num_rows,
        num_sampled=num_sampled,
        model_version=model_version,
        segment=key,
        threshold=limit,
        label_coverage=coverage,
        interval=disparity.interval,
    )


def _judge(context: WindowContext, metric: str, disparity: Disparity, limit: float, coverage: float | None) -> str:
    """A disparity is one where its whole interval is beyond the limit."""
    if coverage is not None and coverage < context.spec.performance.min_label_coverage:
        return "partial"
    if math.isnan(disparity.value):
        return "too_few_rows"
    if metric == DISPARATE_IMPACT:
        return "alert" if disparity.interval.upper < limit else "ok"
    return "alert" if disparity.interval.lower > limit else "ok"
