"""Jobs in the hands of trainers: cancelled, logged, held to what they declare, taken over; on real servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retrain.claims import LEASE_MS
from store.job_logs import read_log
from tests.retraining import START, World, bootstrap, clickhouse_url, read_events, start, wait_until, world  # noqa: F401
from tests.role_process import RoleProcess, run_command

pytestmark = pytest.mark.timeout(600)


def fill(world: World) -> None:
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)


def wait_for_state(world: World, job_id: str, *states: str, timeout_s: float = 300) -> dict[str, object]:
    wait_until(lambda: world.job(job_id).get("state") in states, timeout_s, f"the job to be {states}")
    return world.job(job_id)


def wait_for_epoch(world: World, job_id: str) -> None:
    count = "SELECT count() FROM epochs WHERE job_id = {job:String}"
    wait_until(lambda: world.ch.query(count, {"job": job_id})[0][0] >= 1, 120, "the first epoch")


def find_process(trainer: RoleProcess) -> int:
    """The process of the last job that a trainer has started."""
    return int(re.findall(r"runs as process (\d+)", trainer.log)[-1])


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_waiting_and_running_jobs_are_cancelled_by_hand(world: World, start: START) -> None:
    trainer = start("train")
    waiting = world.request()
    wait_until(lambda: "labelled" in str(world.job(waiting).get("reason")), 60, "the job to wait")
    status, said, _ = run_command(world.runtime, "jobs", "cancel", waiting[:16], "--reason", "not now")
    assert (status, said.strip()) == (0, f"job {waiting} is cancelled")
    assert (world.job(waiting)["state"], world.job(waiting)["reason"]) == ("cancelled", "not now")

    fill(world)
    running = world.request(manual=True)
    wait_for_epoch(world, running)
    pid = find_process(trainer)
    assert is_running(pid)
    assert run_command(world.runtime, "jobs", "cancel", running)[0] == 0
    assert world.job(running)["state"] == "cancelled"
    wait_until(lambda: not is_running(pid), 20, "its process to be gone")
    assert world.ch.query("SELECT count() FROM versions") == [(0,)]

    status, _, complaint = run_command(world.runtime, "jobs", "cancel", running)
    assert (status, "is over: it is cancelled" in complaint) == (1, True)
    status, _, complaint = run_command(world.runtime, "jobs", "cancel", "nothing")
    assert (status, "no jobs have an id that begins with 'nothing'" in complaint) == (2, True)


def test_log_use_and_steps_are_told(world: World, start: START) -> None:
    fill(world)
    start("train")
    job_id = world.request()
    wait_for_state(world, job_id, "promoted", "rejected", "failed")
    ((cpu, peak, gpu),) = world.ch.query("SELECT cpu_seconds, peak_memory_bytes, gpu_seconds FROM jobs")
    assert cpu > 0.5
    assert 50 << 20 < peak < 4 << 30
    assert gpu == 0
    lines = [line.text for line in read_log(world.ch, job_id)]
    assert any("labelled rows to train on" in line for line in lines), lines
    _, said, _ = run_command(world.runtime, "jobs", "log", job_id[:10])
    assert [line.split("  ", 2)[2] for line in said.splitlines()] == lines


def test_job_that_needs_more_than_the_machine_has_waits_for_another(world: World, start: START) -> None:
    fill(world)
    world.publish_spec(memory_bytes=1 << 50)
    start("train")
    job_id = world.request()
    wait_until(lambda: "waits for a worker: needs" in str(world.job(job_id).get("reason")), 60, "the refusal")
    assert "(retrain.resources.memory)" in str(world.job(job_id)["reason"])
    world.publish_spec(version=2)
    assert wait_for_state(world, job_id, "promoted", "failed")["state"] == "promoted"


def test_job_that_outgrows_its_memory_fails_and_says_so(world: World, start: START) -> None:
    fill(world)
    world.publish_spec(memory_bytes=64 << 20)
    start("train")
    job_id = world.request()
    job = wait_for_state(world, job_id, "promoted", "failed")
    assert job["state"] == "failed"
    assert "retrain.resources.memory is 0.06 GiB" in str(job["reason"])


def test_claim_of_a_frozen_worker_lapses_and_it_lets_go(world: World, start: START) -> None:
    """The frozen one may have been a second from its promotion: whoever has the newest claim alone may go on."""
    fill(world)
    first = start("train", "first")
    job_id = world.request()
    wait_for_epoch(world, job_id)
    first.freeze()
    start("train", "second")
    job = wait_for_state(world, job_id, "promoted", "failed", timeout_s=60 + LEASE_MS / 1000 + 120)
    assert (job["state"], job["attempt"]) == ("promoted", 2)
    first.thaw()
    wait_until(lambda: "another worker has it now" in first.log or "is over" in first.log, 60, "the first to let go")
    events = read_events(world, job_id)
    assert [event.type for event in events].count("promoted") == 1
    assert {event.worker for event in events if event.type == "promoted"} == {"second"}
    assert world.ch.query("SELECT epoch, count() FROM roles GROUP BY epoch") == [(1, 2)]
