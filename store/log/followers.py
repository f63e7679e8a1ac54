"""Following the topics that everyone needs to know: `specs` (what is monitored) and `models` (who has which role)."""

import logging

import msgspec

from schemas.catalogue import Catalogue, decode_published, split_key
from schemas.connections import KafkaConnection, TopicNames
from schemas.errors import Retryable
from schemas.events import RoleMap, decode_event, encode_event
from store.log.producer import Producer
from store.log.reader import LogMessage, TopicReader

log = logging.getLogger(__name__)


class SpecFollower:
    """Keeps `catalogue` as the topic `specs` has it; as new as the last `refresh`."""

    def __init__(self, kafka: KafkaConnection, topics: TopicNames) -> None:
        self.catalogue = Catalogue()
        self._reader = TopicReader(kafka, topics("specs"))

    def refresh(self, timeout_s: float = 10.0) -> None:
        """Read `specs` to its present end; `Retryable` when that cannot be done in time."""
        for message in self._reader.read_to_end(timeout_s):
            self._take(message)

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()

    def _take(self, message: LogMessage) -> None:
        try:
            if message.value is None:
                self.catalogue.remove(*split_key((message.key or b"").decode()))
            else:
                self.catalogue.add(decode_published(message.value))
        except (ValueError, msgspec.MsgspecError) as error:
            log.error("%s offset %d is no published spec and is passed over: %s", message.topic, message.offset, error)


class RoleFollower:
    """Knows every role map on the topic `models`; of two with one epoch the first in the log counts."""

    def __init__(self, kafka: KafkaConnection, topics: TopicNames) -> None:
        self._reader = TopicReader(kafka, topics("models"))
        self._maps: dict[str, list[RoleMap]] = {}
        self._offsets: dict[tuple[str, int], int] = {}

    def refresh(self, timeout_s: float = 10.0) -> list[RoleMap]:
        """Read `models` to its present end; returns the role maps that are new and count, in log order."""
        return [taken for message in self._reader.read_to_end(timeout_s) if (taken := self._take(message)) is not None]

    def models(self) -> list[str]:
        """Models that have roles, sorted."""
        return sorted(self._maps)

    def current(self, model: str) -> RoleMap | None:
        """The newest role map of a model; None if it never had one."""
        maps = self._maps.get(model)
        return maps[-1] if maps else None

    def history(self, model: str) -> list[RoleMap]:
        """Every role map of a model that counts, in the order of their epochs."""
        return list(self._maps.get(model, []))

    def at(self, model: str, ts_ms: int) -> RoleMap | None:
        """The newest role map that holds at an event time; None before the first."""
        return next((roles for roles in reversed(self._maps.get(model, [])) if roles.at <= ts_ms), None)

    def offset_of(self, model: str, epoch: int) -> int | None:
        """Where the role map that counts for an epoch stands in the log."""
        return self._offsets.get((model, epoch))

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()

    def _take(self, message: LogMessage) -> RoleMap | None:
        if message.value is None:
            return None
        try:
            roles = decode_event(RoleMap, message.value)
        except msgspec.MsgspecError as error:
            log.error("%s offset %d is no role map and is passed over: %s", message.topic, message.offset, error)
            return None
        if not roles.roles.get("champion"):
            log.error("%s offset %d names no champion and is passed over", message.topic, message.offset)
            return None
        maps = self._maps.setdefault(roles.model, [])
        if maps and roles.epoch <= maps[-1].epoch:
            return None
        maps.append(roles)
        self._offsets[(roles.model, roles.epoch)] = message.offset
        return roles


def publish_roles(kafka: KafkaConnection, topics: TopicNames, role_map: RoleMap, timeout_s: float = 30.0) -> bool:
    """Put a role map on `models`; True if it is the first of its epoch in the log, so that it counts for everyone.

    Safe to repeat: a second one of the same epoch does not count. `Retryable` when the log cannot say in time.
    """
    places: list[int] = []
    producer = Producer(kafka)
    producer.produce(
        topics("models"),
        role_map.model,
        encode_event(role_map),
        on_delivered=lambda _partition, offset: places.append(offset),
    )
    producer.flush(timeout_s)
    follower = RoleFollower(kafka, topics)
    try:
        follower.refresh(timeout_s)
        winner = follower.offset_of(role_map.model, role_map.epoch)
    finally:
        follower.close()
    if not places:
        raise Retryable("the log did not say where the role map stands")
    return winner == places[0]
