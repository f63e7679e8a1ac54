"""A stream with known truth through the whole system: what ClickHouse has equals an offline recomputation."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.applying import apply_spec
from driftloop.replay.settling import Settling
from schemas.topics import WATERMARK_HEADER
from store.client import ClickHouse
from store.log import Producer, describe_topics
from tests import truth
from tests.stacks import BROKER_KINDS, RunningStack, run_stack, why_not

ROLES = ("monitor", "sink")
MEASURED = """
    SELECT toUnixTimestamp64Milli(window_start), segment, kind, feature, metric, value
    FROM measurements_now WHERE model = 'credit'
"""


def send(running: RunningStack, events: list[tuple[int, str, str, bytes]]) -> None:
    producer = Producer(running.runtime.kafka)
    for _, topic, key, value in events:
        producer.produce(topic, key, value)
    producer.flush(60.0)


def finish(running: RunningStack, end_ms: int, timeout_s: float = 120.0) -> None:
    """Say on every partition that this was all, and wait until it is measured."""
    producer = Producer(running.runtime.kafka)
    topics = describe_topics(running.runtime.kafka, ["records", "predictions", "labels"])
    for topic, (_, num_partitions) in topics.items():
        for partition in range(num_partitions):
            producer.produce(
                topic, truth.MODEL, None, headers=[(WATERMARK_HEADER, str(end_ms).encode())], partition=partition
            )
    producer.flush(30.0)
    settling = Settling(running.runtime, truth.MODEL)
    try:
        settling.wait(truth.START_MS, end_ms, timeout_s)
    finally:
        settling.close()


def read_measured(running: RunningStack) -> dict[tuple[int, str, str, str, str], float]:
    store = ClickHouse(running.runtime.clickhouse)
    try:
        return {(row[0], row[1], row[2], row[3], row[4]): row[5] for row in store.query(MEASURED)}
    finally:
        store.close()


@pytest.mark.parametrize("kind", BROKER_KINDS)
@pytest.mark.parametrize(("num_partitions", "lateness_ms", "duplicates"), [(1, 0, 0.0), (4, 250_000, 0.05)])
def test_measurements_equal_the_recomputation(
    tmp_path: Path, kind: str, num_partitions: int, lateness_ms: int, duplicates: float
) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)
    known = truth.make_truth()
    spec, _ = truth.write_truth(known, tmp_path / "files")
    events = truth.shuffle_events(list(truth.make_events(known)), lateness_ms, duplicates, seed=3)
    assert len(events) > 3 * len(known.stream) or not duplicates
    with run_stack(tmp_path, kind, num_partitions, ROLES) as running:
        apply_spec(running.runtime, spec)
        send(running, events)
        finish(running, known.window_starts[-1] + 2 * truth.SIZE_MS)
        differences = truth.compare(truth.compute_expected(known), read_measured(running))
        assert not differences, "\n".join(differences[:20])
        store = ClickHouse(running.runtime.clickhouse)
        for table in ("records", "predictions", "labels"):
            assert store.query(f"SELECT count() FROM {table}") == [(len(known.stream),)]
        assert store.query("SELECT count() FROM dead_letters") == [(0,)]
        store.close()
