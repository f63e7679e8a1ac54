"""Clients that were not written with this broker in mind: kcat, and the clients of Apache Kafka's own system tests."""

import json
import os
import shutil
import subprocess
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import find_kafka_home
from tests.contract.brokers import KafkaClient

TOOL_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def kcat() -> str:
    path = shutil.which("kcat")
    if path is None:
        pytest.skip("kcat is not installed")
    return path


@pytest.fixture(scope="module")
def kafka_home() -> Path:
    home = find_kafka_home()
    if home is None:
        pytest.skip("KAFKA_HOME is not set, or there is no java")
    return home


def run(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def run_tool(home: Path, script: str, *arguments: str) -> list[dict[str, Any]]:
    """Runs one of Kafka's tools and returns the JSON lines that it prints."""
    output = run([str(home / "bin" / script), *arguments])
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_kcat_writes_reads_and_lists(kafka: KafkaClient, kcat: str) -> None:
    topic = kafka.create_topic(2)
    lines = [f"key{number}:value{number}" for number in range(100)]
    run([kcat, "-P", "-b", kafka.bootstrap, "-t", topic, "-K:", "-z", "lz4"], "\n".join(lines) + "\n")
    came = run([kcat, "-C", "-b", kafka.bootstrap, "-t", topic, "-e", "-q", "-f", "%k:%s\n"])
    assert sorted(came.splitlines()) == sorted(lines)
    listed = json.loads(run([kcat, "-L", "-J", "-b", kafka.bootstrap, "-t", topic]))
    assert [len(one["partitions"]) for one in listed["topics"]] == [2]
    ends = run([kcat, "-Q", "-b", kafka.bootstrap, "-t", f"{topic}:0:-1", "-t", f"{topic}:1:-1"])
    assert sum(int(line.rsplit("offset ", 1)[1]) for line in ends.splitlines()) == 100


def test_verifiable_producer_and_consumer_agree(kafka: KafkaClient, kafka_home: Path) -> None:
    topic, group, num_messages = kafka.create_topic(3), f"group-{uuid.uuid4().hex}", 5000
    address = ["--bootstrap-server", kafka.bootstrap, "--topic", topic, "--max-messages", str(num_messages)]
    produced = run_tool(kafka_home, "kafka-verifiable-producer.sh", *address, "--acks", "-1")
    sent = [event for event in produced if event["name"] == "producer_send_success"]
    assert len(sent) == num_messages
    consumed = run_tool(kafka_home, "kafka-verifiable-consumer.sh", *address, "--group-id", group, "--verbose")
    records = [event for event in consumed if event["name"] == "record_data"]
    places = Counter((event["partition"], event["offset"]) for event in records)
    assert places == Counter((event["partition"], event["offset"]) for event in sent)
    assert sorted(int(event["value"]) for event in records) == list(range(num_messages))
    commits = [event for event in consumed if event["name"] == "offsets_committed"]
    assert all(event["success"] for event in commits)
    ends = [kafka.get_watermarks(topic, partition)[1] for partition in range(3)]
    committed = kafka.get_committed(group, topic, range(3))
    assert [max(offset, 0) for offset in committed] == ends


def test_transactional_copies_with_aborts_are_exact(kafka: KafkaClient, kafka_home: Path) -> None:
    """Two copiers of one group, each aborting at random: everything arrives exactly once, and in order."""
    num_messages, num_partitions = 10_000, 2
    source, target = kafka.create_topic(num_partitions), kafka.create_topic(num_partitions)
    for partition in range(num_partitions):
        values = [b"%d" % number for number in range(partition, num_messages, num_partitions)]
        kafka.produce(source, values, partition=partition, enable_idempotence=True)
    group = f"group-{uuid.uuid4().hex}"
    copiers = []
    for number in range(2):
        command = [str(kafka_home / "bin" / "kafka-run-class.sh"), "org.apache.kafka.tools.TransactionalMessageCopier"]
        command += ["--broker-list", kafka.bootstrap, "--input-topic", source, "--input-partition", "-1"]
        command += ["--output-topic", target, "--consumer-group", group, "--transactional-id", f"{group}-{number}"]
        command += ["--transaction-size", "250", "--transaction-timeout", "20000"]
        command += ["--enable-random-aborts", "--group-mode", "--use-group-metadata"]
        copiers.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "KAFKA_HEAP_OPTS": "-Xmx128m"},
            )
        )
    outputs = [copier.communicate(timeout=TOOL_TIMEOUT_S)[0] for copier in copiers]
    assert [copier.returncode for copier in copiers] == [0, 0], outputs
    copied = [
        value
        for partition in range(num_partitions)
        for value in kafka.read_values(target, partition, isolation_level="read_committed")
    ]
    assert sorted(int(value or b"-1") for value in copied) == list(range(num_messages))
    written = sum(len(kafka.read(target, partition, isolation_level="read_uncommitted")) for partition in range(2))
    assert written > num_messages, "no transaction was aborted: the test says nothing"
    ends = [kafka.get_watermarks(source, partition)[1] for partition in range(num_partitions)]
    assert kafka.get_committed(group, source, range(num_partitions)) == ends


def test_kafkas_administration_tools_understand_the_broker(kafka: KafkaClient, kafka_home: Path) -> None:
    topic, scripts = f"topic-{uuid.uuid4().hex}", kafka_home / "bin"
    address = ["--bootstrap-server", kafka.bootstrap]
    run([str(scripts / "kafka-topics.sh"), *address, "--create", "--topic", topic, "--partitions", "2"])
    described = run([str(scripts / "kafka-topics.sh"), *address, "--describe", "--topic", topic])
    assert "PartitionCount: 2" in described
    entity = ["--entity-type", "topics", "--entity-name", topic]
    run([str(scripts / "kafka-configs.sh"), *address, "--alter", *entity, "--add-config", "retention.ms=123456"])
    assert "retention.ms=123456" in run([str(scripts / "kafka-configs.sh"), *address, "--describe", *entity])
    kafka.produce(topic, [b"x"] * 7)
    assert f"{topic}:0:7" in run([str(scripts / "kafka-get-offsets.sh"), *address, "--topic", topic])
