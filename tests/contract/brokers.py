"""The brokers that the contract suite runs on, and a client that says what a test wants in one line."""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.brokers import available_brokers, make_broker

KINDS = ("embedded", "kafka")
# A bound for broken brokers, not a measure: a busy machine may take a while.
TIMEOUT_S = 60.0


def skip_missing(kind: str) -> None:
    """Skips a test for a broker that cannot be started here, and says why."""
    if kind not in available_brokers():
        reason = "KAFKA_HOME is not set" if not os.environ.get("KAFKA_HOME") else "there is no java"
        pytest.skip(f"no Apache Kafka: {reason}")


def start_container() -> tuple[str, Callable[[], None]]:
    """Bootstrap address and stop function of a broker in a container; raises LookupError without Docker."""
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        raise LookupError("there is no Docker: no /var/run/docker.sock, and DOCKER_HOST is not set")
    import docker

    try:
        from testcontainers.community.kafka import KafkaContainer
    except ImportError:  # Until 4.14 it was there.
        from testcontainers.kafka import KafkaContainer

    try:
        with contextlib.closing(docker.from_env(timeout=5)) as client:
            client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise LookupError(f"Docker does not answer: {error}") from error
    container = KafkaContainer().with_kraft()
    for name, value in {
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS": "1000",
        "KAFKA_LOG_CLEANER_BACKOFF_MS": "1000",
        "KAFKA_LOG_INITIAL_TASK_DELAY_MS": "1000",
    }.items():
        container.with_env(name, value)
    container.start()
    return container.get_bootstrap_server(), container.stop


@pytest.fixture(scope="session", params=[*KINDS, "container"])
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running broker; one of each kind serves the whole session."""
    if request.param == "container":
        try:
            address, stop = start_container()
        except LookupError as reason:
            pytest.skip(str(reason))
        yield address
        stop()
        return
    skip_missing(request.param)
    broker = make_broker(request.param, Path(tmp_path_factory.mktemp(request.param)))
    broker.start()
    yield broker.bootstrap
    broker.stop()


@pytest.fixture
def kafka(bootstrap: str) -> "KafkaClient":
    return KafkaClient(bootstrap)


@pytest.fixture(params=KINDS)
def mortal_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A broker of the test's own, which the test may kill and start again."""
    skip_missing(request.param)
    broker = make_broker(request.param, tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()
    shutil.rmtree(broker.folder)


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Polls until the condition is true and returns its value; fails naming what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"after {timeout_s} s: not {what}")
        time.sleep(0.05)
    return value


class KafkaClient:
    """What tests do again and again, through confluent-kafka, on topics with names of their own."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create_topic(self, num_partitions: int = 1, name: str | None = None, **config: str) -> str:
        """Makes a topic (keywords are its configuration, `_` for `.`) and waits until clients can see it."""
        name = name or f"topic-{uuid.uuid4().hex}"
        options = {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(name, num_partitions, 1, config=options)
        self.admin.create_topics([topic])[name].result(TIMEOUT_S)
        wait_until(lambda: self._is_led(name, num_partitions), f"{name} ready")
        return name

    def _is_led(self, topic: str, num_partitions: int) -> bool:
        """Whether every partition answers; Apache Kafka needs a moment after it has said that a topic is there."""
        asked = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(num_partitions)}
        try:
            return all(answer.result(TIMEOUT_S) for answer in self.admin.list_offsets(asked).values())
        except KafkaException:
            return False

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result(TIMEOUT_S)
        wait_until(lambda: name not in self.admin.list_topics(timeout=TIMEOUT_S).topics, f"{name} gone")

    def make_producer(self, **config: Any) -> Producer:
        return Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 0, **_dotted(config)})

    def produce(
        self, topic: str, values: Iterable[bytes | dict[str, Any] | None], partition: int = 0, **config: Any
    ) -> list[Message]:
        """Sends values (or the keyword arguments of `Producer.produce`) and returns the delivered messages in order."""
        producer, delivered, failed = self.make_producer(**config), [], []

        def note(error: KafkaError | None, message: Message) -> None:
            (failed if error else delivered).append(error or message)

        for value in values:
            fields = value if isinstance(value, dict) else {"value": value}
            producer.produce(topic, partition=partition, on_delivery=note, **fields)
        assert producer.flush(TIMEOUT_S) == 0
        if failed:
            raise KafkaException(failed[0])
        return delivered

    def make_consumer(self, **config: Any) -> Consumer:
        defaults = {
            "bootstrap.servers": self.bootstrap,
            "group.id": f"group-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        return Consumer({**defaults, **_dotted(config)})

    def read(self, topic: str, partition: int = 0, offset: int = 0, **config: Any) -> list[Message]:
        """Everything in a partition from an offset to its present end."""
        consumer = self.make_consumer(enable_partition_eof=True, **config)
        consumer.assign([TopicPartition(topic, partition, offset)])
        messages: list[Message] = []
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while time.monotonic() < deadline:
                for message in consumer.consume(1000, timeout=0.2):
                    if message.error() is None:
                        messages.append(message)
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        return messages
                    else:
                        raise KafkaException(message.error())
        finally:
            consumer.close()
        pytest.fail(f"no end of {topic}-{partition} within {TIMEOUT_S} s; {len(messages)} messages came")

    def read_values(self, topic: str, partition: int = 0, **config: Any) -> list[bytes | None]:
        return [message.value() for message in self.read(topic, partition, **config)]

    def get_watermarks(self, topic: str, partition: int = 0) -> tuple[int, int]:
        """The partition's start and end offset."""
        consumer = self.make_consumer()
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
            return int(low), int(high)
        finally:
            consumer.close()

    def get_committed(self, group: str, topic: str, partitions: Sequence[int] = (0,)) -> list[int]:
        consumer = self.make_consumer(group_id=group)
        try:
            places = [TopicPartition(topic, partition) for partition in partitions]
            return [place.offset for place in consumer.committed(places, timeout=TIMEOUT_S)]
        finally:
            consumer.close()


def _dotted(config: dict[str, Any]) -> dict[str, Any]:
    """Python keywords as librdkafka spells its settings."""
    return {key.replace("_", "."): value for key, value in config.items()}


def get_code(error: BaseException) -> int:
    """Kafka's code in what a client raised."""
    code = error.args[0].code()
    assert isinstance(code, int)
    return code
