"""Limits of the known, and no limits of the unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.harm import estimate_harm
from measures.limits import limits_3sd, limits_bootstrap


def test_three_deviations_with_ddof_0() -> None:
    limits = limits_3sd([0.9, math.nan, 0.94])
    assert (limits.lower, limits.mean, limits.upper) == pytest.approx((0.86, 0.92, 0.98))


def test_one_window_shows_no_spread() -> None:
    limits = limits_3sd([0.9, math.nan])
    assert limits.mean == 0.9
    assert math.isnan(limits.lower)
    assert math.isnan(limits.upper)
    assert math.isnan(limits_3sd([]).mean)


@pytest.mark.parametrize("num_windows", range(2, 30))
def test_a_metric_that_never_changes_lies_within_its_limits(num_windows: int) -> None:
    value = 0.1 + 0.2  # no float is 0.3, and neither is the mean of many
    limits = limits_3sd([value] * num_windows)
    assert limits.lower == limits.mean == limits.upper == value


def test_bootstrap_agrees_with_the_textbook() -> None:
    """Accuracy of a share p over n rows has standard error √(p(1−p)/n)."""
    labels = np.zeros(4000)
    predictions = np.zeros(4000)
    predictions[:800] = 1.0
    limits = limits_bootstrap("binary", "accuracy", labels, predictions, None, None, num_rows=1000, num_resamples=400)
    assert limits.mean == 0.8
    # 400 resamples know a standard error to ± 3.5 %; 12 % is more than three of those.
    assert limits.upper - limits.mean == pytest.approx(3.0 * math.sqrt(0.8 * 0.2 / 1000), rel=0.12)
    assert limits.mean - limits.lower == pytest.approx(limits.upper - limits.mean)


def test_bootstrap_is_deterministic_and_silent_on_the_undefined() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(200) < 0.5).astype(float)
    scores = rng.random(200)
    assert limits_bootstrap("binary", "roc_auc", labels, None, scores, None, 100) == limits_bootstrap(
        "binary", "roc_auc", labels, None, scores, None, 100
    )
    assert math.isnan(limits_bootstrap("binary", "roc_auc", np.zeros(200), None, scores, None, 100).upper)
    with pytest.raises(ValueError, match="at least one row"):
        limits_bootstrap("binary", "roc_auc", labels, None, scores, None, 0)


def test_harm_is_positive_where_it_hurts() -> None:
    assert estimate_harm(0.75, 1.0, "roc_auc") == 0.25
    assert estimate_harm(1.25, 1.0, "log_loss") == 0.25
    assert estimate_harm(0.5, 1.0, "mae") == -0.5
    assert estimate_harm(None, 1.0, "mae") is None
    assert estimate_harm(math.nan, 1.0, "mae") is None
    assert estimate_harm(0.5, math.nan, "mae") is None
