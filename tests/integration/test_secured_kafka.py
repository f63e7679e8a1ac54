"""The security options of librdkafka reach Faust: the monitor on a broker that asks for SASL/PLAIN."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from store.client import ClickHouse
from store.log import apply_topics
from store.migrations import migrate
from store.summaries import read_markers
from streams.app import name_job
from tests.brokers import ApacheKafka, find_kafka_home
from tests.clickhouses import EmbeddedClickHouse
from tests.role_process import RoleProcess, make_runtime

WAIT_S = 240


@pytest.mark.skipif(find_kafka_home() is None, reason="needs KAFKA_HOME: the embedded broker has no SASL")
@pytest.mark.timeout(600)
def test_the_monitor_reads_with_a_password(tmp_path: Path) -> None:
    home = find_kafka_home()
    assert home is not None
    broker = ApacheKafka(home, tmp_path / "kafka")
    broker.enable_sasl("monitor", "secret")
    clickhouse = EmbeddedClickHouse(tmp_path / "clickhouse")
    options = {
        "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "monitor",
        "sasl.password": "secret",
    }  # fmt: skip
    broker.start()
    monitor: RoleProcess | None = None
    try:
        clickhouse.start()
        runtime = make_runtime(broker.bootstrap, clickhouse.url, "t", tmp_path, options=options)
        store = ClickHouse(runtime.clickhouse)
        migrate(store)
        apply_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
        monitor = RoleProcess("monitor", runtime, tmp_path / "monitor.log", "monitor-1")
        deadline_s = time.monotonic() + WAIT_S
        while sum(marker.at_end_at > 0 for marker in read_markers(store, name_job(runtime))) < 12:
            assert time.monotonic() < deadline_s, monitor.log[-3000:]
            time.sleep(0.2)
        assert monitor.stop() == 0
        store.close()
    finally:
        if monitor is not None and monitor.process.poll() is None:
            monitor.kill()
        clickhouse.stop()
        broker.stop()
