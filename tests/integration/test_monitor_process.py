"""How the monitor's process begins and ends: a killed one is back soon, a stopped one lets others go on soon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from schemas.connections import Runtime
from schemas.spec import (
    FeatureSpec,
    ModelSpec,
    PublishedSpec,
    ReferenceSource,
    WindowSpec,
    default_alerts,
    default_performance,
    encode_published,
)
from store.log import Producer
from store.summaries import read_markers
from streams.app import name_job
from tests.brokers import available_brokers
from tests.role_process import RoleProcess
from tests.servers import Servers, run_servers

START_MS = 1_700_000_000_000
WAIT_S = 240

# Each takes a tenth of a second to seconds to import. What measures may have them; what counts may not.
HEAVY = {
    "aiohttp", "click", "evidently", "httpx", "matplotlib", "measures", "narwhals", "pandas", "plotly",
    "pyarrow.compute", "retrain", "rich", "river", "scipy", "sklearn", "torch",
}  # fmt: skip


@pytest.fixture(params=available_brokers())
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    with run_servers(request.param, tmp_path) as servers:
        yield servers


def publish_model(runtime: Runtime) -> None:
    spec = ModelSpec(
        model="m", task="binary", reference=ReferenceSource(file="r.csv"), segments=["country"],
        features={"amount": FeatureSpec(type="number"), "country": FeatureSpec(type="category")},
        windows=WindowSpec(size_ms=3_600_000, lateness_ms=60_000),
        performance=default_performance("binary"), alerts=default_alerts(),
    )  # fmt: skip
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="h", reference_rows=1,
        cuts={"amount": [-1.0, 0.0, 1.0]}, categories={"country": ["DE"]}, segment_values={"country": ["DE"]},
    )  # fmt: skip
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics("specs"), published.key, encode_published(published))
    producer.flush()


def produce(runtime: Runtime, numbers: range) -> None:
    producer = Producer(runtime.kafka)
    for number in numbers:
        event = {
            "record_id": f"r{number}", "model": "m", "ts": START_MS + number, "score": 0.5,
            "features": {"amount": 0.5, "country": "DE"}, **({"model_version": "1"} if number % 2 else {}),
        }  # fmt: skip
        producer.produce(runtime.topics("predictions"), event["record_id"], json.dumps(event).encode())
        producer.produce(runtime.topics("records"), event["record_id"], json.dumps(event).encode())
    producer.produce(runtime.topics("records"), "r", b"{")
    producer.flush()


def read_num_counted(stack: Servers) -> int:
    return sum(marker.next_offset for marker in read_markers(stack.store, name_job(stack.runtime)))


def wait_until(is_true: Callable[[], bool], role: RoleProcess) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_true():
        assert role.process.poll() is None, role.log
        assert time.monotonic() < deadline_s, role.log
        time.sleep(0.1)


def test_a_restored_monitor_counts_without_what_measures_and_leaves_no_file(stack: Servers, tmp_path: Path) -> None:
    """Twice, the second time with state to restore; SIGKILL in between, after which no file may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    publish_model(stack.runtime)
    num_counted = 0
    for start in (0, 500):
        produce(stack.runtime, range(start, start + 500))
        monitor = RoleProcess(
            "monitor", stack.runtime, tmp_path / f"monitor-{start}.log", "m-0", ("-m", "tests.monitor_probe"),
            {"TMPDIR": str(folder), "FAUST_DATADIR": str(folder / "faust")},
        )  # fmt: skip
        try:
            wait_until(lambda role=monitor: "IMPORTED" in role.log, monitor)  # type: ignore[misc]
            num_before, num_counted = num_counted, read_num_counted(stack)
        finally:
            monitor.kill()
        assert num_counted > num_before
        line = next(line for line in monitor.log.splitlines() if line.startswith("IMPORTED"))
        imported = set(line.split()[1:])
        assert "faust" in imported
        assert imported.isdisjoint(HEAVY)
        assert imported.isdisjoint({"streams.workbench", "streams.measuring", "streams.monitoring", "streams.judging"})
        assert list(folder.iterdir()) == []


def list_members(runtime: Runtime) -> set[str]:
    group = name_job(runtime)
    admin = AdminClient(runtime.kafka.librdkafka())  # named, since it would be gone before it has the answer
    return {member.group_instance_id for member in admin.describe_consumer_groups([group])[group].result(30).members}


def owns(worker: RoleProcess, num_partitions: int) -> bool:
    """Whether the last assignment that a worker tells of has so many of the 12 partitions."""
    told = [line for line in worker.log.splitlines() if "streams.counting: counts " in line]
    return bool(told) and told[-1].count("@") == num_partitions


def test_a_worker_that_stops_leaves_its_partitions_to_others_but_keeps_its_place_alone(
    stack: Servers, tmp_path: Path
) -> None:
    publish_model(stack.runtime)
    workers: dict[str, RoleProcess] = {}
    try:
        for name in ("m-0", "m-1"):
            workers[name] = RoleProcess("monitor", stack.runtime, tmp_path / f"{name}.log", name)
            wait_until(lambda name=name: owns(workers[name], 12 if name == "m-0" else 6), workers[name])  # type: ignore[misc]
        wait_until(lambda: owns(workers["m-0"], 6), workers["m-0"])
        assert list_members(stack.runtime) == {"m-0", "m-1"}
        # Its session would go on for seconds.
        assert workers["m-1"].stop(60) == 0
        assert list_members(stack.runtime) == {"m-0"}
        wait_until(lambda: owns(workers["m-0"], 12), workers["m-0"])
        assert workers["m-0"].stop(60) == 0
        assert list_members(stack.runtime) == {"m-0"}
    finally:
        for worker in workers.values():
            if worker.process.poll() is None:
                worker.kill()
