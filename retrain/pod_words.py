"""What has become of a Job and its pod, in words. Pure: it reads the objects as the API gives them, as dictionaries."""

from __future__ import annotations

from typing import Any, NamedTuple

# These do not heal by waiting.
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
# A registry that is away may come back; a wrong name will not.
PULLS = ("ErrImagePull", "ImagePullBackOff")


class PodState(NamedTuple):
    """`phase` as Kubernetes has it (empty: there is no pod), why it does not run, and whether it never will."""

    phase: str
    trouble: str = ""
    is_hopeless: bool = False
    is_pulling: bool = False


def describe_pod(pod: dict[str, Any]) -> PodState:
    """Say what a pod does, and why it does not run if it does not."""
    status = pod.get("status") or {}
    phase = status.get("phase") or "Pending"
    name = pod["metadata"]["name"]
    if phase == "Failed":
        return PodState(phase, _describe_failure(status))
    if phase in ("Running", "Succeeded"):
        return PodState(phase)
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = condition.get("message") or condition.get("reason") or ""
            return PodState(phase, f"pod {name} has no node: {message}")
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            words = f"pod {name} does not start: {reason}: {waiting.get('message', '')}".rstrip(": ")
            return PodState(phase, words, reason in _HOPELESS, reason in PULLS)
    return PodState(phase)


def describe_job_failure(job: dict[str, Any]) -> str:
    """Say why a Job has failed; empty if it has not."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return f"its Job failed: {condition.get('reason', '')}: {condition.get('message', '')}".rstrip(": ")
    return ""


def is_complete(job: dict[str, Any]) -> bool:
    """Tell whether a Job has succeeded."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Complete" and each.get("status") == "True" for each in conditions)


def _describe_failure(status: dict[str, Any]) -> str:
    """Evicted pods say so themselves; of others the container tells."""
    if status.get("reason"):
        return f"its pod ended: {status['reason']}: {status.get('message', '')}".rstrip(": ")
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended:
            said = "was short of memory (OOMKilled)" if ended.get("reason") == "OOMKilled" else "ended"
            return f"its pod {said} with status {ended.get('exitCode')}"
    return "its pod failed"
