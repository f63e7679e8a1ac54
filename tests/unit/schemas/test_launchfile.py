"""Where a job runs, as the spec's file says it."""

from __future__ import annotations

import pytest

from schemas.declarations import KubernetesSpec, ResourceSpec, RetrainSpec, TolerationSpec
from schemas.errors import ConfigurationError
from schemas.spec import parse_spec

_HEAD = "model: loans\ntask: binary\nreference: r.parquet\nwindows: {size: 1h}\n"


def read(retrain: str) -> RetrainSpec:
    spec = parse_spec(f"{_HEAD}retrain: {retrain}\n", "loans.yaml").retrain
    assert spec is not None
    return spec


def test_a_job_runs_as_a_process_of_the_trainer_unless_the_spec_says_otherwise() -> None:
    assert (read("{}").launcher, read("{}").resources, read("{}").kubernetes) == ("local", ResourceSpec(), None)
    spec = read("{launcher: torchrun, resources: {accelerator: gpu, gpus: 4, processes: 8}}")
    assert (spec.launcher, spec.resources) == ("torchrun", ResourceSpec(accelerator="cuda", gpus=4, processes=8))


def test_kubernetes_section_is_read_whole() -> None:
    spec = read(
        "{launcher: kubernetes, kubernetes: {image: 'r/driftloop:1', namespace: ml, service_account: job,"
        " node_selector: {pool: gpu, zone: 1}, artifacts_claim: models,"
        " tolerations: [{key: gpu, value: only, effect: NoSchedule}, {operator: Exists}]}}"
    )
    assert spec.kubernetes == KubernetesSpec(
        image="r/driftloop:1",
        namespace="ml",
        service_account="job",
        node_selector={"pool": "gpu", "zone": "1"},
        artifacts_claim="models",
        tolerations=[TolerationSpec(key="gpu", value="only", effect="NoSchedule"), TolerationSpec(operator="Exists")],
    )


@pytest.mark.parametrize(
    ("retrain", "message"),
    [
        ("{launcher: slurm}", "retrain.launcher: 'slurm' is not one of local, torchrun, kubernetes"),
        ("{launcher: kubernetes}", "retrain.launcher: a pod needs an image"),
        ("{kubernetes: {namespace: ml}}", "retrain.kubernetes.image: this key is missing"),
        ("{kubernetes: {image: x, namespace: My_Space}}", "retrain.kubernetes.namespace: 'My_Space' is no name"),
        ("{resources: {processes: 2}}", "retrain.resources: the launcher local runs one process, not 2"),
        (
            "{kubernetes: {image: x, tolerations: [{value: only}]}}",
            "retrain.kubernetes.tolerations[0]: a toleration of equality needs a key",
        ),
        (
            "{kubernetes: {image: x, tolerations: [{key: a, operator: Exists, value: b}]}}",
            "retrain.kubernetes.tolerations[0]: a toleration that asks for existence has no value",
        ),
    ],
)
def test_mistakes_name_their_key(retrain: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(retrain)
    assert str(error.value).startswith(f"loans.yaml:5: {message}")
