"""Checkpoints: how far a job's training has come, so that whoever takes the job over goes on from there.

Owns their files beside the artifacts, which every worker reaches. Each is one safetensors file, named by its content,
so that a torn or damaged one is passed over; nothing is unpickled. It must not know what the tensors mean.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

log = logging.getLogger(__name__)

# Saving may take this share of the time, whatever a checkpoint weighs.
_SHARE_MAX = 0.05
_FOLDER = ".checkpoints"
_SUFFIX = ".safetensors"
_HASH_CHARS = 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors, and what else there is to know, as JSON values."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one training of a job: `last` is the newest of an earlier attempt, if there is one.

    `key` names what they are of, a hash: other rows or settings, or another release, have other checkpoints.
    """

    def __init__(self, artifacts: str, job_id: str, key: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._files, root = fsspec.url_to_fs(artifacts)
        self._folder = f"{root}/{_FOLDER}/{job_id}/{key[:_HASH_CHARS]}"
        self._key = key
        self._clock_s = clock_s
        self._number = 0
        self._saved_s = clock_s()
        self._cost_s = 0.0
        self.last = self._load()

    def is_due(self) -> bool:
        """Tell whether saving now keeps within its share of the time."""
        return self._clock_s() - self._saved_s >= self._cost_s / _SHARE_MAX

    def save(self, make: Callable[[], Checkpoint], *, always: bool = False) -> None:
        """Save a checkpoint if one is due, or `always`.

        Without it the job is only slower to repeat, so a full disk is no error.
        """
        if not always and not self.is_due():
            return
        begun_s = self._clock_s()
        checkpoint = make()
        facts = msgspec.json.encode({"key": self._key, "facts": dict(checkpoint.facts)}).decode()
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in checkpoint.tensors.items()}
        content: bytes = save(tensors, metadata={"driftloop": facts})
        self._number += 1
        name = f"{self._number:08d}-{_hash(content)}{_SUFFIX}"
        try:
            self._files.makedirs(self._folder, exist_ok=True)
            earlier = self._list()
            self._files.pipe_file(f"{self._folder}/{name}", content)
            for path in earlier:
                self._files.rm_file(path)
        except OSError as error:
            log.warning("the checkpoint could not be saved: %s", error)
        self._saved_s = self._clock_s()
        self._cost_s = self._saved_s - begun_s

    def _load(self) -> Checkpoint | None:
        for path in reversed(self._list()):
            name = path.rpartition("/")[2]
            number, _, digest = name.removesuffix(_SUFFIX).partition("-")
            try:
                content: bytes = self._files.cat_file(path)
                if digest != _hash(content) or not number.isdigit():
                    log.warning("checkpoint %s is damaged and is passed over", name)
                    continue
                said = msgspec.json.decode(_read_metadata(content)["driftloop"])
                if said["key"] != self._key:
                    log.info("checkpoint %s is of other rows, settings or code and is passed over", name)
                    continue
                self._number = int(number)
                return Checkpoint(load(content), said["facts"])
            except (OSError, SafetensorError, KeyError, msgspec.MsgspecError) as error:
                log.warning("checkpoint %s cannot be read and is passed over: %s", name, error)
        return None

    def _list(self) -> list[str]:
        """Give the paths, the newest last."""
        try:
            found: list[str] = self._files.ls(self._folder, detail=False)
        except OSError:
            return []
        return sorted(path for path in found if path.endswith(_SUFFIX))


def remove_checkpoints(artifacts: str, job_id: str) -> None:
    """Remove a job's checkpoints, once it is over; what cannot be removed only takes room."""
    files, root = fsspec.url_to_fs(artifacts)
    try:
        files.rm(f"{root}/{_FOLDER}/{job_id}", recursive=True)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("the checkpoints of job %s stay: %s", job_id[:12], error)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH_CHARS]


def _read_metadata(content: bytes) -> dict[str, str]:
    """Read what `save` was given as metadata: the header is JSON, its length in front as 8 bytes, little-endian."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = msgspec.json.decode(content[8 : 8 + length])
    found: dict[str, str] = header["__metadata__"]
    return found
