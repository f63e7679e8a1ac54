"""Trainers that are killed wherever they are in a job, race for one, or lose the store for a minute.

Always the same version, once, and one champion at every instant.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrain.claims import LEASE_MS
from schemas.events import RoleMap, decode_event
from store.artifacts import ArtifactFolder
from store.log import TopicReader
from store.versions import read_version
from tests.clickhouses import EmbeddedClickHouse
from tests.retraining import World, bootstrap, clickhouse_url, make_world, read_events, wait_until  # noqa: F401
from tests.role_process import RoleProcess
from tests.trainer_probe import POINTS

# A minute, and longer than a claim lasts.
OUTAGE_S = 60.0

pytestmark = pytest.mark.timeout(600)

Start = Callable[..., RoleProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[RoleProcess] = []

    def begin(world: World, kill_at: str = "", worker: str = "") -> RoleProcess:
        path = tmp_path / f"train-{len(running)}.log"
        program = ("-m", "tests.trainer_probe") if kill_at else ("-m", "driftloop.roles")
        more = {"DRIFTLOOP_TEST_KILL_AT": kill_at}
        running.append(RoleProcess("train", world.runtime, path, worker, program=program, more=more))
        return running[-1]

    yield begin
    for role in running:
        print(f"--- {role.log_path.name}\n{role.log}")
        if role.process.poll() is None:
            assert role.stop(60) == 0


def fill(world: World) -> None:
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)


def find_end(world: World, job_id: str) -> str:
    return str(world.job(job_id).get("state"))


@pytest.fixture(scope="module")
def undisturbed(bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the version that the job makes when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with make_world(bootstrap, clickhouse_url, folder) as world:
        fill(world)
        trainer = RoleProcess("train", world.runtime, folder / "train.log")
        try:
            job_id = world.request()
            wait_until(lambda: find_end(world, job_id) == "promoted", 180, "the undisturbed job")
            return world.ch.query("SELECT sha256 FROM versions")[0][0]
        finally:
            assert trainer.stop(60) == 0


def test_killed_everywhere_twice_the_job_gives_the_same_version_once(
    bootstrap: str, clickhouse_url: str, tmp_path: Path, start: Start, undisturbed: str
) -> None:
    with make_world(bootstrap, clickhouse_url, tmp_path) as world:
        fill(world)
        job_id = world.request()
        for point in POINTS:
            for number in (1, 2):
                if (point, number) == ("promoted", 2):
                    continue  # what is promoted already is not promoted again
                # The first time in the third epoch; later ones go on behind a checkpoint, and may have one left only.
                trainer = start(world, "training:3" if (point, number) == ("training", 1) else point)
                assert trainer.process.wait(120) == -signal.SIGKILL, (point, trainer.log)
                assert find_end(world, job_id) in ("waiting", "running"), point
                assert list_champions(world) == (["1"] if point in ("promoted", "closing") else []), point
        start(world)
        wait_until(lambda: find_end(world, job_id) not in ("waiting", "running"), 180, "the job to end")

        assert find_end(world, job_id) == "promoted", world.job(job_id)
        assert world.ch.query("SELECT version, sha256 FROM versions") == [("1", undisturbed)]
        version = read_version(world.ch, world.model, "1")
        assert version is not None
        assert ArtifactFolder(world.runtime.artifacts).read(version.uri, version.sha256)
        assert list_champions(world) == ["1"]
        resumed = [event.detail["training"] for event in read_events(world, job_id) if event.type == "resumed"]
        assert resumed.count("challenger") >= len(POINTS)
        assert not list((Path(world.runtime.artifacts) / ".checkpoints").glob("*"))


def test_killed_in_the_second_candidate_the_first_one_is_not_trained_again(
    bootstrap: str, clickhouse_url: str, tmp_path: Path, start: Start, undisturbed: str
) -> None:
    with make_world(bootstrap, clickhouse_url, tmp_path) as world:
        fill(world)
        job_id = world.request()
        trainer = start(world, "second candidate")
        assert trainer.process.wait(120) == -signal.SIGKILL, trainer.log
        assert world.ch.query("SELECT count() FROM epochs") == [(0,)]  # the challenger's
        start(world)
        wait_until(lambda: find_end(world, job_id) not in ("waiting", "running"), 180, "the job to end")

        assert find_end(world, job_id) == "promoted", world.job(job_id)
        assert world.ch.query("SELECT version, sha256 FROM versions") == [("1", undisturbed)]
        told = [
            (event.type, event.detail["training"], event.detail["num_epochs"], event.detail.get("phase"))
            for event in read_events(world, job_id)
            if event.attempt == 2 and event.type in ("resumed", "trained")
        ]
        assert [each[:2] for each in told] == [
            ("resumed", "all"), ("trained", "all"), ("resumed", "after_change"), ("trained", "after_change"),
            ("trained", "challenger"),
        ]  # fmt: skip
        # The first one goes on behind its last epoch: there is nothing left to train.
        assert told[0][2:] == (told[1][2], "final")


def test_two_race_for_a_job_and_the_store_is_away_for_a_minute(
    bootstrap: str, tmp_path: Path, start: Start, undisturbed: str
) -> None:
    """Longer than a lease: who has the job says so on the log, and the other one keeps its hands off."""
    assert OUTAGE_S > LEASE_MS / 1000
    server = EmbeddedClickHouse(tmp_path / "clickhouse")
    server.start()
    try:
        with make_world(bootstrap, server.url, tmp_path) as world:
            fill(world)
            workers = [start(world, worker=name) for name in ("first", "second")]
            job_id = world.request()
            epochs = "SELECT count() FROM epochs"
            wait_until(lambda: world.ch.query(epochs)[0][0] >= 1, 120, "the first epoch")
            server.kill()
            time.sleep(OUTAGE_S)  # not to wait for something: so long it is away
            assert [worker.process.poll() for worker in workers] == [None, None]
            server.start()
            wait_until(lambda: find_end(world, job_id) not in ("waiting", "running"), 180, "the job to end")
            assert find_end(world, job_id) == "promoted"
            assert world.ch.query("SELECT version, sha256 FROM versions") == [("1", undisturbed)]
            assert list_champions(world) == ["1"]
            events = read_events(world, job_id)
            assert [event.type for event in events].count("promoted") == 1
            assert len({event.worker for event in events if event.type in ("heartbeat", "started", "promoted")}) == 1
    finally:
        server.stop()


def list_champions(world: World) -> list[str]:
    """The champions that a reader of `models` sees, one after the other; every role map of the log that counts."""
    reader = TopicReader(world.runtime.kafka, world.runtime.topics("models"))
    try:
        epochs: dict[int, str] = {}
        for message in reader.read_to_end(20):
            role_map = decode_event(RoleMap, message.value or b"")
            epochs.setdefault(role_map.epoch, role_map.roles["champion"])
        return [epochs[epoch] for epoch in sorted(epochs)]
    finally:
        reader.close()
