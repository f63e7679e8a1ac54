"""What the kernel says of a process: processor time and memory, alone or with everything that it started."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MiB: now, at most so far, and now with shared pages divided among those who share them."""

    resident_mib: float
    peak_mib: float
    proportional_mib: float


def read_cpu_s(pid: int) -> float:
    """Give the processor time of one process so far, all its threads."""
    # The name in parentheses may hold anything; utime and stime are the 12th and 13th field behind it.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def read_memory(pid: int) -> Memory:
    """Give the memory of one process."""
    status = (_PROC / str(pid) / "status").read_text()
    rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
    return Memory(_read_mib(status, "VmRSS"), _read_mib(status, "VmHWM"), _read_mib(rollup, "Pss"))


def list_tree(pid: int) -> list[int]:
    """Give a process and what it started, and what those started."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    tree = [pid]
    for each in tree:  # grows while it is walked
        tree += children.get(each, [])
    return tree


def is_running(pid: int) -> bool:
    """Whether any thread of a process has, or waits for, a processor at this moment."""
    states = [task.read_text().rpartition(")")[2].split()[0] for task in (_PROC / str(pid) / "task").glob("*/stat")]
    return "R" in states


def _read_mib(text: str, name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0
