"""The artifact folder: trained models as folders of files that never change.

Owns writing them whole or not at all, and refusing what is not what was written. It must not know
what the files mean, and nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from schemas.errors import DriftloopError


class DamagedArtifactError(DriftloopError):
    """An artifact is missing, incomplete or not what was written; it must not be loaded."""


class StoredArtifact(NamedTuple):
    """Where an artifact lies (relative to its folder of artifacts), and the hash of all its files."""

    uri: str
    sha256: str


class ArtifactFolder:
    """A local folder of artifacts, one folder each: MODEL/NAME-HASH."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    def write(self, model: str, name: str, files: Mapping[str, bytes]) -> StoredArtifact:
        """Store files under a folder named by their hash; durable when this returns, and safe to repeat.

        Written beside its place, synced and renamed, so that a crash leaves the whole artifact or none.
        """
        sha256 = hash_files(files)
        uri = f"{quote(model, safe='')}/{quote(name, safe='')}-{sha256[:12]}"
        place = self.root / uri
        if place.exists():
            try:
                self.read(uri, sha256)
                return StoredArtifact(uri, sha256)
            except DamagedArtifactError:
                shutil.rmtree(place)
        partial = place.with_name(f".{place.name}.partial")
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
        return StoredArtifact(uri, sha256)

    def read(self, uri: str, sha256: str) -> dict[str, bytes]:
        """Return an artifact's files; raises DamagedArtifactError unless they hash to `sha256`, to the last bit."""
        place = (self.root / uri).resolve()
        if not place.is_relative_to(self.root):
            raise DamagedArtifactError(f"the artifact {uri} lies outside the folder of artifacts {self.root}")
        try:
            files = {path.name: path.read_bytes() for path in sorted(place.iterdir())}
        except OSError as error:
            raise DamagedArtifactError(f"the artifact {uri} cannot be read: {error}") from error
        found = hash_files(files)
        if found != sha256:
            raise DamagedArtifactError(
                f"the artifact {uri} is not what was written: its hash is {found[:12]}…, recorded is {sha256[:12]}…"
            )
        return files


def hash_files(files: Mapping[str, bytes]) -> str:
    """Return SHA-256 over the listing that `sha256sum` prints for the files in the order of their names."""
    listing = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
