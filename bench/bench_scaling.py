"""How much more do two monitors take in than one, of one topic in one run?

Measured once both have partitions. On a machine with two cores they share these with the broker and ClickHouse, so the
row says how many cores each kept busy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka.admin import AdminClient

from bench.loads import JSON, Busy, keep_busy
from bench.processes import read_cpu_s
from bench.progress import watch
from bench.results import Result, compare
from bench.surroundings import Options, Servers, empty, run_servers, run_workers, wait_until
from schemas.connections import Runtime
from schemas.topics import MONITOR

TIMEOUT_S = 600.0
BALANCE_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 10.0
ASK_S = 0.2


def run(options: Options) -> list[Result]:
    with run_servers(options) as servers:
        # Much of it is gone before the second has its partitions.
        busy = keep_busy(servers, JSON, elapsed_s=12.0 if options.short else 40.0)
        return [measure_two(servers, busy)]


def measure_two(servers: Servers, busy: Busy) -> Result:
    """Let two workers count the topic anew."""
    runtime = empty(busy.runtime, "scaling_two")
    admin = AdminClient({"log_level": 2} | runtime.kafka.librdkafka())
    with run_workers(runtime, "monitor", 2) as roles:
        wait_until(
            lambda: is_shared(admin, runtime, len(roles)), BALANCE_TIMEOUT_S, "both to have partitions", roles, ASK_S
        )
        pids = {**servers.pids, **{f"worker {number}": role.pid for number, role in enumerate(roles, 1)}}
        started_s, before = time.perf_counter(), read_cores(pids)
        progress = watch(runtime, roles, busy.num_messages, TIMEOUT_S)["monitor"]
        elapsed_s, after = time.perf_counter() - started_s, read_cores(pids)
    used = ", ".join(f"{name} {(after[name] - before[name]) / elapsed_s:.2f}" for name in pids)
    name = f"JSON: two monitors (cores used: {used})"
    return compare(name, progress.measure().per_s, "events/s", "one monitor", busy.monitor.measure().per_s)


def is_shared(admin: AdminClient, runtime: Runtime, num_workers: int) -> bool:
    """Whether so many members of the monitor's group have partitions of the topic of predictions."""
    group, topic = runtime.topics(MONITOR), runtime.topics("predictions")
    described = admin.describe_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S)[group].result()
    owners = [
        member
        for member in described.members
        if member.assignment and any(place.topic == topic for place in member.assignment.topic_partitions)
    ]
    return len(owners) == num_workers


def read_cores(pids: Mapping[str, int]) -> dict[str, float]:
    """Give the processor seconds of each process so far."""
    return {name: read_cpu_s(pid) for name, pid in pids.items()}
