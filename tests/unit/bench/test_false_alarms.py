"""The bench that counts false alerts: its streams are what they say, it sees what it must, and a broken level shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.bench_false_alarms import BUDGETS, LONG, SHORT, list_cells, report_pool, watch_cell
from bench.delays import CHANGES, find_threshold, measure_delays
from bench.shapes import NUM_FEATURES, SESSIONS, SHAPES, Columns
from bench.watched import START_MS, Cell, EventCounter, WatchedModel, frame_reference, publish
from measures.budget import HOUR_MS, Budget
from streams.logic.drift_tests import merge_counts
from streams.logic.reference_counts import count_reference
from streams.logic.rows import from_reference


@pytest.mark.parametrize("shape", [*SHAPES, SESSIONS], ids=lambda shape: shape.name)
def test_the_stream_is_counted_whole(shape: Any) -> None:
    """All windows, both partitions, in every segment: as the same rows counted as a reference."""
    cell = Cell(shape, 100, HOUR_MS, 600)
    columns = shape.draw(np.random.default_rng(1), cell.num_reference)
    assert len(columns.numbers) + len(columns.codes) == NUM_FEATURES
    frame = frame_reference(cell, columns)
    published = publish(cell, frame)
    windows = EventCounter(published, cell).count(columns)
    assert sorted(windows) == [START_MS + index * HOUR_MS for index in range(6)]
    merged, rows = merge_counts(windows.values()), from_reference(frame, shape.segments)
    for version, part in (("", "inputs"), ("1", "outputs")):
        expected = count_reference(published, rows, part)  # type: ignore[arg-type]
        for segment, counts in merged[version].counts.items():
            assert counts.tolist() == expected[segment].tolist()
        assert merged[version].num_rows[""] == 600


@pytest.mark.parametrize("index", [0, 3], ids=["number", "category"])
def test_a_gross_change_fires_in_its_first_window_and_once(index: int) -> None:
    cell = Cell(SHAPES[index], 100, HOUR_MS, 5_000)
    rng = np.random.default_rng(2)
    model = WatchedModel(cell, rng, BUDGETS)
    assert model.take(cell.shape.draw(rng, 24 * 100)) == []
    changed = cell.shape.draw(rng, 24 * 100)
    break_first_feature(changed, slice(3 * 100, None))
    fired = model.take(changed)
    whole = [each for each in fired if not each.segment]
    assert [(each.budget, each.window_end) for each in whole] == [
        (budget, START_MS + (24 + 4) * HOUR_MS) for budget in BUDGETS
    ]
    assert all(model.is_open(budget) for budget in BUDGETS)


def break_first_feature(columns: Columns, rows: slice) -> None:
    if columns.numbers:
        columns.numbers["number_00"][rows] += 1.0
    else:
        columns.codes["category_00"][rows] = 0


def test_a_level_ten_times_too_large_exceeds_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell(SHAPES[index], 100, HOUR_MS, 5_000) for index in (0, 2)]
    sound = report_pool([watch_cell(cell, 1, 20, [1.0]) for cell in cells], 1.0, 1.0)
    level = Budget.level
    monkeypatch.setattr(Budget, "level", lambda self, scale, look=1: 10.0 * level(self, scale, look))
    broken = report_pool([watch_cell(cell, 1, 20, [1.0]) for cell in cells], 1.0, 1.0)
    assert (sound.is_reached, broken.is_reached) == (True, False)
    assert broken.limit is not None
    assert broken.limit.bound == pytest.approx(40 / 30 + 2 * (40 / 30) ** 0.5, abs=0.05)


def test_dependent_rows_cry_wolf_unless_said_so() -> None:
    cell = Cell(SESSIONS, 100, HOUR_MS, 30 * 24 * 100)
    assert watch_cell(cell, 1, 3, [1.0]).count(1.0) > 0
    blocks = Cell(SESSIONS, 100, HOUR_MS, 30 * 24 * 100, rows="blocks")
    assert watch_cell(blocks, 1, 3, [1.0]).count(1.0) == 0


def test_every_shape_and_size_is_a_cell() -> None:
    for plans in (LONG, SHORT):
        cells = [cell for cell, _ in list_cells(plans)]
        assert len(set(cells)) == len(SHAPES) * 3
        assert {cell.num_rows for cell in cells} == {100, 1_000, 10_000}


def test_the_equal_threshold_opens_as_many_alerts() -> None:
    largest = [np.array([1.0, 5.0, 6.0, 1.0, 4.0]), np.array([3.0, 2.0, 2.5])]
    # 5 and 6 stand together; 4 is the second alert, 3 the third, 2.5 would be the fourth.
    assert [find_threshold(largest, num) for num in (1, 2, 3)] == [5.0, 4.0, 3.0]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.metric)
def test_a_delay_counts_from_the_window_that_changed_first(change: Any) -> None:
    """A threshold of 0 alarms in that window, and one beyond all distances never."""
    cell = Cell(change.shape, 2_000, HOUR_MS, 5_000)
    ours, at_once, never = measure_delays(change, cell, np.random.default_rng(3), (0.0, 1e9))
    assert (at_once, never) == (1.0, 480.0)
    assert 1.0 <= ours <= 24.0
