"""Apache Kafka as a peer of the embedded broker: one node, by its own scripts, from an unpacked distribution."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.connections import KafkaConnection
from store.log.offsets import wait_for_log

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
_HEAP = "-Xms256m -Xmx1g"


@contextmanager
def run_kafka(home: Path, folder: Path, port: int, controller_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a broker on this port, its data in `folder`, until the block ends."""
    folder.mkdir(parents=True)
    properties = folder / "server.properties"
    properties.write_text(_format_properties(folder / "data", port, controller_port))
    environment = {**os.environ, "KAFKA_HEAP_OPTS": _HEAP, "LOG_DIR": str(folder / "logs")}
    scripts = home / "bin"
    subprocess.run(
        [scripts / "kafka-storage.sh", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", properties],
        check=True,
        capture_output=True,
        env=environment,
        timeout=START_TIMEOUT_S,
    )
    with (folder / "output.log").open("wb") as log:
        # A session of its own: the script starts Java, and both are to end.
        process = subprocess.Popen(
            [scripts / "kafka-server-start.sh", properties], stdout=log, stderr=log, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_log(KafkaConnection(f"127.0.0.1:{port}"), START_TIMEOUT_S)
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _format_properties(data: Path, port: int, controller_port: int) -> str:
    host = "127.0.0.1"
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{host}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # The default of 128 MiB is more than a small machine has to spare.
        "log.cleaner.dedupe.buffer.size": "16777216",
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())
