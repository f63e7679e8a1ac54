"""The peer: stock Faust that does nothing with a message but take it. `python -m bench.stock_faust --help`.

Prints `first` when the first message has been taken, and `rate PER_S CPU_S` after `--messages` of them, CPU_S being the
processor seconds a message; then it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from queue import Empty, Queue
from threading import Thread
from typing import Any

from schemas.connections import Runtime

STOP_TIMEOUT_S = 10.0


class StockFaust:
    """The peer as a process, seen from a benchmark. The same `member` is a static member that comes back."""

    def __init__(self, runtime: Runtime, topic: str, num_messages: int, member: str) -> None:
        arguments = [runtime.kafka.bootstrap_servers, topic, "--messages", str(num_messages), "--member", member]
        # In the benchmark's own folder, since a killed process cannot tidy up.
        arguments += ["--folder", runtime.data]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.stock_faust", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: Queue[str] = Queue(maxsize=10)
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def wait_for(self, word: str, timeout_s: float) -> str:
        """Give the rest of the line that begins with this word; TimeoutError when none comes."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except Empty:
                raise TimeoutError(f"stock Faust did not say {word!r} within {timeout_s:.0f} s") from None
            if line.startswith(word):
                return line.removeprefix(word).strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        assert self.process.stdout is not None


def make_app(options: argparse.Namespace, done: asyncio.Event) -> Any:
    import faust

    app = faust.App(
        f"stock-{options.topic}-{options.member}",
        broker=f"kafka://{options.bootstrap}",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=6.0,
        broker_commit_interval=1.0,
        consumer_group_instance_id=options.member,
        consumer_auto_offset_reset="earliest",
        store="memory://",
        datadir=options.folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )

    async def take(stream: Any) -> None:
        num_taken, started_s, started_cpu_s = 0, 0.0, 0.0
        async for _ in stream:
            num_taken += 1
            if num_taken == 1:
                started_s, started_cpu_s = time.perf_counter(), time.process_time()
                print("first", flush=True)
            if num_taken == options.messages:
                num, elapsed_s = num_taken - 1, time.perf_counter() - started_s
                print("rate", num / elapsed_s, (time.process_time() - started_cpu_s) / num, flush=True)
                done.set()

    app.agent(app.topic(options.topic, key_serializer="raw", value_serializer="raw"))(take)

    return app


async def run(options: argparse.Namespace) -> None:
    done = asyncio.Event()
    app = make_app(options, done)
    await app.start()
    await done.wait()
    await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stock_faust", description="stock Faust, doing nothing")
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("--messages", type=int, required=True, help="how many to take")
    parser.add_argument("--member", required=True, help="static member id, and part of the group's name")
    parser.add_argument("--folder", required=True, help="where Faust may keep its files")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
