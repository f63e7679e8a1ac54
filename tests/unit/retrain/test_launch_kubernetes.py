"""Jobs as pods: the objects are ones that Kubernetes' client knows, and what the cluster answers is understood."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from retrain.cluster import Cluster
from retrain.launch_kubernetes import KubernetesJob
from retrain.order import EpochTrained, JobOrder, JobReport, JobUnfit, NetworkTrained, decode_order, encode_line
from retrain.pod_manifests import build_job, build_secret
from schemas.catalogue import PublishedSpec
from schemas.clock import SystemClock
from schemas.connections import ClickHouseConnection
from schemas.declarations import TolerationSpec
from schemas.errors import ConfigurationError
from schemas.spec import KubernetesSpec, ResourceSpec, parse_spec
from tests.unit.retrain.kubernetes_api import KubernetesApi, make_pod

client = pytest.importorskip("kubernetes.client", reason="the package kubernetes is not installed")

DEPLOYED = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes" / "trainer-rbac.yaml"
JOB_ID = "0123456789abcdef" * 4
NAME = "driftloop-0123456789abcdef-3"
SPEC = KubernetesSpec(
    image="registry.example/driftloop:1",
    namespace="ml",
    service_account="models",
    node_selector={"pool": "gpu"},
    tolerations=[TolerationSpec(key="gpu", value="only", effect="NoSchedule"), TolerationSpec(operator="Exists")],
    artifacts_claim="models",
)
RESOURCES = ResourceSpec(accelerator="cuda", gpus=2, cpus=4, memory_bytes=8 << 30, timeout_ms=90_500)
EPOCH = EpochTrained(epoch=1, loss=0.5, validation_loss=0.4, metric_name="roc_auc", metric=0.8, seconds=1.0)
DONE = NetworkTrained(num_epochs=1, seconds=2.0)


def make_order(artifacts: str = "/data/artifacts") -> JobOrder:
    spec = parse_spec("model: loans\ntask: binary\nreference: r.parquet\nwindows: {size: 1h}\n", "loans.yaml")
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="r", reference_rows=1
    )
    connection = ClickHouseConnection("http://clickhouse:8123", password="secret")
    return JobOrder(
        job_id=JOB_ID, model="loans", published=published, champion="1", train_from=0, train_to=1, gate_from=1,
        gate_to=2, clickhouse=connection, artifacts=artifacts,
    )  # fmt: skip


def check_known(manifest: dict[str, Any], model: Any) -> None:
    """Nothing of a manifest may be lost in the client's own model: what it does not know, it drops."""
    assert client.ApiClient().sanitize_for_serialization(model.from_dict(manifest)) == manifest


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    made = KubernetesApi()
    yield made
    made.close()


def start(api: KubernetesApi, order: JobOrder | None = None, timeout_ms: int = 60_000) -> KubernetesJob:
    def connect() -> Cluster:
        return Cluster("ml", client.Configuration(host=api.url))

    resources = ResourceSpec(timeout_ms=timeout_ms)
    return KubernetesJob(order or make_order(), 3, resources, SPEC, SystemClock(), connect, poll_s=0.05)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def hear(job: KubernetesJob) -> list[JobReport]:
    """Everything until the job is over."""
    heard: list[JobReport] = []

    def is_over() -> bool:
        heard.extend(job.read_reports())
        return job.is_over()

    wait_until(is_over)
    return heard


def list_printed(job: KubernetesJob) -> list[str]:
    return [line.text for line in job.read_printed()]


# ── the objects ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_objects_are_ones_that_the_client_knows_whole() -> None:
    check_known(build_job(make_order(), 3, RESOURCES, SPEC), client.V1Job)
    check_known(build_job(make_order("s3://b/m"), 3, ResourceSpec(), KubernetesSpec(image="x")), client.V1Job)
    check_known(build_secret(make_order(), 3, "uid"), client.V1Secret)


def test_rights_of_the_trainer_are_objects_that_the_client_knows_whole() -> None:
    account, role, binding = yaml.safe_load_all(DEPLOYED.read_text())
    check_known(account, client.V1ServiceAccount)
    check_known(role, client.V1Role)
    check_known(binding, client.V1RoleBinding)
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_job_runs_once_as_nobody_special_with_what_is_declared() -> None:
    job = build_job(make_order(), 3, RESOURCES, SPEC)
    assert job["metadata"]["name"] == NAME
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 91)
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert (pod["serviceAccountName"], pod["nodeSelector"]) == ("models", {"pool": "gpu"})
    assert pod["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "only", "effect": "NoSchedule"},
        {"operator": "Exists"},
    ]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    asked = {"cpu": "4", "memory": str(8 << 30), "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": asked, "limits": asked}
    torchrun = ["python", "-m", "retrain.torchrun", "--processes", "2", "--order", "/etc/driftloop/order.json"]
    assert container["command"] == torchrun
    assert {"name": "artifacts", "mountPath": "/data/artifacts"} in container["volumeMounts"]
    alone = build_job(make_order("s3://b/m"), 3, ResourceSpec(), KubernetesSpec(image="x"))
    (container,) = alone["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "retrain.job", "--order", "/etc/driftloop/order.json"]
    assert container["resources"] == {}
    assert "secret" not in json.dumps(alone).replace("secretName", "").replace('"secret":', "")


def test_secret_is_the_order_and_goes_with_the_job() -> None:
    secret = build_secret(make_order(), 3, "uid-1")
    assert decode_order(base64.b64decode(secret["data"]["order.json"])) == make_order()
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", NAME, "uid-1")


def test_artifacts_that_no_pod_reaches_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="artifacts_claim"):
        build_job(make_order(), 1, ResourceSpec(), KubernetesSpec(image="x"))


# ── the launcher ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_job_is_made_followed_and_removed(api: KubernetesApi) -> None:
    api.pods = [
        [],
        [make_pod("Pending", conditions=[_unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")])],
        [make_pod("Running")],
        [make_pod("Succeeded")],
    ]
    api.log = [encode_line(EPOCH) + b"a library says something\n" + encode_line(DONE)]
    job = start(api)
    assert hear(job) == [EPOCH, DONE]
    assert job.describe_end() == "its pod ended with status 0"
    assert list_printed(job) == [
        f"Job {NAME} is made in namespace ml",
        f"Job {NAME} has no pod yet",
        "pod driftloop-pod has no node: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "a library says something",
    ]
    said = api.list_requests()
    assert said[:3] == ["GET jobs", "POST jobs", "POST secrets"]
    assert said[-1] == f"DELETE jobs/{NAME}"
    assert api.jobs == {}
    made, secret, deleted = (next(r for r in api.requests if f"{r.method} {r.path}".startswith(what)) for what in (
        "POST /apis/batch", "POST /api/v1", "DELETE /apis/batch"))  # fmt: skip
    assert made.body == build_job(make_order(), 3, ResourceSpec(timeout_ms=60_000), SPEC)
    assert secret.body == build_secret(make_order(), 3, f"uid-of-{NAME}")
    assert deleted.body["propagationPolicy"] == "Background"
    (log,) = (request for request in api.requests if request.path.endswith("/log"))
    assert (log.query["follow"], log.query["container"]) == (["true"], ["job"])
    assert {r.query["labelSelector"][0] for r in api.requests if r.path.endswith("/pods")} == {f"job-name={NAME}"}


def test_job_that_is_there_already_is_followed_and_earlier_attempts_go(api: KubernetesApi) -> None:
    """The answer to the first creation was lost, and a trainer died with attempt 2 under way."""
    order = make_order()
    for attempt in (2, 3):
        made = build_job(order, attempt, ResourceSpec(timeout_ms=60_000), SPEC)
        made["metadata"]["uid"] = f"uid-{attempt}"
        api.jobs[made["metadata"]["name"]] = made
    api.pods = [[make_pod("Running")], [make_pod("Succeeded")]]
    api.log = [encode_line(DONE)]
    assert hear(start(api, order)) == [DONE]
    (secret,) = api.secrets.values()
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-3"
    removed = [each for each in api.list_requests() if each.startswith("DELETE")]
    assert removed == ["DELETE jobs/driftloop-0123456789abcdef-2", f"DELETE jobs/{NAME}"]


def test_log_that_breaks_off_is_heard_once_and_to_its_end(api: KubernetesApi) -> None:
    api.pods = [[make_pod("Running")]] * 3 + [[make_pod("Succeeded")]]
    api.log = [encode_line(EPOCH) + encode_line(DONE)[:20] + "…".encode(), encode_line(EPOCH) + encode_line(DONE)]
    job = start(api)
    assert hear(job) == [EPOCH, DONE]
    assert any("cannot be reached to read the log" in line for line in list_printed(job))


def test_reports_are_heard_while_the_pod_runs(api: KubernetesApi) -> None:
    api.pods = [[make_pod("Running")], [make_pod("Succeeded")]]
    api.log = [encode_line(EPOCH) + encode_line(DONE)]
    api.goes_on.clear()
    job = start(api)
    heard: list[JobReport] = []

    def has_heard() -> bool:
        heard.extend(job.read_reports())
        return bool(heard)

    wait_until(has_heard)
    assert heard == [EPOCH]
    assert not job.is_over()
    api.goes_on.set()
    assert hear(job) == [DONE]


def test_cluster_that_is_away_for_a_while_is_waited_for(api: KubernetesApi) -> None:
    api.statuses = {"GET jobs": [500], "POST jobs": [503, 429], "POST secrets": [500], "GET pods": [504]}
    api.pods = [[make_pod("Succeeded")]]
    api.log = [encode_line(DONE)]
    assert hear(start(api)) == [DONE]
    assert len(api.secrets) == 1


def test_missing_rights_end_the_job_with_the_remedy(api: KubernetesApi) -> None:
    api.statuses = {"POST jobs": [403]}
    (report,) = hear(start(api))
    assert isinstance(report, JobUnfit)
    assert "403 jobs.batch is forbidden" in report.reason
    assert "trainer-rbac.yaml" in report.reason


def _unschedulable(message: str) -> dict[str, str]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def _terminated(**state: Any) -> dict[str, Any]:
    return {"name": "job", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}


@pytest.mark.parametrize(
    ("pod", "job_status", "words"),
    [
        (
            make_pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            {},
            "its pod ended: Evicted: The node was low on resource: memory.",
        ),
        (
            make_pod("Failed", containerStatuses=[_terminated(terminated={"exitCode": 137, "reason": "OOMKilled"})]),
            {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]},
            "its pod was short of memory (OOMKilled) with status 137",
        ),
        (
            make_pod("Failed", containerStatuses=[_terminated(terminated={"exitCode": 1, "reason": "Error"})]),
            {},
            "its pod ended with status 1",
        ),
        (
            make_pod("Pending", conditions=[_unschedulable("no GPU")]),
            {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}]},
            "its Job failed: DeadlineExceeded: too long; pod driftloop-pod has no node: no GPU",
        ),
        (
            make_pod("Pending", containerStatuses=[_terminated(waiting={"reason": "InvalidImageName"})]),
            {},
            "pod driftloop-pod does not start: InvalidImageName",
        ),
    ],
)
def test_pods_that_fail_say_why(
    api: KubernetesApi, pod: dict[str, Any], job_status: dict[str, Any], words: str
) -> None:
    api.pods, api.job_status = [[pod]], job_status
    api.statuses = {}
    job = start(api)
    assert hear(job) == []
    assert job.describe_end() == words
    assert api.jobs == {}


def test_job_that_someone_deletes_is_over(api: KubernetesApi) -> None:
    job = start(api)
    wait_until(lambda: any(each.startswith("GET pods") for each in api.list_requests()))
    api.jobs.clear()
    assert hear(job) == []
    assert job.describe_end() == "its Job was deleted"


def test_stopped_job_is_deleted(api: KubernetesApi) -> None:
    api.pods = [[make_pod("Pending", conditions=[_unschedulable("no GPU")])]]
    job = start(api, timeout_ms=1)
    wait_until(lambda: job.trouble != "")
    assert job.is_late()
    assert not job.is_over()
    job.stop()
    assert job.is_over()
    assert job.trouble == "pod driftloop-pod has no node: no GPU"
    assert api.jobs == {}
