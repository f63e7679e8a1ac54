"""What a job takes of its machines, told to the trainer while it runs, so that use counts even if the job is killed.

Owns the measuring in each of the job's processes. Limits are in `retrain.limits`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from retrain.limits import MemoryWatch, measure_cpu_s
from retrain.order import Report, ResourcesUsed
from retrain.ranks import ALONE, Ranks
from schemas.clock import Clock

# One row of `jobs` a minute; a job that is killed is charged a minute less at most.
TELL_EVERY_S = 60.0
_LAST_WORD_S = 5.0


def uses_gpu() -> bool:
    """Tell whether this process has begun to use a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class UseMeter:
    """Measures one of a job's processes, from its making on: make it when the order is there.

    Each process has a GPU of its own where GPUs are used (`Ranks.take_gpu`), as long as the job runs, so the leader
    counts those of all: its time on the GPU times the processes.
    """

    def __init__(self, ranks: Ranks, clock: Clock, uses_gpu: Callable[[], bool] = uses_gpu) -> None:
        self._ranks, self._clock, self._uses_gpu = ranks, clock, uses_gpu
        self._begun_s = clock.monotonic_s()
        self._watch = MemoryWatch()
        self._told_cpu_s = self._told_gpu_s = 0.0
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._teller: threading.Thread | None = None

    def tell(self, report: Report, every_s: float = TELL_EVERY_S) -> None:
        """Report from now on what was used since the last report, now and then, until `finish`."""

        def watch() -> None:
            while not self._is_over.wait(every_s):
                report(self.take())

        self._teller = threading.Thread(target=watch, name="use", daemon=True)
        self._teller.start()

    def take(self, ranks: Ranks = ALONE) -> ResourcesUsed:
        """Return what was used since the last call, by all of `ranks`, which then all must call this."""
        with self._lock:
            cpu_s, gpu_s, gpu_memory_bytes = measure_cpu_s(), 0.0, 0
            if self._uses_gpu():
                gpu_memory_bytes = torch.cuda.max_memory_allocated()
                gpu_s = (self._clock.monotonic_s() - self._begun_s) * self._ranks.size if self._ranks.leads else 0.0
            peaks = (self._watch.read_peak_bytes(), gpu_memory_bytes)
            used = ranks.sum_numbers([cpu_s - self._told_cpu_s, gpu_s - self._told_gpu_s, *peaks])
            self._told_cpu_s, self._told_gpu_s = cpu_s, gpu_s
        return ResourcesUsed(
            cpu_seconds=used[0], gpu_seconds=used[1], peak_memory_bytes=int(used[2]), peak_gpu_memory_bytes=int(used[3])
        )

    def finish(self, ranks: Ranks = ALONE) -> ResourcesUsed:
        """Tell no more; return what was used since the last time, as `take` does."""
        self._is_over.set()
        if self._teller is not None:
            self._teller.join(_LAST_WORD_S)  # nothing is told behind the job's last word
        return self.take(ranks)
