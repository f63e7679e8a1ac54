"""One decision a window from tests of single and merged windows, and what later looks may do."""

from __future__ import annotations

import math

from store.measurements import DriftRow
from streams.logic.alerts import Standing, advance
from streams.logic.drift_decisions import Decided, decide_windows, group_by_window

SIZE = 10


def row(window: int, ratio: float, scale: int = 1, revision: int = 1, alpha: float | None = 0.01) -> DriftRow:
    """A reading of the (merged) window that ends with this one."""
    end = (window + 1) * SIZE
    p_value = None if alpha is None or math.isnan(ratio) else alpha / ratio
    return DriftRow(
        end - scale * SIZE, end, "", "", "a", "ks_counts", 0.2, 0.04, ratio, 1, revision, scale, 100, p_value, alpha
    )  # fmt: skip


def decide(*rows: DriftRow, standing: Standing | None = None) -> list[Decided]:
    return decide_windows(group_by_window(rows, SIZE), standing)


def decisions(*rows: DriftRow, standing: Standing | None = None) -> dict[int, str]:
    decided = decide(*rows, standing=standing)
    return {each.observation.window_start // SIZE: each.observation.decision for each in decided}


def test_drift_begins_at_its_level() -> None:
    assert decisions(row(0, 0.999), row(1, 1.0), row(2, math.nan)) == {0: "ok", 1: "alert"}
    assert decisions(row(0, 1.0, alpha=None, revision=3)) == {0: "alert"}


def test_a_merged_window_speaks_until_the_next_of_its_scale() -> None:
    rows = [row(number, 0.5) for number in range(13)]
    rows += [row(5, 3.0, scale=6), row(11, 0.1, scale=6)]
    found = decisions(*rows)
    assert [found[number] for number in range(13)] == ["ok"] * 5 + ["alert"] + ["unknown"] * 5 + ["ok"] * 2
    (firing,) = advance([each.observation for each in decide(*rows[:11], rows[13])], None)
    assert (firing.state, firing.window_start) == ("firing", 5 * SIZE)
    (_, resolved) = advance([each.observation for each in decide(*rows)], None)
    assert (resolved.state, resolved.cause) == ("resolved", "recovered")


def test_the_alerting_test_is_the_one_that_is_told() -> None:
    (decided,) = decide(row(5, 0.9), row(5, 1.5, scale=6), row(5, 1.2, scale=24))
    assert (decided.reading.scale, decided.observation.decision) == (6, "alert")
    # An empty last window: the merged one decides alone.
    (alone,) = decide(row(5, 1.5, scale=6))
    assert (alone.observation.window_start, alone.observation.decision) == (50, "alert")


def test_a_later_look_opens_at_what_the_budget_has_left_and_closes_nothing() -> None:
    assert decisions(row(0, 9.9, revision=2)) == {0: "unknown"}
    assert decisions(row(0, 10.1, revision=2)) == {0: "alert"}
    assert decisions(row(0, 10.1, revision=3)) == {0: "unknown"}
    open_alert = Standing("firing", 0, 0)
    assert decisions(row(0, 1.0, revision=4), standing=open_alert) == {0: "alert"}
    assert decisions(row(0, 1.0, revision=4), standing=Standing("resolved", 0, 0)) == {0: "unknown"}
    assert decisions(row(0, 0.9, revision=4), standing=open_alert) == {0: "ok"}
