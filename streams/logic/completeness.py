"""Which windows of a model are complete, and which of those are to be measured (again)?

Owns the effective watermark. It must not read stores or clocks: markers come in as values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from streams.logic.watermarks import Progressed


@dataclass(frozen=True, slots=True)
class PartitionTime:
    """One partition as stage 1's marker tells it; `at_end_at_ms` is when it was last read to its end (0: not yet).

    `sources` has the model's versions seen there ('' in records); it is empty where the model was not seen.
    """

    topic: str
    topic_id: str
    partition: int
    at_end_at_ms: int
    sources: Mapping[str, Progressed] = field(default_factory=dict)


def find_horizon(
    partitions: Iterable[PartitionTime],
    num_partitions: Mapping[tuple[str, str], int],
    published_at_ms: int,
    idle_ms: int,
) -> int | None:
    """Return the instant before which all of a model's time has passed; None while nothing can be said.

    `num_partitions` maps (topic, topic_id) of the present topics to their size: a partition without a marker holds
    everything back, and markers of a topic's earlier life count for nothing. A topic in which the model was never seen
    does not count. A partition that was read to its end and brought nothing for `idle_ms` holds nothing back up to the
    moment when that was seen.
    """
    by_topic: dict[tuple[str, str], dict[int, PartitionTime]] = {}
    for each in partitions:
        if (each.topic, each.topic_id) in num_partitions:
            by_topic.setdefault((each.topic, each.topic_id), {})[each.partition] = each
    horizons = []
    for topic, known in by_topic.items():
        if not any(each.sources for each in known.values()):
            continue
        if any(index not in known for index in range(num_partitions[topic])):
            return None
        reached = [_find_partition_horizon(each, published_at_ms, idle_ms) for each in known.values()]
        if any(each is None for each in reached):
            return None
        horizons.append(min(each for each in reached if each is not None))
    return min(horizons) if horizons else None


def _find_partition_horizon(partition: PartitionTime, published_at_ms: int, idle_ms: int) -> int | None:
    horizons = []
    for source in partition.sources.values() or [None]:
        last_append_ms = 0 if source is None else source.last_append_ms
        is_idle = partition.at_end_at_ms - max(last_append_ms, published_at_ms) >= idle_ms
        candidates = [source.watermark_ms] if source is not None else []
        if is_idle:
            candidates.append(partition.at_end_at_ms)
        if not candidates:
            return None
        horizons.append(max(candidates))
    return min(horizons)


@dataclass(frozen=True, slots=True)
class WindowState:
    """One window as the store knows it: the stamps its summaries reached, and what its last measurement covered.

    With `scale` above 1, so many windows taken as one.
    """

    window_start: int
    window_end: int
    spec_version: int
    covered: int
    measured_covered: int | None  # None: never measured
    revision: int  # of the last measurement; 0 where there is none
    scale: int = 1


def select_dirty(windows: Sequence[WindowState], horizon_ms: int | None) -> list[WindowState]:
    """Return the complete windows whose summaries go beyond their last measurement, in order of time."""
    if horizon_ms is None:
        return []
    dirty = [
        each
        for each in windows
        if each.window_end <= horizon_ms and (each.measured_covered is None or each.covered > each.measured_covered)
    ]
    return sorted(dirty, key=lambda each: (each.window_end, each.window_start))
