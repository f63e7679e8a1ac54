"""How a job is started, wherever the spec says that it runs, and what the trainer knows of one that is under way.

Owns the choice of the launcher. It must not interpret reports.
"""

from __future__ import annotations

from typing import Protocol

from retrain.job_process import JobProcess, Printed, SpareProcess
from retrain.launch_kubernetes import KubernetesJob
from retrain.limits import Machine
from retrain.order import JobOrder, JobReport
from schemas.clock import Clock
from schemas.spec import ResourceSpec, RetrainSpec


class RunningJob(Protocol):
    """A job under way. Only `stop` may take its time; everything else returns at once and never fails."""

    @property
    def name(self) -> str:
        """What runs, in words: `process 4711`."""

    @property
    def trouble(self) -> str:
        """Why it does not get on at the moment, in words; empty where nothing is wrong."""

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


def start_job(order: JobOrder, attempt: int, clock: Clock, spare: SpareProcess) -> RunningJob:
    """Start an attempt where the order's spec says; one in a single process takes the spare one, if it waits."""
    retrain = order.published.spec.retrain or RetrainSpec()
    timeout_s = retrain.resources.timeout_ms / 1000
    if retrain.launcher == "kubernetes" and retrain.kubernetes is not None:
        return KubernetesJob(order, attempt, retrain.resources, retrain.kubernetes, clock)
    if retrain.launcher == "torchrun":
        num_processes = count_processes(retrain.resources, Machine.look().num_gpus)
        return JobProcess(order, timeout_s, clock, ("-m", "retrain.torchrun", "--processes", str(num_processes)))
    return JobProcess(order, timeout_s, clock, spare=spare.take())


def count_processes(resources: ResourceSpec, num_gpus: int) -> int:
    """Return in how many processes a job runs where there are so many GPUs: as declared, or one on each that it has."""
    if resources.processes is not None:
        return resources.processes
    return 1 if resources.accelerator == "cpu" else max(1, min(resources.gpus, num_gpus))
