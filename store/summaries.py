"""State of stage 1: summaries of windows, markers of partitions and the memory of identities, stamped with offsets.

A summary row says what the events of one partition below its `stamp` are in one window; whoever wrote it, it is true,
so of two rows the one with the larger stamp is right. A marker says that all rows below its `next_offset` are there.
Nothing here decides: what a state means is known to `streams.logic`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.client import ClickHouse

# 4: behind the counts of the fields stands one for each, of values that came in another type.
FORMAT = 4

# {model: {version: (watermark_ms, last_append_ms)}}, the lateness already subtracted; see `streams.logic.watermarks`.
Watermarks = dict[str, dict[str, tuple[int, int]]]

_WATERMARKS = msgspec.json.Decoder(Watermarks)
_INSTANT = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True, slots=True)
class Place:
    """One partition of one topic's one life."""

    topic: str
    topic_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class Marker:
    """Everything of a partition below `next_offset` is durable; at `at_end_at` (epoch ms, 0: never) that was all.

    `next_ordinal` is how many events that is, by the numbers that identities are remembered with.
    """

    place: Place
    next_offset: int
    watermarks: Watermarks
    at_end_at: int = 0
    next_ordinal: int = 0


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One partition's summary of (model, version, spec_version, segment, window); `state` is `Summary.encode()`."""

    place: Place
    model: str
    model_version: str
    spec_version: int
    segment: str
    window_start: int
    window_end: int
    stamp: int
    num_rows: int
    num_duplicates: int
    num_late: int
    state: bytes


@dataclass(frozen=True, slots=True)
class IdBlock:
    """Identities in log order: `hashes` uint64[n], of events numbered `ordinals` int64[n], count until `expires_at`.

    As outputs of a version, and `with_inputs` as inputs too; where the version is "", as inputs alone.
    """

    model: str
    model_version: str
    window_start: int
    expires_at: int
    hashes: npt.NDArray[np.uint64]
    ordinals: npt.NDArray[np.int64]
    with_inputs: bool = False


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """What a partition's new owner starts from; `ids` are those below the marker only."""

    marker: Marker | None
    summaries: list[SummaryRow] = field(default_factory=list)
    ids: list[IdBlock] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WindowStamp:
    """How far one partition has counted one window: `stamps` by version, `stamp` over all versions and segments.

    Of a version's events in the window those below its stamp are counted, those behind it came too late.
    `is_confirmed` is false while a flush is under way (or broke off) and the rows may disagree: wait for its marker.
    A window's `covered` is the sum of its stamps over all places.
    """

    place: Place
    model: str
    window_start: int
    window_end: int
    stamp: int
    num_rows: int
    stamps: Mapping[str, int]
    is_confirmed: bool


def insert_summaries(ch: ClickHouse, job: str, rows: Sequence[SummaryRow]) -> None:
    """Insert summaries; safe to replay."""
    columns = _place_columns(job, [row.place for row in rows]) | {
        "model": pa.array([row.model for row in rows], pa.string()),
        "model_version": pa.array([row.model_version for row in rows], pa.string()),
        "spec_version": pa.array([row.spec_version for row in rows], pa.uint32()),
        "segment": pa.array([row.segment for row in rows], pa.string()),
        "window_start": pa.array([row.window_start for row in rows], _INSTANT),
        "window_end": pa.array([row.window_end for row in rows], _INSTANT),
        "stamp": pa.array([row.stamp for row in rows], pa.uint64()),
        "num_rows": pa.array([row.num_rows for row in rows], pa.uint64()),
        "num_duplicates": pa.array([row.num_duplicates for row in rows], pa.uint64()),
        "num_late": pa.array([row.num_late for row in rows], pa.uint64()),
        "state": pa.array([row.state for row in rows], pa.binary()),
        "format": pa.array([FORMAT] * len(rows), pa.uint16()),
    }
    ch.insert_arrow("summaries", pa.table(columns))


def insert_ids(ch: ClickHouse, job: str, placed: Sequence[tuple[Place, IdBlock]]) -> None:
    """Append identities; safe to replay, since a hash that is there twice says the same twice."""
    blocks = [block for _, block in placed]
    columns = _place_columns(job, [place for place, _ in placed]) | {
        "model": pa.array([block.model for block in blocks], pa.string()),
        "model_version": pa.array([block.model_version for block in blocks], pa.string()),
        "window_start": pa.array([block.window_start for block in blocks], _INSTANT),
        "expires_at": pa.array([block.expires_at for block in blocks], _INSTANT),
        "first_ordinal": pa.array([int(block.ordinals[0]) for block in blocks], pa.uint64()),
        "last_ordinal": pa.array([int(block.ordinals[-1]) for block in blocks], pa.uint64()),
        "with_inputs": pa.array([block.with_inputs for block in blocks], pa.bool_()),
        "hashes": _lists([block.hashes for block in blocks], pa.uint64()),
        "gaps": _lists([find_gaps(block.ordinals) for block in blocks], pa.uint32()),
    }
    ch.insert_arrow("identities", pa.table(columns))


def insert_markers(ch: ClickHouse, job: str, markers: Sequence[Marker]) -> None:
    """Insert markers; only after everything below them has been confirmed."""
    columns = _place_columns(job, [marker.place for marker in markers]) | {
        "next_offset": pa.array([marker.next_offset for marker in markers], pa.uint64()),
        "next_ordinal": pa.array([marker.next_ordinal for marker in markers], pa.uint64()),
        "watermarks": pa.array([msgspec.json.encode(marker.watermarks).decode() for marker in markers], pa.string()),
        "at_end_at": pa.array([marker.at_end_at for marker in markers], _INSTANT),
        "format": pa.array([FORMAT] * len(markers), pa.uint16()),
    }
    ch.insert_arrow("stage1_markers", pa.table(columns))


def read_markers(
    ch: ClickHouse, job: str, topics: Iterable[str] | None = None, model: str | None = None
) -> list[Marker]:
    """Give the newest marker of every partition of these topics, or of all; with the watermarks of one model, or all.

    A marker has the watermarks of every model, a hundred bytes each.
    """
    rows = ch.query(
        """
        SELECT topic, toString(topic_id), partition, next_offset,
               multiIf({model:String} = '', watermarks, NOT JSONHas(watermarks, {model:String}), '{}',
                       concat('{', toJSONString({model:String}), ':', JSONExtractRaw(watermarks, {model:String}), '}')),
               toUnixTimestamp64Milli(at_end_at), next_ordinal
        FROM stage1_markers FINAL
        WHERE job = {job:String} AND format = {format:UInt16}
          AND ({any:Bool} OR topic IN {topics:Array(String)})
        ORDER BY topic, topic_id, partition
        """,
        {"job": job, "any": topics is None, "topics": list(topics or ()), "format": FORMAT, "model": model or ""},
    )
    return [
        Marker(Place(*row[:3]), next_offset, _WATERMARKS.decode(watermarks), at_end_at, next_ordinal)
        for *row, next_offset, watermarks, at_end_at, next_ordinal in rows
    ]


def read_stamps(
    ch: ClickHouse,
    job: str,
    model: str | None = None,
    since_ms: int | None = None,
    markers: Iterable[Marker] | None = None,
) -> list[WindowStamp]:
    """Give one row per (window, partition) that has a summary; of one model or all, of windows from `since_ms` on.

    `markers` are all of the job where the caller has read them already.
    """
    # First the markers: what is flushed in between then looks unconfirmed, and is asked for again.
    reached = {marker.place: marker.next_offset for marker in (read_markers(ch, job) if markers is None else markers)}
    rows = ch.query(
        """
        SELECT topic, toString(topic_id), partition, model, toUnixTimestamp64Milli(window_start),
               toUnixTimestamp64Milli(max(end)), max(reached), sum(size),
               CAST(groupArray((model_version, reached)), 'Map(String, UInt64)')
        FROM
        (
            SELECT topic, topic_id, partition, model, window_start, model_version,
                   max(window_end) AS end, max(stamp) AS reached, sumIf(num_rows, segment = '') AS size
            FROM summaries FINAL
            WHERE job = {job:String} AND format = {format:UInt16}
              AND ({model:String} = '' OR model = {model:String})
              AND window_start >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
            GROUP BY model, window_start, topic, topic_id, partition, model_version
        )
        GROUP BY model, window_start, topic, topic_id, partition
        ORDER BY model, window_start, topic, topic_id, partition
        """,
        {"job": job, "model": model or "", "since": _EARLIEST_MS if since_ms is None else since_ms, "format": FORMAT},
    )
    # A topic that was made anew has markers of its present life only; the rows of its former one are final.
    present = {(place.topic, place.partition) for place in reached}
    return [
        WindowStamp(place, name, start, end, stamp, num_rows, stamps, _is_confirmed(place, stamp, reached, present))
        for place, name, start, end, stamp, num_rows, stamps in ((Place(*row[:3]), *row[3:]) for row in rows)
    ]


def _is_confirmed(place: Place, stamp: int, markers: Mapping[Place, int], present: Set[tuple[str, int]]) -> bool:
    if place in markers:
        return stamp <= markers[place]
    return (place.topic, place.partition) in present


def read_summaries(ch: ClickHouse, job: str, model: str, start_ms: int, end_ms: int) -> list[SummaryRow]:
    """Give all partitions' summaries of the windows that begin in [start, end); `streams.logic` merges them."""
    return select_summaries(
        ch,
        "model = {model:String} AND window_start >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
        "AND window_start < fromUnixTimestamp64Milli({end:Int64}, 'UTC')",
        {"job": job, "model": model, "start": start_ms, "end": end_ms},
    )


# DateTime64(3) begins in 1900.
_EARLIEST_MS = -2_208_988_800_000


def select_summaries(ch: ClickHouse, where: str, parameters: dict[str, Any]) -> list[SummaryRow]:
    """Give the newest summaries of a job that meet a condition in SQL; for this package."""
    # In base64, since the driver takes a String for UTF-8.
    rows = ch.query(
        f"""
        SELECT topic, toString(topic_id), partition, model, model_version, spec_version, segment,
               toUnixTimestamp64Milli(window_start), toUnixTimestamp64Milli(window_end), stamp,
               num_rows, num_duplicates, num_late, base64Encode(state)
        FROM summaries FINAL
        WHERE job = {{job:String}} AND format = {{format:UInt16}} AND {where}
        ORDER BY window_start, topic, topic_id, partition, model_version, spec_version, segment
        """,  # noqa: S608 - only our own constants
        parameters | {"format": FORMAT},
    )
    return [SummaryRow(Place(*row[:3]), *row[3:-1], state=base64.b64decode(row[-1])) for row in rows]  # type: ignore[misc]


def _place_columns(job: str, places: Sequence[Place]) -> dict[str, pa.Array]:
    return {
        "job": pa.array([job] * len(places), pa.string()),
        "topic": pa.array([place.topic for place in places], pa.string()),
        "topic_id": pa.array([place.topic_id for place in places], pa.string()),
        "partition": pa.array([place.partition for place in places], pa.uint32()),
    }


def find_gaps(ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Give how far each ordinal is from the one before; nothing at all where they are consecutive, as most are."""
    if int(ordinals[-1]) - int(ordinals[0]) == len(ordinals) - 1:
        return np.empty(0, np.uint32)
    return np.diff(ordinals, prepend=ordinals[0]).astype(np.uint32)


def fill_gaps(first: int, gaps: npt.NDArray[np.uint32], size: int) -> npt.NDArray[np.int64]:
    """Undo `find_gaps`: give `size` ordinals."""
    if not len(gaps):
        return np.arange(first, first + size, dtype=np.int64)
    ordinals: npt.NDArray[np.int64] = first + np.cumsum(gaps, dtype=np.int64)
    return ordinals


def _lists(arrays: Sequence[npt.NDArray[Any]], kind: pa.DataType) -> pa.Array:
    ends = np.cumsum([0, *(len(array) for array in arrays)])
    joined = np.concatenate(arrays) if arrays else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(joined, kind))
