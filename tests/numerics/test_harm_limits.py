"""Do limits at the level of a budget keep it? By simulation, seeded, each series with a reference of its own.

Metrics are approximately normal on their scale at best, so a bound allows half as much again as the level, and four
deviations of the count on top. A test of the mean and deviation alone exceeds the level several times.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from measures.budget import restate_level
from measures.harm_limits import NUM_RESAMPLES, Spread, learn_spread
from measures.limits import limits_3sd
from measures.performance import compute_roc_auc, higher_is_better

LEVEL = 0.01
NUM_SERIES, NUM_WINDOWS = 120, 60

# Rows as columns [windows, rows], and the metric of each window.
Draw = Callable[[np.random.Generator, int, int, np.ndarray], list[np.ndarray]]
Measure = Callable[[list[np.ndarray]], np.ndarray]


def draw_errors(share: float) -> Draw:
    def draw(rng: np.random.Generator, windows: int, rows: int, mood: np.ndarray) -> list[np.ndarray]:
        odds = math.log(share / (1 - share)) + mood[:, None]
        return [(rng.random((windows, rows)) < 1 / (1 + np.exp(-odds))).astype(float)]

    return draw


def draw_scores(share: float) -> Draw:
    def draw(rng: np.random.Generator, windows: int, rows: int, mood: np.ndarray) -> list[np.ndarray]:
        labels = (rng.random((windows, rows)) < share).astype(float)
        return [labels, rng.normal(size=(windows, rows)) + (1.8 + mood[:, None]) * labels]

    return draw


def draw_misses(sigma: float) -> Draw:
    def draw(rng: np.random.Generator, windows: int, rows: int, mood: np.ndarray) -> list[np.ndarray]:
        return [rng.lognormal(0, sigma, size=(windows, rows)) * np.exp(mood[:, None])]

    return draw


def find_areas(columns: list[np.ndarray]) -> np.ndarray:
    """The area under the ROC curve of each window, without ties; NaN of one class."""
    labels, scores = columns
    ordered = np.take_along_axis(labels, scores.argsort(axis=1), axis=1)
    positive = labels.sum(axis=1)
    negative = labels.shape[1] - positive
    ranks = (ordered * np.arange(1, labels.shape[1] + 1)).sum(axis=1)
    pairs = positive * negative
    return np.where(pairs > 0, (ranks - positive * (positive + 1) / 2) / np.maximum(pairs, 1), np.nan)


def mean_error(columns: list[np.ndarray]) -> np.ndarray:
    return columns[0].mean(axis=1)


KINDS: dict[str, tuple[str, Draw, Measure]] = {
    "accuracy .9": ("accuracy", draw_errors(0.1), lambda columns: 1.0 - mean_error(columns)),
    "accuracy .99": ("accuracy", draw_errors(0.01), lambda columns: 1.0 - mean_error(columns)),
    "area, 20 %": ("roc_auc", draw_scores(0.2), find_areas),
    "area, 5 %": ("roc_auc", draw_scores(0.05), find_areas),
    "mae": ("mae", draw_misses(0.5), mean_error),
    "mae, long tail": ("mae", draw_misses(1.0), mean_error),
}


def learn(
    rng: np.random.Generator, kind: str, num_windows: int, rows: int, mood_sd: float
) -> tuple[Spread, np.ndarray]:
    """The spread of a metric over a reference, and the metric in each window of it."""
    metric, draw, measure = KINDS[kind]
    columns = draw(rng, num_windows, rows, mood_sd * rng.normal(size=num_windows))
    pooled = [each.ravel() for each in columns]
    values, index = measure(columns), rng.integers(len(pooled[0]), size=(NUM_RESAMPLES, rows))
    return learn_spread(
        metric, values.tolist(), [rows] * num_windows, measure([each[index] for each in pooled]).tolist()
    ), values


def count_harmful(
    kind: str, num_windows: int, reference_rows: int, rows: int, mood_sd: float, seed: int, worse: float = 0.0
) -> tuple[int, int, int]:
    """How many of all windows are beyond their limit, beyond 2.33 deviations, and how many there are."""
    rng, harmful, beyond_deviations, total = np.random.default_rng(seed), 0, 0, 0
    metric, draw, measure = KINDS[kind]
    for _ in range(NUM_SERIES):
        spread, values = learn(rng, kind, num_windows, reference_rows, mood_sd)
        found = measure(draw(rng, NUM_WINDOWS, rows, mood_sd * rng.normal(size=NUM_WINDOWS) + worse))
        limits, deviation = spread.limit(rows, LEVEL), float(values.std())
        naive = limits_3sd(values.tolist()).mean + np.array([-1, 1]) * stats.norm.isf(LEVEL) * deviation
        if higher_is_better(metric):
            harmful += int((found < limits.lower).sum())
            beyond_deviations += int((found < naive[0]).sum())
        else:
            harmful += int((found > limits.upper).sum())
            beyond_deviations += int((found > naive[1]).sum())
        total += int((~np.isnan(found)).sum())
    return harmful, beyond_deviations, total


def allow(total: int) -> float:
    # Windows of a series share its reference, so that alarms come in bunches: about five times the variance.
    expected = 1.5 * LEVEL * total
    return expected + 4.0 * math.sqrt(5.0 * expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("num_windows", "reference_rows", "rows", "mood_sd"),
    [(12, 400, 400, 0.0), (30, 400, 400, 0.0), (20, 800, 200, 0.0), (20, 200, 800, 0.0), (15, 800, 800, 0.1)],
)
def test_the_level_is_kept(kind: str, num_windows: int, reference_rows: int, rows: int, mood_sd: float) -> None:
    """Whether windows differ by their rows alone or by moods, and are as long as those of the reference or not."""
    harmful, _, total = count_harmful(kind, num_windows, reference_rows, rows, mood_sd, seed=num_windows)
    assert harmful <= allow(total), (harmful / total / LEVEL, total)


def test_the_areas_here_are_the_products() -> None:
    labels, scores = draw_scores(0.2)(np.random.default_rng(0), 3, 100, np.zeros(3))
    assert find_areas([labels, scores]) == pytest.approx(
        [compute_roc_auc(*each) for each in zip(labels, scores, strict=True)]
    )


def test_mean_and_deviation_alone_do_not_keep_it() -> None:
    """Twelve windows of 400 rows; and shorter windows than the reference's."""
    _, beyond, total = count_harmful("accuracy .99", 12, 400, 400, 0.0, seed=12)
    assert beyond > 2.0 * LEVEL * total
    _, beyond, total = count_harmful("area, 20 %", 20, 800, 200, 0.0, seed=20)
    assert beyond > 5.0 * LEVEL * total


@pytest.mark.parametrize("kind", ["accuracy .9", "area, 20 %", "mae"])
def test_real_harm_is_found(kind: str) -> None:
    """Errors half as many again; the positives' scores 0.9 nearer to the others; misses a third larger."""
    worse = {"accuracy .9": 0.9, "area, 20 %": -0.9, "mae": 0.3}[kind]
    harmful, _, total = count_harmful(kind, 20, 800, 800, 0.0, seed=1, worse=worse)
    assert harmful > 0.8 * total


def test_a_single_labelled_set_gives_limits_by_its_rows() -> None:
    """80 of 100 right in 2,000 rows: the textbook's error of a proportion, of window and reference together."""
    rng = np.random.default_rng(0)
    rights = np.concatenate([np.ones(1_600), np.zeros(400)])
    drawn = [float(rights[rng.integers(2_000, size=2_000)].mean()) for _ in range(400)]
    spread = learn_spread("accuracy", [0.8], [2_000], drawn)
    limits = spread.limit(500, LEVEL)
    error = math.sqrt(0.16 / 500 + 0.16 / 2_000)
    assert limits.mean == pytest.approx(0.8)
    assert limits.mean - limits.lower == pytest.approx(stats.norm.isf(LEVEL) * error, rel=0.15)
    assert limits.upper - limits.mean == pytest.approx(limits.mean - limits.lower)


def test_smaller_levels_and_windows_have_wider_limits_and_short_windows_weigh_less() -> None:
    rng = np.random.default_rng(2)
    spread, _ = learn(rng, "accuracy .9", 20, 400, 0.0)
    lower = [spread.limit(400, level).lower for level in (0.05, 0.01, 1e-3, 1e-5)]
    assert sorted(lower, reverse=True) == lower
    # Of a larger window only the skewness is less.
    shorter, as_long, longer = (spread.limit(size, LEVEL).lower for size in (100, 400, 4_000))
    assert shorter < as_long - 0.01
    assert as_long == pytest.approx(longer, abs=1e-3)
    values, drawn = [0.9, 0.91, 0.89, 0.9, 0.92, 0.9], [0.9, 0.91, 0.89] * 20
    short_last = learn_spread("accuracy", [*values, 0.5], [1_000] * 6 + [10], drawn)
    whole_last = learn_spread("accuracy", [*values, 0.5], [1_000] * 7, drawn)
    assert short_last.limit(1_000, LEVEL).lower > whole_last.limit(1_000, LEVEL).lower + 0.1


def test_the_unknown_has_no_limits_and_the_perfect_some_room() -> None:
    assert math.isnan(learn_spread("roc_auc", [math.nan], [100], [math.nan]).limit(100, LEVEL).lower)
    assert math.isnan(learn_spread("roc_auc", [], [], []).limit(100, LEVEL).lower)
    for metric in ("accuracy", "roc_auc"):
        perfect = learn_spread(metric, [1.0] * 12, [500] * 12, [1.0] * 50)
        assert 0.9 < perfect.limit(500, LEVEL).lower < 0.999
    assert learn_spread("brier", [0.0] * 12, [500] * 12, [0.0] * 50).limit(500, LEVEL).upper < 1e-9


@pytest.mark.parametrize("smallest", [1.0, 0.9, 0.5])
def test_a_growing_sample_that_is_looked_at_all_along_keeps_the_level(smallest: float) -> None:
    """Means of 400 normal rows, looked at after each row from the smallest share on; 20,000 series."""
    rng, level = np.random.default_rng(7), 0.01
    z = stats.norm.isf(restate_level(level, smallest))
    begin = int(400 * smallest) - 1
    num_alarms = 0
    for _ in range(10):
        standardized = rng.normal(size=(2_000, 400)).cumsum(axis=1) / np.sqrt(np.arange(1, 401))
        num_alarms += int((standardized[:, begin:] > z).any(axis=1).sum())
    assert num_alarms <= 20_000 * level + 4 * math.sqrt(20_000 * level)
    assert num_alarms >= 20_000 * level * 0.3  # the approximation counts the first look twice
