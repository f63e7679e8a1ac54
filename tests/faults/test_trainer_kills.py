"""A trainer that is killed wherever it is in a job, twice in a row: the same version, one champion at every instant."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.events import RoleMap, decode_event
from store.artifacts import ArtifactFolder
from store.log import TopicReader
from store.versions import read_version
from tests.retraining import World, bootstrap, clickhouse_url, make_world, read_events, wait_until  # noqa: F401
from tests.role_process import RoleProcess
from tests.trainer_probe import POINTS

pytestmark = pytest.mark.timeout(600)

Start = Callable[..., RoleProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[RoleProcess] = []

    def begin(world: World, kill_at: str = "") -> RoleProcess:
        path = tmp_path / f"train-{len(running)}.log"
        program = ("-m", "tests.trainer_probe") if kill_at else ("-m", "driftloop.roles")
        more = {"DRIFTLOOP_TEST_KILL_AT": kill_at}
        running.append(RoleProcess("train", world.runtime, path, program=program, more=more))
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
        assert [event.type for event in read_events(world, job_id)].count("resumed") >= len(POINTS)
        assert not list((Path(world.runtime.artifacts) / ".checkpoints").glob("*"))


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
