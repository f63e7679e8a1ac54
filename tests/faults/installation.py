"""The system as processes of which each can be killed: broker, ClickHouse, sink, and some workers of the monitor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Producer as LibrdkafkaProducer

from driftloop.applying import apply_spec
from driftloop.replay.settling import Settling
from schemas.connections import Runtime
from schemas.topics import INBOUND, WATERMARK_HEADER
from store.client import ClickHouse
from store.log import apply_topics
from store.migrations import migrate
from tests.brokers import ApacheKafka, EmbeddedBroker, make_broker
from tests.clickhouses import EmbeddedClickHouse
from tests.faults.arrivals import NUM_PARTITIONS, Message
from tests.faults.log_order import Entry
from tests.faults.models import MODELS, SPAN_MS, START_MS
from tests.role_process import RoleProcess, make_runtime

# Behind the last window, and before its retention ends: then what was counted in it is not deleted yet.
END_MS = START_MS + SPAN_MS
DELIVERY_TIMEOUT_S = 60.0


@dataclass
class Installation:
    """Servers and roles of one run; whoever kills one starts it again with `start`."""

    folder: Path
    broker: EmbeddedBroker | ApacheKafka
    clickhouse: EmbeddedClickHouse
    runtime: Runtime
    store: ClickHouse
    roles: dict[str, RoleProcess] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a role, `sink` or `monitor-N`, or ClickHouse."""
        if name == "clickhouse":
            self.clickhouse.start()
            return
        role = name.partition("-")[0]
        self.roles[name] = RoleProcess(role, self.runtime, self.folder / f"{name}.log", name)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        (self.clickhouse if name == "clickhouse" else self.roles[name]).kill()

    def require_alive(self) -> None:
        """Fail when a role has ended by itself."""
        for name, role in self.roles.items():
            assert role.process.poll() is None, f"{name} ended:\n{role.log[-3000:]}"

    def send(self, messages: Sequence[Message]) -> None:
        """Send in this order, so that a partition's log is the same in every run; returns when all is in the log."""
        producer = LibrdkafkaProducer(
            self.runtime.kafka.librdkafka(linger_ms=20, enable_idempotence=True, queue_buffering_max_messages=1_000_000)
        )
        for message in messages:
            topic = self.runtime.topics(message.topic)
            producer.produce(topic, message.value, partition=message.partition, headers=message.headers or None)
        assert producer.flush(DELIVERY_TIMEOUT_S) == 0

    def finish(self, timeout_s: float) -> None:
        """Say on every partition that nothing more will come, and wait until everything is measured."""
        producer = LibrdkafkaProducer(self.runtime.kafka.librdkafka())
        header = [(WATERMARK_HEADER, str(END_MS).encode())]
        for model in MODELS:
            for topic in INBOUND:
                for partition in range(NUM_PARTITIONS):
                    producer.produce(self.runtime.topics(topic), None, model, partition, headers=header)
        assert producer.flush(DELIVERY_TIMEOUT_S) == 0
        deadline_s = time.monotonic() + timeout_s
        for model in MODELS:
            settling = Settling(self.runtime, model)
            # Seldom: its questions are heavy, and the store has better things to do.
            while missing := settling.find_missing(START_MS, END_MS):
                self.require_alive()
                assert time.monotonic() < deadline_s, f"{model}: waited {timeout_s} s for {missing}"
                time.sleep(1.0)
            settling.close()

    def read_log(self) -> list[Entry]:
        """Read the inbound topics back, each partition in order; watermark messages are left out."""
        consumer = Consumer(self.runtime.kafka.librdkafka(group_id="read-back", enable_auto_commit=False))
        topic_of = {self.runtime.topics(topic): topic for topic in INBOUND}
        places = [TopicPartition(name, partition, 0) for name in topic_of for partition in range(NUM_PARTITIONS)]
        ends = {
            (place.topic, place.partition): consumer.get_watermark_offsets(place, timeout=10)[1] for place in places
        }
        num_left = sum(ends.values())
        consumer.assign(places)
        entries: list[Entry] = []
        while num_left:
            messages = consumer.consume(min(10_000, num_left), timeout=10)
            assert messages, f"{num_left} messages are missing"
            num_left -= len(messages)
            for message in messages:
                assert message.error() is None
                if (value := message.value()) is not None:
                    place = (topic_of[message.topic()], message.partition(), message.offset())
                    entries.append(Entry(*place, message.timestamp()[1], value, message.headers() or []))
        consumer.close()
        return entries


@contextmanager
def run_installation(
    folder: Path,
    specs: Sequence[Path],
    num_monitors: int,
    kind: str = "embedded",
    options: Mapping[str, str] | None = None,
) -> Iterator[Installation]:
    """Start everything, the specs applied; stop it afterwards, and print the end of each log on failure."""
    folder.mkdir(parents=True)
    broker = make_broker(kind, folder / "broker")
    clickhouse = EmbeddedClickHouse(folder / "clickhouse")
    running: Installation | None = None
    try:
        broker.start()
        clickhouse.start()
        runtime = make_runtime(broker.bootstrap, clickhouse.url, "t", folder, NUM_PARTITIONS, options)
        running = Installation(folder, broker, clickhouse, runtime, ClickHouse(runtime.clickhouse))
        migrate(running.store)
        apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
        for spec in specs:
            apply_spec(runtime, spec)
        for name in ("sink", *(f"monitor-{number}" for number in range(1, num_monitors + 1))):
            running.start(name)
        yield running
    except BaseException:
        for name, role in (running.roles if running else {}).items():
            print(f"--- {name}\n{role.log[-4000:]}")
        raise
    finally:
        if running is not None:
            for role in running.roles.values():
                role.kill()
            running.store.close()
        clickhouse.stop()
        broker.stop()
