"""The scorer role: every record gets a prediction from each version of ours that has a role.

Owns the swap of versions and the order of its steps: read the roles, score, send, and only then
commit, so that a record is scored at least once, and a repeated one gets the same prediction to the
bit. It must not publish dead letters; the monitor does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from retrain.device import pin_threads
from retrain.predictions import encode_predictions
from retrain.preprocessing import FeatureRows
from retrain.role_maps import list_scored
from retrain.serving import LoadedVersions
from schemas.clock import Clock, SystemClock
from schemas.columns import EventColumns
from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.messages import MessageBatch
from schemas.validation import Validated, validate
from store.client import ClickHouse
from store.log import Producer, RoleFollower, SpecFollower

log = logging.getLogger(__name__)

_GROUP = "driftloop-score"
# Enough to score in bulk, few enough that a batch takes well under a second.
_NUM_MESSAGES_MAX = 5_000
_POLL_S = 0.2
_TIMEOUT_S = 10.0
_BACKOFF_S_MAX = 10.0


class Scorer:
    """Scores `records` with the champion, the challenger and the shadow of each model, where they are ours."""

    def __init__(self, runtime: Runtime, clock: Clock | None = None) -> None:
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._pending: list[MessageBatch] = []
        self._refused: set[tuple[str, str]] = set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; returns within five seconds. What is not committed then is scored again later."""
        pin_threads()
        self._connect()
        try:
            backoff_s = _POLL_S
            while not stop.is_set():
                try:
                    self.step()
                    backoff_s = _POLL_S
                except Retryable as error:
                    log.warning("%s; trying again in %.1f s", error, backoff_s)
                    stop.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_S_MAX)
        finally:
            self._close()

    def step(self) -> None:
        """
        1. take what has come, or what the last step could not finish;
        2. read `models` to its present end: whatever was promoted before these records were sent is known;
        3. score and send;
        4. wait until all is in the log;
        5. commit.
        """
        if not self._pending:
            self._pending = self._read()
        if not self._pending:
            return
        self._roles.refresh(_TIMEOUT_S)
        num_sent = sum(self._score_batch(batch) for batch in self._pending)
        self._producer.flush(_TIMEOUT_S)
        self._commit(self._pending)
        self._pending = []
        if num_sent:
            log.debug("sent %d predictions", num_sent)

    def _read(self) -> list[MessageBatch]:
        messages = self._consumer.consume(_NUM_MESSAGES_MAX, timeout=_POLL_S)
        by_partition: dict[int, list[Any]] = {}
        for message in messages:
            error = message.error()
            if error is None:
                by_partition.setdefault(message.partition(), []).append(message)
            elif not error.retriable():
                raise Retryable(f"cannot read records: {error.str()}")
        topic = self._runtime.topics("records")
        return [_batch_messages(topic, partition, taken) for partition, taken in sorted(by_partition.items())]

    def _score_batch(self, batch: MessageBatch) -> int:
        """Score one partition's messages; return the number of predictions sent."""
        return sum(self._score_columns(columns) for columns in self._validate(batch).columns)

    def _validate(self, batch: MessageBatch) -> Validated:
        validated = validate("records", batch, self._specs.catalogue, self._runtime.privacy_key)
        if validated.unknown_models:
            # The spec may have been published after the last look.
            self._specs.refresh(_TIMEOUT_S)
            validated = validate("records", batch, self._specs.catalogue, self._runtime.privacy_key)
        return validated

    def _score_columns(self, columns: EventColumns) -> int:
        role_map = self._roles.current(columns.model)
        if role_map is None or columns.num_rows == 0:
            return 0
        topic = self._runtime.topics("predictions")
        rows: FeatureRows | None = None
        num_sent = 0
        for version in list_scored(role_map):
            model = self._versions.find(columns.model, version)
            if model is None:
                continue  # an outside version sends its own predictions
            rows = rows or FeatureRows.of_columns(columns)
            values = encode_predictions(columns, version, model.score(rows))
            for record_id, value in zip(columns.record_id, values, strict=True):
                self._producer.produce(topic, record_id, value)
            num_sent += len(values)
        return num_sent

    def _commit(self, batches: Sequence[MessageBatch]) -> None:
        offsets = [TopicPartition(batch.topic, batch.partition, int(batch.offsets[-1]) + 1) for batch in batches]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # Another scorer has the partition now and sends the same predictions again; the first counts.
            log.warning("offsets were not committed, these records are scored again: %s", error)

    def _connect(self) -> None:
        runtime = self._runtime
        self._ch = ClickHouse(runtime.clickhouse)
        self._specs = SpecFollower(runtime.kafka, runtime.topics)
        self._roles = RoleFollower(runtime.kafka, runtime.topics)
        self._versions = LoadedVersions(self._ch, runtime.artifacts, self._clock)
        self._producer = Producer(runtime.kafka, compression_type="lz4")
        self._consumer = Consumer(
            runtime.kafka.librdkafka(
                group_id=runtime.topics(_GROUP),
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                isolation_level="read_committed",
                session_timeout_ms=10_000,
                # The default of one second throttles bulk reading.
                fetch_queue_backoff_ms=5,
            )
        )
        self._consumer.subscribe([runtime.topics("records")])

    def _close(self) -> None:
        self._consumer.close()
        self._producer.close()
        self._specs.close()
        self._roles.close()
        self._ch.close()


def _batch_messages(topic: str, partition: int, messages: Sequence[Any]) -> MessageBatch:
    headers = {index: found for index, message in enumerate(messages) if (found := message.headers())}
    values = [message.value() for message in messages]
    return MessageBatch(
        topic=topic,
        topic_id="",  # only dead letters carry it, and they are the monitor's
        partition=partition,
        offsets=np.array([message.offset() for message in messages], np.int64),
        timestamps=np.array([message.timestamp()[1] for message in messages], np.int64),
        values=values,
        headers={index: [(name, value or b"") for name, value in found] for index, found in headers.items()},
        keys={index: messages[index].key() for index, value in enumerate(values) if value is None},
    )
