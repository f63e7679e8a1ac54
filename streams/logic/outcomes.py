"""How well a version does in a window: measurements of kind `performance` (with labels) and `estimate` (without)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from measures.estimate import ConfidenceEstimator
from measures.estimate_classes import ClassEstimator
from measures.intervals import Interval
from measures.limits import Limits
from measures.performance import measure_performance
from measures.uncertainty import bound_binary, bound_largest_scores, bound_multiclass, bound_regression
from schemas.events import Measurement
from schemas.spec import ModelSpec, PublishedSpec
from streams.logic.loss_inputs import RowLossEstimator
from streams.logic.measured import WindowContext
from streams.logic.performance_limits import UNBOUNDED, Reading, ReferenceLimits, find_limits
from streams.logic.rows import Rows
from streams.logic.verdicts import is_harmful

Estimator = ConfidenceEstimator | ClassEstimator | RowLossEstimator


@dataclass(frozen=True, slots=True)
class ReferenceProfile:
    """What a version's reference promises: limits per metric (none without labels), and how to estimate."""

    limits: ReferenceLimits
    estimator: Estimator | None


def profile_reference(published: PublishedSpec, reference: Rows, *, is_own: bool) -> ReferenceProfile:
    """Derive limits and estimator from reference rows: the model's, or (`is_own`) a trained version's own."""
    spec = published.spec
    if reference.label is None and reference.label_text is None:
        return ReferenceProfile(ReferenceLimits(), None)
    labelled = reference.take_outcomes(find_labelled(reference))
    limits = find_limits(published, reference, labelled, measure_metrics, is_own)
    return ReferenceProfile(limits, _fit_estimator(spec, reference))


def _fit_estimator(spec: ModelSpec, reference: Rows) -> Estimator | None:
    """Learn how to estimate, where the spec asks for it and the reference has what it takes."""
    if spec.performance.estimate == "none":
        return None
    if spec.task == "regression":
        return RowLossEstimator.fit(spec, reference)
    if spec.task == "multiclass":
        classes = sorted(reference.scores)
        if not classes or reference.label_text is None:
            return None
        scores = np.column_stack([reference.scores[name] for name in classes])
        if not np.any(~np.isnan(scores).any(axis=1) & find_labelled(reference)):
            return None
        return ClassEstimator.fit(reference.label_text, scores, classes)
    if reference.score is None or reference.label is None:
        return None
    known = reference.label[~np.isnan(reference.score) & ~np.isnan(reference.label)]
    # From one class alone nothing can be estimated.
    if not (np.any(known == 0) and np.any(known == 1)):
        return None
    return ConfidenceEstimator.fit(reference.label, reference.score)


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
    if profile.estimator is None or not _has_outputs(profile.estimator, rows):
        return []
    found = _estimate(context, profile, rows, "", num_rows, model_version)
    take = rows.take if isinstance(profile.estimator, RowLossEstimator) else rows.take_outcomes
    for segment, positions in _split(context, rows).items():
        found += _estimate(context, profile, take(positions), segment, len(positions), model_version)
    return found


def measure_metrics(spec: ModelSpec, rows: Rows, metrics: Sequence[str] | None = None) -> dict[str, float]:
    """Measure metrics, those of the spec unless given, on labelled rows."""
    metrics = spec.performance.metrics if metrics is None else metrics
    if spec.task == "multiclass":
        classes = sorted(rows.scores)
        scores = np.column_stack([rows.scores[name] for name in classes]) if classes else None
        labels = rows.label_text if rows.label_text is not None else np.full(len(rows), None, dtype=object)
        return measure_performance("multiclass", labels, rows.prediction_text, scores, classes or None, metrics)
    labels = rows.label if rows.label is not None else np.full(len(rows), math.nan)
    scores = rows.score if spec.task == "binary" else None
    return measure_performance(spec.task, labels, rows.prediction, scores, None, metrics)


def bound_metrics(spec: ModelSpec, rows: Rows, values: dict[str, float]) -> dict[str, Interval]:
    """Give the intervals of metrics that were measured on labelled rows."""
    metrics = list(values)
    if spec.task == "multiclass":
        return _bound_classes(rows, values)
    labels = rows.label if rows.label is not None else np.full(len(rows), math.nan)
    if spec.task == "binary":
        return bound_binary(labels, rows.prediction, rows.score, metrics)
    return bound_regression(labels, rows.prediction, metrics)


def _bound_classes(rows: Rows, values: dict[str, float]) -> dict[str, Interval]:
    """Of rows with a label and a prediction; scores count where each of these rows has all of them."""
    labels = rows.label_text if rows.label_text is not None else np.full(len(rows), None, dtype=object)
    predicted = rows.prediction_text if rows.prediction_text is not None else np.full(len(rows), None, dtype=object)
    scored = sorted(rows.scores)
    scores = np.column_stack([rows.scores[name] for name in scored]) if scored else None
    if scores is not None:
        best = np.asarray(scored, dtype=object)[np.nan_to_num(scores, nan=-1.0).argmax(axis=1)]
        is_open = (predicted == None) & ~np.isnan(scores).any(axis=1)  # noqa: E711 - element by element
        predicted = np.where(is_open, best, predicted)
    known = (labels != None) & (predicted != None)  # noqa: E711 - element by element
    labels, predicted = labels[known], predicted[known]
    classes = scored + sorted({*labels.tolist(), *predicted.tolist()} - set(scored))
    place = {name: index for index, name in enumerate(classes)}
    truth = np.array([place[name] for name in labels.tolist()], dtype=np.int64)
    chances = np.zeros((len(labels), len(classes)))
    chances[np.arange(len(labels)), truth] = 1.0
    codes = np.array([place[name] for name in predicted.tolist()], dtype=np.int64)
    if scores is not None and (len(classes) > len(scored) or np.isnan(scores[known]).any()):
        scores = None
    scores = None if scores is None else scores[known]
    found = bound_multiclass(chances, codes, scores, values, list(values))
    if scores is not None and "calibration_error" in values:
        found["calibration_error"] = bound_largest_scores(truth, scores)
    return found


def find_labelled(rows: Rows) -> npt.NDArray[np.bool_]:
    """Mark the rows that have a label."""
    labelled = np.zeros(len(rows), dtype=np.bool_)
    if rows.label is not None:
        labelled |= ~np.isnan(rows.label)
    if rows.label_text is not None:
        labelled |= rows.label_text != None  # noqa: E711 - element by element
    return labelled


def _has_outputs(estimator: Estimator, rows: Rows) -> bool:
    """Say whether a window has what its estimator looks at."""
    if isinstance(estimator, ConfidenceEstimator):
        return rows.score is not None
    if isinstance(estimator, ClassEstimator):
        return all(name in rows.scores for name in estimator.classes)
    return rows.prediction is not None


def _estimate_metrics(
    estimator: Estimator, rows: Rows, metrics: Sequence[str]
) -> tuple[dict[str, float], dict[str, Interval]]:
    if isinstance(estimator, RowLossEstimator):
        return estimator.estimate(rows)
    if isinstance(estimator, ClassEstimator):
        scores = np.column_stack([rows.scores[name] for name in estimator.classes])
        return estimator.estimate(scores, rows.prediction_text, metrics)
    assert rows.score is not None
    return estimator.estimate(rows.score, rows.prediction), estimator.bound(rows.score, rows.prediction, metrics)


def _estimate(
    context: WindowContext, profile: ReferenceProfile, rows: Rows, segment: str, num_rows: int, model_version: str
) -> list[Measurement]:
    assert profile.estimator is not None
    values, intervals = _estimate_metrics(profile.estimator, rows, context.spec.performance.metrics)
    found = []
    for metric in context.spec.performance.metrics:
        if metric not in values:
            continue  # a loss that cannot be estimated
        limits = _limit(context, profile, metric, segment, len(rows), "estimate")
        few = len(rows) < context.spec.windows.min_rows
        found.append(
            context.make(
                "estimate",
                metric,
                values[metric],
                "too_few_rows" if few else _judge(metric, values[metric], limits),
                num_rows,
                num_sampled=len(rows),
                model_version=model_version,
                segment=segment,
                lower=limits.lower,
                upper=limits.upper,
                interval=intervals[metric],
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
    intervals = bound_metrics(spec, labelled, values)
    found = []
    for metric in spec.performance.metrics:
        limits = _limit(context, profile, metric, segment, len(labelled), "performance")
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
                interval=intervals[metric],
            )
        )
    return found


def _split(context: WindowContext, rows: Rows) -> dict[str, npt.NDArray[np.int64]]:
    known = context.published.segment_values
    return rows.split({key: known.get(key, []) for key in context.spec.segments})


def _limit(
    context: WindowContext, profile: ReferenceProfile, metric: str, segment: str, num_rows: int, reading: Reading
) -> Limits:
    return UNBOUNDED if segment else profile.limits.of(context.spec, metric, num_rows, reading, context.revision)


def _judge(metric: str, value: float, limits: Limits) -> str:
    if math.isnan(limits.lower) and math.isnan(limits.upper):
        return "ok"
    return "alert" if is_harmful(metric, value, limits.lower, limits.upper) else "ok"
