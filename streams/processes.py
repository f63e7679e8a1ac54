"""Spawned processes that measure, with a deadline each; one that hangs or dies costs its task and is replaced."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, ParamSpec, TypeVar

from schemas.errors import Retryable

log = logging.getLogger(__name__)

P = ParamSpec("P")
Result = TypeVar("Result")


class ProcessPool:
    """Runs functions in spawned processes; for several threads."""

    def __init__(self, num_processes: int, prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """`prepare(*arguments)` is run in each process before its first task."""
        self._num_processes = num_processes
        self._prepare = prepare
        self._arguments = arguments
        self._lock = threading.Lock()
        self._is_closed = False
        self._executor = self._start()

    def run(self, timeout_s: float, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Run `function` in a process and return what it returns, or raise what it raises.

        Raises `Retryable` when the process died, or was ended because it took longer than `timeout_s` (time spent
        waiting for a free process included).
        """
        with self._lock:
            executor = self._executor
        try:
            return executor.submit(function, *args, **kwargs).result(timeout_s)
        except FutureTimeoutError:
            self._replace(executor)
            raise Retryable(f"measuring took longer than {timeout_s:g} s and was ended") from None
        except (BrokenProcessPool, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not isinstance(error, BrokenProcessPool) and not _is_shut(error):
                raise
            self._replace(executor)
            raise Retryable(f"a measuring process died: {error}") from error

    def warm_up(self) -> None:
        """Start the processes now, so that the first window does not wait for their imports; returns at once."""
        for _ in range(self._num_processes):
            self._executor.submit(os.getpid)

    def list_pids(self) -> list[int]:
        """Return the ids of the processes that run now."""
        return list((self._executor._processes or {}).keys())

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        with self._lock:
            self._is_closed = True
            _end(self._executor)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._num_processes,
            # Never fork: the client's threads and sockets do not survive it.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_process,
            initargs=(self._prepare, self._arguments),
        )

    def _replace(self, executor: ProcessPoolExecutor) -> None:
        with self._lock:
            if executor is not self._executor or self._is_closed:
                return  # another thread was faster, or nobody needs one any more
            log.warning("measuring processes are replaced")
            _end(executor)
            self._executor = self._start()


def _prepare_process(prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # The parent decides when to stop; Ctrl-C reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True, name="parent-watch").start()
    prepare(*arguments)


def _end_with_parent() -> None:
    """A killed parent cannot end its processes, and the pool's pipes would keep them waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _end(executor: ProcessPoolExecutor) -> None:
    # The executor has no public way to end a process that hangs (before Python 3.14).
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _is_shut(error: RuntimeError) -> bool:
    return "shutdown" in str(error)
