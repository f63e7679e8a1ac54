"""Published specs: what `apply` puts on the topic `specs`, and everything known of it so far."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.declarations import ModelSpec

Ints = npt.NDArray[np.int64]


class PublishedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a spec with what counting needs to know of its reference; instants are epoch milliseconds.

    `cuts`: per numeric feature, and for `score` (and `prediction` of a regression), reference order statistics.
    `categories`: per category feature, and for `prediction` of a classifier, the values by falling count.
    `segment_values`: per segment key the values that have a segment of their own; the rest is `__other__`.
    """

    spec: ModelSpec
    spec_version: int
    effective_from: int
    published_at: int
    reference_hash: str
    reference_rows: int
    cuts: dict[str, list[float]] = {}
    categories: dict[str, list[str]] = {}
    segment_values: dict[str, list[str]] = {}

    @property
    def model(self) -> str:
        """The model's name."""
        return self.spec.model

    @property
    def key(self) -> str:
        """The message key on `specs`."""
        return f"{self.spec.model}/{self.spec_version}"

    @property
    def window_size_ms(self) -> int:
        """The length of a window."""
        return self.spec.windows.size_ms

    def window_of(self, ts: Ints) -> Ints:
        """Give the start of each instant's window, in epoch ms; the origin is a window's start."""
        windows = self.spec.windows
        starts: Ints = (ts - windows.origin_ms) // windows.size_ms * windows.size_ms + windows.origin_ms
        return starts


_DECODER = msgspec.json.Decoder(PublishedSpec)


def encode_published(published: PublishedSpec) -> bytes:
    """Give the value of the message on `specs`."""
    return msgspec.json.encode(published)


def decode_published(value: bytes) -> PublishedSpec:
    """Read the value of a message on `specs`; msgspec.ValidationError if it is none."""
    return _DECODER.decode(value)


def split_key(key: str) -> tuple[str, int]:
    """Give the model and spec_version that a message key on `specs` names; ValueError if it names none."""
    model, _, version = key.rpartition("/")
    if not model:
        raise ValueError(f"{key!r} is not of the form model/spec_version")
    return model, int(version)


class ModelHistory:
    """A model's published versions, oldest first; never empty."""

    def __init__(self, versions: list[PublishedSpec]) -> None:
        assert versions
        self.versions = sorted(versions, key=lambda published: published.spec_version)
        self._starts = np.array([published.effective_from for published in self.versions], dtype=np.int64)

    @property
    def latest(self) -> PublishedSpec:
        """The version published last."""
        return self.versions[-1]

    def in_force(self, ts_ms: int) -> PublishedSpec:
        """Give the version in force at an instant; before all of them, the first."""
        return self.versions[int(self.index_in_force(np.array([ts_ms], dtype=np.int64))[0])]

    def index_in_force(self, ts: Ints) -> npt.NDArray[Any]:
        """Give for each instant the position in `versions` of the one in force: the newest that has begun."""
        index = np.zeros(len(ts), dtype=np.int64)
        for position in range(1, len(self.versions)):
            index[ts >= self._starts[position]] = position
        return index


class Catalogue:
    """All published specs known so far, by model."""

    def __init__(self) -> None:
        self._histories: dict[str, ModelHistory] = {}

    def add(self, published: PublishedSpec) -> None:
        """Take in one version; the same version again replaces it."""
        others = [known for known in self._versions(published.model) if known.spec_version != published.spec_version]
        self._histories[published.model] = ModelHistory([*others, published])

    def remove(self, model: str, version: int | None = None) -> None:
        """Forget a version, or the whole model; what is not known is no error."""
        left = [known for known in self._versions(model) if version is not None and known.spec_version != version]
        if left:
            self._histories[model] = ModelHistory(left)
        else:
            self._histories.pop(model, None)

    def get(self, model: str) -> ModelHistory | None:
        """Give a model's history; None if the model is unknown."""
        return self._histories.get(model)

    def models(self) -> list[str]:
        """Give the known models' names, sorted."""
        return sorted(self._histories)

    def _versions(self, model: str) -> list[PublishedSpec]:
        history = self._histories.get(model)
        return history.versions if history else []
