"""Gaps and ratios of groups: how often their intervals hold, and what becomes of them in measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.fairness import measure_gap, measure_ratio
from schemas.events import Measurement
from schemas.spec import PublishedSpec
from streams.logic.fairness import measure_opportunity, measure_parity
from streams.logic.measured import WindowContext
from streams.logic.rows import Coded, Rows
from tests.samples import publish

SPEC = """
model: m
task: binary
reference: {file: reference.parquet}
windows: {size: 1h, min_rows: 50}
features: {country: category}
segments: [country]
fairness: {demographic_parity: 0.1, equal_opportunity: 0.2, disparate_impact: 0.8}
"""


def _published() -> PublishedSpec:
    return publish(SPEC, segment_values={"country": ["DE", "FR", "PL"]})


def _draw(seed: int, rates: list[float], num: int = 500) -> Rows:
    """`num` rows of each of DE, FR and a country without a segment of its own; a third of the rows are positives."""
    rng = np.random.default_rng(seed)
    rows = Rows(ts=np.arange(3 * num))
    countries = np.repeat(np.array(["DE", "FR", "XX"], dtype=object), num)
    rows.segments["country"] = Coded.of(countries)
    rows.score = np.where(rng.random(3 * num) < np.repeat(rates, num), 0.9, 0.1)
    rows.label = (rng.random(3 * num) < 1 / 3).astype(float)
    return rows


def _measure(rows: Rows, coverage: float = 1.0) -> dict[str, Measurement]:
    context = WindowContext(_published(), 0, 3_600_000, 1, 1, 0)
    parts = rows.split({"country": ["DE", "FR", "PL"]})
    found = measure_parity(context, rows, parts, len(rows), "7")
    found += measure_opportunity(context, rows, parts, len(rows), coverage, "7")
    return {each.metric: each for each in found}


def test_groups_are_compared_as_counted() -> None:
    rows = _draw(1, [0.6, 0.3, 0.99])
    assert rows.score is not None
    assert rows.label is not None
    found = _measure(rows)
    predicted = rows.score >= 0.5
    de, fr = predicted[:500].mean(), predicted[500:1000].mean()
    assert found["demographic_parity"].value == pytest.approx(de - fr)
    assert found["disparate_impact"].value == pytest.approx(fr / de)
    recalls = [predicted[part][rows.label[part] == 1].mean() for part in (slice(0, 500), slice(500, 1000))]
    assert found["equal_opportunity"].value == pytest.approx(recalls[0] - recalls[1])
    for each in found.values():
        assert (each.kind, each.segment, each.feature, each.num_rows) == ("fairness", "country", "", 1500)
        assert each.interval_lower <= each.value <= each.interval_upper
    assert [each.status for each in found.values()] == ["alert"] * 2 + [found["equal_opportunity"].status]
    assert found["demographic_parity"].num_sampled == 1000
    assert _measure(rows, coverage=0.5)["equal_opportunity"].status == "partial"


def test_a_gap_that_may_be_luck_is_no_alert() -> None:
    assert {each.status for each in _measure(_draw(2, [0.5, 0.42, 0.5])).values()} == {"ok"}
    few = _measure(_draw(2, [0.5, 0.4, 0.5], num=40))
    assert {each.status for each in few.values()} == {"too_few_rows"}
    assert few["disparate_impact"].value is None
    # What a prediction says counts before what its score would.
    rows = _draw(3, [0.5, 0.5, 0.5])
    rows.prediction = np.r_[np.ones(500), np.zeros(1000)]
    assert _measure(rows)["demographic_parity"].value == 1.0


def test_even_groups_alarm_in_five_of_a_hundred_at_most_however_many_they_are() -> None:
    rng = np.random.default_rng(4)
    for num_groups in (2, 12):
        surely_uneven = surely_below = 0
        for _ in range(1500):
            sizes = rng.integers(60, 900, num_groups)
            hits = rng.binomial(sizes, 0.2)
            surely_uneven += measure_gap(hits.tolist(), sizes.tolist()).interval.lower > 0.0
            surely_below += measure_ratio(hits.tolist(), sizes.tolist()).interval.upper < 1.0
        # 1,500 at .05: 75 ± 8.4.
        assert surely_uneven <= 100, num_groups
        assert surely_below <= 100, num_groups


def test_the_true_gap_and_ratio_are_held() -> None:
    rng = np.random.default_rng(5)
    held = {"gap": 0, "ratio": 0}
    for _ in range(1000):
        hits = [int(rng.binomial(150, 0.9)), int(rng.binomial(400, 0.5))]
        gap, ratio = measure_gap(hits, [150, 400]).interval, measure_ratio(hits, [150, 400]).interval
        held["gap"] += gap.lower <= 0.4 <= gap.upper
        held["ratio"] += ratio.lower <= 0.5 / 0.9 <= ratio.upper
    # 1,000 at .95: 950 ± 6.9.
    assert min(held.values()) >= 925, held


def test_degenerate_groups() -> None:
    assert math.isnan(measure_gap([3], [10]).value)
    assert math.isnan(measure_ratio([0, 0], [10, 20]).value)
    assert measure_ratio([0, 5], [10, 20]).value == 0.0
    assert measure_gap([10, 0], [10, 10]).interval.lower < 1.0
