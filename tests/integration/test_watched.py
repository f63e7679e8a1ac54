"""What the bench of false alerts does in memory is what the monitor does on a real store: tests, readings, alerts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.shapes import SHAPES, VALUES, Columns
from bench.watched import (
    MODEL,
    START_MS,
    Cell,
    DriftJudge,
    WatchedModel,
    frame_reference,
    place_rows,
    publish,
    rank_tests,
)
from measures.budget import HOUR_MS
from schemas.connections import ClickHouseConnection
from schemas.events import Alert, Measurement
from store.client import ClickHouse
from store.measurements import DriftRow, read_drift
from store.reference import insert_reference
from tests.stored import StoredMonitor, StoredStream, run_store, start_pool

NUM_ROWS = 100
NUM_WINDOWS = 24
CHANGED = range(8, 12)
Life = list[tuple[str, str, int]]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConnection]:
    with run_store(tmp_path_factory.mktemp("clickhouse")) as connection:
        yield connection


def draw_stream(cell: Cell, rng: np.random.Generator) -> Columns:
    """Some hours with another distribution of one column, so that alerts open and resolve."""
    columns = cell.shape.draw(rng, NUM_WINDOWS * NUM_ROWS)
    columns.numbers["number_00"][CHANGED.start * NUM_ROWS : CHANGED.stop * NUM_ROWS] += 1.5
    return columns


def make_messages(columns: Columns, cell: Cell) -> list[bytes]:
    ts = place_rows(START_MS, np.arange(len(columns)), cell).tolist()
    texts = np.array([*VALUES, None], object)
    table = {name: values.tolist() for name, values in columns.numbers.items()}
    table |= {name: texts[codes].tolist() for name, codes in columns.codes.items()}
    messages = []
    for row, values in enumerate(zip(*table.values(), strict=True)):
        score = float(columns.score[row])
        event = {
            "record_id": str(row), "model": MODEL, "model_version": "1", "ts": ts[row], "score": score,
            "prediction": int(score >= 0.5), "features": dict(zip(table, values, strict=True)),
        }  # fmt: skip
        messages.append(json.dumps(event).encode())
    return messages


def watch_in_store(
    connection: ClickHouseConnection, cell: Cell, reference: Columns, stream: Columns
) -> tuple[list[Measurement], list[DriftRow], Life]:
    """Window by window; gives the tests, what the judge reads of them, and the lives of the alerts."""
    ch = ClickHouse(connection)
    frame = frame_reference(cell, reference)
    published = publish(cell, frame)
    insert_reference(ch, published.reference_hash, frame)
    pool = start_pool(connection)
    monitor = StoredMonitor(connection, pool)
    try:
        events = StoredStream(ch, published)
        messages = make_messages(stream, cell)
        for window in range(NUM_WINDOWS):
            events.send("predictions", messages[window * NUM_ROWS : (window + 1) * NUM_ROWS])
            events.send_watermark(START_MS + (window + 1) * HOUR_MS)
            monitor.look(published)
        sent: dict[str, list[Any]] = monitor.sent.events
        tested = [each for each in sent["measurements"] if each.metric in ("ks_counts", "linf_counts")]
        lives: dict[tuple[str, str], Alert] = {}
        for alert in sent["alerts"]:
            if alert.rule == "drift":  # what is told again once it is known whether it hurts is no other alert
                lives.setdefault((alert.alert_id, alert.state), alert)
        life = [(each.segment, each.state, each.window_start) for each in lives.values()]
        return tested, read_drift(ch, MODEL, 0, is_calibrated=True), life
    finally:
        monitor.close()
        pool.close()
        ch.close()


def watch_in_memory(
    monkeypatch: pytest.MonkeyPatch, cell: Cell, rng: np.random.Generator
) -> tuple[Columns, Columns, list[Measurement], Life]:
    tested: list[Measurement] = []
    life: Life = []
    judge = DriftJudge.judge

    def watch(self: DriftJudge, rows: list[Measurement]) -> Any:
        tested.extend(rows)
        found = judge(self, rows)
        life.extend((segment, each.state, each.window_start) for segment, each in found)
        return found

    monkeypatch.setattr(DriftJudge, "judge", watch)
    model = WatchedModel(cell, rng)
    stream = draw_stream(cell, rng)
    model.take(stream)
    return model.reference, stream, tested, life


def key_of(each: Measurement) -> tuple[Any, ...]:
    return each.window_end, each.scale, each.model_version, each.segment, each.feature


def say(each: Measurement) -> tuple[Any, ...]:
    return each.metric, each.value, each.threshold, each.p_value, each.alpha, each.status, each.num_rows


def test_the_bench_says_what_the_store_says(
    connection: ClickHouseConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (shape,) = (each for each in SHAPES if each.name == "correlated")
    cell = Cell(shape, NUM_ROWS, HOUR_MS, 2_000)
    reference, stream, tested, life = watch_in_memory(monkeypatch, cell, np.random.default_rng(8))
    stored, rows, stored_life = watch_in_store(connection, cell, reference, stream)

    assert len(tested) > 22 * 29  # in the whole model alone; a day has 24 + 4 + 1 windows
    assert {key_of(each): say(each) for each in tested} == {key_of(each): say(each) for each in stored}

    def without_revisions(row: DriftRow) -> DriftRow:
        return row._replace(revision=0)

    assert [without_revisions(each) for each in rank_tests(tested)] == [without_revisions(each) for each in rows]
    assert rank_tests(stored) == rows
    assert not any(math.isnan(each.value) for each in rows)

    assert sorted(life) == sorted(stored_life)
    whole = [(state, (start - START_MS) // HOUR_MS) for segment, state, start in life if not segment]
    assert whole[:1] == [("firing", CHANGED.start)]
    assert {state for _, state, _ in life} == {"firing", "resolved"}
    assert len({segment for segment, _, _ in life}) > 1
