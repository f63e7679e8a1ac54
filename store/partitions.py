"""Stage 1's state of whole partitions: what a new owner starts from, read for all of them at once.

A worker that starts waits for this, so it is a few queries, whatever the number of partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from store.client import ClickHouse
from store.summaries import IdBlock, Place, StoredPartition, SummaryRow, fill_gaps, read_markers, select_summaries

# Identities read in one go: 64 MB with their numbers, twice while they are sorted out.
_NUM_IDS_MAX = 4_000_000

_OF_PLACES = "job = {job:String} AND (topic, topic_id, partition) IN {places:Array(Tuple(String, UUID, UInt32))}"

# `place` is the number of the row's place in `places`, from 1.
_IDENTITIES = f"""
    FROM (
        SELECT *, (toString(topic), topic_id, partition) AS name,
               indexOf({{places:Array(Tuple(String, UUID, UInt32))}}, name) AS place
        FROM identities WHERE {_OF_PLACES}
    )
    WHERE first_ordinal < {{below:Array(UInt64)}}[place] AND last_ordinal >= {{from:Array(UInt64)}}[place]
"""  # noqa: S608 - only our own constants


def load_partitions(
    ch: ClickHouse, job: str, places: Iterable[Place], num_events_max: int
) -> dict[Place, StoredPartition]:
    """Read what the partitions' new owner starts from; identities of the last `num_events_max` events of each."""
    wanted = dict.fromkeys(places)
    if not wanted:
        return {}
    # The markers first: what they say is there by then.
    markers = {marker.place: marker for marker in read_markers(ch, job, sorted({place.topic for place in wanted}))}
    below = {place: markers[place].next_ordinal for place in wanted if place in markers}
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(_read_summaries, ch, job, wanted)
        ids = _read_ids(ch, job, below, num_events_max)
        summaries = reading.result()
    return {place: StoredPartition(markers.get(place), summaries[place], ids.get(place, [])) for place in wanted}


def _read_summaries(ch: ClickHouse, job: str, places: Iterable[Place]) -> dict[Place, list[SummaryRow]]:
    summaries: dict[Place, list[SummaryRow]] = {place: [] for place in places}
    for row in select_summaries(ch, _OF_PLACES, {"job": job, "places": _name_places(summaries)}):
        summaries[row.place].append(row)
    return summaries


def _read_ids(ch: ClickHouse, job: str, below: Mapping[Place, int], num_events_max: int) -> dict[Place, list[IdBlock]]:
    """Give the identities of each place below a number, in groups that bound what is in memory twice."""
    blocks: dict[Place, list[IdBlock]] = {}
    for group in _group_by_ids(ch, _bound(job, below, num_events_max), list(below)):
        wanted = {place: below[place] for place in group}
        blocks |= _read_group(ch, _bound(job, wanted, num_events_max), wanted)
    return blocks


def _group_by_ids(ch: ClickHouse, parameters: Mapping[str, Any], places: Sequence[Place]) -> list[list[Place]]:
    """Give the places that have identities, in groups to be read in one go."""
    counted = ch.query(f"SELECT place, sum(length(hashes)) {_IDENTITIES} GROUP BY place ORDER BY place", parameters)
    groups: list[list[Place]] = []
    num_left = 0
    for number, num_ids in counted:
        if num_ids > num_left:
            groups.append([])
            num_left = _NUM_IDS_MAX
        groups[-1].append(places[number - 1])
        num_left -= num_ids
    return groups


def _read_group(
    ch: ClickHouse, parameters: Mapping[str, Any], below: Mapping[Place, int]
) -> dict[Place, list[IdBlock]]:
    table = ch.query_arrow(
        f"""
        SELECT place, model, model_version, toUnixTimestamp64Milli(window_start) AS start,
               toUnixTimestamp64Milli(expires_at) AS expires, hashes, gaps, first_ordinal,
               with_inputs {_IDENTITIES}
        """,
        parameters,
    )
    places = list(below)
    blocks: dict[Place, list[IdBlock]] = {place: [] for place in places}
    hash_lists, gap_lists = (table[name].combine_chunks() for name in ("hashes", "gaps"))
    names = ("place", "model", "model_version", "start", "expires", "first_ordinal", "with_inputs")
    columns = [table[name].to_pylist() for name in names]
    for index, (number, model, version, start, expires, first, with_inputs) in enumerate(zip(*columns, strict=True)):
        place = places[number - 1]
        hashes = hash_lists[index].values.to_numpy(zero_copy_only=False)
        ordinals = fill_gaps(first, gap_lists[index].values.to_numpy(zero_copy_only=False), len(hashes))
        known = ordinals < below[place]
        blocks[place].append(IdBlock(model, version, start, expires, hashes[known], ordinals[known], bool(with_inputs)))
    return blocks


def _bound(job: str, below: Mapping[Place, int], num_events_max: int) -> dict[str, Any]:
    return {
        "job": job,
        "places": _name_places(below),
        "below": list(below.values()),
        "from": [max(0, ordinal - num_events_max) for ordinal in below.values()],
    }


def _name_places(places: Iterable[Place]) -> list[tuple[str, str, int]]:
    return [(place.topic, place.topic_id, place.partition) for place in places]
