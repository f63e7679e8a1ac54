"""When is a topic without a model's events for too long? Pure: neither stores nor clocks.

Silence is proven, never guessed: a topic has been silent from its newest event up to the instant at which all of its
partitions had last been read to their end. A monitor that is down, behind or cut off reads no partition to its end, so
what it has not seen yet is never taken for missing.

One alert at a time is open per topic. It is named by the instant since which nothing has come, which follows from the
log: whoever judges, and however often, it fires once and resolves once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.spec import ModelSpec
from store.summaries import Marker
from streams.logic.alerts import Standing
from streams.logic.watermarks import EVERY_VERSION

RULE = "freshness"

# Labels come when the truth is known, weeks later or never, so nobody means them without saying so.
_TOPICS_MEANT = ("records", "predictions")

Cause = Literal["silent", "came", "unasked"]


@dataclass(frozen=True, slots=True)
class TopicAge:
    """A model's newest event on a topic (Kafka timestamp; None: it never had one), and up to when this is known.

    Epoch ms. Everything that was appended before `read_to_ms` has been read, on all partitions.
    """

    newest_ms: int | None
    read_to_ms: int


@dataclass(frozen=True, slots=True)
class AgeLimit:
    """How long a topic may be without an event; one that is named is waited for even before its first event."""

    max_age_ms: int
    is_named: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A state change to announce: since `first_ms` nothing had come up to `until_ms`.

    Of a resolved alert that is the newest event, if one has come. Both are epoch ms by the clock.
    """

    state: Literal["firing", "resolved"]
    first_ms: int
    until_ms: int
    cause: Cause


def list_limits(spec: ModelSpec) -> dict[str, AgeLimit]:
    """Return by inbound topic what the spec asks for; empty where it has no rule of freshness."""
    for rule in spec.alerts:
        max_age_ms = rule.max_age_ms if rule.when == RULE else None
        if isinstance(max_age_ms, dict):
            return {topic: AgeLimit(each_ms, True) for topic, each_ms in max_age_ms.items()}
        if max_age_ms is not None:
            return {topic: AgeLimit(max_age_ms, False) for topic in _TOPICS_MEANT}
    return {}


def find_age(
    markers: Iterable[Marker], model: str, topic: str, sizes: Mapping[tuple[str, str], int]
) -> TopicAge | None:
    """Return how old a model's data on a topic is; None while a partition has yet to be read to its end.

    `sizes` has the present topics' sizes by (topic, topic_id); markers of a topic's earlier life count for nothing.
    A watermark message says how far time has come, but is no event.
    """
    topic_id, size = next(((topic_id, size) for (name, topic_id), size in sizes.items() if name == topic), ("", 0))
    read_to: dict[int, int] = {}
    newest: list[int] = []
    for marker in markers:
        if (marker.place.topic, marker.place.topic_id) == (topic, topic_id):
            read_to[marker.place.partition] = marker.at_end_at
            versions = marker.watermarks.get(model, {})
            newest += [append_ms for version, (_, append_ms) in versions.items() if version != EVERY_VERSION]
    if not size or any(not read_to.get(partition) for partition in range(size)):
        return None
    return TopicAge(max(newest, default=None), min(read_to.values()))


def follow_topic(
    age: TopicAge | None, limit: AgeLimit | None, declared_ms: int, standing: Standing | None
) -> list[Change]:
    """Return the state changes that follow from a topic's age and its last alert; most often none.

    `declared_ms` is when the model was declared: silence before that is nobody's. An open alert resolves when an event
    has come since, or when the spec has no limit for the topic any more (`unasked`). Nothing opens on a silence that
    an alert has told of.
    """
    changes: list[Change] = []
    newest_ms = None if age is None else age.newest_ms
    if standing is not None and standing.state != "resolved":
        first_ms = standing.first_window_start
        if limit is None:
            return [Change("resolved", first_ms, first_ms, "unasked")]
        if newest_ms is None or newest_ms <= first_ms:
            return []
        changes.append(Change("resolved", first_ms, newest_ms, "came"))
    if age is None or limit is None or (newest_ms is None and not limit.is_named):
        return changes
    since_ms = max(newest_ms or 0, declared_ms)
    is_told = standing is not None and since_ms <= standing.first_window_start
    if not is_told and age.read_to_ms - since_ms >= limit.max_age_ms:
        changes.append(Change("firing", since_ms, age.read_to_ms, "silent"))
    return changes
