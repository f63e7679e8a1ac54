"""The monitor as a process of its own, so that tests can kill it: `python -m tests.monitor_process SETTINGS-JSON`."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from schemas.connections import ClickHouseConnection, KafkaConnection, Runtime, TopicNames

REPOSITORY = Path(__file__).resolve().parents[1]


def make_runtime(settings: dict[str, object]) -> Runtime:
    """Surroundings of one test: `name` is its database and the prefix of its topics."""
    name = str(settings["name"])
    return Runtime(
        kafka=KafkaConnection(str(settings["kafka"]), dict(settings.get("options", {}))),  # type: ignore[call-overload]
        clickhouse=ClickHouseConnection(str(settings["clickhouse"]), database=name),
        topics=TopicNames(prefix=f"{name}-"),
        artifacts=str(settings["folder"]),
        data=str(settings["folder"]),
        privacy_key=b"test",
        num_partitions=int(str(settings.get("num_partitions", 4))),
    )


class MonitorProcess:
    """One monitor worker; what it logs goes to `log_path`."""

    def __init__(self, settings: dict[str, object], worker: str, log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.monitor_process", worker, json.dumps(settings)],
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout_s: float = 15) -> int:
        """SIGTERM; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def main() -> None:
    from streams.app import run_monitor

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(os.environ.get("FAUST_LOG_LEVEL", "WARNING"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_monitor(make_runtime(json.loads(sys.argv[2])), sys.argv[1], stop)


if __name__ == "__main__":
    main()
