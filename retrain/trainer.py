"""The trainer role: requests become jobs, jobs become versions, and the better one becomes champion.

Owns the order of a job's steps. Everything it knows is in ClickHouse and on the log: a trainer that
starts reads the open jobs and goes on, and every step may be repeated. It never trains in its own
process.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import msgspec

from retrain.checkpoints import remove_checkpoints
from retrain.claims import HEARTBEAT_S, ClaimLog
from retrain.job_process import SpareProcess
from retrain.launching import RunningJob, start_job
from retrain.lifecycle import Lifecycle
from retrain.limits import Machine
from retrain.open_job import OpenJob
from retrain.order import JobOrder
from retrain.outcome import Outcome, conclude_promoted
from retrain.permission import find_hold, find_unworthy
from retrain.promotion import Roles
from retrain.readiness import SETTLE_S, Readiness, check_readiness, find_change, find_overdue
from retrain.requests import RequestQueue
from schemas.clock import Clock, SystemClock
from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.events import RetrainRequest
from schemas.spec import PublishedSpec, RetrainSpec
from store.artifacts import resolve_place
from store.client import ClickHouse
from store.job_logs import LogLine, insert_log
from store.jobs import OPEN_STATES, JobRow, insert_job, read_job, read_open_jobs
from store.log import SpecFollower

log = logging.getLogger(__name__)

_POLL_S = 0.5
_ADOPT_EVERY_S = 5.0
# A job that ends its process three times under one trainer will do so again.
_NUM_FAILURES_MAX = 3
# And one that has ended as many trainers, too.
_NUM_ATTEMPTS_MAX = 20
# Twenty attempts so far apart are an hour: as long as a full disk may take to be noticed.
_REPEAT_S_MAX = 300.0
# Not longer than a heartbeat: a worker that waits for the store is alive, and says so.
_BACKOFF_S_MAX = HEARTBEAT_S


class Trainer:
    """Runs the jobs of `retrain-requests`, one at a time on this machine, one per model anywhere."""

    def __init__(self, runtime: Runtime, worker: str | None = None, clock: Clock | None = None) -> None:
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._worker = worker or f"train@{socket.gethostname()}"
        self._machine = Machine.look()
        self._jobs: dict[str, OpenJob] = {}
        self._running: tuple[OpenJob, RunningJob, Outcome] | None = None
        self._spare = SpareProcess()
        self._adopted_s: float | None = None
        self._beat_s: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; returns within five seconds, and leaves open jobs for whoever comes next."""
        self._connect()
        try:
            backoff_s = _POLL_S
            while not stop.is_set():
                try:
                    self.step()
                    backoff_s = _POLL_S
                except Retryable as error:
                    log.warning("%s; trying again in %.1f s", error, backoff_s)
                    stop.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_S_MAX)
        finally:
            self._close()

    def step(self) -> None:
        """Take in requests, take up jobs that nobody holds, and move each job as far as it goes."""
        self._beat()
        self._requests.drain(self._admit, _POLL_S)
        self._adopt_jobs()
        self._cancel_jobs()
        self._roles.refresh()
        self._lifecycle.step()
        for job in list(self._jobs.values()):
            job.publish_pending()
            if job.row.state not in OPEN_STATES:
                self._forget(job)
        if self._running is not None:
            self._follow_running()
        elif self._wants_spare():
            self._spare.prepare()
        for job in self._list_first_of_each_model():
            is_running = self._running is not None and self._running[0] is job
            if not is_running and self._clock.monotonic_s() >= job.not_before_s:
                self._move_waiting(job)

    # ── taking in ────────────────────────────────────────────────────────────────────────────────

    def _admit(self, request: RetrainRequest) -> None:
        """Give a new request its row; a repeated one changes nothing."""
        if request.request_id in self._jobs or read_job(self._ch, request.request_id) is not None:
            return
        row = JobRow(
            job_id=request.request_id,
            model=request.model,
            rule=request.rule,
            trigger_alert_id=request.trigger_alert_id,
            request=msgspec.json.encode(request).decode(),
            manual=request.manual,
            first_window_start=request.first_window_start,
            train_to=request.first_window_end,
            gate_from=request.first_window_end,
            gate_to=request.first_window_end + request.window_size_ms,
            # Our clock, not the request's: deadlines are counted from it.
            requested_at=self._clock.now_ms(),
            updated_at=self._clock.now_ms(),
            reason="waits for a trainer to look at it",
        )
        refusal = self._refuse(request.model)
        if refusal:
            insert_job(self._ch, msgspec.structs.replace(row, reason=f"waits for a worker: {refusal}"))
            return
        insert_job(self._ch, row)
        self._take_up(row)

    def _adopt_jobs(self) -> None:
        """Take up open jobs that nobody holds: of workers that gave them back, fell silent, or were this one."""
        now_s = self._clock.monotonic_s()
        first = self._adopted_s is None
        if self._adopted_s is not None and now_s - self._adopted_s < _ADOPT_EVERY_S:
            return
        self._claims.refresh()
        for row in read_open_jobs(self._ch):
            is_free = not row.worker or self._claims.has_lapsed(row.job_id)
            is_ours = first and row.worker == self._worker
            if row.job_id not in self._jobs and (is_free or is_ours) and not self._refuse(row.model):
                self._take_up(row)
        self._adopted_s = now_s

    def _refuse(self, model: str) -> str:
        """Say why this machine cannot run a model's jobs, empty if it can; another worker may."""
        published = self._find_spec(model)
        retrain = (published.spec.retrain if published else None) or RetrainSpec()
        # A pod runs on another machine, and the cluster knows which has room.
        return "" if retrain.launcher == "kubernetes" else self._machine.refuse(retrain.resources)

    def _take_up(self, row: JobRow) -> None:
        self._claims.refresh()
        attempt = max(row.attempt, self._claims.find_last_attempt(row.job_id)) + 1
        if not self._claims.claim(row.job_id, row.model, attempt):
            log.info("job %s: another worker was first", row.job_id[:12])
            return
        # Behind the rows of every earlier attempt, whatever their workers still write.
        sequence = max(row.sequence, attempt << 32)
        row = msgspec.structs.replace(
            row, attempt=attempt, worker=self._worker, sequence=sequence, state="waiting", reason=""
        )
        self._jobs[row.job_id] = OpenJob(row, self._ch, self._claims, self._clock)

    def _beat(self) -> None:
        """Say on the log that this worker has its jobs, and let go of those that another one has by now."""
        now_s = self._clock.monotonic_s()
        if self._beat_s is not None and now_s - self._beat_s < HEARTBEAT_S:
            return
        held = [job for job in self._jobs.values() if self._claims.holds(job.row.job_id, job.row.attempt)]
        if held:
            self._claims.beat()
        self._beat_s = now_s
        for job in [job for job in self._jobs.values() if job not in held]:
            if self._running is not None and self._running[0] is job:
                self._running[1].stop()
                self._running = None
            self._drop(job)

    def _cancel_jobs(self) -> None:
        self._claims.refresh()
        for job in list(self._jobs.values()):
            reason = self._claims.find_cancelled(job.row.job_id)
            if reason and job.row.state in OPEN_STATES:
                if self._running is not None and self._running[0] is job:
                    self._running[1].stop()
                    self._running = None
                self._end(job, "cancelled", "cancelled", reason)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────

    def _list_first_of_each_model(self) -> list[OpenJob]:
        """Return the oldest job of each model; those behind it say that they wait for it."""
        first: dict[str, OpenJob] = {}
        for job in sorted(self._jobs.values(), key=lambda job: (job.row.requested_at, job.row.job_id)):
            ahead = first.setdefault(job.row.model, job)
            if ahead is not job:
                job.wait(f"waits for job {ahead.row.job_id[:12]} of the same model")
        return list(first.values())

    def _move_waiting(self, job: OpenJob) -> None:
        published = self._find_spec(job.row.model)
        if published is None:
            self._end(job, "cancelled", "cancelled", f"there is no model {job.row.model!r} any more")
            return
        promoted = self._roles.find_promotion(job.row.job_id)
        if promoted is not None:
            # Whoever had the job was gone before it could say so; to compare the new champion with itself is no use.
            conclude_promoted(job, promoted)
            self._forget(job)
            return
        num_started = self._claims.count_started(job.row.job_id)
        if num_started >= _NUM_ATTEMPTS_MAX:
            self._end(job, "failed", "failed", f"given up after {num_started} attempts, none of which ended")
            return
        champion = self._roles.find_champion(job.row.model)
        readiness = check_readiness(self._ch, job.request, published.spec, champion)
        reason = readiness.reason or self._find_unsettled(job, readiness)
        if not reason and self._running is not None:
            reason = f"waits for job {self._running[0].row.job_id[:12]}, which runs on this machine"
        reason = reason or self._find_job_ahead(job)
        if not reason and (unworthy := find_unworthy(self._ch, job.request, published.spec)):
            self._end(job, "cancelled", "cancelled", unworthy)
            return
        settings = published.spec.retrain or RetrainSpec()
        reason = reason or find_hold(self._ch, job.request, settings, self._clock.now_ms())
        if reason:
            waited_ms = self._clock.now_ms() - job.row.requested_at
            overdue = find_overdue(job.request, readiness.measured_to, waited_ms) if readiness.reason else ""
            if overdue:
                self._end(job, "cancelled", "cancelled", overdue)
            else:
                job.wait(reason)
            return
        self._start(job, published, readiness)

    def _find_job_ahead(self, job: OpenJob) -> str:
        """Wait for an older job of the model that another worker has."""
        place = (job.row.requested_at, job.row.job_id)
        for row in read_open_jobs(self._ch):
            if row.model == job.row.model and (row.requested_at, row.job_id) < place:
                return f"waits for job {row.job_id[:12]} of the same model"
        return ""

    def _find_unsettled(self, job: OpenJob, readiness: Readiness) -> str:
        """Wait a moment while labels are still coming in."""
        if readiness.is_fully_labelled:
            return ""
        now_s = self._clock.monotonic_s()
        counts, since_s = job.settling
        if counts != readiness.counts:
            job.settling = (readiness.counts, now_s)
            since_s = now_s
        return "waits a moment for the last labels" if now_s - since_s < SETTLE_S else ""

    def _wants_spare(self) -> bool:
        """Tell whether a job may come that runs here in one process, and memory is given for one that waits."""
        if not self._runtime.warm_jobs:
            return False
        catalogue = self._specs.catalogue
        known = (catalogue.get(model) for model in catalogue.models())
        retrains = [history.latest.spec.retrain for history in known if history is not None]
        return any(retrain is not None and retrain.launcher == "local" for retrain in retrains)

    # ── running ──────────────────────────────────────────────────────────────────────────────────

    def _start(self, job: OpenJob, published: PublishedSpec, readiness: Readiness) -> None:
        if not self._claims.holds(job.row.job_id, job.row.attempt):
            self._drop(job)
            return
        ranges = readiness.ranges
        assert ranges is not None
        detail: dict[str, Any] = {**ranges._asdict(), "champion": readiness.champion}
        job.record("started", detail, state="running", reason="", started_at=self._clock.now_ms(), **ranges._asdict())
        order = JobOrder(
            job_id=job.row.job_id,
            model=job.row.model,
            published=published,
            champion=readiness.champion,
            clickhouse=self._runtime.clickhouse,
            artifacts=resolve_place(self._runtime.artifacts),
            change_at=find_change(job.request),
            rule=job.request.rule,
            trigger_alert_id=job.request.trigger_alert_id,
            reason=job.request.reason,
            **ranges._asdict(),
        )
        running = start_job(order, job.row.attempt, self._clock, self._spare)
        outcome = Outcome(job, order, self._ch, self._claims, self._roles, self._clock)
        self._running = (job, running, outcome)
        log.info("job %s of model %s runs as %s", order.job_id[:12], order.model, running.name)

    def _follow_running(self) -> None:
        """Record what the process says; when it has ended, see how."""
        assert self._running is not None
        job, process, outcome = self._running
        self._keep_log(job, process)
        outcome.hear(process.read_reports())
        if process.is_late() and not process.is_over():
            process.stop()
            self._running = None
            trouble = f"; at the end {process.trouble}" if process.trouble else ""
            self._end(job, "failed", "failed", f"it ran for longer than resources.timeout allows{trouble}")
        elif not process.is_over():
            job.beat()
        elif not self._claims.holds(job.row.job_id, job.row.attempt):
            self._running = None
            self._drop(job)
        elif outcome.conclude():
            self._running = None
            self._forget(job)
        else:
            self._running = None
            self._try_again(job, outcome.interruption, process.describe_end())

    def _keep_log(self, job: OpenJob, process: RunningJob) -> None:
        for at, text in process.read_printed():
            job.num_lines += 1
            job.unstored.append(LogLine(job.row.job_id, job.row.attempt, job.num_lines, at, text))
        insert_log(self._ch, job.unstored)
        job.unstored.clear()

    def _try_again(self, job: OpenJob, interruption: str, end: str) -> None:
        """Repeat the attempt under a new number, unless it has failed too often.

        An interruption is not the job's failure: something outside was away, or full, and may be for long.
        """
        reason = interruption or end
        job.num_repeats += 1
        job.num_failures += not interruption
        if job.num_failures >= _NUM_FAILURES_MAX:
            self._end(job, "failed", "failed", f"{reason}; it has failed {job.num_failures} times")
            return
        attempt = job.row.attempt + 1
        if not self._claims.claim(job.row.job_id, job.row.model, attempt):
            self._drop(job)
            return
        job.row = msgspec.structs.replace(job.row, attempt=attempt, sequence=max(job.row.sequence, attempt << 32))
        job.record("waiting", {"reason": reason}, state="waiting", reason=f"will be repeated, because {reason}")
        job.look_again_in(min(2.0 ** (job.num_repeats - 1), _REPEAT_S_MAX))

    # ── leaving ──────────────────────────────────────────────────────────────────────────────────

    def _end(self, job: OpenJob, state: Any, kind: Any, reason: str) -> None:
        job.end(state, kind, reason, {"reason": reason})
        self._forget(job)

    def _drop(self, job: OpenJob) -> None:
        log.warning("job %s: another worker has it now", job.row.job_id[:12])
        self._forget(job)

    def _forget(self, job: OpenJob) -> None:
        self._jobs.pop(job.row.job_id, None)
        if job.row.state not in OPEN_STATES:
            self._claims.forget(job.row.job_id)
            remove_checkpoints(self._runtime.artifacts, job.row.job_id)

    def _find_spec(self, model: str) -> PublishedSpec | None:
        self._specs.refresh()
        history = self._specs.catalogue.get(model)
        return history.latest if history else None

    def _connect(self) -> None:
        runtime = self._runtime
        self._ch = ClickHouse(runtime.clickhouse)
        self._specs = SpecFollower(runtime.kafka, runtime.topics)
        self._claims = ClaimLog(runtime, self._worker, self._clock)
        self._roles = Roles(runtime, self._ch, self._clock)
        self._lifecycle = Lifecycle(runtime, self._ch, self._roles, self._find_spec, self._clock)
        self._requests = RequestQueue(runtime)

    def _close(self) -> None:
        self._spare.end()
        if self._running is not None:
            self._running[1].stop()
            self._running = None
        for job in self._jobs.values():
            try:
                job.release()
            except Retryable as error:
                log.warning("job %s was not given back and waits for its lease to end: %s", job.row.job_id[:12], error)
                break
        self._requests.close()
        self._specs.close()
        self._claims.close()
        self._lifecycle.close()
        self._roles.close()
        self._ch.close()
