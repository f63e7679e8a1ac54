"""A job as a pod of a Kubernetes cluster: made, followed by its log, and deleted.

Owns the pod's life as the trainer sees it. A thread speaks with the cluster, so that the trainer never waits. It must
not interpret the reports. State: tested against answers written after the API's documentation; never run on a cluster.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from retrain.cluster import Cluster
from retrain.job_process import Printed
from retrain.order import JobOrder, JobReport, JobUnfit, decode_report
from retrain.pod_manifests import CONTAINER, JOB_LABEL, build_job, build_secret, label_job, name_job
from retrain.pod_words import describe_job_failure, describe_pod, is_complete
from schemas.clock import Clock
from schemas.errors import ConfigurationError, Retryable
from schemas.spec import KubernetesSpec, ResourceSpec

log = logging.getLogger(__name__)

_POLL_S = 2.0
_BACKOFF_S_MAX = 30.0
# An image that cannot be pulled for so long will not be.
_PULL_S = 300.0
_STOP_S = 10.0
_NUM_LINES_MAX = 5_000
_LINE_CHARS_MAX = 2_000


class KubernetesJob:
    """One attempt of a job as a pod; may be made again for the same attempt, and then goes on following that."""

    def __init__(
        self,
        order: JobOrder,
        attempt: int,
        resources: ResourceSpec,
        spec: KubernetesSpec,
        clock: Clock,
        connect: Callable[[], Cluster] | None = None,
        poll_s: float = _POLL_S,
    ) -> None:
        self._order, self._attempt, self._resources, self._spec, self._clock = order, attempt, resources, spec, clock
        self._connect = connect or (lambda: Cluster.connect(spec.namespace))
        self._poll_s = poll_s
        self._name = name_job(order.job_id, attempt)
        self._deadline_s = clock.monotonic_s() + resources.timeout_ms / 1000
        self._reports: queue.SimpleQueue[JobReport] = queue.SimpleQueue()
        self._printed: deque[Printed] = deque(maxlen=_NUM_LINES_MAX)
        self._num_heard = 0
        self._trouble, self._end = "", "its Job ended"
        self._pulling_since_s: float | None = None
        self._stop = threading.Event()
        self._cluster: Cluster | None = None
        self._thread = threading.Thread(target=self._run, name=f"job-{order.job_id[:8]}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The Job, in words."""
        return f"Job {self._name} on Kubernetes"

    @property
    def trouble(self) -> str:
        """Why the pod does not run at the moment, in words; empty where nothing is wrong."""
        return self._trouble

    def read_reports(self) -> list[JobReport]:
        """Return what the pod has reported since the last call, in order."""
        reports = []
        while not self._reports.empty():
            reports.append(self._reports.get())
        return reports

    def read_printed(self) -> list[Printed]:
        """Return what the pod has printed, and what there was to say of it, since the last call."""
        printed = []
        while self._printed:
            printed.append(self._printed.popleft())
        return printed

    def is_over(self) -> bool:
        """Say whether the Job is over and everything it said has been heard."""
        return not self._thread.is_alive() and self._reports.empty()

    def is_late(self) -> bool:
        """Say whether it has run for longer than it may."""
        return self._clock.monotonic_s() > self._deadline_s

    def describe_end(self) -> str:
        """Say how the Job ended, in words."""
        return self._end

    def stop(self) -> None:
        """Delete the Job, and with it pod and Secret; where the cluster is away, the Job's own deadline ends it."""
        self._stop.set()
        self._delete()
        self._thread.join(_STOP_S)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            steps: list[Callable[[Cluster], bool]] = [self._make, self._follow]
            backoff_s = self._poll_s
            while steps and not self._stop.is_set():
                try:
                    self._cluster = self._cluster or self._connect()
                    if steps[0](self._cluster):
                        steps.pop(0)
                    backoff_s = self._poll_s
                except Retryable as error:
                    self._say(str(error))
                    backoff_s = min(2 * backoff_s, _BACKOFF_S_MAX)
                if steps:
                    self._stop.wait(backoff_s)
        except ConfigurationError as error:
            self._reports.put(JobUnfit(reason=str(error)))
        except Exception as error:
            log.exception("job %s: following it failed", self._order.job_id[:12])
            self._end = f"following it failed: {error}"
        self._delete()

    def _make(self, cluster: Cluster) -> bool:
        """Make the Job, then the Secret that it owns, for which its pod waits; remove earlier attempts. Repeatable."""
        manifest = build_job(self._order, self._attempt, self._resources, self._spec)
        for earlier in cluster.list_jobs(f"{JOB_LABEL}={label_job(self._order.job_id)}"):
            if earlier["metadata"]["name"] != self._name:
                cluster.delete_job(earlier["metadata"]["name"])
        job = cluster.create_job(manifest)
        cluster.create_secret(build_secret(self._order, self._attempt, job["metadata"]["uid"]))
        self._say(f"Job {self._name} is made in namespace {cluster.namespace}", is_trouble=False)
        return True

    def _follow(self, cluster: Cluster) -> bool:
        """Look at the pod once, and hear its log for as long as it lasts; True when the Job is over."""
        pods = cluster.list_pods(f"job-name={self._name}")
        if not pods:
            return self._look_at_job(cluster)
        pod = pods[-1]
        state = describe_pod(pod)
        if state.phase == "Pending":
            self._say(state.trouble)
            return self._is_given_up(state.is_hopeless, state.is_pulling) or self._has_failed(cluster)
        self._trouble = ""
        self._hear(cluster, pod["metadata"]["name"])
        state = describe_pod((cluster.list_pods(f"job-name={self._name}") or [pod])[-1])
        if state.phase == "Failed":
            self._end = self._describe_failure(cluster, state.trouble)
        elif state.phase == "Succeeded":
            self._end = "its pod ended with status 0"
        return state.phase in ("Failed", "Succeeded")

    def _look_at_job(self, cluster: Cluster) -> bool:
        job = cluster.read_job(self._name)
        if job is None or describe_job_failure(job) or is_complete(job):
            gone = "its Job was deleted" if job is None else "its Job is complete, and its pod gone"
            self._end = describe_job_failure(job or {}) or gone
            return True
        self._say(f"Job {self._name} has no pod yet")
        return False

    def _has_failed(self, cluster: Cluster) -> bool:
        failure = describe_job_failure(cluster.read_job(self._name) or {})
        if failure:
            self._end = f"{failure}; {self._trouble}" if self._trouble else failure
        return bool(failure)

    def _describe_failure(self, cluster: Cluster, words: str) -> str:
        failure = describe_job_failure(cluster.read_job(self._name) or {})
        # That the only pod has failed is all that this reason says.
        return words if not failure or "BackoffLimitExceeded" in failure else f"{words}; {failure}"

    def _is_given_up(self, is_hopeless: bool, is_pulling: bool) -> bool:
        now_s = self._clock.monotonic_s()
        if not is_pulling:
            self._pulling_since_s = None
        elif self._pulling_since_s is None:
            self._pulling_since_s = now_s
        if is_hopeless or (self._pulling_since_s is not None and now_s - self._pulling_since_s >= _PULL_S):
            self._end = self._trouble
            return True
        return False

    def _hear(self, cluster: Cluster, pod: str) -> None:
        """Hear a log to its end. One that breaks off is read again from the start, less what was heard of it."""
        for number, line in enumerate(cluster.follow_log(pod, CONTAINER)):
            if self._stop.is_set():
                return
            if number < self._num_heard:
                continue
            self._num_heard = number + 1
            try:
                self._reports.put(decode_report(line))
            except msgspec.MsgspecError:
                self._print(line.decode(errors="replace"))

    def _say(self, trouble: str, is_trouble: bool = True) -> None:
        """Put what there is to say among the printed lines, once."""
        if trouble and trouble != self._trouble:
            self._print(trouble)
        self._trouble = trouble if is_trouble else ""

    def _print(self, text: str) -> None:
        self._printed.append(Printed(self._clock.now_ms(), text.rstrip()[:_LINE_CHARS_MAX]))

    def _delete(self) -> None:
        cluster: Any = self._cluster
        if cluster is None:
            return
        try:
            cluster.delete_job(self._name)
        except (Retryable, ConfigurationError) as error:
            log.warning("job %s: %s; it ends at its own deadline", self._order.job_id[:12], error)
