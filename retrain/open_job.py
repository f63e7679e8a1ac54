"""One open job in a trainer's hands: its row, its request, and how it moves from step to step.

Owns what is written at each step: first the row, then the event, so that whoever hears of a step
finds it in the store. It must not decide when a step is due.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import msgspec

from retrain.claims import HEARTBEAT_S, ClaimLog
from schemas.clock import Clock
from schemas.events import RetrainEventType, RetrainRequest
from store.client import ClickHouse
from store.job_logs import LogLine
from store.jobs import JobRow, JobState, insert_job

log = logging.getLogger(__name__)


class OpenJob:
    """A job that this worker has claimed; every change of `row` goes through `record`."""

    def __init__(self, row: JobRow, ch: ClickHouse, claims: ClaimLog, clock: Clock) -> None:
        self.row = row
        self.request = msgspec.json.decode(row.request, type=RetrainRequest)
        self._ch, self._claims, self._clock = ch, claims, clock
        self._written_s = -HEARTBEAT_S
        self._unpublished: deque[tuple[RetrainEventType, dict[str, Any]]] = deque()
        # When the labels that are waited for were last seen to grow, and how many there were.
        self.settling: tuple[tuple[Any, ...], float] = ((), 0.0)
        self.num_failures = 0
        self.num_repeats = 0
        # What its process has printed: how many lines, and those that are not in the store yet.
        self.num_lines = 0
        self.unstored: list[LogLine] = []
        self.not_before_s = 0.0

    def record(self, kind: RetrainEventType | None, detail: dict[str, Any] | None = None, **changes: Any) -> None:
        """Change the row, write it, and publish the step (`kind` None: no step, only the row)."""
        row = msgspec.structs.replace(self.row, **changes)
        row.sequence += 1
        row.updated_at = self._clock.now_ms()
        insert_job(self._ch, row)
        self.row = row
        self._written_s = self._clock.monotonic_s()
        if kind is not None:
            log.info("job %s of model %s: %s %s", row.job_id[:12], row.model, kind, _describe(detail))
            self._unpublished.append((kind, detail or {}))
        self.publish_pending()

    def publish_pending(self) -> None:
        """Publish the steps whose rows are written but which the log could not take yet."""
        while self._unpublished:
            kind, detail = self._unpublished[0]
            self._claims.publish(self.row.job_id, self.row.model, kind, self.row.attempt, detail)
            self._unpublished.popleft()

    def wait(self, reason: str) -> None:
        """Record that the job waits and why; an unchanged reason is written now and then."""
        if self.row.state != "waiting" or not self.row.reason:
            self.record("waiting", {"reason": reason}, state="waiting", reason=reason)
        elif self._clock.monotonic_s() - self._written_s >= HEARTBEAT_S:
            self.record(None, reason=reason)
        elif _without_figures(reason) != _without_figures(self.row.reason):
            self.record("waiting", {"reason": reason}, reason=reason)

    def beat(self) -> None:
        """Write the row again when it has not been written for long."""
        if self._clock.monotonic_s() - self._written_s >= HEARTBEAT_S:
            self.record(None)

    def end(self, state: JobState, kind: RetrainEventType, reason: str, detail: dict[str, Any], **changes: Any) -> None:
        """Close the job: the last row, the last event."""
        now_ms = self._clock.now_ms()
        self.record(kind, detail, state=state, reason=reason, worker="", finished_at=now_ms, **changes)

    def release(self) -> None:
        """Give the job back, so that any worker takes it up at once."""
        self.record(None, state="waiting", worker="")

    def look_again_in(self, delay_s: float) -> None:
        """Leave the job alone for a while."""
        self.not_before_s = self._clock.monotonic_s() + delay_s


def _without_figures(reason: str) -> str:
    """Cut what is in brackets: a growing share is not another reason."""
    return reason.split("(")[0]


def _describe(detail: dict[str, Any] | None) -> str:
    shown = {name: value for name, value in (detail or {}).items() if not isinstance(value, dict)}
    return ", ".join(f"{name} {value}" for name, value in shown.items())[:300]
