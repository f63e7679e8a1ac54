"""Artifacts: trained models as folders of files that never change, on a local disk or at a URL.

Owns writing them whole or not at all, and refusing what is not what was written. It must not know
what the files mean, and nothing here is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote

from schemas.errors import DriftloopError, Retryable


class DamagedArtifactError(DriftloopError):
    """An artifact is missing, incomplete or not what was written; it must not be loaded."""


class StoredArtifact(NamedTuple):
    """Where an artifact lies (relative to the place of all artifacts), and the hash of all its files."""

    uri: str
    sha256: str


class Artifacts(Protocol):
    """Where artifacts are kept.

    `write` stores files under a folder named by their hash: all of them or nothing, durable when it returns, safe to
    repeat; it raises `Retryable` when the place cannot take them now (full, away). `read` returns an artifact's files,
    and raises DamagedArtifactError unless they hash to `sha256`, to the last bit; `Retryable` when the place is away.
    """

    def write(self, model: str, name: str, files: Mapping[str, bytes]) -> StoredArtifact: ...

    def read(self, uri: str, sha256: str) -> dict[str, bytes]: ...


def open_artifacts(place: str) -> Artifacts:
    """Return the artifacts at a folder or at a URL such as `s3://bucket/models`."""
    if "://" in place:
        from store.remote_artifacts import RemoteArtifacts

        return RemoteArtifacts(place)
    return ArtifactFolder(place)


def resolve_place(place: str) -> str:
    """Return the place as another process needs it: a folder with its whole path, a URL as it is."""
    return place if "://" in place else str(Path(place).resolve())


class ArtifactFolder:
    """A local folder of artifacts, one folder each: MODEL/NAME-HASH."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    def write(self, model: str, name: str, files: Mapping[str, bytes]) -> StoredArtifact:
        """Written beside its place, synced and renamed, so that a crash leaves the whole artifact or none."""
        stored = name_artifact(model, name, files)
        place = self.root / stored.uri
        if place.exists():
            try:
                self.read(*stored)
                return stored
            except DamagedArtifactError:
                shutil.rmtree(place)
        partial = place.with_name(f".{place.name}.partial")
        try:
            self._write(partial, place, files)
        except OSError as error:
            # What is there of it takes room that others need.
            shutil.rmtree(partial, ignore_errors=True)
            raise Retryable(describe_failure(str(self.root), error)) from error
        return stored

    def read(self, uri: str, sha256: str) -> dict[str, bytes]:
        """Read every file that is there: one too many is a change, too."""
        place = (self.root / uri).resolve()
        if not place.is_relative_to(self.root):
            raise DamagedArtifactError(f"the artifact {uri} lies outside the folder of artifacts {self.root}")
        try:
            files = {path.name: path.read_bytes() for path in sorted(place.iterdir())}
        except OSError as error:
            raise DamagedArtifactError(f"the artifact {uri} cannot be read: {error}") from error
        check_hash(uri, sha256, hash_files(files))
        return files

    @staticmethod
    def _write(partial: Path, place: Path, files: Mapping[str, bytes]) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file_name, content in files.items():
            with (partial / file_name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(partial)
        partial.rename(place)
        _sync_folder(place.parent)


def name_artifact(model: str, name: str, files: Mapping[str, bytes]) -> StoredArtifact:
    """Return where files belong: under a folder named by their hash."""
    sha256 = hash_files(files)
    return StoredArtifact(f"{quote(model, safe='')}/{quote(name, safe='')}-{sha256[:12]}", sha256)


def check_hash(uri: str, sha256: str, found: str) -> None:
    """Raise DamagedArtifactError unless the hash that was found is the recorded one."""
    if found != sha256:
        raise DamagedArtifactError(
            f"the artifact {uri} is not what was written: its hash is {found[:12]}…, recorded is {sha256[:12]}…"
        )


def describe_failure(place: str, error: Exception) -> str:
    """Say what is wrong with the place of artifacts, and what to do where that is known."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for artifacts at {place}; free some, and the job goes on ({error.strerror})"
    return f"artifacts cannot be written to {place}: {error}"


def list_hashes(files: Mapping[str, bytes]) -> bytes:
    """Return what `sha256sum` prints for the files in the order of their names."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def hash_files(files: Mapping[str, bytes]) -> str:
    """Return SHA-256 over that listing."""
    return hashlib.sha256(list_hashes(files)).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
