"""How a job is started, wherever the spec says that it runs, and what the trainer knows of one that is under way.

Owns the choice of the launcher. It must not interpret reports.
"""

from __future__ import annotations

from typing import Protocol

from retrain.job_process import JobProcess, Printed
from retrain.order import JobOrder, JobReport
from schemas.clock import Clock
from schemas.spec import RetrainSpec


class RunningJob(Protocol):
    """A job under way. Only `stop` may take its time; everything else returns at once and never fails."""

    @property
    def name(self) -> str:
        """What runs, in words: `process 4711`."""

    def read_reports(self) -> list[JobReport]:
        """Return what the job has reported since the last call, in order."""

    def read_printed(self) -> list[Printed]:
        """Return what the job has printed since the last call."""

    def is_over(self) -> bool:
        """Say whether the job has ended and everything it said has been heard."""

    def is_late(self) -> bool:
        """Say whether it has run for longer than it may."""

    def describe_end(self) -> str:
        """Say how the job ended, in words that follow `because`."""

    def stop(self) -> None:
        """End the job; when this returns, nothing of it is left behind that would not end by itself."""


def start_job(order: JobOrder, clock: Clock) -> RunningJob:
    """Start a job where the order's spec says."""
    retrain = order.published.spec.retrain or RetrainSpec()
    return JobProcess(order, retrain.resources.timeout_ms / 1000, clock)
