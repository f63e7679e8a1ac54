"""A role as a process of its own, so that tests can kill it: `python -m tests.role_process ROLE RUNTIME-JSON`."""

import importlib
import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime, TopicNames

REPOSITORY = Path(__file__).resolve().parents[1]
ROLES = {"sink": ("consumers.sink", "Sink"), "notify": ("consumers.notify", "Notifier")}


def make_runtime(bootstrap: str, clickhouse_url: str, name: str, folder: Path, num_partitions: int = 4) -> Runtime:
    """Surroundings of one test on shared servers: `name` is its database and the prefix of its topics."""
    return Runtime(
        kafka=KafkaConnection(bootstrap),
        clickhouse=ClickHouseConnection(clickhouse_url, database=name),
        topics=TopicNames(prefix=f"{name}-"),
        artifacts=str(folder / "artifacts"),
        data=str(folder),
        privacy_key=b"test",
        num_partitions=num_partitions,
    )


class RoleProcess:
    """One role, started with a runtime; what it logs goes to `log_path`."""

    def __init__(self, role: str, runtime: Runtime, log_path: Path) -> None:
        self.log_path = log_path
        settings = {
            "kafka": runtime.kafka.bootstrap_servers,
            "clickhouse": runtime.clickhouse.url,
            "name": runtime.clickhouse.database,
            "folder": runtime.data,
        }
        with log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.role_process", role, json.dumps(settings)],
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout_s: float = 10) -> int:
        """End it with SIGTERM and give its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    role, settings = sys.argv[1], json.loads(sys.argv[2])
    runtime = make_runtime(settings["kafka"], settings["clickhouse"], settings["name"], Path(settings["folder"]))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    module, name = ROLES[role]
    getattr(importlib.import_module(module), name)(runtime).run(stop)


if __name__ == "__main__":
    main()
