"""A job as Kubernetes objects: a batch/v1 Job, and the Secret with its order.

Owns what is in them. Pure: plain dictionaries as in YAML; it must not speak with a cluster.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from retrain.order import JobOrder, encode_line
from schemas.errors import ConfigurationError
from schemas.spec import KubernetesSpec, ResourceSpec

JOB_LABEL, ATTEMPT_LABEL = "driftloop/job", "driftloop/attempt"
CONTAINER = "job"
_ORDER_FOLDER, _ORDER_FILE = "/etc/driftloop", "order.json"
# The user of the project's image, by number, since Kubernetes refuses to take a name's word for not being root.
_USER = 1000
# The trainer removes a Job that is over. Where it cannot any more, nothing stays for longer than this.
_KEPT_S = 3600


def name_job(job_id: str, attempt: int) -> str:
    """Name the objects of one attempt; the same whenever it is asked."""
    return f"driftloop-{re.sub(r'[^a-z0-9]', '', job_id.lower())[:16]}-{attempt}"


def build_job(order: JobOrder, attempt: int, resources: ResourceSpec, spec: KubernetesSpec) -> dict[str, Any]:
    """Build the Job; ConfigurationError when the artifacts are where no pod can reach them."""
    name = name_job(order.job_id, attempt)
    labels = _label(order, attempt)
    volumes: list[dict[str, Any]] = [
        {"name": "order", "secret": {"secretName": name, "defaultMode": 0o440}},
        {"name": "tmp", "emptyDir": {}},
        # Where processes share memory, a container has 64 MiB otherwise.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "order", "mountPath": _ORDER_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if spec.artifacts_claim is not None:
        volumes.append({"name": "artifacts", "persistentVolumeClaim": {"claimName": spec.artifacts_claim}})
        mounts.append({"name": "artifacts", "mountPath": order.artifacts})
    elif "://" not in order.artifacts:
        raise ConfigurationError(
            f"the artifacts are in the folder {order.artifacts} of the trainer, which a pod does not see",
            key="retrain.kubernetes.artifacts_claim",
            remedy="name a claim that is mounted there, or set DRIFTLOOP_ARTIFACTS to a URL such as s3://bucket/models",
        )
    elif order.artifacts.startswith("file:"):
        raise ConfigurationError(
            "a pod does not see the trainer's files",
            key="retrain.kubernetes.artifacts_claim",
            remedy="set DRIFTLOOP_ARTIFACTS to the folder's path",
        )
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "command": _build_command(resources),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108
            {"name": "DO_NOT_TRACK", "value": "1"},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
        ],
        "resources": _build_resources(resources),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if spec.service_account is not None:
        pod["serviceAccountName"] = spec.service_account
    if spec.node_selector:
        pod["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        pod["tolerations"] = [
            {
                name: value
                for name in ("key", "operator", "value", "effect")
                if (value := getattr(toleration, name)) is not None
            }
            for toleration in spec.tolerations
        ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": _annotate(order)},
        "spec": {
            # The trainer decides whether an attempt is repeated.
            "backoffLimit": 0,
            "activeDeadlineSeconds": max(1, -(-resources.timeout_ms // 1000)),
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": {"metadata": {"labels": labels, "annotations": _annotate(order)}, "spec": pod},
        },
    }


def build_secret(order: JobOrder, attempt: int, job_uid: str) -> dict[str, Any]:
    """Build the Secret, which holds ClickHouse's password; it goes when the Job goes that has this uid."""
    name = name_job(order.job_id, attempt)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {"name": name, "labels": _label(order, attempt), "ownerReferences": [owner]},
        "data": {_ORDER_FILE: base64.b64encode(encode_line(order)).decode()},
    }


def _label(order: JobOrder, attempt: int) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "driftloop",
        "app.kubernetes.io/component": "retraining",
        "app.kubernetes.io/managed-by": "driftloop-trainer",
        JOB_LABEL: label_job(order.job_id),
        ATTEMPT_LABEL: str(attempt),
    }


def label_job(job_id: str) -> str:
    """Give a job's id as the value of a label, which has at most 63 characters."""
    return job_id[:63]


def _annotate(order: JobOrder) -> dict[str, str]:
    return {"driftloop/job-id": order.job_id, "driftloop/model": order.model}


def _build_command(resources: ResourceSpec) -> list[str]:
    num_processes = resources.processes or (resources.gpus if resources.accelerator == "cuda" else 1)
    order = ["--order", f"{_ORDER_FOLDER}/{_ORDER_FILE}"]
    if num_processes == 1:
        return ["python", "-m", "retrain.job", *order]
    return ["python", "-m", "retrain.torchrun", "--processes", str(num_processes), *order]


def _build_resources(resources: ResourceSpec) -> dict[str, Any]:
    """Ask for what is declared, and allow no more; a GPU only where the spec says that it must be one."""
    asked: dict[str, str] = {}
    if resources.cpus is not None:
        asked["cpu"] = str(resources.cpus)
    if resources.memory_bytes is not None:
        asked["memory"] = str(resources.memory_bytes)
    if resources.accelerator == "cuda":
        asked["nvidia.com/gpu"] = str(resources.gpus)
    return {"requests": dict(asked), "limits": asked} if asked else {}
