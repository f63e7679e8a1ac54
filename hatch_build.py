"""Builds the compiled kernels: `pip install` runs it, and `python hatch_build.py` builds them in place.

One shared library without a dependency on Python's headers, so any C compiler does: $CC, cc, or the one that the
`ziglang` package brings, which pip fetches where the machine has none.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent / "schemas" / "native"
LIBRARY = SOURCES / "kernels.so"
# No contraction: a fused multiply-add rounds once instead of twice, and results must be the same on every machine.
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
]


def find_compiler() -> list[str] | None:
    """Give the command of a C compiler; None if there is none."""
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return [found] if found else None


def hash_sources() -> str:
    """Give what the library is stamped with, so that one built from other sources is noticed."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_kernels(extra: tuple[str, ...] = ()) -> Path:
    """Compile every source into the library; replaces it at once, so that a process that has it loaded goes on."""
    compiler = find_compiler() or [sys.executable, "-m", "ziglang", "cc"]
    fresh = LIBRARY.with_suffix(f".{os.getpid()}.tmp")
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    stamp = f'-DSOURCES_HASH="{hash_sources()}"'
    command = [*compiler, *FLAGS, *extra, stamp, *sources, "-o", str(fresh), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The compiled kernels cannot be built: {shlex.join(command)}\n{done.stderr}")
    fresh.replace(LIBRARY)
    return LIBRARY


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    pass
else:

    class KernelsHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
        """Compiles before the wheel is made, an editable one too."""

        def dependencies(self) -> list[str]:
            return [] if find_compiler() else ["ziglang>=0.13"]

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            compile_kernels()
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            # Nothing of Python is in it, so it serves every Python 3.
            build_data["tag"] = f"py3-none-{platform}"
            build_data["artifacts"].append("schemas/native/kernels.so")


if __name__ == "__main__":
    print(f"built {compile_kernels(tuple(sys.argv[1:]))}")
