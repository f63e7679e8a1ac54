"""One role as a process: `python -m driftloop.roles monitor|sink|notify|score|train`.

Reads the settings, waits for Kafka and ClickHouse, runs the role until SIGTERM or SIGINT. Anything that the role does
not handle ends the process with a traceback in its log; the supervisor starts it again.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from driftloop.imports import import_faust_without_aiohttp, importing_quickly, keep_arrow_from_pandas
from driftloop.settings import read_settings
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.native import kernels

ROLES = ("monitor", "sink", "notify", "score", "train")

Run = Callable[[Runtime, str, threading.Event], None]


def run_monitor(runtime: Runtime, worker: str, stop: threading.Event) -> None:
    with importing_quickly():
        import_faust_without_aiohttp()
        from streams.app import run_monitor
    keep_arrow_from_pandas()
    run_monitor(runtime, worker, stop)


def run_sink(runtime: Runtime, worker: str, stop: threading.Event) -> None:
    with importing_quickly():
        from consumers.sink import Sink
    keep_arrow_from_pandas()
    Sink(runtime).run(stop)


def run_notify(runtime: Runtime, worker: str, stop: threading.Event) -> None:
    with importing_quickly():
        from consumers.notify import Notifier
    Notifier(runtime).run(stop)


def run_score(runtime: Runtime, worker: str, stop: threading.Event) -> None:
    with importing_quickly():
        from retrain.scorer import Scorer
    Scorer(runtime).run(stop)


def run_train(runtime: Runtime, worker: str, stop: threading.Event) -> None:
    with importing_quickly():
        from retrain.trainer import Trainer
    Trainer(runtime, worker).run(stop)


# A role that was told to stop ends within this, whatever it waits for; longer than each of its own deadlines.
STOP_TIMEOUT_S = 20.0

# Batch after batch takes arrays of some MB: fetched anew from the system each time, they take as long as the work.
_ARRAY_BYTES = 16 << 20
_KEPT_BYTES = 64 << 20

# Imported in the functions: each process loads only what its role needs (torch, Evidently and Faust are heavy).
RUNS: dict[str, Run] = {
    "monitor": run_monitor,
    "sink": run_sink,
    "notify": run_notify,
    "score": run_score,
    "train": run_train,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m driftloop.roles", description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--worker", default="", help="unique name of this worker (default: ROLE-0)")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stdout
    )
    kernels.keep_freed_memory(_ARRAY_BYTES, _KEPT_BYTES)
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()
        end = threading.Timer(STOP_TIMEOUT_S, give_up)
        end.daemon = True
        end.start()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        runtime = read_settings().runtime
        RUNS[options.role](runtime, options.worker or f"{options.role}-0", stop)
    except ConfigurationError as error:
        print(f"driftloop {options.role}: {error}", file=sys.stderr)
        return 2
    return 0


def give_up() -> NoReturn:
    """End a role that cannot end by itself: leaving a group may wait for a broker that is away, for ever."""
    logging.getLogger(__name__).error(
        "still not stopped after %.0f s; what is not stored is read again", STOP_TIMEOUT_S
    )
    leave(1)


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads: all is stored, and what they still read is of no use."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
