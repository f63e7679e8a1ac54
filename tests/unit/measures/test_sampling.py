"""The paired bootstrap against a plain one, and the fairness of recalibration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from measures.performance import Task, default_metrics, higher_is_better, measure_performance
from measures.sampling import compare_paired, recalibrate_two_fold

CLASSES = ("a", "b", "c")


def _cases() -> dict[Task, tuple[Any, Any, Any]]:
    rng = np.random.default_rng(5)
    noise, better = rng.normal(size=(2, 300))
    labels = (rng.random(300) < 0.4).astype(float)

    def score(of: Any) -> Any:
        return np.round(1.0 / (1.0 + np.exp(-(2.0 * labels - 1.0 + of))), 2)

    index = rng.integers(0, 3, 300)
    raw = rng.gamma(1.0, size=(2, 300, 3)) + np.array([0.5, 1.0])[:, None, None] * np.eye(3)[index]
    shares = raw / raw.sum(axis=2, keepdims=True)
    return {
        "binary": (labels, score(noise), score(0.6 * better)),
        "multiclass": (np.array(CLASSES, dtype=object)[index], shares[0], shares[1]),
        "regression": (noise, noise + better, noise + 0.5 * better),
    }


@pytest.mark.parametrize(
    ("task", "metric"),
    [(task, name) for task in ("binary", "multiclass", "regression") for name in default_metrics(task)],
)
def test_bounds_equal_a_plain_bootstrap_of_the_realized_metric(task: Task, metric: str) -> None:
    labels, champion, challenger = _cases()[task]
    classes = CLASSES if task == "multiclass" else None

    def measure(scores: Any, index: Any) -> float:
        given = {"predictions": scores[index]} if task == "regression" else {"scores": scores[index]}
        return measure_performance(task, labels[index], classes=classes, metrics=[metric], **given)[metric]

    everything, sign = np.arange(300), 1.0 if higher_is_better(metric) else -1.0
    rng = np.random.default_rng(11)
    draws = [rng.integers(300, size=300) for _ in range(50)]
    differences = [sign * (measure(challenger, index) - measure(champion, index)) for index in draws]
    compared = compare_paired(task, metric, labels, champion, challenger, 50, 0.9, seed=11, classes=classes)
    assert compared.champion == pytest.approx(measure(champion, everything), rel=1e-12)
    assert compared.challenger == pytest.approx(measure(challenger, everything), rel=1e-12)
    assert compared.difference == pytest.approx(sign * (compared.challenger - compared.champion))
    assert (compared.lower, compared.upper) == pytest.approx(np.quantile(differences, [0.05, 0.95]), rel=1e-9)


def test_a_better_challenger_is_positive_in_every_direction() -> None:
    labels, champion, challenger = _cases()["binary"]
    for metric in ("roc_auc", "log_loss", "accuracy"):
        assert compare_paired("binary", metric, labels, champion, challenger).difference > 0.0
        assert compare_paired("binary", metric, labels, challenger, champion).difference < 0.0


def test_a_model_equals_itself_with_certainty() -> None:
    labels, champion, _ = _cases()["binary"]
    compared = compare_paired("binary", "roc_auc", labels, champion, champion)
    assert compared.lower == compared.difference == compared.upper == 0.0


def test_rows_that_either_model_misses_are_left_out_for_both() -> None:
    labels, champion, challenger = (each.copy() for each in _cases()["binary"])
    labels[3] = champion[5] = challenger[7] = math.nan
    assert compare_paired("binary", "roc_auc", labels, champion, challenger, 10).num_rows == 297


def test_one_class_and_no_rows_have_no_comparison() -> None:
    for num_rows in (0, 20):
        compared = compare_paired("binary", "roc_auc", np.zeros(num_rows), np.zeros(num_rows), np.zeros(num_rows))
        assert math.isnan(compared.difference)
        assert math.isnan(compared.lower)


def test_wrong_questions_are_refused() -> None:
    one = np.ones(1)
    with pytest.raises(ValueError, match="'mae' does not exist for task 'binary'"):
        compare_paired("binary", "mae", one, one, one)
    with pytest.raises(ValueError, match="confidence"):
        compare_paired("binary", "roc_auc", one, one, one, confidence=1.0)


def _log_loss(labels: Any, scores: Any) -> float:
    return measure_performance("binary", labels, scores=scores, metrics=["log_loss"])["log_loss"]


@pytest.mark.parametrize("distort", [lambda logit: 0.3 * logit + 2.0, lambda logit: 3.0 * logit - 1.0])
def test_recalibration_undoes_a_distortion_of_the_logit(distort: Any) -> None:
    rng = np.random.default_rng(6)
    logits = rng.normal(size=20_000)
    truth = 1.0 / (1.0 + np.exp(-logits))
    labels = (rng.random(20_000) < truth).astype(float)
    distorted = 1.0 / (1.0 + np.exp(-distort(logits)))
    assert _log_loss(labels, distorted) > _log_loss(labels, truth) + 0.1
    # Three fitted weights on 10,000 rows cost 3 / (2 · 10,000) on average; 1e-3 is well above that.
    assert _log_loss(labels, recalibrate_two_fold(labels, distorted)) < _log_loss(labels, truth) + 1e-3


def test_no_row_is_judged_by_a_fit_that_saw_it() -> None:
    labels, scores, _ = _cases()["binary"]
    changed = labels.copy()
    changed[10] = 1.0 - changed[10]
    before, after = recalibrate_two_fold(labels, scores), recalibrate_two_fold(changed, scores)
    assert np.array_equal(before[::2], after[::2])
    assert not np.any(before[1::2] == after[1::2])


def test_recalibration_of_the_degenerate() -> None:
    scores = np.array([0.1, math.nan, 0.8, 0.9])
    # Halves of one class: nothing to fit.
    assert np.array_equal(recalibrate_two_fold(np.array([0.0, 1.0, 0.0, 1.0]), scores), scores, equal_nan=True)
    # Scores that separate the classes, 0 and 1 among them: finite, and still on the right side.
    labels = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    separated = recalibrate_two_fold(labels, np.array([0.0, 0.0, 0.1, 0.2, 0.8, 0.9, 1.0, 1.0]))
    assert np.isfinite(separated).all()
    assert ((separated > 0.5) == (labels == 1)).all()
