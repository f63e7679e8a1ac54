"""River's documented detections, from validation to the store, however events were chunked."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from schemas.connections import ClickHouseConnection
from streams.processes import ProcessPool
from tests import truth
from tests.integration.test_measuring import START_MS, World, measured_store

__all__ = ["measured_store"]

NUM_WINDOWS, NUM_ROWS = 4, 2000
# What each detector's docstring says of its stream of 2,000 values, which shifts at 1,000.
DOCUMENTED = {"adwin": 1023, "kswin": 1016, "page_hinkley": 1006, "ddm": 1334}
SPEC = truth.SPEC.replace(
    "online: [{detector: adwin, on: score}]",
    "online:\n"
    "  - {detector: adwin, on: amount}\n"
    "  - {detector: kswin, on: amount, parameters: {alpha: 0.0001, seed: 42}}\n"
    "  - {detector: page_hinkley, on: amount}\n"
    "  - {detector: ddm, on: error}",
)


def _make_truth() -> truth.Truth:
    """The docstrings' streams: `amount` is 0 and 1, then 4 to 7; errors come half of the time, then 7 of 10 times."""
    known = truth.make_truth(num_windows=NUM_WINDOWS, rows_per_window=NUM_ROWS // NUM_WINDOWS)
    levels, errors = random.Random(12345), random.Random(42)
    amount = levels.choices([0, 1], k=1000) + levels.choices(range(4, 8), k=1000)
    error = errors.choices([0, 1], k=1000) + errors.choices([0, 1], k=1000, weights=[0.3, 0.7])
    stream = known.stream.sort_values(["ts", "id"], ignore_index=True)
    stream["amount"] = np.array(amount, dtype=float)
    stream["y_pred"] = np.abs(stream["repaid"] - np.array(error))
    return truth.Truth(known.reference, stream)


@pytest.fixture(params=["whole windows", "crumbs out of order over three partitions"])
def world(request: pytest.FixtureRequest, measured_store: tuple[ClickHouseConnection, ProcessPool]) -> Iterator[World]:
    is_whole = request.param == "whole windows"
    opened = World(*measured_store, SPEC, _make_truth(), 1 if is_whole else 3)
    for window in range(NUM_WINDOWS):
        rows = opened.rows_of(window)
        if is_whole:
            opened.send_rows(rows, ("records", "predictions", "labels"))
        else:
            shuffled = rows.sample(frac=1.0, random_state=window)
            for kind in ("predictions", "labels", "records"):
                for first in range(0, len(shuffled), 83):
                    opened.send_rows(shuffled.iloc[first : first + 83], (kind,))
        opened.close_window(window)
    opened.look()
    yield opened
    opened.close()


def test_documented_detections_hold_through_the_pipeline(world: World) -> None:
    found = world.ch.query("SELECT detector, row_number, record_id, ts FROM detections ORDER BY detector, row_number")
    assert {detector: row for detector, row, *_ in found} == DOCUMENTED
    assert len(found) == len(DOCUMENTED)
    ordered = world.truth.stream
    for _, row, record_id, ts in found:
        assert record_id == ordered["id"][row]
        assert int(ts.timestamp() * 1000) == ordered["ts"][row]
    measured = {
        (metric, window): value
        for (window, segment, kind, _, metric), value in world.read_measured().items()
        if kind == "online" and not segment
    }
    for detector, row in DOCUMENTED.items():
        window = (int(ordered["ts"][row]) - START_MS) // truth.SIZE_MS
        assert measured[detector, START_MS + window * truth.SIZE_MS] == 1
        assert sum(value for (metric, _), value in measured.items() if metric == detector) == 1
