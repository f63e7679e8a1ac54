"""Which windows are complete: every partition has passed them, is idle, or is of a topic without the model."""

from __future__ import annotations

from streams.logic.completeness import PartitionTime, WindowState, find_horizon, select_dirty
from streams.logic.watermarks import Progressed

IDLE_MS = 30_000
PUBLISHED_MS = 1_000_000
RECORDS, PREDICTIONS = ("records", "id-1"), ("predictions", "id-2")


def part(topic: tuple[str, str], partition: int, at_end_at: int = 0, **sources: tuple[int, int]) -> PartitionTime:
    return PartitionTime(
        *topic, partition, at_end_at, {name.strip("_"): Progressed(*each) for name, each in sources.items()}
    )


def horizon(partitions: list[PartitionTime], **sizes: int) -> int | None:
    topics = {"records": RECORDS, "predictions": PREDICTIONS}
    return find_horizon(partitions, {topics[name]: size for name, size in sizes.items()}, PUBLISHED_MS, IDLE_MS)


def test_the_slowest_partition_and_version_decides() -> None:
    parts = [part(RECORDS, 0, _=(500, 1)), part(RECORDS, 1, _=(300, 1)), part(PREDICTIONS, 0, v1=(400, 1), v2=(200, 1))]
    assert horizon(parts, records=2, predictions=1) == 200


def test_a_topic_in_which_the_model_was_never_seen_does_not_count() -> None:
    assert horizon([part(RECORDS, 0, _=(500, 1)), part(PREDICTIONS, 0)], records=1, predictions=1) == 500
    assert horizon([part(RECORDS, 0), part(PREDICTIONS, 0)], records=1, predictions=1) is None


def test_a_partition_without_a_marker_holds_everything_back() -> None:
    assert horizon([part(RECORDS, 0, _=(500, 1))], records=2) is None


def test_a_partition_without_the_model_holds_back_until_it_is_idle() -> None:
    seen = part(RECORDS, 0, _=(2_000_000, PUBLISHED_MS + IDLE_MS))
    assert horizon([seen, part(RECORDS, 1)], records=2) is None
    assert horizon([seen, part(RECORDS, 1, at_end_at=PUBLISHED_MS + IDLE_MS - 1)], records=2) is None
    idle_since = PUBLISHED_MS + IDLE_MS
    assert horizon([seen, part(RECORDS, 1, at_end_at=idle_since)], records=2) == idle_since


def test_idleness_counts_from_the_last_message_and_never_lowers_a_watermark() -> None:
    last_append_ms = 5_000_000
    busy = part(RECORDS, 0, at_end_at=last_append_ms + IDLE_MS - 1, _=(700, last_append_ms))
    idle = part(RECORDS, 0, at_end_at=last_append_ms + IDLE_MS, _=(700, last_append_ms))
    ahead = part(RECORDS, 0, at_end_at=last_append_ms + IDLE_MS, _=(9_000_000, last_append_ms))
    assert horizon([busy], records=1) == 700
    assert horizon([idle], records=1) == last_append_ms + IDLE_MS
    assert horizon([ahead], records=1) == 9_000_000


def test_markers_of_a_topics_earlier_life_say_nothing() -> None:
    earlier = PartitionTime("records", "another-id", 0, 0, {"": Progressed(9_000, 1)})
    assert horizon([earlier, part(RECORDS, 0, _=(500, 1))], records=1) == 500
    assert horizon([earlier], records=1) is None


def test_dirty_windows_are_complete_and_covered_more_than_was_measured_in_order_of_time() -> None:
    windows = [
        WindowState(200, 300, 1, covered=5, measured_covered=None, revision=0),
        WindowState(0, 100, 1, covered=9, measured_covered=7, revision=1),
        WindowState(100, 200, 1, covered=7, measured_covered=7, revision=1),
        WindowState(300, 400, 1, covered=1, measured_covered=None, revision=0),
    ]
    assert [each.window_start for each in select_dirty(windows, 300)] == [0, 200]
    assert select_dirty(windows, None) == []
