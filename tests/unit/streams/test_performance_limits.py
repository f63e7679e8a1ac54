"""Which limits a spec's `limits` gives, and at which level."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from measures.budget import DAY_MS, restate_level, share_of_look
from schemas.spec import FalseAlarms, PublishedSpec
from streams.logic.outcomes import find_labelled, measure_metrics
from streams.logic.performance_limits import ReferenceLimits, find_level, find_limits
from streams.logic.rows import Rows
from tests.mixed_rows import PUBLISHED

DAYS, ROWS_A_DAY = 40, 400


def publish(limits: str, estimate: str = "cbpe", count: float = 1.0) -> PublishedSpec:
    spec = PUBLISHED.spec
    performance = msgspec.structs.replace(
        spec.performance,
        limits=limits,
        estimate=estimate,
        false_alarms=FalseAlarms(count),
        metrics=["accuracy", "brier"],
    )
    windows = msgspec.structs.replace(spec.windows, size_ms=DAY_MS)
    return msgspec.structs.replace(
        PUBLISHED, spec=msgspec.structs.replace(spec, performance=performance, windows=windows)
    )


def draw_labelled(seed: int) -> Rows:
    """Labels drawn from the scores, one of ten unknown."""
    rng, num = np.random.default_rng(seed), DAYS * ROWS_A_DAY
    rows = Rows(ts=np.arange(num) * (DAYS * DAY_MS // num))
    rows.score = rng.random(num)
    rows.prediction = (rows.score > 0.5).astype(float)
    rows.label = np.where(rng.random(num) < 0.1, np.nan, rng.random(num) < rows.score)
    return rows


def limits_of(published: PublishedSpec, rows: Rows, own: bool = False) -> ReferenceLimits:
    return find_limits(published, rows, rows.take_outcomes(find_labelled(rows)), measure_metrics, own)


def test_realized_and_estimated_performance_share_the_budget() -> None:
    spec = publish("calibrated").spec
    assert find_level(spec, "estimate", 1) == pytest.approx(share_of_look(1) / 30 / 2)
    assert find_level(spec, "estimate", 2) == pytest.approx(share_of_look(2) / 30 / 2)
    realized = find_level(spec, "performance", 1)
    assert realized == pytest.approx(restate_level(1 / 30 / 2, 0.9))
    # As labels come, realized performance is judged many times: already charged.
    assert find_level(spec, "performance", 17) == realized < 1 / 30 / 2
    alone = publish("calibrated", estimate="none", count=0.5).spec
    assert find_level(alone, "performance", 1) == realized


def test_calibrated_limits_are_of_the_windows_size_and_level() -> None:
    rows = draw_labelled(1)
    limits, published = limits_of(publish("calibrated"), rows), publish("calibrated")
    own = limits_of(published, rows, own=True)
    for metric, worse in (("accuracy", "lower"), ("brier", "upper")):
        usual = limits.of(published.spec, metric, 360, "performance", 1)
        short = limits.of(published.spec, metric, 90, "performance", 1)
        rarer = limits.of(publish("calibrated", count=0.01).spec, metric, 360, "performance", 1)
        distance = [abs(getattr(each, worse) - each.mean) for each in (usual, short, rarer)]
        assert distance[0] < distance[1]
        assert distance[0] < distance[2]
        assert usual.lower < usual.mean < usual.upper
        # A single labelled set knows only the error of drawing rows, which is all that there is here.
        one_set = own.of(published.spec, metric, 360, "performance", 1)
        assert abs(getattr(one_set, worse) - one_set.mean) == pytest.approx(distance[0], rel=0.3)
    assert limits.of(published.spec, "accuracy", 0, "performance", 1).lower != 0.0
    again = limits_of(published, rows)
    assert again.of(published.spec, "accuracy", 360, "estimate", 2) == limits.of(
        published.spec, "accuracy", 360, "estimate", 2
    )


def test_fixed_limits_do_not_depend_on_size_level_or_look() -> None:
    rows = draw_labelled(2)
    for text, deviations in (("3sd", 3.0), ("2sd", 2.0)):
        published = publish(text)
        limits = limits_of(published, rows)
        first = limits.of(published.spec, "accuracy", 360, "performance", 1)
        assert first == limits.of(published.spec, "accuracy", 5, "estimate", 9)
        days = [rows.take(rows.ts // DAY_MS == day) for day in range(DAYS)]
        values = np.array([measure_metrics(published.spec, day)["accuracy"] for day in days])
        assert (first.lower, first.upper) == pytest.approx(
            (values.mean() - deviations * values.std(), values.mean() + deviations * values.std())
        )


def test_without_limits_or_labels_nothing_is_bounded() -> None:
    rows = draw_labelled(3)
    assert math.isnan(limits_of(publish("none"), rows).of(PUBLISHED.spec, "accuracy", 360, "performance", 1).lower)
    rows.label = np.full(len(rows), np.nan)
    for text in ("calibrated", "3sd"):
        published = publish(text)
        assert math.isnan(limits_of(published, rows).of(published.spec, "accuracy", 360, "performance", 1).lower)
