"""Runs the broker: `python -m driftloop.embedded.broker --data DIR --port N [--host 127.0.0.1]`.

Prints `ready HOST:PORT` when it listens (port 0 picks a free one). SIGTERM and SIGINT end it within 5 s. Exit codes: 0
ended as asked, 2 the port is taken, the folder is in use, or the arguments are wrong.
"""

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from driftloop.embedded.broker.broker import Broker, DataFolderInUse
from driftloop.embedded.broker.server import Connection, open_socket

log = logging.getLogger(__name__)

TIMEOUT_CHECK_S = 1.0
# As log.retention.check.interval.ms.
RETENTION_CHECK_S = 300.0


async def repeat(action: Callable[[], Awaitable[None]], interval_s: float) -> None:
    """Does something from time to time, for ever."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await action()
        except Exception:  # A full disk must not end retention, which is what frees it.
            log.exception("%s failed; trying again in %s s", action.__name__, interval_s)


async def serve(folder: Path, host: str, port: int, retention_check_s: float) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listener = open_socket(host, port)
    port = listener.getsockname()[1]
    broker = Broker(folder, host, port)
    connections: set[Connection] = set()
    server = await loop.create_server(lambda: Connection(broker, connections), sock=listener)
    chores = [
        loop.create_task(repeat(broker.enforce_timeouts, TIMEOUT_CHECK_S)),
        loop.create_task(repeat(broker.enforce_retention, retention_check_s)),
    ]
    print(f"ready {host}:{port}", flush=True)
    await stopping.wait()
    server.close()
    tasks = [*chores, *(connection.task for connection in connections if connection.task)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    broker.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="driftloop.embedded.broker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds everything")
    parser.add_argument("--port", type=int, required=True, help="0 picks a free port")
    parser.add_argument("--host", default="127.0.0.1", help="there is no authentication: keep it on loopback")
    parser.add_argument("--retention-check-s", type=float, default=RETENTION_CHECK_S, help="how often logs are cleaned")
    return parser.parse_args()


def raise_file_limit() -> None:
    """Each segment is an open file; the usual soft limit of 1,024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    raise_file_limit()
    try:
        asyncio.run(serve(arguments.data, arguments.host, arguments.port, arguments.retention_check_s))
    except DataFolderInUse as error:
        print(f"broker: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"broker: cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
