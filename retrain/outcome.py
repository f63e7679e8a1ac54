"""What a job's reports lead to: rows, events, and at the end a version, a verdict and perhaps a promotion.

Owns the steps after training. Each is safe to repeat, because its ids follow from the job: a trainer
that ends between two of them leaves nothing that the next attempt would do twice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import msgspec

from retrain.claims import ClaimLog
from retrain.open_job import OpenJob
from retrain.order import (
    BatchHalved,
    EpochTrained,
    JobFinished,
    JobInterrupted,
    JobOrder,
    JobReport,
    JobUnfit,
    NetworkTrained,
    ResourcesUsed,
    Resumed,
    Snapshotted,
)
from retrain.promotion import ChampionChangedError, Roles
from schemas.clock import Clock
from schemas.events import RoleMap
from schemas.spec import RetrainSpec
from store.client import ClickHouse
from store.gates import insert_gates
from store.jobs import EpochRow, insert_epoch
from store.versions import VersionRow, choose_version, insert_version, read_version_of_job


class Outcome:
    """Hears one attempt's reports; `interruption` says why it must be repeated, if it must."""

    def __init__(
        self, job: OpenJob, order: JobOrder, ch: ClickHouse, claims: ClaimLog, roles: Roles, clock: Clock
    ) -> None:
        self._job, self._order, self._ch = job, order, ch
        self._claims, self._roles, self._clock = claims, roles, clock
        self._last: JobFinished | JobUnfit | None = None
        self._unrecorded: deque[JobReport] = deque()
        self.interruption = ""

    def hear(self, reports: Iterable[JobReport]) -> None:
        """Record reports in order; what cannot be recorded now is recorded by the next call, or by `conclude`."""
        self._unrecorded.extend(reports)
        while self._unrecorded:
            self._record(self._unrecorded[0])
            self._unrecorded.popleft()

    def conclude(self) -> bool:
        """Close the job as its last report says; False when the attempt must be repeated. Safe to repeat."""
        self.hear(())
        match self._last:
            case JobFinished() as finished:
                return self._conclude_finished(finished)
            case JobUnfit(reason=reason):
                self._job.end("failed", "failed", reason, {"reason": reason}, verdict=reason)
                return True
        return False

    def _record(self, report: JobReport) -> None:
        job = self._job
        match report:
            case Snapshotted():
                fields = msgspec.structs.asdict(report)
                job.record(None, **fields)
            case EpochTrained():
                self._record_epoch(report)
            case Resumed():
                job.record("resumed", msgspec.structs.asdict(report))
            case BatchHalved():
                job.record("batch_halved", msgspec.structs.asdict(report))
            case ResourcesUsed():
                self._add_use(report)
            case NetworkTrained():
                job.record("trained", msgspec.structs.asdict(report))
            case JobInterrupted():
                self.interruption = report.reason
            case JobFinished() | JobUnfit():
                self._last = report

    def _add_use(self, report: ResourcesUsed) -> None:
        """Time adds up over reports and attempts; of memory the most counts."""
        row = self._job.row
        self._job.record(
            None,
            cpu_seconds=row.cpu_seconds + report.cpu_seconds,
            gpu_seconds=row.gpu_seconds + report.gpu_seconds,
            peak_memory_bytes=max(row.peak_memory_bytes, report.peak_memory_bytes),
            peak_gpu_memory_bytes=max(row.peak_gpu_memory_bytes, report.peak_gpu_memory_bytes),
        )

    def _record_epoch(self, report: EpochTrained) -> None:
        row = self._job.row
        fields = msgspec.structs.asdict(report)
        unmeasured = {name: math.nan for name in ("metric", "validation_loss") if fields[name] is None}
        epoch = EpochRow(
            **(fields | unmeasured),
            job_id=row.job_id,
            model=row.model,
            attempt=row.attempt,
            at=self._clock.now_ms(),
        )
        insert_epoch(self._ch, epoch)
        self._claims.publish(row.job_id, row.model, "epoch", row.attempt, fields)

    def _conclude_finished(self, finished: JobFinished) -> bool:
        """
        1. the version gets its number and its row;
        2. the verdict is told;
        3. the roles change, if it passed;
        4. the job is closed.
        """
        job = self._job
        version = self._record_version(finished)
        detail = {"passed": finished.passed, "version": version, "verdict": finished.verdict}
        job.record(
            "evaluated",
            {**detail, "metrics": finished.metrics, "gates": msgspec.to_builtins(finished.gates)},
            verdict=finished.verdict,
            version=version,
            metrics=finished.metrics,
            data_hash=finished.data_hash,
        )
        if not finished.passed:
            job.end("rejected", "rejected", finished.verdict, detail)
            return True
        num_shadowed = (self._order.published.spec.retrain or RetrainSpec()).promote.shadow
        change = self._roles.challenge if num_shadowed else self._roles.promote
        try:
            role_map = change(job.row.model, version, self._order.champion, finished.verdict, job.row.job_id)
        except ChampionChangedError as error:
            self.interruption = str(error)
            return False
        self._roles.refresh()
        conclude_promoted(job, role_map)
        return True

    def _record_version(self, finished: JobFinished) -> str:
        """Return the version's number: that of an earlier attempt of this job, or the next free one.

        Its row and those of its gates are written.
        """
        job = self._job.row
        known = read_version_of_job(self._ch, job.model, job.job_id)
        version = known.version if known else choose_version(self._ch, job.model)
        insert_version(
            self._ch,
            VersionRow(
                model=job.model,
                version=version,
                job_id=job.job_id,
                architecture=finished.architecture,
                metrics=finished.metrics,
                data_hash=finished.data_hash,
                sha256=finished.sha256,
                uri=finished.uri,
                reference_hash=finished.reference_hash,
                manifest=finished.manifest,
                card=finished.card,
                created_at=self._clock.now_ms(),
            ),
        )
        insert_gates(self._ch, job.model, version, job.job_id, finished.gates, self._clock.now_ms())
        return version


def conclude_promoted(job: OpenJob, role_map: RoleMap) -> None:
    """Close a job whose version has become champion, or challenger where the spec asks for a shadow period."""
    roles = role_map.roles
    detail = {"passed": True, "verdict": role_map.reason, "epoch": role_map.epoch, "roles": roles}
    if "challenger" in roles:
        version = roles["challenger"]
        reason = f"version {version} is challenger of {roles['champion']} for its shadow period"
        job.end(
            "accepted", "accepted", reason, {**detail, "version": version}, version=version, verdict=role_map.reason
        )
        return
    version, shadow = roles["champion"], roles.get("shadow", "")
    reason = f"version {version} is champion" + (f", {shadow} its shadow" if shadow else "")
    job.end("promoted", "promoted", reason, {**detail, "version": version}, version=version, verdict=role_map.reason)
