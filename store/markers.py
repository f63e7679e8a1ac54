"""The sink's markers: "everything below this offset of this partition is stored"."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from store.client import ClickHouse

Place = tuple[str, str, int]


def read_sink_markers(ch: ClickHouse, topics: Iterable[str] | None = None) -> dict[Place, int]:
    """The largest marker of each (topic, topic_id, partition), of these topics or of all; ids as UUID text."""
    where = "" if topics is None else "WHERE topic IN {topics:Array(String)}"
    rows = ch.query(
        f"SELECT topic, toString(topic_id), partition, max(next_offset) FROM sink_markers {where} "  # noqa: S608
        "GROUP BY topic, topic_id, partition",
        None if topics is None else {"topics": list(topics)},
    )
    return {(topic, topic_id, int(partition)): int(offset) for topic, topic_id, partition, offset in rows}


def write_sink_markers(ch: ClickHouse, markers: Mapping[Place, int], at_ms: int) -> None:
    """Say that everything below these offsets is stored; only to be called once it is. Safe to replay."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    ch.insert_rows(
        "sink_markers",
        [(*place, offset, at) for place, offset in markers.items()],
        ["topic", "topic_id", "partition", "next_offset", "at"],
    )


def write_sink_marker(ch: ClickHouse, topic: str, topic_id: str, partition: int, next_offset: int, at_ms: int) -> None:
    """Say it of one partition."""
    write_sink_markers(ch, {(topic, topic_id, partition): next_offset}, at_ms)
