"""Checkpoints: the newest whole one of the same training counts, and nothing that is wrong with one is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retrain.checkpoints import Checkpoint, Checkpoints, remove_checkpoints

KEY = "0123456789abcdef-training"


def make(number: int) -> Checkpoint:
    tensors = {"a": torch.arange(number), "flag": torch.tensor(True), "one": torch.tensor(number / 3)}
    return Checkpoint(tensors, {"number": number, "phase": "search", "loss": 0.1 + number})


def open_(folder: Path, key: str = KEY, clock_s: float = 0.0) -> Checkpoints:
    return Checkpoints(str(folder), "job", key, lambda: clock_s)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_the_newest_is_given_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = open_(tmp_path)
    assert checkpoints.last is None
    for number in (3, 5):
        checkpoints.save(lambda number=number: make(number))  # type: ignore[misc]
    assert len(files(tmp_path)) == 1
    last = open_(tmp_path).last
    assert last is not None
    assert dict(last.facts) == {"number": 5, "phase": "search", "loss": 5.1}
    assert {name: tensor.tolist() for name, tensor in last.tensors.items()} == {
        name: tensor.tolist() for name, tensor in make(5).tensors.items()
    }


def test_one_of_another_training_is_not_taken(tmp_path: Path) -> None:
    open_(tmp_path).save(lambda: make(1))
    assert open_(tmp_path, key="another").last is None
    # The same beginning, as if two hashes had it in common.
    assert open_(tmp_path, key=KEY + "!").last is None
    assert open_(tmp_path).last is not None


@pytest.mark.parametrize("place", [0, 9, -1])
def test_a_damaged_one_is_passed_over(tmp_path: Path, place: int) -> None:
    open_(tmp_path).save(lambda: make(4))
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert open_(tmp_path).last is None
    path.write_bytes(content[:5])
    again = open_(tmp_path)
    assert again.last is None
    again.save(lambda: make(6))
    assert open_(tmp_path).last is not None


def test_saving_keeps_within_its_share_of_the_time(tmp_path: Path) -> None:
    now_s = [100.0]

    def slow() -> Checkpoint:
        now_s[0] += 2.0
        return make(1)

    checkpoints = Checkpoints(str(tmp_path), "job", KEY, lambda: now_s[0])
    checkpoints.save(slow)
    assert not checkpoints.is_due()
    now_s[0] += 39.9
    assert not checkpoints.is_due()
    now_s[0] += 0.2
    assert checkpoints.is_due()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".checkpoints").write_text("a file where the folder would be")
    open_(tmp_path).save(lambda: make(1))
    assert "could not be saved" in caplog.text


def test_they_are_removed_with_the_job(tmp_path: Path) -> None:
    open_(tmp_path).save(lambda: make(1))
    open_(tmp_path, key="another").save(lambda: make(1))
    remove_checkpoints(str(tmp_path), "job")
    remove_checkpoints(str(tmp_path), "job")
    assert files(tmp_path) == []
