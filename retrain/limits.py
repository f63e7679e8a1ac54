"""What a job may use: asked of the machine before it starts, held in its process, and told at its end.

Owns the limits of memory, threads and GPU memory; time is the trainer's, who ends the process. Nothing here changes a
device's settings.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from schemas.spec import ResourceSpec

_GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_DEVICES = Path("/dev")
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has for jobs."""

    num_cpus: int
    memory_bytes: int
    num_gpus: int

    @classmethod
    def look(cls) -> Machine:
        """Ask the system; a container's own limits count."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if _CGROUP.exists() and (limit := _CGROUP.read_text().strip()).isdigit():
            memory = min(memory, int(limit))
        gpus = [path for path in _DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
        return cls(len(os.sched_getaffinity(0)), memory, len(gpus))

    def refuse(self, asked: ResourceSpec) -> str:
        """Say what a job asks for that this machine does not have; empty if it has all."""
        if asked.cpus is not None and asked.cpus > self.num_cpus:
            return f"needs {asked.cpus} CPUs, this machine has {self.num_cpus} (retrain.resources.cpus)"
        if asked.memory_bytes is not None and asked.memory_bytes > self.memory_bytes:
            have, needed = (f"{each / _GIB:.1f} GiB" for each in (self.memory_bytes, asked.memory_bytes))
            return f"needs {needed} of memory, this machine has {have} (retrain.resources.memory)"
        if asked.accelerator == "cuda" and asked.gpus > self.num_gpus:
            return f"needs {asked.gpus} GPUs, this machine has {self.num_gpus} (retrain.resources.gpus)"
        return ""


def limit_memory(asked: ResourceSpec) -> None:
    """Hold this process to its declared memory: beyond it an allocation fails, as if the machine had no more.

    Private memory counts (RLIMIT_DATA), mapped files do not. Not with CUDA, whose driver reserves more than it uses.
    Raises MemoryError when the limit is below what is used already.
    """
    if asked.memory_bytes is None or asked.accelerator == "cuda":
        return
    used = _read_status_bytes("VmData")
    if used > asked.memory_bytes:
        raise MemoryError(
            f"retrain.resources.memory is {asked.memory_bytes / _GIB:.2f} GiB, and a job takes "
            f"{used / _GIB:.2f} GiB before it has read a row"
        )
    resource.setrlimit(resource.RLIMIT_DATA, (asked.memory_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was short, on a GPU or here."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # PyTorch's allocator for the CPU raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


class MemoryWatch:
    """Looks from its making on, ten times a second, at how much private memory this process holds.

    Pages of files do not count, though they are in the process's resident memory: the system takes them back when it
    needs them.
    """

    def __init__(self) -> None:
        self._peak_bytes = 0
        threading.Thread(target=self._watch, name="memory watch", daemon=True).start()

    def read_peak_bytes(self) -> int:
        """Return the most that was seen."""
        self._peak_bytes = max(self._peak_bytes, _read_status_bytes("RssAnon"))
        return self._peak_bytes

    def _watch(self) -> None:
        while True:
            self.read_peak_bytes()
            time.sleep(_LOOK_EVERY_S)


def measure_cpu_s() -> float:
    """Return this process's CPU time so far in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _read_status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
