"""The no-change baseline, against River's, and as a measurement."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from river import dummy, metrics

from measures.baselines import measure_no_change_accuracy, measure_no_change_mae
from schemas.spec import PublishedSpec
from streams.logic.baseline import measure_no_change
from streams.logic.measured import WindowContext
from streams.logic.rows import Rows
from tests.samples import publish


def _published(task: str, baseline: str = "no_change") -> PublishedSpec:
    text = (
        f"model: m\ntask: {task}\nreference: {{file: r.parquet}}\nwindows: {{size: 1h, min_rows: 20}}\n"
        f"features: {{x: number}}\nperformance: {{baseline: {baseline}}}\n"
    )
    return publish(text)


def _runs(num: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.cumsum(rng.random(num) < 0.2) % 2.0


def test_accuracy_is_that_of_river_s_no_change_classifier() -> None:
    labels = _runs(400)
    model, expected = dummy.NoChangeClassifier(), metrics.Accuracy()
    for label in labels.tolist():
        said = model.predict_one({})
        if said is not None:
            expected.update(label, said)
        model.learn_one({}, label)
    value, interval = measure_no_change_accuracy(labels)
    assert value == pytest.approx(expected.get(), rel=1e-12)
    assert 0.7 < interval.lower < value < interval.upper < 0.9


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_are_compared_in_order_of_time(task: str) -> None:
    labels = _runs(100)
    ids = np.array([f"r{i:03}" for i in range(100)], dtype=object)
    rows = Rows(ts=np.arange(100) // 2, record_id=ids)  # two rows at a time: the id decides
    if task == "multiclass":
        rows.label_text = np.array(["no", "yes"], dtype=object)[labels.astype(int)]
    else:
        rows.label = labels.copy()
    shuffled = rows.take(np.random.default_rng(2).permutation(100))
    context = WindowContext(_published(task), 0, 3_600_000, 1, 1, 0)
    (found,) = measure_no_change(context, shuffled, 100, 1.0, "7")
    changes = float(np.mean(labels[1:] != labels[:-1]))
    assert found.metric == ("no_change_mae" if task == "regression" else "no_change_accuracy")
    assert found.value == pytest.approx(changes if task == "regression" else 1.0 - changes)
    assert (found.kind, found.status, found.num_sampled) == ("performance", "ok", 100)
    assert measure_no_change(context, shuffled, 100, 0.3, "7")[0].status == "partial"
    assert measure_no_change(context, shuffled.take(np.arange(9)), 9, 1.0, "7")[0].status == "too_few_rows"
    # Rows of a sample do not follow each other, and nobody is told what was not asked for.
    published = _published(task)
    small = msgspec.structs.replace(published, spec=msgspec.structs.replace(published.spec, exact_rows=100))
    assert measure_no_change(WindowContext(small, 0, 3_600_000, 1, 1, 0), shuffled, 100, 1.0, "7") == []
    silent = WindowContext(_published(task, "none"), 0, 3_600_000, 1, 1, 0)
    assert measure_no_change(silent, shuffled, 100, 1.0, "7") == []


def test_nothing_before_is_nothing_to_say() -> None:
    for labels in (np.empty(0), np.ones(1)):
        for measure in (measure_no_change_accuracy, measure_no_change_mae):
            value, interval = measure(labels)
            assert np.isnan(value)
            assert np.isnan(interval.error)
