"""The `retrain` section's keys that say where a job runs and what it may use, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from schemas.declarations import KubernetesSpec, LauncherName, ResourceSpec, TolerationSpec
from schemas.yamlnodes import Section, Value

LAUNCH_KEYS = ["launcher", "resources", "kubernetes"]

# RFC 1123, as Kubernetes checks namespaces, service accounts and claims.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]


def read_launch(section: Section) -> dict[str, Any]:
    """Give the fields of `RetrainSpec` that are declared of `launcher`, `resources` and `kubernetes`."""
    given = _read_given(
        section,
        launcher=("launcher", lambda value: value.choice(get_args(LauncherName))),
        resources=("resources", _read_resources),
        kubernetes=("kubernetes", _read_kubernetes),
    )
    if given.get("launcher") == "kubernetes" and "kubernetes" not in given:
        section.require("launcher", "").fail(
            "a pod needs an image", "Write `kubernetes: {image: registry/driftloop:1.0, artifacts_claim: driftloop}`."
        )
    processes = given["resources"].processes if "resources" in given else None
    if processes is not None and processes > 1 and given.get("launcher", "local") == "local":
        section.require("resources", "").fail(
            f"the launcher local runs one process, not {processes}", "Write `launcher: torchrun`."
        )
    return given


def _read_resources(value: Value) -> ResourceSpec:
    section = value.section().allow(["accelerator", "gpus", "processes", "gpu_memory", "cpus", "memory", "timeout"])
    given = _read_given(
        section,
        accelerator=("accelerator", _read_accelerator),
        gpus=("gpus", lambda given: given.count(high=1024)),
        processes=("processes", lambda given: given.count(high=1024)),
        gpu_memory_bytes=("gpu_memory", Value.size_bytes),
        cpus=("cpus", lambda given: given.count(high=4096)),
        memory_bytes=("memory", Value.size_bytes),
        timeout_ms=("timeout", Value.duration_ms),
    )
    return ResourceSpec(**given)


def _read_accelerator(value: Value) -> str:
    chosen = value.choice(["auto", "cpu", "cuda", "gpu"])
    return "cuda" if chosen == "gpu" else chosen


def _read_kubernetes(value: Value) -> KubernetesSpec:
    section = value.section().allow(
        ["image", "namespace", "service_account", "node_selector", "tolerations", "artifacts_claim"]
    )
    section.require("image", "Write `image: registry/driftloop:1.0`, an image with this release of driftloop.")
    given = _read_given(
        section,
        image=("image", Value.text),
        namespace=("namespace", _read_name),
        service_account=("service_account", _read_name),
        node_selector=("node_selector", lambda given: {name: label.text() for name, label in given.section()}),
        tolerations=("tolerations", lambda given: [_read_toleration(item) for item in given.items()]),
        artifacts_claim=("artifacts_claim", _read_name),
    )
    return KubernetesSpec(**given)


def _read_name(value: Value) -> str:
    if not _NAME.fullmatch(value.text()):
        value.fail(f"{value.text()!r} is no name in Kubernetes", "Use lower-case letters, digits, `-` and `.`.")
    return value.text()


def _read_toleration(value: Value) -> TolerationSpec:
    section = value.section().allow(["key", "operator", "value", "effect"])
    given = _read_given(
        section,
        key=("key", Value.text),
        operator=("operator", lambda given: given.choice(["Equal", "Exists"])),
        value=("value", Value.text),
        effect=("effect", lambda given: given.choice(_EFFECTS)),
    )
    toleration = TolerationSpec(**given)
    if toleration.operator == "Exists" and toleration.value is not None:
        value.fail("a toleration that asks for existence has no value", "Leave out `value`.")
    if toleration.operator == "Equal" and toleration.key is None:
        value.fail("a toleration of equality needs a key", "Write `key`, or `operator: Exists`.")
    return toleration


def _read_given(section: Section, **readers: tuple[str, Callable[[Value], Any]]) -> dict[str, Any]:
    """Read the keys that are there, each into its field."""
    found = {field: (section.get(key), read) for field, (key, read) in readers.items()}
    return {field: read(value) for field, (value, read) in found.items() if value is not None}
