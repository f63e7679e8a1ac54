"""`python -m driftloop.embedded.clickhouse`: reads the options, starts the server, ends it on SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from driftloop.embedded.clickhouse.engine import Engine
from driftloop.embedded.clickhouse.errors import ServerError
from driftloop.embedded.clickhouse.lock import FolderInUse, lock_folder
from driftloop.embedded.clickhouse.server import Server
from driftloop.embedded.clickhouse.users import User, Users

# Of the five seconds that a stop may take, the rest is for the engine to close.
STOP_S_MAX = 4.0
MEMORY_SHARE = 0.4


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the server until SIGTERM or SIGINT; exit 2 for what the caller can mend, 1 if the engine does not start."""
    options = _parse(arguments)
    try:
        folder_lock = lock_folder(options.data)
        server = Server((options.host, options.port))
    except (FolderInUse, PermissionError, NotADirectoryError, FileExistsError) as error:
        _refuse(str(error), 2)
    except OSError as error:
        _refuse(f"cannot listen on {options.host}:{options.port}: {error.strerror}; give another --port", 2)
    try:
        engine = Engine(
            options.data / "engine", memory_bytes=options.memory_bytes, execution_time_s=options.max_execution_time_s
        )
    except ValueError as error:
        _refuse(str(error), 2)
    except ServerError as error:
        _refuse(f"the engine does not start on {options.data}: {error}", 1)
    _run(server, engine, Users(options.user))
    folder_lock.close()
    sys.stdout.flush()
    # Threads of the engine and of idle connections are not waited for: everything acknowledged is on disk.
    os._exit(0)


def _run(server: Server, engine: Engine, users: Users) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    server.serve(engine, users)
    host, port = server.server_address[:2]
    print(f"ready {host!s}:{port}", flush=True)
    stopping.wait()
    if server.stop(STOP_S_MAX):
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(0.5)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m driftloop.embedded.clickhouse",
        description="ClickHouse's HTTP interface over chDB, on one data folder.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the data, made if it is not there")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--user",
        type=_user,
        action="append",
        default=[],
        metavar="NAME:PASSWORD[:readonly]",
        help="add a user; `default` is always there, without password unless given one here",
    )
    parser.add_argument(
        "--memory-bytes",
        type=int,
        default=int(_machine_bytes() * MEMORY_SHARE),
        help="most memory that queries may use together (default: 40 %% of the machine, %(default)s)",
    )
    parser.add_argument(
        "--max-execution-time-s",
        type=int,
        default=300,
        help="most seconds a query may run unless it asks for another limit (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _user(text: str) -> User:
    try:
        return User.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _refuse(reason: str, status: int) -> NoReturn:
    with contextlib.suppress(OSError):
        print(f"clickhouse: {reason}", file=sys.stderr, flush=True)
    os._exit(status)


if __name__ == "__main__":
    main()
