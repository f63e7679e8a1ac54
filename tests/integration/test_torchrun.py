"""A job in two processes, through a trainer on real servers: promoted, repeated when one is killed, nothing left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from schemas.catalogue import encode_published
from schemas.spec import ResourceSpec, RetrainSpec
from store.versions import read_version
from tests.retraining import START, World, bootstrap, clickhouse_url, read_events, start, wait_until, world  # noqa: F401

pytestmark = pytest.mark.timeout(600)

_ENDED = ("promoted", "rejected", "failed")


def order_two_processes(world: World) -> str:
    """Publish a spec for two processes on the CPU, and ask for a job."""
    published = world.publish_spec()
    retrain = RetrainSpec(launcher="torchrun", resources=ResourceSpec(accelerator="cpu", processes=2))
    spec = msgspec.structs.replace(published.spec, retrain=retrain)
    again = msgspec.structs.replace(published, spec=spec, spec_version=2)
    world.send("specs", again.key, encode_published(again))
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)
    return world.request()


def list_processes(ancestor: int) -> dict[int, tuple[int, list[str]]]:
    """The parents and command lines of a process's descendants by process id, however they are grouped."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: dict[int, tuple[int, list[str]]] = {}
    growing = {ancestor}
    while growing:
        growing = {process for process, parent in parents.items() if parent in growing}
        found |= {process: (parents[process], commands[process]) for process in growing}
    return found


def find_ranks(trainer: int) -> list[int]:
    """The processes that train, beside the one that started them."""
    found = {
        process: parent
        for process, (parent, command) in list_processes(trainer).items()
        if "retrain.job" in command and "torch.distributed.run" not in command
    }
    # What a rank has started has its command line until it is another program.
    return sorted(process for process, parent in found.items() if parent not in found)


def wait_for_end(world: World, job_id: str) -> dict[str, object]:
    wait_until(lambda: world.job(job_id).get("state") in _ENDED, 300, "the job to end")
    return world.job(job_id)


def wait_for_training(world: World, trainer: int) -> list[int]:
    wait_until(lambda: world.ch.query("SELECT count() FROM epochs")[0][0] >= 1, 120, "the first epoch")
    return find_ranks(trainer)


def wait_for_nothing(processes: list[int]) -> None:
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes), 20, "the processes to be gone")


def test_two_processes_train_and_their_challenger_is_promoted(world: World, start: START) -> None:
    job_id = order_two_processes(world)
    trainer = start("train").process.pid
    everything: set[int] = set()
    ranks: set[int] = set()

    def is_over() -> bool:
        everything.update(list_processes(trainer))
        ranks.update(find_ranks(trainer))
        return world.job(job_id).get("state") in _ENDED

    wait_until(is_over, 300, "the job to end")
    assert world.job(job_id)["state"] == "promoted", world.job(job_id)
    assert len(ranks) == 2
    assert len(everything) >= 3
    wait_for_nothing(list(everything))
    version = read_version(world.ch, world.model, "1")
    assert version is not None
    assert msgspec.json.decode(version.manifest)["num_processes"] == 2
    assert version.metrics["roc_auc"] > 0.8
    ((cpu, attempt),) = world.ch.query("SELECT cpu_seconds, attempt FROM jobs")
    assert (cpu > 0.5, attempt) == (True, 1)


def test_killed_process_ends_the_others_and_the_job_is_repeated(world: World, start: START) -> None:
    job_id = order_two_processes(world)
    trainer = start("train").process.pid
    ranks = wait_for_training(world, trainer)
    everything = list(list_processes(trainer))
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    wait_for_nothing(everything)
    job = wait_for_end(world, job_id)
    assert (job["state"], job["attempt"], job["version"]) == ("promoted", 2, "1")
    reasons = [event.detail.get("reason") for event in read_events(world, job_id) if event.type == "waiting"]
    assert "process 1 of its 2 was ended by SIGKILL" in reasons


def test_nothing_outlives_a_killed_trainer_or_a_killed_torchrun(world: World, start: START) -> None:
    job_id = order_two_processes(world)
    first = start("train")
    ranks = wait_for_training(world, first.process.pid)
    (between,) = set(list_processes(first.process.pid)) - set(ranks)
    os.kill(between, signal.SIGKILL)
    wait_for_nothing([between, *ranks])
    wait_until(lambda: len(find_ranks(first.process.pid)) == 2, 120, "the second attempt")
    everything = list(list_processes(first.process.pid))
    os.kill(first.process.pid, signal.SIGKILL)
    wait_for_nothing(everything)
    first.process.wait(10)
    start("train")
    job = wait_for_end(world, job_id)
    assert (job["state"], job["version"]) == ("promoted", "1")
