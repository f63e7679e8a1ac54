"""A topic that is deleted, made again and filled again is another log; nothing is lost and nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from driftloop.applying import apply_spec
from store.log import apply_topics, describe_topics
from tests import truth
from tests.feeding import INBOUND, count_rows, finish, read_measured, send, sum_sink_markers
from tests.stacks import BROKER_KINDS, run_stack, wait_until, why_not


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", BROKER_KINDS)
def test_a_topic_made_again_loses_nothing(tmp_path: Path, kind: str) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)
    known = truth.make_truth(num_windows=3, rows_per_window=500)
    spec, _ = truth.write_truth(known, tmp_path / "files")
    events = list(truth.make_events(known))
    with run_stack(tmp_path, kind, roles=("monitor", "sink")) as running:
        runtime = running.runtime
        apply_spec(runtime, spec)
        send(running, events[: len(events) // 2])
        wait_until(lambda: sum_sink_markers(running) >= len(events) // 2, 60.0, "the first half to be stored")
        old = describe_topics(runtime.kafka, INBOUND)
        admin = AdminClient(runtime.kafka.librdkafka())
        for future in admin.delete_topics(list(INBOUND)).values():
            future.result(30)
        wait_until(lambda: not describe_topics(runtime.kafka, INBOUND), 30.0, "the topics to be gone")
        apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
        new = describe_topics(runtime.kafka, INBOUND)
        assert {topic: topic_id for topic, (topic_id, _) in new.items()} != {
            topic: topic_id for topic, (topic_id, _) in old.items()
        }
        send(running, events)
        finish(running, known.window_starts[-1] + 2 * truth.SIZE_MS)
        differences = truth.compare(truth.compute_expected(known), read_measured(running))
        assert not differences, "\n".join(differences[:20])
        for table in INBOUND:
            assert count_rows(running, table) == len(known.stream)
