"""What the figures were measured on: the machine, the software, and how busy it was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.surroundings import Options


def describe_machine(options: Options) -> str:
    """Say what the figures were measured on, in one paragraph."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return (
        f"{os.cpu_count()} cores ({cpu.group(1) if cpu else platform.machine()}), {_read_memory_gib():.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}; {_describe_broker(options)}, "
        f"embedded ClickHouse {_read_engine_version()} (chDB {version('chdb')}); faust-streaming "
        f"{version('faust-streaming')}, confluent-kafka {version('confluent-kafka')}, NumPy {version('numpy')}, "
        f"pyarrow {version('pyarrow')}, evidently {version('evidently')}, torch {version('torch')}."
    )


def describe_load() -> str:
    """Say how busy the machine is; a figure taken on a busy one is worth little, its ratio a bit more."""
    return f"{os.getloadavg()[0]:.1f} processes wanted a core in the last minute"


def _read_memory_gib() -> float:
    total = re.search(r"^MemTotal:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(total.group(1)) / 2**20 if total else 0.0


def _describe_broker(options: Options) -> str:
    if options.kafka_home is None:
        return f"embedded broker of driftloop {version('driftloop')}"
    names = [path.name for path in (options.kafka_home / "libs").glob("kafka-clients-*.jar")]
    return "Apache Kafka " + ", ".join(name.removeprefix("kafka-clients-").removesuffix(".jar") for name in names)


def _read_engine_version() -> str:
    # In a process of its own: the library takes hundreds of megabytes.
    command = [sys.executable, "-c", "import chdb; print(chdb.engine_version)"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
