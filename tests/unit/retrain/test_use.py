"""What a job uses: each part of it is told once, whenever it is told, and GPUs count one by one."""

from __future__ import annotations

import queue

import pytest

from retrain.limits import measure_cpu_s
from retrain.order import JobReport, ResourcesUsed
from retrain.ranks import Ranks
from retrain.use import UseMeter
from schemas.clock import ManualClock, SystemClock


def test_an_hour_on_four_gpus_is_four_and_none_is_told_twice() -> None:
    clock = ManualClock()
    leader, other = (UseMeter(Ranks(rank, 4), clock, lambda: True) for rank in (0, 1))
    clock.advance_ms(60_000)
    assert leader.take().gpu_seconds == 240
    assert leader.take().gpu_seconds == 0
    clock.advance_ms(3_540_000)
    # The leader's figure is that of all; the others would count it again.
    assert (leader.finish().gpu_seconds, other.finish().gpu_seconds) == (4 * 3_540, 0)
    on_cpu = UseMeter(Ranks(0, 4), clock, lambda: False)
    clock.advance_ms(60_000)
    assert on_cpu.finish().gpu_seconds == 0


def test_what_is_told_meanwhile_and_in_the_end_is_all_that_was_used() -> None:
    meter = UseMeter(Ranks(), SystemClock())
    told: queue.Queue[JobReport] = queue.Queue()
    meter.tell(told.put, every_s=0.01)
    found = [told.get(timeout=10) for _ in range(3)]
    found.append(meter.finish())
    used = measure_cpu_s()
    while not told.empty():
        found.append(told.get())
    cpu_seconds = sum(each.cpu_seconds for each in found if isinstance(each, ResourcesUsed))
    assert cpu_seconds == pytest.approx(used, abs=0.5)
    assert all(isinstance(each, ResourcesUsed) and each.peak_memory_bytes > 1 << 20 for each in found)
