"""The notifier: state changes of alerts go to whom subscribed to them, each at least once and under one id.

An offset is committed only behind deliveries that were made or given up, so a crash repeats and loses none.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers.deliveries import Delivery, Outlets, Receiver, RetryPolicy
from consumers.ledger import Ledger
from consumers.webhooks import build_payload
from schemas.clock import Clock, SystemClock
from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.events import Alert, DeadLetter, decode_event, encode_event
from schemas.identity import webhook_id
from store.client import ClickHouse
from store.log import Producer, describe_topics
from store.reports import link_report
from store.specs import read_reported_rules
from store.subscriptions import (
    Attempt,
    Subscription,
    disable_subscription,
    insert_attempts,
    list_subscriptions,
    read_finished_webhooks,
    read_opened_at,
    read_worst_severity,
)

log = logging.getLogger(__name__)

GROUP = "driftloop-notify"
STAGE = "notify"
# State changes that people are told of; `pending` is not one yet.
TOLD = ("firing", "resolved")

_REFRESH_S = 2.0
_MESSAGES = 100
# State changes on their way at the same time; beyond that nothing more is read.
_OPEN_MAX = 10_000
_STOP_S = 4.0
_NO_TOPIC = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Told:
    """A state change with its place in the log."""

    alert: Alert
    topic: str
    partition: int
    offset: int


class Notifier:
    """Runs one worker of the notifier; several share the partitions of `alerts`."""

    def __init__(self, runtime: Runtime, policy: RetryPolicy | None = None, clock: Clock | None = None) -> None:
        self._runtime = runtime
        self._policy = policy or RetryPolicy()
        self._clock = clock or SystemClock()
        self._ch = ClickHouse(runtime.clickhouse)
        self._producer = Producer(runtime.kafka)
        self._producer_lock = threading.Lock()
        self._ledgers: dict[tuple[str, int], Ledger] = {}
        self._receivers: dict[str, Receiver] = {}
        self._subscriptions: list[Subscription] = []
        self._refreshed_s = -_REFRESH_S
        self._stop = threading.Event()
        self._consumer = Consumer(
            {"log_level": 2}
            | runtime.kafka.librdkafka(
                group_id=runtime.topics(GROUP),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                session_timeout_ms=10_000,
                heartbeat_interval_ms=1_000,
                topic_metadata_refresh_interval_ms=2_000,
                fetch_queue_backoff_ms=5,
                fetch_wait_max_ms=100,
            )
        )

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; what is not delivered then is delivered after the next start.

        Sets `stop` when it fails, so that its threads end too.
        """
        self._stop = stop
        self._consumer.subscribe([self._runtime.topics("alerts")], on_revoke=self._forget, on_lost=self._forget)
        try:
            while not stop.is_set():
                self._step(stop)
        finally:
            stop.set()
            deadline_s = self._clock.monotonic_s() + _STOP_S
            for receiver in self._receivers.values():
                receiver.join(max(deadline_s - self._clock.monotonic_s(), 0.0))
            self._commit()
            self._consumer.close()
            self._producer.close(1.0)
            self._ch.close()
            log.info("stopped")

    def _step(self, stop: threading.Event) -> None:
        for receiver in self._receivers.values():
            if receiver.failure is not None:
                raise receiver.failure
        is_full = sum(map(len, self._ledgers.values())) >= _OPEN_MAX
        held = self._consumer.assignment() if is_full else []
        self._consumer.pause(held)
        messages = self._consumer.consume(_MESSAGES, timeout=0.2)
        self._consumer.resume(held)
        told = [alert for message in messages if (alert := self._decode(message)) is not None]
        backoff_s = 0.1
        while not stop.is_set():
            try:
                self._refresh(force=bool(told))
                self._send(told)
                break
            except Retryable as error:
                log.warning("waiting: %s", error)
                stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, 5.0)
        self._commit()

    def _decode(self, message: Any) -> Told | None:
        if message.error() is not None:
            log.warning("%s: %s", message.topic(), message.error().str())
            return None
        try:
            alert = decode_event(Alert, message.value() or b"")
        except msgspec.MsgspecError as error:
            log.error("%s/%d offset %d is no alert: %s", message.topic(), message.partition(), message.offset(), error)
            self._ledger(message.topic(), message.partition()).open(message.offset(), 0)
            return None
        return Told(alert, message.topic(), message.partition(), message.offset())

    def _refresh(self, force: bool) -> None:
        """Learn of new, changed, disabled and removed subscriptions."""
        now_s = self._clock.monotonic_s()
        if not force and now_s - self._refreshed_s < _REFRESH_S:
            return
        self._subscriptions = list_subscriptions(self._ch)
        self._refreshed_s = now_s
        active = {subscription.name: subscription for subscription in self._subscriptions if not subscription.disabled}
        for name in self._receivers.keys() - active.keys():
            self._receivers.pop(name).close()
        for name, receiver in self._receivers.items():
            receiver.subscription = active[name]

    def _send(self, told: list[Told]) -> None:
        """Hand state changes to the receivers; asks the store for all it needs before it does anything."""
        worst = [(one, read_worst_severity(self._ch, one.alert)) for one in told if one.alert.state in TOLD]
        wanted = [
            (one, subscription, webhook_id(one.alert.transition_id, subscription.name))
            for one, severity in worst
            for subscription in self._subscriptions
            if subscription.wants(one.alert.model, severity)
        ]
        finished = read_finished_webhooks(self._ch, [name for _, _, name in wanted]) if wanted else set()
        opened = {
            one.offset: read_opened_at(self._ch, one.alert.model, one.alert.alert_id)
            for one in told
            if one.alert.state == "resolved"
        }
        links = self._link_reports({id(one): one.alert for one, _, _ in wanted})
        for one in told:
            mine = [(who, name) for other, who, name in wanted if other is one and name not in finished]
            ledger = self._ledger(one.topic, one.partition)
            entry = ledger.open(one.offset, len(mine))
            for subscription, name in mine:
                body = build_payload(one.alert, subscription.name, opened.get(one.offset), links.get(id(one), ""))
                self._offer(subscription, one, name, body, partial(ledger.finish, entry))

    def _link_reports(self, alerts: Mapping[int, Alert]) -> dict[int, str]:
        """Give where the reports of alerts will be, of those that get one, where people can reach ClickHouse."""
        public = self._runtime.public_clickhouse
        if public is None or not alerts:
            return {}
        rules = read_reported_rules(self._ch, {each.model for each in alerts.values()})
        return {
            key: link_report(public, each.model, each.alert_id)
            for key, each in alerts.items()
            if each.rule in rules.get(each.model, ())
        }

    def _offer(self, who: Subscription, one: Told, name: str, body: bytes, finish: Callable[[], None]) -> None:
        receiver = self._receivers.get(who.name)
        if receiver is None:
            outlets = Outlets(self._record, self._disable, self._give_up)
            receiver = self._receivers[who.name] = Receiver(who, self._policy, outlets, self._clock, self._stop)
        delivery = Delivery(name, one.alert, body, (one.topic, one.partition, one.offset), finish)
        if not receiver.offer(delivery):
            receiver.refuse(delivery)

    def _record(self, attempt: Attempt) -> None:
        insert_attempts(self._ch, [attempt])

    def _disable(self, name: str, reason: str) -> None:
        log.warning("subscription %s is disabled: %s", name, reason)
        disable_subscription(self._ch, name, reason, self._clock.now_ms())

    def _give_up(self, delivery: Delivery, message: str) -> None:
        """Publish a dead letter for a delivery that could not be made."""
        topic, partition, offset = delivery.place
        found = describe_topics(self._runtime.kafka, [topic])
        letter = DeadLetter(
            model=delivery.alert.model,
            reason="undeliverable",
            message=message,
            raw=delivery.body.decode(),
            stage=STAGE,
            at=self._clock.now_ms(),
            topic=topic,
            topic_id=found[topic][0] if topic in found else _NO_TOPIC,
            partition=partition,
            offset=offset,
            row=0,
        )
        with self._producer_lock:
            self._producer.produce(self._runtime.topics("dead-letters"), delivery.alert.model, encode_event(letter))
            self._producer.flush(10.0)

    def _ledger(self, topic: str, partition: int) -> Ledger:
        return self._ledgers.setdefault((topic, partition), Ledger())

    def _forget(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._commit()
        for place in partitions:
            self._ledgers.pop((place.topic, place.partition), None)

    def _commit(self) -> None:
        """Commit what is finished; what is lost of that is asked of the table `deliveries` after the next start."""
        moved = [
            TopicPartition(topic, partition, offset)
            for (topic, partition), ledger in self._ledgers.items()
            if (offset := ledger.take_commit()) is not None
        ]
        if moved:
            try:
                self._consumer.commit(offsets=moved, asynchronous=False)
            except KafkaException as error:
                log.warning("offsets were not committed: %s", error)
