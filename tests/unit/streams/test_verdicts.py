"""The verdict tables: what realized and estimated performance say of a window, and who speaks for it."""

from __future__ import annotations

import math

import pytest

from store.measurements import DriftRow, PerformanceRow
from streams.logic.verdicts import choose_headline, choose_worst, judge_harm


def row(
    kind: str, value: float | None, status: str = "ok", lower: float | None = 0.9, upper: float | None = 1.0
) -> PerformanceRow:
    return PerformanceRow(0, 10, "external", kind, value, lower, upper, status, 1, None, 1000)


GOOD, BAD = 0.95, 0.85


@pytest.mark.parametrize(
    ("realized", "estimated", "has_labels", "decision"),
    [
        (None, None, False, "unknown"),
        (None, GOOD, False, "ok"),
        (None, GOOD, True, "unknown"),  # the labels will say
        (None, BAD, False, "alert"),
        (None, BAD, True, "alert"),
        (GOOD, BAD, True, "ok"),  # realized outranks estimated
        (BAD, GOOD, True, "alert"),
        (GOOD, None, True, "ok"),
    ],
)
def test_harm_of_a_window(realized: float | None, estimated: float | None, has_labels: bool, decision: str) -> None:
    verdict = judge_harm(
        "roc_auc",
        None if realized is None else row("performance", realized),
        None if estimated is None else row("estimate", estimated),
        has_labels=has_labels,
    )
    assert verdict.decision == decision


@pytest.mark.parametrize("status", ["partial", "too_few_rows", "no_reference"])
def test_what_rests_on_too_little_decides_nothing(status: str) -> None:
    partial = row("performance", BAD, status)
    assert judge_harm("roc_auc", partial, None, has_labels=True).decision == "unknown"
    assert judge_harm("roc_auc", partial, row("estimate", BAD), has_labels=True).decision == "alert"


def test_unknown_values_and_limits_decide_nothing() -> None:
    for value, lower in ((None, 0.9), (0.5, None), (math.nan, 0.9)):
        assert (
            judge_harm("roc_auc", row("performance", value, lower=lower), None, has_labels=True).decision == "unknown"
        )


def test_the_side_that_hurts_depends_on_the_metric() -> None:
    above = row("performance", 12.0, lower=8.0, upper=10.0)
    below = row("performance", 7.0, lower=8.0, upper=10.0)
    assert judge_harm("mae", above, None, has_labels=True).decision == "alert"
    assert judge_harm("mae", below, None, has_labels=True).decision == "ok"
    assert judge_harm("roc_auc", row("performance", 1.5), None, has_labels=True).decision == "ok"


def test_harm_is_how_much_worse_than_the_reference_mean() -> None:
    verdict = judge_harm("roc_auc", row("performance", BAD), None, has_labels=True)
    assert verdict.harm == pytest.approx(0.1)
    assert verdict.threshold == 0.9


def test_the_champion_speaks_else_the_version_with_most_predictions() -> None:
    assert choose_headline("7", {"external": 100}) == "7"
    assert choose_headline(None, {"external": 10, "b": 20}) == "b"
    assert choose_headline(None, {"b": 20, "a": 20}) == "a"
    assert choose_headline(None, {}) is None


def drift(feature: str, ratio: float) -> DriftRow:
    return DriftRow(0, 10, "", "", feature, "wasserstein", ratio / 10, 0.1, ratio, 1, 1)


def test_the_worst_column_names_the_drift() -> None:
    worst = choose_worst([drift("b", 2.0), drift("a", 2.0), drift("c", math.nan)])
    assert worst is not None
    assert worst.feature == "a"
