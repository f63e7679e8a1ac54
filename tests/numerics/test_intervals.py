"""Standard errors and intervals: against other implementations, and by how often they hold what they should."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

from measures.chances import compute_average_precision, compute_calibration_error, place_rows
from measures.intervals import bound_calibration_error, bound_share
from measures.performance import compute_roc_auc, default_metrics, measure_performance
from measures.uncertainty import bound_binary, bound_largest_scores, bound_multiclass, bound_regression

Floats = NDArray[np.float64]
BINARY = default_metrics("binary")


def _draw_binary(rng: np.random.Generator, num_rows: int, decimals: int = 12) -> tuple[Floats, Floats]:
    labels = (rng.random(num_rows) < 0.3).astype(float)
    scores = 1.0 / (1.0 + np.exp(-(1.6 * labels - 1.0 + rng.normal(size=num_rows))))
    return labels, np.round(scores, decimals)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_average_precision_and_calibration_error_equal_their_definitions(decimals: int) -> None:
    labels, scores = _draw_binary(np.random.default_rng(decimals), 3000, decimals)
    assert compute_average_precision(labels, scores) == pytest.approx(
        sk.average_precision_score(labels, scores), rel=1e-12
    )
    bins = np.minimum(np.floor(scores * 10).astype(int), 9)
    # .3 · 10 is not below 3, nor .6 · 10 below 6, as floats: what lies on an edge is of the upper bin.
    expected = sum(abs((labels - scores)[bins == each].sum()) for each in range(10)) / len(labels)
    assert compute_calibration_error(labels, scores) == pytest.approx(expected, rel=1e-9)


def test_wilson_equals_scipy() -> None:
    for hits, trials in ((0, 5), (3, 17), (50, 50), (917, 1000)):
        found = bound_share(hits / trials, trials)
        expected = stats.binomtest(hits, trials).proportion_ci(0.95, "wilson")
        assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 12])
def test_the_error_of_an_area_is_delong_s(decimals: int) -> None:
    labels, scores = _draw_binary(np.random.default_rng(5), 700, decimals)
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    found = bound_binary(labels, None, scores, ["roc_auc"])["roc_auc"]
    assert found.error == pytest.approx(math.sqrt(variance), rel=1e-10)
    above, _ = place_rows(labels, scores)
    assert above[labels == 1].mean() == pytest.approx(compute_roc_auc(labels, scores), rel=1e-12)


def _hold(values: dict[str, float], intervals: dict[str, Any], truth: dict[str, float], counts: dict[str, int]) -> None:
    for metric, true_value in truth.items():
        found = intervals[metric]
        assert found.lower <= values[metric] <= found.upper, metric
        counts[metric] = counts.get(metric, 0) + (found.lower <= true_value <= found.upper)


def test_intervals_of_binary_metrics_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    labels, scores = _draw_binary(rng, 400_000)
    truth = measure_performance("binary", labels, None, scores, metrics=BINARY)
    counts: dict[str, int] = {}
    for _ in range(400):
        chosen = rng.integers(len(labels), size=400)
        values = measure_performance("binary", labels[chosen], None, scores[chosen], metrics=BINARY)
        _hold(values, bound_binary(labels[chosen], None, scores[chosen], BINARY), truth, counts)
    # 400 at .95: 380 ± 4.4; the interval of the area under precision and recall is known to be wide or narrow by some.
    for metric, count in counts.items():
        assert count >= (356 if metric == "pr_auc" else 364), (metric, count)


def _soften(scores: Floats, factor: float) -> Floats:
    """Chances of a model that is so many times too sure of itself."""
    logits = np.log(np.clip(scores, 1e-9, 1 - 1e-9) / np.clip(1 - scores, 1e-9, 1))
    softened: Floats = 1.0 / (1.0 + np.exp(-logits / factor))
    return softened


# Scores, and the chances that their labels have: calibrated; one of ten bins off, little off and much; rare positives;
# all scores in two bins; a model that waves about the truth, so that bins are off by as much as chance takes them.
SCORED = {
    "calibrated": lambda rng, n: (s := rng.random(n), s),
    "one bin": lambda rng, n: (s := rng.random(n), np.where((s > 0.3) & (s < 0.4), s + 0.15, s)),
    "too sure": lambda rng, n: (s := rng.beta(0.6, 0.9, n), _soften(s, 1.2)),
    "much too sure": lambda rng, n: (s := rng.beta(0.6, 0.9, n), _soften(s, 3.0)),
    "rare": lambda rng, n: (s := rng.beta(0.5, 20.0, n), s),
    "rare, three times as often": lambda rng, n: (s := rng.beta(0.5, 20.0, n), np.clip(3.0 * s, 0.0, 1.0)),
    "two bins": lambda rng, n: (s := np.clip(rng.normal(0.42, 0.03, n), 0.0, 1.0), s),
    "two bins, off": lambda rng, n: (s := np.clip(rng.normal(0.42, 0.03, n), 0.0, 1.0), s + 0.02),
    "waves": lambda rng, n: (s := rng.random(n), np.clip(s + 0.04 * np.sin(40.0 * s), 0.0, 1.0)),
}


@pytest.mark.parametrize("name", SCORED)
def test_the_interval_of_a_calibration_error_holds_it_however_well_a_model_is_calibrated(name: str) -> None:
    rng = np.random.default_rng(6)
    scores, chances = SCORED[name](rng, 400_000)
    truth = compute_calibration_error(chances, scores)
    for num_rows in (100, 400, 2000):
        num_above = num_below = 0
        widths, values, errors = [], [], []
        for _ in range(400):
            chosen = rng.integers(len(scores), size=num_rows)
            labels = (rng.random(num_rows) < chances[chosen]).astype(float)
            found = bound_calibration_error(labels, scores[chosen])
            value = compute_calibration_error(labels, scores[chosen])
            assert 0.0 <= found.lower <= value <= found.upper <= 1.0
            num_above += found.lower > truth + 1e-12
            num_below += found.upper < truth - 1e-12
            widths.append(found.upper - found.lower)
            values.append(value)
            errors.append(found.error)
        # 400 at .05: 20 ± 4.4.
        assert num_above + num_below <= 33, (num_rows, num_above, num_below)
        # No useless interval: a share of one half has one of 2 · 1.96 · .5 / √n.
        assert np.mean(widths) < 1.5 * 1.96 / math.sqrt(num_rows), (num_rows, np.mean(widths))
        assert np.mean(errors) > 0.9 * np.std(values), (num_rows, np.mean(errors), np.std(values))


def test_the_interval_of_a_calibration_error_says_when_a_model_is_surely_off() -> None:
    rng = np.random.default_rng(8)
    scores = rng.random(5000)
    labels = (rng.random(5000) < _soften(scores, 2.0)).astype(float)
    assert bound_calibration_error(labels, scores).lower > 0.05
    calibrated = (rng.random(5000) < scores).astype(float)
    assert bound_calibration_error(calibrated, scores).lower == 0.0
    assert compute_calibration_error(calibrated, scores) > 0.0
    # Two rows of scores that are nearly certain are no proof.
    few = bound_calibration_error(np.zeros(3), np.full(3, 0.02))
    assert few.upper > 0.1


def test_intervals_of_regression_metrics_hold_the_truth() -> None:
    rng = np.random.default_rng(2)
    labels = rng.normal(50.0, 10.0, 300_000)
    predictions = labels + rng.normal(0.5, 3.0, len(labels))
    truth = measure_performance("regression", labels, predictions)
    counts: dict[str, int] = {}
    for _ in range(400):
        chosen = rng.integers(len(labels), size=300)
        values = measure_performance("regression", labels[chosen], predictions[chosen])
        _hold(values, bound_regression(labels[chosen], predictions[chosen], tuple(truth)), truth, counts)
    for metric, count in counts.items():
        assert count >= 364, (metric, count)


def _draw_classes(rng: np.random.Generator, num_rows: int) -> tuple[NDArray[np.int64], Floats]:
    index = rng.choice(3, num_rows, p=[0.2, 0.5, 0.3])
    raw = rng.gamma(1.0, size=(num_rows, 3)) + 1.2 * np.eye(3)[index]
    return index, raw / raw.sum(axis=1, keepdims=True)


def test_intervals_of_multiclass_metrics_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    names = np.array(["a", "b", "c"], dtype=object)
    index, scores = _draw_classes(rng, 200_000)
    metrics = default_metrics("multiclass")
    truth = measure_performance("multiclass", names[index], None, scores, tuple(names), metrics)
    counts: dict[str, int] = {}
    errors = []
    for _ in range(300):
        chosen = rng.integers(len(index), size=400)
        values = measure_performance("multiclass", names[index[chosen]], None, scores[chosen], tuple(names), metrics)
        chances = np.eye(3)[index[chosen]]
        found = bound_multiclass(chances, scores[chosen].argmax(axis=1), scores[chosen], values, metrics)
        found["calibration_error"] = bound_largest_scores(index[chosen], scores[chosen])
        _hold(values, found, truth, counts)
        errors.append([found["f1"].error, values["f1"], found["roc_auc"].error, values["roc_auc"]])
    for metric, count in counts.items():
        # 300 at .95: 285 ± 3.8.
        assert count >= (266 if metric == "pr_auc" else 272), (metric, count)
    # The stated error is the spread that repeated windows show.
    stated = np.array(errors)
    for error, value in ((0, 1), (2, 3)):
        assert stated[:, error].mean() == pytest.approx(stated[:, value].std(), rel=0.15)


def test_perfect_and_hopeless_models_have_intervals_that_are_not_points() -> None:
    labels = np.repeat([0.0, 1.0], 30)
    for scores in (labels, 1.0 - labels):
        found = bound_binary(labels, None, np.clip(scores, 0.01, 0.99), BINARY)
        for metric in ("roc_auc", "accuracy", "precision", "recall", "f1"):
            if not math.isnan(found[metric].lower):
                assert found[metric].upper - found[metric].lower > 0.05, metric
    nothing = bound_binary(np.empty(0), np.empty(0), np.empty(0), BINARY)
    assert all(math.isnan(each.lower) for each in nothing.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), max_size=60), st.randoms(use_true_random=False))
def test_order_leaves_no_trace(rows: list[tuple[int, int]], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    found = []
    for each in (rows, shuffled):
        labels, scores = (np.array([row[i] for row in each], dtype=float) for i in (0, 1))
        found.append(repr(bound_binary(labels, None, scores / 8.0, BINARY)))
        found.append(repr(measure_performance("binary", labels, None, scores / 8.0)))
    assert found[0] == found[2]
    assert found[1] == found[3]
