"""Settings come from the environment, then from the data folder, then from defaults; mistakes name the variable."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from driftloop.settings import (
    Endpoints,
    format_clickhouse_url,
    format_kafka_options,
    parse_clickhouse_url,
    read_settings,
)
from schemas.errors import ConfigurationError


def test_without_anything_the_local_servers_are_meant(tmp_path: Path) -> None:
    settings = read_settings(tmp_path, {})
    runtime = settings.runtime
    assert (runtime.kafka.bootstrap_servers, runtime.clickhouse.url) == ("127.0.0.1:9092", "http://127.0.0.1:8123")
    assert (runtime.clickhouse.user, runtime.clickhouse.database) == ("default", "driftloop")
    assert not settings.external_kafka
    assert not settings.external_clickhouse
    assert runtime.num_partitions == 4
    assert runtime.artifacts == str(tmp_path / "artifacts")


def test_a_running_installation_is_found_through_its_folder_and_the_environment_outranks_it(tmp_path: Path) -> None:
    Endpoints("127.0.0.1:19092", "http://127.0.0.1:18123", 1).write(tmp_path)
    assert read_settings(tmp_path, {}).runtime.kafka.bootstrap_servers == "127.0.0.1:19092"
    settings = read_settings(tmp_path, {"DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": "kafka-1:9092,kafka-2:9092"})
    assert settings.runtime.kafka.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
    assert settings.runtime.clickhouse.url == "http://127.0.0.1:18123"
    assert settings.external_kafka
    assert not settings.external_clickhouse


def test_kafka_options_are_passed_through_under_librdkafkas_names(tmp_path: Path) -> None:
    environ = {
        "DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
        "DRIFTLOOP_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "DRIFTLOOP_KAFKA_SASL_MECHANISM": "PLAIN",
        "DRIFTLOOP_KAFKA_SASL_USERNAME": "me",
        "DRIFTLOOP_KAFKA_SASL_PASSWORD": "se=cret",
        "DRIFTLOOP_KAFKA_SSL_CA_LOCATION": "/etc/ca.pem",
    }
    kafka = read_settings(tmp_path, environ).runtime.kafka
    assert kafka.librdkafka() == {
        "bootstrap.servers": "kafka:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "se=cret",
        "ssl.ca.location": "/etc/ca.pem",
    }
    # The supervisor hands them to the roles as variables again.
    assert format_kafka_options(kafka).items() <= environ.items()


@pytest.mark.parametrize(
    ("url", "address", "user", "password", "database"),
    [
        ("http://ch", "http://ch:8123", "default", "", "driftloop"),
        ("https://ch", "https://ch:8443", "default", "", "driftloop"),
        ("http://reader@ch:8124", "http://ch:8124", "reader", "", "driftloop"),
        ("http://me:p%40ss%2F@ch:8124/facts", "http://ch:8124", "me", "p@ss/", "facts"),
        ("http://[::1]:8123", "http://[::1]:8123", "default", "", "driftloop"),
    ],
)
def test_clickhouse_urls_are_read_and_written(url: str, address: str, user: str, password: str, database: str) -> None:
    connection = parse_clickhouse_url(url)
    assert (connection.url, connection.user, connection.password, connection.database) == (
        address, user, password, database,
    )  # fmt: skip
    assert parse_clickhouse_url(format_clickhouse_url(connection)) == connection


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DRIFTLOOP_CLICKHOUSE_URL", "127.0.0.1:8123"),
        ("DRIFTLOOP_CLICKHOUSE_URL", "http://ch:port"),
        ("DRIFTLOOP_CLICKHOUSE_URL", "clickhouse://ch:9000"),
        ("DRIFTLOOP_PARTITIONS", "many"),
        ("DRIFTLOOP_PARTITIONS", "0"),
        ("DRIFTLOOP_PARTITIONS", "²"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings(tmp_path, {variable: value})
    assert raised.value.key == variable
    assert raised.value.remedy


def test_a_broken_endpoints_file_is_named(tmp_path: Path) -> None:
    Endpoints.path(tmp_path).write_text("{")
    with pytest.raises(ConfigurationError, match=r"endpoints\.json"):
        read_settings(tmp_path, {})


def test_the_privacy_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = read_settings(tmp_path / "new", {}).runtime.privacy_key
    assert len(first) == 64
    assert read_settings(tmp_path / "new", {}).runtime.privacy_key == first
    assert stat.S_IMODE((tmp_path / "new" / "privacy.key").stat().st_mode) == 0o600
    assert read_settings(tmp_path / "new", {"DRIFTLOOP_PRIVACY_KEY": "k"}).runtime.privacy_key == b"k"


def test_secrets_do_not_show_where_settings_are_printed(tmp_path: Path) -> None:
    environ = {"DRIFTLOOP_CLICKHOUSE_URL": "http://me:hidden@ch:8123", "DRIFTLOOP_PRIVACY_KEY": "hidden"}
    assert "hidden" not in repr(read_settings(tmp_path, environ))


def test_a_folder_that_cannot_be_made_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        read_settings(tmp_path / "file", {})


def test_people_may_reach_clickhouse_elsewhere_but_never_with_a_password(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {}).runtime.public_clickhouse is None
    name = "DRIFTLOOP_CLICKHOUSE_PUBLIC_URL"
    public = read_settings(tmp_path, {name: "https://reader@facts.example.org/db"}).runtime.public_clickhouse
    assert public is not None
    assert (public.url, public.user, public.database) == ("https://facts.example.org:8443", "reader", "db")
    for url in ("http://reader:secret@facts.example.org:8123", "facts.example.org"):
        with pytest.raises(ConfigurationError, match=f"^{name}: "):
            read_settings(tmp_path, {name: url})


def test_a_switch_is_on_unless_it_is_0(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {}).runtime.warm_jobs
    assert not read_settings(tmp_path, {"DRIFTLOOP_WARM_JOBS": "0"}).runtime.warm_jobs
    with pytest.raises(ConfigurationError, match="DRIFTLOOP_WARM_JOBS"):
        read_settings(tmp_path, {"DRIFTLOOP_WARM_JOBS": "no"})
