"""What stage 1 keeps, and deleting what no event can change any more.

Deleting is expensive even where there is nothing to delete, so it is asked first, and done for many models at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from store.client import ClickHouse
from store.summaries import Place

# A model and one of its versions; '' for what is counted of the model's inputs.
Source = tuple[str, str]

# Parameters travel in the URL.
_NUM_SOURCES_MAX = 100

_OF_PLACE = "job = {job:String} AND topic = {topic:String} AND topic_id = {id:UUID} AND partition = {partition:UInt32}"

# The instant that belongs to a row's model and version, before all time where there is none.
_BEFORE = (
    "transform(concat(model, '\\n', model_version), {sources:Array(String)}, {before:Array(Int64)}, "
    "toInt64(-9000000000000000))"
)


def count_state(ch: ClickHouse, job: str) -> tuple[int, int]:
    """Give how much a job keeps: the windows of all models that have summaries, and the identities remembered."""
    ((num_windows, num_ids),) = ch.query(
        """
        SELECT (SELECT uniqExact(model, window_start, window_end) FROM summaries WHERE job = {job:String}),
               (SELECT sum(length(hashes)) FROM identities WHERE job = {job:String})
        """,
        {"job": job},
    )
    return int(num_windows), int(num_ids)


def delete_windows(ch: ClickHouse, job: str, topic: str, before: Mapping[Source, int]) -> None:
    """Delete a topic's summaries, in all partitions, of windows that end by then (epoch ms by model and version)."""
    known = ch.query(
        """
        SELECT model, model_version, toUnixTimestamp64Milli(min(window_end)) FROM summaries
        WHERE job = {job:String} AND topic = {topic:String} GROUP BY model, model_version
        SETTINGS final = 0
        """,
        {"job": job, "topic": topic},
    )
    ends = {(model, version): end for model, version, end in known}
    expired = [source for source, end in ends.items() if source in before and end <= before[source]]
    for parameters in _name_sources(expired, before):
        ch.command(
            f"""
            DELETE FROM summaries
            WHERE job = {{job:String}} AND topic = {{topic:String}} AND model IN {{models:Array(String)}}
              AND toUnixTimestamp64Milli(window_end) <= {_BEFORE}
            """,  # noqa: S608 - only our own constants
            {"job": job, "topic": topic, **parameters},
        )


def delete_ids(ch: ClickHouse, job: str, place: Place, before: Mapping[Source, int], before_ordinal: int) -> None:
    """Delete a partition's identities expired by then (epoch ms by model and version) or older than an event.

    Those that are of inputs too go with their version: the inputs' time is that of all versions, so never behind it.
    """
    known = ch.query(
        f"""
        SELECT model, model_version, toUnixTimestamp64Milli(min(expires_at)), min(last_ordinal) FROM identities
        WHERE {_OF_PLACE} GROUP BY model, model_version
        """,  # noqa: S608 - only our own constants
        _place_parameters(job, place),
    )
    oldest = {(model, version): rest for model, version, *rest in known if (model, version) in before}
    expired = [
        source
        for source, (expires_at, ordinal) in oldest.items()
        if expires_at <= before[source] or ordinal < before_ordinal
    ]
    for parameters in _name_sources(expired, before):
        ch.command(
            f"""
            DELETE FROM identities
            WHERE {_OF_PLACE} AND model IN {{models:Array(String)}}
              AND (toUnixTimestamp64Milli(expires_at) <= {_BEFORE} OR last_ordinal < {{ordinal:UInt64}})
            """,  # noqa: S608 - only our own constants
            {**_place_parameters(job, place), **parameters, "ordinal": max(0, before_ordinal)},
        )


def delete_other_lives(ch: ClickHouse, job: str, topic: str, topic_id: str) -> None:
    """Delete the markers and identities of a topic of that name that was deleted; its summaries stay counted."""
    other = {"job": job, "topic": topic, "id": topic_id}
    ch.command(
        "DELETE FROM stage1_markers WHERE job = {job:String} AND topic = {topic:String} AND topic_id != {id:UUID}",
        other,
    )
    ch.command(
        "DELETE FROM identities WHERE job = {job:String} AND topic = {topic:String} AND topic_id != {id:UUID}", other
    )


def _name_sources(sources: Sequence[Source], before: Mapping[Source, int]) -> Iterator[dict[str, Any]]:
    """Give the parameters of `_BEFORE`, for some of the sources at a time: parameters travel in the URL."""
    for first in range(0, len(sources), _NUM_SOURCES_MAX):
        chosen = sources[first : first + _NUM_SOURCES_MAX]
        yield {
            "models": sorted({model for model, _ in chosen}),
            "sources": [f"{model}\n{version}" for model, version in chosen],
            "before": [before[source] for source in chosen],
        }


def _place_parameters(job: str, place: Place) -> dict[str, Any]:
    return {"job": job, "topic": place.topic, "id": place.topic_id, "partition": place.partition}
