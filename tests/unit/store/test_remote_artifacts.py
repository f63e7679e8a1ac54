"""Artifacts at a URL, on fsspec's filesystems: whole or not there, and refused when one bit differs."""

from __future__ import annotations

import errno
import hashlib
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from schemas.errors import ConfigurationError, Retryable
from store.artifacts import ArtifactFolder, Artifacts, DamagedArtifactError, open_artifacts, resolve_place
from store.remote_artifacts import LISTING, RemoteArtifacts

FILES = {"model.safetensors": bytes(range(256)), "manifest.json": b"{}", "README.md": b"# model"}


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/artifacts"


def find(url: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(url)


def test_files_come_back_and_have_the_hash_that_a_folder_gives_them(url: str, tmp_path: Path) -> None:
    artifacts: Artifacts = open_artifacts(url)
    stored = artifacts.write("a/model", "job", FILES)
    assert artifacts.read(*stored) == FILES
    assert artifacts.write("a/model", "job", FILES) == stored
    assert ArtifactFolder(tmp_path / "local").write("a/model", "job", FILES) == stored
    filesystem, root = find(url)
    assert hashlib.sha256(filesystem.cat_file(f"{root}/{stored.uri}/{LISTING}")).hexdigest() == stored.sha256


@pytest.mark.parametrize("name", [*FILES, LISTING])
def test_one_flipped_bit_of_any_file_is_refused_and_written_anew(url: str, name: str) -> None:
    artifacts = RemoteArtifacts(url)
    stored = artifacts.write("model", "job", FILES)
    filesystem, root = find(url)
    path = f"{root}/{stored.uri}/{name}"
    content = bytearray(filesystem.cat_file(path))
    content[len(content) // 2] ^= 1
    filesystem.pipe_file(path, bytes(content))
    with pytest.raises(DamagedArtifactError):
        artifacts.read(*stored)
    assert artifacts.write("model", "job", FILES) == stored
    assert artifacts.read(*stored) == FILES


@pytest.mark.parametrize("num_written", range(len(FILES) + 1))
def test_what_a_crash_left_is_no_artifact_until_its_listing_is_there(url: str, num_written: int) -> None:
    """The listing is the last thing written: after any number of files the artifact is not there, and then it is."""
    artifacts = RemoteArtifacts(url)
    stored = artifacts.write("model", "job", FILES)
    filesystem, root = find(url)
    for name in [*FILES, LISTING][num_written:]:
        filesystem.rm_file(f"{root}/{stored.uri}/{name}")
    with pytest.raises(DamagedArtifactError, match="is not whole"):
        artifacts.read(*stored)
    assert artifacts.write("model", "job", FILES) == stored
    assert artifacts.read(*stored) == FILES


def test_a_file_beside_those_of_the_listing_is_not_loaded(url: str) -> None:
    artifacts = RemoteArtifacts(url)
    stored = artifacts.write("model", "job", FILES)
    filesystem, root = find(url)
    filesystem.pipe_file(f"{root}/{stored.uri}/more", b"?")
    assert artifacts.read(*stored) == FILES


def test_listing_is_written_last(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = RemoteArtifacts(url)
    names: list[str] = []
    opened = type(artifacts._files).open

    def note(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            names.append(path.rpartition("/")[2])
        return opened(self, path, mode, **options)

    monkeypatch.setattr(type(artifacts._files), "open", note)
    artifacts.write("model", "job", FILES)
    assert names == [*FILES, LISTING]


def test_full_place_is_waited_for_and_left_clean(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = RemoteArtifacts(url)
    opened = type(artifacts._files).open

    def fill(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode and path.endswith("manifest.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, path, mode, **options)

    with monkeypatch.context() as full:
        full.setattr(type(artifacts._files), "open", fill)
        with pytest.raises(Retryable, match="no space is left for artifacts"):
            artifacts.write("model", "job", FILES)
        filesystem, root = find(url)
        assert filesystem.find(root) == []
    stored = artifacts.write("model", "job", FILES)
    assert artifacts.read(*stored) == FILES


def test_address_outside_the_place_is_refused(url: str) -> None:
    with pytest.raises(DamagedArtifactError, match="lies outside"):
        RemoteArtifacts(url).read("../model", "0" * 64)


def test_listing_of_others_is_not_believed(url: str) -> None:
    artifacts = RemoteArtifacts(url)
    filesystem, root = find(url)
    filesystem.makedirs(f"{root}/model/job", exist_ok=True)
    filesystem.pipe_file(f"{root}/model/job/{LISTING}", b"0  ../../secret\n")
    with pytest.raises(DamagedArtifactError, match="is not what was written"):
        artifacts.read("model/job", "0" * 64)


def test_unknown_kind_of_place_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ConfigurationError, match="DRIFTLOOP_ARTIFACTS"):
        open_artifacts("nowhere://bucket/models")


def test_place_is_named_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_place("artifacts") == str(tmp_path / "artifacts")
    assert resolve_place("s3://bucket/models") == "s3://bucket/models"
