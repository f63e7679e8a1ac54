"""docker-compose.yml fits the Compose specification, and its roles get the settings that the code reads."""

from __future__ import annotations

import importlib.resources
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftloop.cli import COMMANDS
from driftloop.roles import ROLES
from driftloop.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image", "").startswith("driftloop:")}


def test_the_file_fits_the_schema_of_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="it carries the specification's schema")
    jsonschema = pytest.importorskip("jsonschema")
    folder = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    errors = jsonschema.Draft202012Validator(schema).iter_errors(COMPOSE)
    assert [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors] == []


def test_docker_takes_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode:
        pytest.skip("there is no docker compose here")
    ended = subprocess.run([docker, "compose", "config", "-q"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_every_role_runs_and_nothing_else_of_ours() -> None:
    commands = {name: service["command"] for name, service in OURS.items()}
    assert commands["prepare"][0] in COMMANDS
    assert {command[0] for name, command in commands.items() if name != "prepare"} == set(ROLES)


@pytest.mark.parametrize("name", OURS)
def test_a_roles_variables_are_those_that_the_settings_read(name: str, tmp_path: Path) -> None:
    environment = {key: str(value) for key, value in OURS[name]["environment"].items()}
    asked: set[str] = set()

    class Watched(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    settings = read_settings(tmp_path, Watched(environment))
    assert set(environment) <= asked
    assert settings.external_kafka
    assert settings.external_clickhouse
    # Nothing is taken for an option of Kafka's clients.
    assert settings.runtime.kafka.options == {}
    # A container's own folder must not decide how fields are hashed, or where models are.
    assert {"DRIFTLOOP_PRIVACY_KEY", "DRIFTLOOP_ARTIFACTS"} <= set(environment)


@pytest.mark.parametrize("name", OURS)
def test_roles_talk_to_services_and_wait_for_them(name: str, tmp_path: Path) -> None:
    environment = {key: str(value) for key, value in OURS[name]["environment"].items()}
    runtime = read_settings(tmp_path, environment).runtime
    kafka = SERVICES["kafka"]["environment"]
    host, port = runtime.kafka.bootstrap_servers.split(":")
    assert re.search(rf"\b{host}:{port}\b", kafka["KAFKA_ADVERTISED_LISTENERS"])
    assert runtime.clickhouse.url == "http://clickhouse:8123"
    clickhouse = SERVICES["clickhouse"]["environment"]
    assert (runtime.clickhouse.user, runtime.clickhouse.password) == (
        clickhouse["CLICKHOUSE_USER"], clickhouse["CLICKHOUSE_PASSWORD"],
    )  # fmt: skip
    assert {"kafka", "clickhouse"} <= set(OURS[name]["depends_on"])


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
