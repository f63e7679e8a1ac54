"""Stages 2 and 3 on Faust: one ordered follower per model, on the worker that owns the model's partition of `progress`.

A message on `progress` only wakes a follower. Whether there is anything to do, the store says: every 2 s while
something is known to be under way, and every 10 s a survey asks about all models at once, and wakes the followers of
those that need it. So a message lost or repeated does no harm, and all of them are acknowledged at once. Followers work
in threads and spawned processes; the event loop only waits.

Beside them, alerts that have fired get their reports, one after the other, when no follower is at work.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.clock import Clock, SystemClock
from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.events import Progress, decode_event

if TYPE_CHECKING:
    from streams.monitoring import Pace
    from streams.workbench import Workbench

log = logging.getLogger(__name__)

# An idle model is looked at when something wakes its follower.
_PAUSE_S: dict[Pace, float | None] = {"idle": None, "waiting": 2.0}
_SURVEY_PAUSE_S = 10.0
_RETRY_PAUSE_S = 2.0
_FAILURE_PAUSE_S = 10.0
_OWNERSHIP_PAUSE_S = 1.0

_REPORT_PAUSE_S = 10.0
# A report waits for a moment in which nothing is measured, but not for ever.
_REST_TIMEOUT_S = 300.0

# Models that are looked after at the same time; each waits for the store or for a measuring process most of the time.
_NUM_THREADS = 4


def add_judge(
    app: Any,
    runtime: Runtime,
    job: str,
    *,
    after: Callable[[], Awaitable[None]] | None = None,
    num_processes: int = 1,
    clock: Clock | None = None,
) -> None:
    """Add stages 2 and 3 to a Faust app: the agent on `progress` and the task that runs the followers.

    `job` is stage 1's, whose summaries are measured. Everything is started with the app, but what needs the processor
    waits for `after`, and ends with it.
    """
    followers = _Followers(app, runtime, job, num_processes, clock or SystemClock())
    topic = app.topic(runtime.topics("progress"), key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="judge")  # type: ignore[untyped-decorator, unused-ignore]
    async def wake_follower(stream: AsyncIterator[bytes | None]) -> None:
        async for value in stream:
            followers.take(value)

    @app.task  # type: ignore[untyped-decorator, unused-ignore]
    async def run_followers() -> None:
        if after is not None:
            await after()
        await followers.run()


class _Followers:
    """One task per model that this worker owns."""

    def __init__(self, app: Any, runtime: Runtime, job: str, num_processes: int, clock: Clock) -> None:
        self._app = app
        self._runtime = runtime
        self._job = job
        self._num_processes = num_processes
        self._clock = clock
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="judge")
        # Threads of their own, so that no long look keeps the others from being found.
        self._overseers = ThreadPoolExecutor(2, thread_name_prefix="oversee")
        self._reporters = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._num_looking = 0
        self._is_at_rest = asyncio.Event()
        self._is_at_rest.set()
        self._survey_due = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}

    def take(self, value: bytes | None) -> None:
        """Wake the follower of the model that a message on `progress` names."""
        if value is None:
            return
        try:
            wake = self._wakes.get(decode_event(Progress, value).model)
        except msgspec.MsgspecError as error:
            log.error("a message on progress cannot be read and is passed over: %s", error)
            return
        if wake is not None:
            wake.set()

    async def run(self) -> None:
        """Keep a follower for every model owned, until cancelled; then end everything at once."""
        workbench = await self._in_thread(self._open_workbench)
        beside = [
            asyncio.create_task(self._survey(workbench), name="survey"),
            asyncio.create_task(self._report(workbench), name="report"),
        ]
        try:
            while True:
                try:
                    models = await self._oversee(workbench.list_models)
                    self._match(workbench, self._select_owned(models))
                except Retryable as error:
                    log.warning("models cannot be listed and are in %g s: %s", _OWNERSHIP_PAUSE_S, error)
                await asyncio.sleep(_OWNERSHIP_PAUSE_S)
                for task in beside:
                    if task.done():
                        task.result()
        finally:
            self._stop.set()
            for task in (*beside, *self._tasks.values()):
                task.cancel()
            workbench.close()
            for executor in (self._threads, self._overseers, self._reporters):
                executor.shutdown(wait=False, cancel_futures=True)

    async def _survey(self, workbench: Workbench) -> None:
        """Wake the followers of models that need a look, every few seconds and at once when there are new models.

        And judge how old the models' data is, which no follower sees: when nothing comes, nothing wakes one.
        """
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._survey_due.wait(), _SURVEY_PAUSE_S)
            self._survey_due.clear()
            if not self._wakes:
                continue
            try:
                found = await self._oversee(workbench.survey, set(self._wakes))
            except Retryable as error:
                log.warning("the models cannot be surveyed and are in %g s: %s", _SURVEY_PAUSE_S, error)
                continue
            for model in found & self._wakes.keys():
                self._wakes[model].set()
            try:
                await self._oversee(workbench.judge_freshness, set(self._wakes))
            except Retryable as error:
                log.warning("how old data is cannot be judged and is in %g s: %s", _SURVEY_PAUSE_S, error)

    async def _report(self, workbench: Workbench) -> None:
        """Have reports made that are missing; what goes wrong there is no trouble of those who measure."""
        loop = asyncio.get_running_loop()
        pause_s = _REPORT_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = _REPORT_PAUSE_S
            try:
                found = await loop.run_in_executor(self._reporters, workbench.find_reports, set(self._wakes))
                if found:
                    await self._wait_for_rest()
                    await loop.run_in_executor(self._reporters, workbench.make_report, found[0])
                # What is more urgent than the rest may have fired meanwhile.
                pause_s = 0.0 if len(found) > 1 else _REPORT_PAUSE_S
            except Retryable as error:
                log.warning("reports are not made and are in %g s: %s", _REPORT_PAUSE_S, error)
            except Exception:
                log.exception("reports are not made and are in %g s", _REPORT_PAUSE_S)

    async def _wait_for_rest(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_at_rest.wait(), _REST_TIMEOUT_S)

    def _open_workbench(self) -> Workbench:
        # SciPy, pandas and River take longer to import than everything that stage 1 needs.
        from streams.workbench import Workbench

        return Workbench(self._runtime, self._job, self._num_processes, self._clock, self._stop)

    def _match(self, workbench: Workbench, owned: set[str]) -> None:
        for model in owned - self._tasks.keys():
            self._wakes[model] = asyncio.Event()
            self._tasks[model] = asyncio.create_task(self._follow(workbench, model), name=f"judge {model}")
            self._survey_due.set()
        for model in self._tasks.keys() - owned:
            # A look under way ends by itself; its results are true, whoever has the model by then.
            self._tasks.pop(model).cancel()
            self._wakes.pop(model).set()

    async def _follow(self, workbench: Workbench, model: str) -> None:
        wake = self._wakes[model]
        workbench.take_over(model)
        pause_s: float | None = None
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause_s)
            wake.clear()
            self._num_looking += 1
            self._is_at_rest.clear()
            try:
                pace: Pace = await self._in_thread(workbench.look, model)
                pause_s = _PAUSE_S[pace]
            except Retryable as error:
                log.warning("%s: %s; again in %g s", model, error, _RETRY_PAUSE_S)
                pause_s = _RETRY_PAUSE_S
            except Exception:
                # One model's trouble must not stop the others; it is tried again, and is in the log each time.
                log.exception("%s: measuring failed; again in %g s", model, _FAILURE_PAUSE_S)
                pause_s = _FAILURE_PAUSE_S
            finally:
                self._num_looking -= 1
                if not self._num_looking:
                    self._is_at_rest.set()

    def _select_owned(self, models: Mapping[str, int]) -> set[str]:
        """Return the models whose partition of `progress` this worker has."""
        topic = self._runtime.topics("progress")
        assigned = {each.partition for each in self._app.assignor.assigned_actives() if each.topic == topic}
        return {model for model, partition in models.items() if partition in assigned}

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _oversee(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._overseers, function, *arguments)
