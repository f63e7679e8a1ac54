"""The place of artifacts fails: a bit flips in any file, or the disk is full. On real servers and processes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.versions import read_version
from tests.retraining import (  # noqa: F401 - fixtures
    HARMED,
    START,
    World,
    bootstrap,
    clickhouse_url,
    start,
    wait_until,
    world,
)
from tests.roles_watch import RoleWatch, watching_roles

pytestmark = pytest.mark.timeout(900)

GATE = HARMED + 1
ENDED = ("promoted", "rejected", "failed", "cancelled")


@pytest.fixture
def watch(world: World) -> Iterator[RoleWatch]:
    with watching_roles(world.runtime) as watching:
        yield watching


def count_predictions(world: World) -> int:
    return int(world.ch.query("SELECT count() FROM predictions WHERE model_version = '1'")[0][0])


def wait_for_predictions(world: World, num_sent: int) -> None:
    wait_until(lambda: count_predictions(world) == num_sent, 60, "the records to be scored")


def train(world: World, manual: bool = False) -> dict[str, object]:
    job_id = world.request(manual)
    wait_until(lambda: world.job(job_id).get("state") in ENDED, 300, "the job to end")
    return world.job(job_id)


def test_one_flipped_bit_stops_the_scorer_and_nothing_else(
    world: World,
    start: START,
    watch: RoleWatch,
) -> None:
    start("train")
    start("sink")
    for number in range(GATE + 1):
        world.store_window(number, share_labelled=1.0)
    assert train(world)["state"] == "promoted"
    version = read_version(world.ch, world.model, "1")
    assert version is not None
    files = sorted((Path(world.runtime.artifacts) / version.uri).iterdir())
    assert [path.name for path in files] == ["README.md", "card.json", "manifest.json", "model.safetensors"]

    sent: list[str] = []
    for number, path in enumerate(files, start=GATE + 1):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(bytes(damaged))
        scorer = start("score")
        before = len(sent)
        sent += world.send_records(number)
        wait_until(lambda each=scorer: "is not what was written" in each.log, 60, f"the scorer to refuse {path.name}")
        assert count_predictions(world) == before
        if path is files[0]:
            # Training goes on meanwhile: another job reads, trains and judges.
            assert train(world, manual=True)["state"] in ("promoted", "rejected")
        path.write_bytes(whole)
        # Restored, it is scored from where it stood: nothing was passed over.
        wait_for_predictions(world, len(sent))
        assert scorer.stop(60) == 0
    assert watch.champions(world.model) == ["1"]


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """The folder of artifacts on a disk of 16 KiB; skips where no disk can be mounted."""
    folder = Path(world.runtime.artifacts)
    folder.mkdir(parents=True)
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "driftloop-test", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here; the unit tests fill a folder and a URL by other means")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk_makes_the_job_wait_and_nothing_is_half_promoted(
    world: World,
    small_disk: Path,
    start: START,
    watch: RoleWatch,
) -> None:
    trainer = start("train")
    for number in range(GATE + 1):
        world.store_window(number, share_labelled=1.0)
    job_id = world.request()
    # More often than a job may fail by itself.
    wait_until(lambda: int(str(world.job(job_id).get("attempt", 0))) >= 4, 300, "the job to be repeated")
    job = world.job(job_id)
    assert job["state"] in ("waiting", "running")
    wait_until(lambda: "no space is left for artifacts" in str(world.job(job_id)["reason"]), 120, "the reason")
    assert world.ch.query("SELECT count() FROM versions") == [(0,)]
    assert world.ch.query("SELECT count() FROM roles") == [(0,)]
    assert watch.maps == []
    # What was written of the artifact is gone again; checkpoints may stay, or not have found room.
    place = small_disk / world.model
    wait_until(lambda: not [each for each in place.rglob("*") if each.is_file()], 60, "the rest to be removed")

    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    wait_until(lambda: world.job(job_id)["state"] in ENDED, 300, "the job to end")
    assert world.job(job_id)["state"] == "promoted", world.job(job_id)
    assert watch_champions(watch, world) == ["1"]
    assert world.ch.query("SELECT count() FROM versions") == [(1,)]
    # What runs there must end before the disk goes.
    assert trainer.stop(60) == 0


def watch_champions(watch: RoleWatch, world: World) -> list[str]:
    wait_until(lambda: bool(watch.champions(world.model)), 30, "the watch to see the champion")
    return watch.champions(world.model)
