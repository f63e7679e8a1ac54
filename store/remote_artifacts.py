"""Artifacts at a URL, through fsspec: S3-compatible storage, or whatever else it has a filesystem for.

Owns being whole or not at all where nothing can be renamed: the listing of hashes is written last, and what has none
is not there. Credentials and endpoint are the filesystem's (for `s3://`, the AWS variables and files that s3fs reads).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import fsspec

from schemas.errors import ConfigurationError, Retryable
from store.artifacts import (
    DamagedArtifactError,
    StoredArtifact,
    check_hash,
    describe_failure,
    hash_files,
    list_hashes,
    name_artifact,
)

# As `sha256sum --check` reads it. Its own hash is the artifact's.
LISTING = "SHA256SUMS"


class RemoteArtifacts:
    """A place of artifacts at a URL, one folder each: URL/MODEL/NAME-HASH."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._files: Any
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            remedy = "install driftloop[s3]" if url.startswith("s3") else "use a folder, or a URL that fsspec knows"
            raise ConfigurationError(
                f"artifacts cannot be kept at {url}: {error}", key="DRIFTLOOP_ARTIFACTS", remedy=remedy
            ) from error

    def write(self, model: str, name: str, files: Mapping[str, bytes]) -> StoredArtifact:
        """Write the files and then their listing; a crash in between leaves no artifact, only files in its way."""
        stored = name_artifact(model, name, files)
        try:
            self.read(*stored)
            return stored
        except DamagedArtifactError:
            pass
        try:
            self._files.makedirs(self._place(stored.uri), exist_ok=True)
            for file_name, content in {**files, LISTING: list_hashes(files)}.items():
                with self._files.open(f"{self._place(stored.uri)}/{file_name}", "wb") as file:
                    file.write(content)
        except Exception as error:
            # The errors are the filesystem's: OSError, botocore's, aiohttp's. None of them is the job's fault.
            self._discard(stored.uri)
            raise Retryable(describe_failure(self.url, error)) from error
        return stored

    def read(self, uri: str, sha256: str) -> dict[str, bytes]:
        """Read the files that the listing names; others beside them are never loaded."""
        if ".." in uri.split("/"):
            raise DamagedArtifactError(f"the artifact {uri} lies outside {self.url}")
        place = self._place(uri)
        try:
            listing = self._read_file(f"{place}/{LISTING}")
            # Before any of its lines is believed.
            check_hash(uri, sha256, hashlib.sha256(listing).hexdigest())
            names = [line.partition("  ")[2] for line in listing.decode().splitlines()]
            files = {name: self._read_file(f"{place}/{name}") for name in names}
        except FileNotFoundError as error:
            raise DamagedArtifactError(f"the artifact {uri} is not whole at {self.url}: {error}") from error
        except DamagedArtifactError:
            raise
        except Exception as error:
            raise Retryable(f"artifacts cannot be read from {self.url}: {error}") from error
        check_hash(uri, sha256, hash_files(files))
        return files

    def _place(self, uri: str) -> str:
        return f"{self._root}/{uri}"

    def _read_file(self, path: str) -> bytes:
        content: bytes = self._files.cat_file(path)
        return content

    def _discard(self, uri: str) -> None:
        # What is there of it takes room that others need. If that fails, too, the next attempt writes over it.
        try:
            self._files.rm(self._place(uri), recursive=True)
        except Exception:
            return
