"""The embedded broker as a process: how it starts, refuses and ends."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.brokers import KafkaClient


def start(data: Path, port: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "driftloop.embedded.broker", "--data", str(data), "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    word, address = process.stdout.readline().split()
    assert word == "ready"
    return address


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Exit code and standard error; the broker has promised to end within five seconds."""
    if process.poll() is None:
        process.send_signal(number)
    _, errors = process.communicate(timeout=5)
    return process.returncode, errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(tmp_path / "data")
    yield process
    if process.poll() is None:
        end(process, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_broker_ends_cleanly_with_clients_connected(broker: subprocess.Popen[str], number: signal.Signals) -> None:
    kafka = KafkaClient(read_address(broker))
    topic = kafka.create_topic()
    consumer = kafka.make_consumer(group_id="waiting", fetch_wait_max_ms=60_000, socket_timeout_ms=70_000)
    consumer.subscribe([topic])
    consumer.poll(1)
    code, errors = end(broker, number)
    assert (code, errors) == (0, "")
    consumer.close()


def test_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = end_by_itself(start(tmp_path / "data", port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in errors
    assert "Traceback" not in errors


def test_folder_in_use_is_refused(broker: subprocess.Popen[str], tmp_path: Path) -> None:
    read_address(broker)
    code, errors = end_by_itself(start(tmp_path / "data"))
    assert code == 2
    assert f"in use by process {broker.pid}" in errors
    assert "Traceback" not in errors


def end_by_itself(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


def test_port_and_folder_are_free_after_the_end(broker: subprocess.Popen[str], tmp_path: Path) -> None:
    address = read_address(broker)
    assert end(broker)[0] == 0
    again = start(tmp_path / "data", int(address.split(":")[1]))
    assert read_address(again) == address
    assert end(again)[0] == 0
