"""What becomes of a version: its shadow period, and roles named by hand. On real processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from driftloop.cli import driftloop
from schemas.clock import SystemClock
from schemas.events import Measurement, RoleMap
from schemas.spec import PromoteSpec, RetrainSpec, RollbackSpec
from store.events import insert_events
from store.log import publish_roles
from store.measurements import insert_measurements
from tests.retraining import (  # noqa: F401 - fixtures
    HARMED,
    ROWS,
    SIZE_MS,
    START,
    START_MS,
    TOPIC_ID,
    Rows,
    World,
    bootstrap,
    clickhouse_url,
    make_rows,
    start,
    wait_until,
    world,
)
from tests.roles_watch import RoleWatch, watching_roles

pytestmark = pytest.mark.timeout(900)

GATE = HARMED + 1


def squash(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def turn_back(number: int, first: int) -> Rows:
    """As `make_rows` until a window in which reality turns back: the old model is right, what was learnt is wrong."""
    rows = make_rows(number)
    if number < first:
        return rows
    logit = 2 * (rows.amount - 8)
    label = (np.random.default_rng(3000 + number).random(ROWS) < squash(logit)).astype(float)
    return dataclasses.replace(rows, label=label, score=squash(logit))


@pytest.fixture
def watch(world: World) -> Iterator[RoleWatch]:
    with watching_roles(world.runtime) as watching:
        yield watching


def live(world: World, number: int, versions: tuple[str, ...]) -> None:
    """One window through the log: records are sent, scored by our versions, stored by the sink; then labels come."""
    world.send_records(number)
    start = START_MS + number * SIZE_MS
    for version in versions:
        wait_until(
            lambda version=version: count_scored(world, version, start) == ROWS, 90, f"{version} to score {number}"
        )
    # The old model is outside, and sends its own predictions.
    insert_events(world.ch, world.rows(number).columns(world.model, "predictions"), "predictions", TOPIC_ID, 0)
    world.label_window(number)
    measure(world, number, "quality", "num_rows", ROWS, "")


def count_scored(world: World, version: str, start: int) -> int:
    rows = world.ch.query(
        "SELECT count() FROM predictions WHERE model_version = {version:String} "
        "AND toUnixTimestamp64Milli(ts) >= {start:Int64} AND toUnixTimestamp64Milli(ts) < {end:Int64}",
        {"version": version, "start": start, "end": start + SIZE_MS},
    )
    return int(rows[0][0])


def measure(world: World, number: int, kind: str, metric: str, value: float, version: str) -> None:
    """A measurement as the monitor writes it."""
    start = START_MS + number * SIZE_MS
    measurement = Measurement(
        model=world.model,
        model_version=version,
        window_start=start,
        window_end=start + SIZE_MS,
        segment="",
        feature="",
        kind=kind,
        metric=metric,
        value=value,
        status="ok",
        num_rows=ROWS,
        computed_at=SystemClock().now_ms(),
    )
    insert_measurements(world.ch, [measurement])


def train_first(world: World) -> str:
    for number in range(GATE + 1):
        world.store_window(number, share_labelled=1.0)
    job_id = world.request()
    wait_until(lambda: world.job(job_id).get("state") in ("promoted", "accepted"), 300, "the job to end")
    return job_id


@pytest.mark.parametrize(("is_good", "champion"), [(True, "1"), (False, "external")], ids=["not worse", "worse"])
def test_challenger_is_promoted_after_its_shadow_period_only_if_it_was_not_worse(
    world: World, start: START, watch: RoleWatch, is_good: bool, champion: str
) -> None:
    world = dataclasses.replace(world, rows=make_rows if is_good else partial(turn_back, first=GATE + 1))
    world.publish_spec(2, {"retrain": RetrainSpec(promote=PromoteSpec(shadow=2), rollback=RollbackSpec())})
    trainer = start("train")
    start("score")
    start("sink")
    job_id = train_first(world)
    job = world.job(job_id)
    assert job["state"] == "accepted", job
    assert job["reason"] == "version 1 is challenger of external for its shadow period"
    assert watch.maps[-1].roles == {"champion": "external", "challenger": "1"}

    live(world, GATE + 1, ("1",))
    # A trainer that is killed in the middle of the period leaves nothing that another would not find.
    trainer.kill()
    start("train", "train-1")
    assert watch.champions(world.model) == ["external"]
    live(world, GATE + 2, ("1",))
    wait_until(lambda: len(watch.champions(world.model)) == 2, 90, "the decision")
    decided = watch.maps[-1]
    assert decided.cause == "shadow"
    assert decided.roles["champion"] == champion
    if is_good:
        assert decided.roles == {"champion": "1", "shadow": "external"}
        assert decided.job_id == job_id, "so that it may be rolled back"
        assert "version 1 was not worse than external in its shadow period of 2 windows" in decided.reason
    else:
        assert decided.roles == {"champion": "external", "retired": "1"}
        assert "version 1 was worse than external" in decided.reason


def test_roles_are_named_by_hand_and_a_lost_race_says_who_won(
    world: World, start: START, watch: RoleWatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = start("train")
    job_id = train_first(world)
    assert trainer.stop(60) == 0
    set_environment(world, monkeypatch)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(driftloop, ["--data", str(tmp_path), *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def read_roles() -> dict[str, str]:
        rows = msgspec.json.decode(run("models", world.model, "--json"))
        return {row["version"]: row["role"] for row in rows if row["role"]}

    assert read_roles() == {"1": "champion", "external": "shadow"}
    assert "# loans: model of job" in run("card", world.model)
    gates = msgspec.json.decode(run("card", world.model, "1", "--gates", "--json"))
    assert {"gain", "gain_lower", "calibration"} <= {gate["name"] for gate in gates}

    exported = tmp_path / "exported"
    assert "MLmodel" in run("export", world.model, "--to", str(exported), "--format", "mlflow")
    assert "loader_module: retrain.mlflow_loader" in (exported / "MLmodel").read_text()
    result = CliRunner().invoke(
        driftloop, ["--data", str(tmp_path), "export", world.model, "--to", str(exported), "--format", "mlflow"]
    )
    assert "is not empty" in str(result.exception)

    assert "champion   external" in run("rollback", world.model, "--reason", "complaints")
    assert read_roles() == {"external": "champion", "1": "retired"}
    assert "champion   1" in run("promote", world.model, "1")
    assert read_roles() == {"1": "champion", "external": "shadow"}
    assert "champion   external" in run("promote", world.model, "external", "--reason", "by the board")
    assert read_roles() == {"external": "champion", "1": "shadow"}
    assert [(each.cause, each.reason) for each in watch_until(watch, world, 4)[1:]] == [
        ("manual", "complaints"),
        ("manual", "promoted by hand"),
        ("manual", "by the board"),
    ]
    assert watch.maps[0].job_id == job_id

    for arguments, words in (
        (("promote", world.model, "7"), "has no version '7'"),
        (("promote", world.model, "external"), "is the champion already"),
        (("promote", "nobody", "1"), "there is no model 'nobody'"),
        (("card", world.model, "7"), "has no version '7'"),
    ):
        result = CliRunner().invoke(driftloop, ["--data", str(tmp_path), *arguments])
        assert words in str(result.exception)

    # Somebody writes between our look and our message: one of the two counts, and the other is told which.
    from retrain import promotion

    def come_first(kafka: object, topics: object, role_map: RoleMap) -> bool:
        other = msgspec.structs.replace(role_map, roles={"champion": "external"}, reason="by somebody else")
        assert publish_roles(world.runtime.kafka, world.runtime.topics, other)
        return publish_roles(kafka, topics, role_map)

    monkeypatch.setattr(promotion, "publish_roles", come_first)
    result = CliRunner().invoke(driftloop, ["--data", str(tmp_path), "promote", world.model, "1"])
    assert "somebody changed the roles of loans first (epoch 5): champion is version external" in str(result.exception)
    assert "by somebody else" in str(result.exception)
    assert read_roles() == {"external": "champion", "1": "retired"}


def watch_until(watch: RoleWatch, world: World, num_maps: int) -> list[RoleMap]:
    wait_until(lambda: len(watch.champions(world.model)) >= num_maps, 30, "the watch")
    return watch.maps


def set_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from driftloop.settings import format_clickhouse_url

    runtime = world.runtime
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": runtime.kafka.bootstrap_servers,
        "CLICKHOUSE_URL": format_clickhouse_url(runtime.clickhouse),
        "TOPIC_PREFIX": runtime.topics.prefix,
        "PARTITIONS": str(runtime.num_partitions),
        "ARTIFACTS": runtime.artifacts,
        "PRIVACY_KEY": runtime.privacy_key.decode(),
    }.items():
        monkeypatch.setenv(f"DRIFTLOOP_{name}", value)
