"""Artifacts: written whole, found again, and refused when one bit differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.artifacts import ArtifactFolder, DamagedArtifactError

FILES = {"model.safetensors": bytes(range(256)), "manifest.json": b"{}", "README.md": b"# model"}


def test_files_come_back_and_writing_again_changes_nothing(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    first = folder.write("a/model", "job", FILES)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert folder.write("a/model", "job", FILES) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert folder.read(*first) == FILES
    assert first.uri.startswith("a%2Fmodel/job-")


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    folder = ArtifactFolder(tmp_path)
    stored = folder.write("model", "job", FILES)
    path = tmp_path / stored.uri / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match="is not what was written"):
        folder.read(*stored)


def test_missing_and_additional_files_are_refused(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    stored = folder.write("model", "job", FILES)
    (tmp_path / stored.uri / "more").write_bytes(b"")
    with pytest.raises(DamagedArtifactError):
        folder.read(*stored)
    (tmp_path / stored.uri / "more").unlink()
    (tmp_path / stored.uri / "README.md").unlink()
    with pytest.raises(DamagedArtifactError):
        folder.read(*stored)


def test_damaged_artifact_is_written_anew(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    stored = folder.write("model", "job", FILES)
    (tmp_path / stored.uri / "README.md").write_bytes(b"")
    assert folder.write("model", "job", FILES) == stored
    assert folder.read(*stored) == FILES


def test_what_a_crash_left_behind_does_not_disturb(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    stored = folder.write("model", "job", FILES)
    place = tmp_path / stored.uri
    partial = place.with_name(f".{place.name}.partial")
    place.rename(partial)  # written, and not yet renamed
    (partial / "README.md").unlink()
    assert folder.write("model", "job", FILES) == stored
    assert folder.read(*stored) == FILES


def test_address_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path / "artifacts")
    ArtifactFolder(tmp_path).write("model", "job", FILES)
    with pytest.raises(DamagedArtifactError, match="lies outside"):
        folder.read("../model", "0" * 64)
