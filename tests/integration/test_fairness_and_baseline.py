"""What a spec may ask for beside metrics, from events to measurements: fairness, and the no-change baseline."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.connections import ClickHouseConnection
from streams.processes import ProcessPool
from tests import truth
from tests.integration.test_measuring import World, measured_store

__all__ = ["measured_store"]

SPEC = truth.SPEC.replace("lateness: 300s", "lateness: 300s, min_rows: 20").replace(
    "limits: 3sd}", "limits: 3sd, baseline: no_change}"
) + ("fairness: {demographic_parity: 0.01, equal_opportunity: 0.5, disparate_impact: 0.99}\n")


def test_gaps_are_measured_of_predictions_and_then_of_labels(
    measured_store: tuple[ClickHouseConnection, ProcessPool],
) -> None:
    world = World(*measured_store, SPEC, truth.make_truth(num_windows=2, rows_per_window=400))
    try:
        world.send(0, ("records", "predictions"))
        world.close_window(0)
        rows = world.rows_of(0)
        groups = {name: each for name, each in rows.groupby("country") if len(each) >= 20}
        rates = [each["y_pred"].mean() for each in groups.values()]
        assert _read(world) == {
            "demographic_parity": pytest.approx(max(rates) - min(rates)),
            "disparate_impact": pytest.approx(min(rates) / max(rates)),
        }
        world.send(0, ("labels",))
        world.look()
        positives = [each[each["repaid"] == 1] for each in groups.values()]
        recalls = [each["y_pred"].mean() for each in positives if len(each) >= 20]
        assert _read(world)["equal_opportunity"] == pytest.approx(max(recalls) - min(recalls))
        labels = rows.sort_values(["ts", "id"])["repaid"].to_numpy()
        baseline = "SELECT value FROM measurements_now WHERE kind = 'performance' AND metric = 'no_change_accuracy'"
        assert world.read_one(baseline) == pytest.approx((labels[1:] == labels[:-1]).mean())
    finally:
        world.close()


def _read(world: World) -> dict[str, float]:
    rows = world.ch.query(
        "SELECT metric, value FROM measurements_now WHERE kind = 'fairness' AND segment = 'country' "
        "AND model_version = 'external' AND interval_lower <= value AND value <= interval_upper"
    )
    assert len(rows) == len(dict(rows))
    return dict(rows)


def test_a_rule_opens_one_alert_a_key(measured_store: tuple[ClickHouseConnection, ProcessPool]) -> None:
    """In window 1 one country is hardly ever predicted positive; in the others chance decides."""
    known = truth.make_truth(num_windows=6, rows_per_window=400)
    stream = known.stream.copy()
    number = (stream["ts"] - truth.START_MS) // truth.SIZE_MS
    stream["y_pred"] = (np.arange(len(stream)) % 2).astype(int)
    stream.loc[(number == 1) & (stream["country"] == "DE"), "y_pred"] = 0
    spec = truth.SPEC + "fairness: {demographic_parity: 0.3}\nalerts: [{when: fairness, severity: high}]\n"
    world = World(*measured_store, spec, truth.Truth(known.reference, stream))
    try:
        for window in range(3):
            world.send(window, ("records", "predictions"))
            world.close_window(window)
        assert world.alerts("fairness") == [("firing", 1), ("resolved", 2)]
        fired = world.ch.query(
            "SELECT segment, metric, severity, kind, value > threshold FROM alerts WHERE state = 'firing'"
        )
        assert fired == [("country", "demographic_parity", "high", "fairness", 1)]
    finally:
        world.close()
