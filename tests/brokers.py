"""Real brokers as processes, for tests that start, stop and kill them.

`EmbeddedBroker` always works; `ApacheKafka` needs an unpacked distribution (`KAFKA_HOME`) and Java 17.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).resolve().parents[1]


class BrokerFailed(RuntimeError):
    """A broker did not start, or ended by itself."""


class AnyBroker(Protocol):
    """What tests do with a broker; `kill` is SIGKILL, and `start` afterwards uses the same data and port."""

    @property
    def bootstrap(self) -> str: ...

    def start(self, timeout_s: float = 30) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether something listens on the port before the deadline (time.monotonic) and before the process ends."""
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


class BrokerProcess:
    """A broker's process, its log, and how it ends."""

    def __init__(self, folder: Path, port: int | None) -> None:
        self.folder = folder
        self.port = port or find_free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.folder / "output.log"

    def run(self, command: list[str], timeout_s: float, environment: dict[str, str] | None = None) -> None:
        """Starts the command in a process group of its own and waits until its port answers."""
        if self.process is not None and self.process.poll() is None:
            raise BrokerFailed(f"{self.bootstrap} runs already")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=REPOSITORY, env=environment, start_new_session=True
            )
        if not wait_for_port(self.port, self.process, time.monotonic() + timeout_s):
            self.kill()
            tail = self.log_path.read_text(errors="replace")[-2000:]
            raise BrokerFailed(f"no broker on {self.bootstrap} after {timeout_s} s:\n{tail}")

    def _signal(self, number: signal.Signals, timeout_s: float) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)
            self.process.wait(timeout_s)
        self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for a broker that does not end; then the test fails."""
        try:
            self._signal(signal.SIGTERM, 30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self._signal(signal.SIGKILL, 10)


class EmbeddedBroker(BrokerProcess):
    """The broker of this repository; `folder` gets its data and its output."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, port)
        self.data = folder / "data"

    def start(self, timeout_s: float = 30) -> None:
        module = [sys.executable, "-m", "driftloop.embedded.broker"]
        options = ["--data", str(self.data), "--port", str(self.port), "--retention-check-s", "1"]
        self.run([*module, *options], timeout_s)


class ApacheKafka(BrokerProcess):
    """One node of Apache Kafka (KRaft), started by its own scripts.

    `properties` go over the defaults. A listener that asks for SASL/PLAIN, as an example:

        {"listeners": f"SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
         "listener.security.protocol.map": "SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
         "inter.broker.listener.name": "SASL_PLAINTEXT", "sasl.enabled.mechanisms": "PLAIN",
         "sasl.mechanism.inter.broker.protocol": "PLAIN",
         "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka…PlainLoginModule required …;"}

    `enable_sasl(user, password)` sets exactly these.
    """

    def __init__(
        self, kafka_home: Path, folder: Path, port: int | None = None, properties: dict[str, str] | None = None
    ) -> None:
        super().__init__(folder, port)
        self.kafka_home = kafka_home
        self.controller_port = find_free_port()
        self.properties = dict(properties or {})

    def enable_sasl(self, user: str, password: str) -> None:
        """Clients then need security.protocol=SASL_PLAINTEXT and sasl.mechanism=PLAIN; call it before `start`."""
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        self.properties |= {
            "listeners": f"SASL_PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"SASL_PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
                f'{module} required username="{user}" password="{password}" user_{user}="{password}";'
            ),
        }

    def _build_properties(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "log.retention.check.interval.ms": "1000",
            "log.cleaner.backoff.ms": "1000",
            "log.initial.task.delay.ms": "1000",
            # The default of 128 MiB is more than a small machine has to spare.
            "log.cleaner.dedupe.buffer.size": "16777216",
            **self.properties,
        }

    def start(self, timeout_s: float = 120) -> None:
        config = self.folder / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._build_properties().items()))
        environment = {**os.environ, "KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m", "LOG_DIR": str(self.folder / "logs")}
        bin_folder = self.kafka_home / "bin"
        if not (self.folder / "data" / "meta.properties").exists():
            subprocess.run(
                [bin_folder / "kafka-storage.sh", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config],
                check=True,
                capture_output=True,
                env=environment,
                timeout=timeout_s,
            )
        self.run([str(bin_folder / "kafka-server-start.sh"), str(config)], timeout_s, environment)


def find_kafka_home() -> Path | None:
    """The distribution that KAFKA_HOME names, where Java is there to run it."""
    home = os.environ.get("KAFKA_HOME")
    return Path(home).resolve() if home and shutil.which("java") else None


def available_brokers() -> list[str]:
    """The kinds of broker that can be started here: `embedded`, and `kafka` where KAFKA_HOME and Java are."""
    return ["embedded", *(["kafka"] if find_kafka_home() else [])]


def make_broker(kind: str, folder: Path, port: int | None = None) -> EmbeddedBroker | ApacheKafka:
    """A broker of one of `available_brokers`, not yet started."""
    if kind == "embedded":
        return EmbeddedBroker(folder, port)
    home = find_kafka_home()
    if kind != "kafka" or home is None:
        raise ValueError(f"there is no broker of kind {kind!r} here")
    return ApacheKafka(home, folder, port)
