"""How well a version does in a window: measurements of kind `performance` (with labels) and `estimate` (without)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from measures.estimate import ConfidenceEstimator
from measures.limits import Limits, limits_3sd, limits_bootstrap
from measures.performance import measure_performance
from schemas.events import Measurement
from schemas.spec import ModelSpec, PublishedSpec
from streams.logic.measured import WindowContext
from streams.logic.rows import Floats, Rows
from streams.logic.verdicts import is_harmful

UNBOUNDED = Limits(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class ReferenceProfile:
    """What a version's reference promises: limits per metric (none without labels), and how to estimate."""

    limits: Mapping[str, Limits]
    estimator: ConfidenceEstimator | None


def profile_reference(published: PublishedSpec, reference: Rows, *, is_own: bool) -> ReferenceProfile:
    """Derive limits and estimator from reference rows.

    The model's reference is cut into windows as the spec cuts time, a short last one included. A trained version's
    own reference (`is_own`) is a single labelled set: its limits come from resampling it.
    """
    spec = published.spec
    if reference.label is None and reference.label_text is None:
        return ReferenceProfile({}, None)
    deviations = spec.performance.limits_sd
    limits: dict[str, Limits] = {}
    if deviations is not None:
        found = _resample(spec, reference) if is_own else _limit_windows(published, reference)
        limits = {metric: _widen(each, deviations) for metric, each in found.items()}
    estimator = None
    if spec.performance.estimate == "cbpe" and reference.score is not None and reference.label is not None:
        known = reference.label[~np.isnan(reference.score) & ~np.isnan(reference.label)]
        # From one class alone nothing can be estimated.
        if np.any(known == 0) and np.any(known == 1):
            estimator = ConfidenceEstimator.fit(reference.label, reference.score)
    return ReferenceProfile(limits, estimator)


def measure_realized(
    context: WindowContext, profile: ReferenceProfile, rows: Rows, num_rows: int, coverage: float, model_version: str
) -> list[Measurement]:
    """Measure a version on its labelled rows, for the whole model and each segment.

    `rows` are the window's predictions (or their sample) with the labels that there are; `num_rows` and `coverage`
    count all of the window's predictions. Segments have no limits.
    """
    found = _realize(context, profile, rows, "", num_rows, coverage, model_version)
    for segment, positions in _split(context, rows).items():
        part = rows.take_outcomes(positions)
        share = float(find_labelled(part).mean())
        found += _realize(context, profile, part, segment, len(part), share, model_version)
    return found


def measure_estimated(
    context: WindowContext, profile: ReferenceProfile, rows: Rows, num_rows: int, model_version: str
) -> list[Measurement]:
    """Estimate a version's metrics without labels, for the whole model and each segment; nothing without estimator."""
    if profile.estimator is None or rows.score is None:
        return []
    found = _estimate(context, profile, rows.score, rows.prediction, "", num_rows, model_version)
    for segment, positions in _split(context, rows).items():
        prediction = None if rows.prediction is None else rows.prediction[positions]
        score = rows.score[positions]
        found += _estimate(context, profile, score, prediction, segment, len(score), model_version)
    return found


def measure_metrics(spec: ModelSpec, rows: Rows) -> dict[str, float]:
    """Measure the spec's metrics on labelled rows."""
    if spec.task == "multiclass":
        classes = sorted(rows.scores)
        scores = np.column_stack([rows.scores[name] for name in classes]) if classes else None
        labels = rows.label_text if rows.label_text is not None else np.full(len(rows), None, dtype=object)
        return measure_performance(
            "multiclass", labels, rows.prediction_text, scores, classes or None, spec.performance.metrics
        )
    labels = rows.label if rows.label is not None else np.full(len(rows), math.nan)
    scores = rows.score if spec.task == "binary" else None
    return measure_performance(spec.task, labels, rows.prediction, scores, None, spec.performance.metrics)


def find_labelled(rows: Rows) -> npt.NDArray[np.bool_]:
    """Mark the rows that have a label."""
    labelled = np.zeros(len(rows), dtype=np.bool_)
    if rows.label is not None:
        labelled |= ~np.isnan(rows.label)
    if rows.label_text is not None:
        labelled |= rows.label_text != None  # noqa: E711 - element by element
    return labelled


def _estimate(
    context: WindowContext,
    profile: ReferenceProfile,
    score: Floats,
    prediction: Floats | None,
    segment: str,
    num_rows: int,
    model_version: str,
) -> list[Measurement]:
    assert profile.estimator is not None
    values = profile.estimator.estimate(score, prediction)
    found = []
    for metric in context.spec.performance.metrics:
        limits = UNBOUNDED if segment else profile.limits.get(metric, UNBOUNDED)
        few = len(score) < context.spec.windows.min_rows
        found.append(
            context.make(
                "estimate",
                metric,
                values[metric],
                "too_few_rows" if few else _judge(metric, values[metric], limits),
                num_rows,
                num_sampled=len(score),
                model_version=model_version,
                segment=segment,
                lower=limits.lower,
                upper=limits.upper,
            )
        )
    return found


def _realize(
    context: WindowContext,
    profile: ReferenceProfile,
    rows: Rows,
    segment: str,
    num_rows: int,
    coverage: float,
    model_version: str,
) -> list[Measurement]:
    spec = context.spec
    labelled = rows.take(find_labelled(rows))
    values = measure_metrics(spec, labelled)
    found = []
    for metric in spec.performance.metrics:
        limits = UNBOUNDED if segment else profile.limits.get(metric, UNBOUNDED)
        if coverage < spec.performance.min_label_coverage:
            status = "partial"
        elif len(labelled) < spec.windows.min_rows:
            status = "too_few_rows"
        else:
            status = _judge(metric, values[metric], limits)
        found.append(
            context.make(
                "performance",
                metric,
                values[metric],
                status,
                num_rows,
                num_sampled=len(labelled),
                model_version=model_version,
                segment=segment,
                lower=limits.lower,
                upper=limits.upper,
                label_coverage=coverage,
            )
        )
    return found


def _split(context: WindowContext, rows: Rows) -> dict[str, npt.NDArray[np.int64]]:
    known = context.published.segment_values
    return rows.split({key: known.get(key, []) for key in context.spec.segments})


def _judge(metric: str, value: float, limits: Limits) -> str:
    if math.isnan(limits.lower) and math.isnan(limits.upper):
        return "ok"
    return "alert" if is_harmful(metric, value, limits.lower, limits.upper) else "ok"


def _limit_windows(published: PublishedSpec, reference: Rows) -> dict[str, Limits]:
    starts = published.window_of(reference.ts)
    windows = [measure_metrics(published.spec, reference.take(starts == each)) for each in np.unique(starts)]
    metrics: Sequence[str] = published.spec.performance.metrics
    return {metric: limits_3sd([window[metric] for window in windows]) for metric in metrics}


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
