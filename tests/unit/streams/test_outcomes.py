"""Performance and estimates of each task as measurements: metrics, intervals, segments, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from measures.performance import default_metrics
from schemas.spec import PublishedSpec
from streams.logic.loss_inputs import attach_features
from streams.logic.measured import WindowContext
from streams.logic.outcomes import measure_estimated, measure_realized, profile_reference
from streams.logic.rows import Coded, Rows
from tests.samples import publish

SPEC = """
model: m
task: {task}
reference: {{file: reference.parquet}}
windows: {{size: 1h}}
features: {{amount: number, country: category}}
segments: [country]
performance: {{limits: 3sd, estimate: {estimate}}}
"""
ESTIMATES = {"binary": "cbpe", "multiclass": "cbpe", "regression": "dle"}
NAMES = np.array(["a", "b", "c"], dtype=object)


def _published(task: str, estimate: str = "") -> PublishedSpec:
    text = SPEC.format(task=task, estimate=estimate or ESTIMATES[task])
    return publish(text, segment_values={"country": ["DE", "FR"]}, reference_rows=3000)


def _draw(task: str, seed: int, num: int = 3000) -> Rows:
    rng = np.random.default_rng(seed)
    rows = Rows(ts=np.arange(num) * 1000, record_id=np.array([f"r{i}" for i in range(num)], dtype=object))
    rows.numbers["amount"] = rng.random(num)
    rows.texts["country"] = Coded.of(np.array(["DE", "FR", "PL"], dtype=object)[rng.integers(0, 3, num)])
    rows.segments["country"] = rows.texts["country"]
    if task == "binary":
        rows.score = rng.random(num)
        rows.prediction = (rows.score > 0.5).astype(float)
        rows.label = (rng.random(num) < rows.score).astype(float)
    elif task == "multiclass":
        chances = rng.dirichlet([1.0, 1.0, 1.0], num)
        index = (rng.random(num)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1)
        rows.scores = {name: chances[:, i] for i, name in enumerate(NAMES.tolist())}
        rows.prediction_text = NAMES[chances.argmax(axis=1)]
        rows.label_text = NAMES[index]
    else:
        rows.prediction = 10.0 + rows.numbers["amount"]
        rows.label = rows.prediction + rng.normal(size=num) * (1.0 + rows.numbers["amount"])
    return rows


def _context(published: PublishedSpec) -> WindowContext:
    return WindowContext(published, 0, 3_600_000, 1, 1, 0)


@pytest.mark.parametrize("task", ESTIMATES)
def test_estimates_and_realized_values_agree_within_their_intervals(task: str) -> None:
    published = _published(task)
    profile = profile_reference(published, _draw(task, 1), is_own=False)
    window = _draw(task, 2)
    realized = measure_realized(_context(published), profile, window, len(window), 1.0, "7")
    estimated = measure_estimated(_context(published), profile, window, len(window), "7")
    expected = [metric for metric in default_metrics(task) if metric != "r2"]  # type: ignore[arg-type]
    for segment in ("", "country=DE", "country=FR", "country=__other__"):
        by_metric = {each.metric: each for each in realized if each.segment == segment}
        assert list(by_metric) == list(default_metrics(task))  # type: ignore[arg-type]
        guesses = {each.metric: each for each in estimated if each.segment == segment}
        assert list(guesses) == expected
        for metric, guess in guesses.items():
            known = by_metric[metric]
            assert guess.num_rows == known.num_rows
            assert known.interval_lower <= known.value <= known.interval_upper, metric
            if metric == "calibration_error":
                assert guess.sampling_error is guess.interval_lower is None
                continue
            assert guess.interval_lower <= guess.value <= guess.interval_upper, metric
            assert abs(guess.value - known.value) < 5 * known.sampling_error, (segment, metric)
            assert guess.sampling_error == pytest.approx(known.sampling_error, rel=0.35), (segment, metric)


@pytest.mark.parametrize("task", ESTIMATES)
def test_without_what_an_estimate_looks_at_there_is_none(task: str) -> None:
    published, reference, window = _published(task), _draw(task, 1, 300), _draw(task, 2, 300)
    context = _context(published)
    bare = Rows(ts=window.ts)
    assert measure_estimated(context, profile_reference(published, reference, is_own=False), bare, 300, "7") == []
    unlabelled = _draw(task, 1, 300)
    unlabelled.label, unlabelled.label_text = None, None
    assert profile_reference(published, unlabelled, is_own=False).estimator is None
    assert profile_reference(_published(task, "none"), reference, is_own=False).estimator is None


def test_a_class_that_only_labels_have_leaves_counts_their_intervals() -> None:
    published, window = _published("multiclass"), _draw("multiclass", 2, 400)
    profile = profile_reference(published, _draw("multiclass", 1), is_own=False)
    assert window.label_text is not None
    window.label_text[:3] = "new"
    window.prediction_text = None
    found = measure_realized(_context(published), profile, window, 400, 1.0, "7")
    by_metric = {each.metric: each for each in found if not each.segment}
    assert by_metric["f1"].interval_lower < by_metric["f1"].value < by_metric["f1"].interval_upper
    assert by_metric["log_loss"].interval_lower is None


def test_losses_are_estimated_from_the_features_of_records() -> None:
    published = _published("regression")
    profile = profile_reference(published, _draw("regression", 1), is_own=False)
    inputs = _draw("regression", 2, 500)
    order = np.random.default_rng(0).permutation(500)
    outputs = inputs.take(order)
    expected = measure_estimated(_context(published), profile, outputs, 500, "7")
    outputs.numbers, outputs.texts = {}, {}
    joined = attach_features(outputs, inputs)
    assert joined.numbers["amount"].tolist() == inputs.numbers["amount"][order].tolist()
    assert measure_estimated(_context(published), profile, joined, 500, "7") == expected
    # A prediction whose record has not come has no features: it says nothing of its error.
    partial = attach_features(outputs, inputs.take(np.arange(400)))
    assert len(partial) == 400
