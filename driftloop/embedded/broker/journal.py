"""The broker's own small facts (topics, committed offsets, transactions) in one append-only file.

Each line is a set of changes that happen together: a checksum, a space, and JSON `[[key, value], …]`, where a null
value removes the key. The last line of a killed process may be torn: a start drops it. All facts live in memory; the
file is written anew when most of it is outdated.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Key = tuple[str | int, ...]

# Below this a rewrite is not worth its milliseconds.
MIN_REWRITE_LINES = 20_000


class Journal:
    """Keys are tuples whose first part names the kind of fact; values are JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[Key, Any] = {}
        self._num_lines = 0
        self._load()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _load(self) -> None:
        """Reads the file up to the first line that is not whole, and cuts off the rest."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        good = 0
        for line in data.splitlines(keepends=True):
            crc, _, body = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(body):
                break
            self._apply({tuple(key): value for key, value in json.loads(body)})
            good += len(line)
            self._num_lines += 1
        if good < len(data):
            os.truncate(self.path, good)

    def _apply(self, changes: Mapping[Key, Any]) -> None:
        for key, value in changes.items():
            if value is None:
                self.facts.pop(key, None)
            else:
                self.facts[key] = value

    @staticmethod
    def _encode(changes: Mapping[Key, Any]) -> bytes:
        body = json.dumps(list(changes.items()), separators=(",", ":")).encode()
        return b"%08x %b\n" % (zlib.crc32(body), body)

    def put(self, changes: Mapping[Key, Any]) -> None:
        """Makes all these changes durable together, or (when the process dies) none."""
        if not changes:
            return
        line = self._encode(changes)
        size = os.fstat(self._file).st_size
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, size)
            raise OSError(f"{self.path}: the disk is full")
        self._apply(changes)
        self._num_lines += 1
        if self._num_lines > MIN_REWRITE_LINES + 4 * len(self.facts):
            self._rewrite()

    def select(self, kind: str) -> Iterator[tuple[Key, Any]]:
        """The facts of one kind, with their keys."""
        return ((key, value) for key, value in tuple(self.facts.items()) if key[0] == kind)

    def _rewrite(self) -> None:
        temporary = self.path.with_name(self.path.name + "-new")
        temporary.write_bytes(b"".join(self._encode({key: value}) for key, value in self.facts.items()))
        os.replace(temporary, self.path)
        os.close(self._file)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._num_lines = len(self.facts)

    def close(self) -> None:
        os.close(self._file)
