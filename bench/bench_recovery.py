"""How long after a SIGKILL does the monitor apply the next event?

A static member that is started again at once, under a steady load; from the kill to the first growth of stage 1's
markers in ClickHouse: process start, imports, joining the group, restoring state, reading, counting, storing. The peer
is stock Faust that keeps no state, killed and started the same way, until it has taken its first message.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench.events import Feeder, apply_model, read_now_ms
from bench.results import Limit, Result, compare
from bench.stock_faust import StockFaust
from bench.surroundings import Options, Role, run_servers, separate, wait_until
from schemas.connections import Runtime
from schemas.topics import MONITOR
from store.client import ClickHouse
from store.summaries import read_markers

NUM_PER_S = 2_000
TIMEOUT_S = 120.0
# An insert that the killed process had under way may still arrive; no new process is up as early as this.
SETTLE_S = 0.3


def run(options: Options) -> list[Result]:
    num_kills = 3 if options.short else 9
    with run_servers(options) as servers:
        runtime = separate(servers.runtime, "recovery")
        apply_model(runtime, window="1h")
        with Feeder(runtime, NUM_PER_S, read_now_ms, is_shifted=lambda _: False) as feeder:
            ours_s = measure_monitor(runtime, feeder, num_kills)
            stock_s = measure_faust(runtime, num_kills)
    name = f"recovery after SIGKILL, median of {num_kills}"
    limit = Limit("value", "at most", 3, aim=2)
    return [compare(name, statistics.median(ours_s), "s", "stock Faust, no state", statistics.median(stock_s), limit)]


def measure_monitor(runtime: Runtime, feeder: Feeder, num_kills: int) -> list[float]:
    """Give the seconds from each kill to the first event applied."""
    store, job = ClickHouse(runtime.clickhouse), runtime.topics(MONITOR)

    def read_total() -> int:
        return sum(marker.next_offset for marker in read_markers(store, job))

    def has_grown_from(before: int) -> Callable[[], bool]:
        return lambda: read_total() > before

    role = Role(runtime, "monitor")
    try:
        wait_until(lambda: read_total() > 0, TIMEOUT_S, "the first events", [role, feeder])
        elapsed_s = []
        for _ in range(num_kills):
            killed_s = time.perf_counter()
            role.kill()
            role = Role(runtime, "monitor")
            time.sleep(SETTLE_S)
            before = read_total()
            wait_until(has_grown_from(before), TIMEOUT_S, "the next event", [role, feeder])
            elapsed_s.append(time.perf_counter() - killed_s)
        return elapsed_s
    finally:
        role.stop()
        store.close()


def measure_faust(runtime: Runtime, num_kills: int) -> list[float]:
    """Give the seconds from each kill to the first message that stock Faust takes."""
    topic = runtime.topics("predictions")

    def start() -> StockFaust:
        # More messages than come: it runs until it is killed.
        return StockFaust(runtime, topic, 1 << 40, "recovery")

    peer = start()
    try:
        peer.wait_for("first", TIMEOUT_S)
        elapsed_s = []
        for _ in range(num_kills):
            killed_s = time.perf_counter()
            peer.kill()
            peer = start()
            peer.wait_for("first", TIMEOUT_S)
            elapsed_s.append(time.perf_counter() - killed_s)
        return elapsed_s
    finally:
        peer.kill()
