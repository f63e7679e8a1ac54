"""What a summary counts, and where in its vector of counts: derived from a published spec alone. Pure.

Inputs (a model's features) and outputs (what a version said) are summarised apart, since several versions may score
the same record, whose features count once.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.declarations import FeatureSpec
from schemas.native import address
from schemas.spec import PublishedSpec

Part = Literal["inputs", "outputs"]

OTHER = "__other__"
SCORE, PREDICTION = "score", "prediction"

# Squares of larger numbers would be infinite; their moments are meaningless anyway, their bins and extremes are right.
DEVIATION_MAX = 1e150


@dataclass(frozen=True)
class NumberField:
    """Counts at `slot`: bins (…, c₀], (c₀, c₁], …, (cₖ, …), then null, below `minimum`, above `maximum`.

    Moments are those of x - `centre`: near the data, so that the variance keeps its digits.
    """

    name: str
    cuts: npt.NDArray[np.float64]
    minimum: float | None
    maximum: float | None
    slot: int

    @property
    def num_bins(self) -> int:
        """The number of histogram bins."""
        return len(self.cuts) + 1

    @property
    def num_slots(self) -> int:
        """The length in the vector of counts."""
        return self.num_bins + 3

    @property
    def centre(self) -> float:
        """The reference's median, or 0."""
        return float(self.cuts[len(self.cuts) // 2]) if len(self.cuts) else 0.0


@dataclass(frozen=True)
class CategoryField:
    """Counts at `slot`: each of `values`, then `__other__`, null, and values that the spec does not allow."""

    name: str
    values: tuple[str, ...]
    allowed: frozenset[str] | None
    slot: int

    @property
    def num_slots(self) -> int:
        """The length in the vector of counts."""
        return len(self.values) + 3

    @cached_property
    def codes(self) -> dict[str | None, int]:
        """Where a value is counted; what is not among them is `__other__`."""
        return {value: code for code, value in enumerate(self.values)} | {None: len(self.values) + 1}


@dataclass(frozen=True)
class PresenceField:
    """Counts at `slot`: present, null. For texts, embeddings and images, which have descriptors beside them."""

    name: str
    slot: int
    num_slots: int = 2


@dataclass(frozen=True, eq=False)
class Layout:
    """The fields of one part of a published spec; behind their counts one each, of values of another type."""

    part: Part
    numbers: tuple[NumberField, ...]
    categories: tuple[CategoryField, ...]
    presences: tuple[PresenceField, ...]
    num_slots: int

    @cached_property
    def coerced_slots(self) -> dict[str, int]:
        """Where a field's values are counted that came in another type."""
        names = [each.name for fields in (self.numbers, self.categories, self.presences) for each in fields]
        return {name: self.num_slots - len(names) + index for index, name in enumerate(names)}

    @cached_property
    def kernel(self) -> KernelLayout:
        """The layout as the kernel that counts reads it."""
        return KernelLayout(self)


class KernelLayout:
    """`layout_t` of `schemas/native/counts.c`, and the arrays that it points to."""

    def __init__(self, layout: Layout) -> None:
        numbers = layout.numbers
        # Padded to 2^k - 1, so that a search needs no look at the end.
        cuts = [_pad(number.cuts) for number in numbers]
        floats = [
            np.concatenate(cuts) if cuts else np.empty(0),
            np.array([-math.inf if number.minimum is None else number.minimum for number in numbers], np.float64),
            np.array([math.inf if number.maximum is None else number.maximum for number in numbers], np.float64),
            np.array([number.centre for number in numbers], np.float64),
        ]
        ints = [
            np.cumsum([0, *map(len, cuts)]),
            np.array([number.num_bins for number in numbers], np.int64),
            np.array([number.slot for number in numbers], np.int64),
        ]
        self._arrays = [*floats, *ints]
        num_categories = len(layout.categories) + len(layout.presences)
        self._struct = struct.pack(
            "<3q7Qd", len(numbers), num_categories, layout.num_slots, *map(address, self._arrays), DEVIATION_MAX
        )
        self._buffer = np.frombuffer(self._struct, np.uint8)
        self.address = address(self._buffer)


def _pad(cuts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = (1 << len(cuts).bit_length()) - 1
    return np.concatenate((cuts, np.full(size - len(cuts), math.inf)))


def lay_out(published: PublishedSpec, part: Part) -> Layout:
    """Give what a summary of this part counts."""
    return _lay_out(_Identity(published), part)


class _Identity:
    """Makes a published spec a key of the cache: its parts are lists and cannot be hashed."""

    def __init__(self, published: PublishedSpec) -> None:
        self.published = published
        self.key = (published.model, published.spec_version, published.published_at, published.reference_hash)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and (self.published is other.published or self.published == other.published)


@lru_cache(maxsize=4096)
def _lay_out(identity: _Identity, part: Part) -> Layout:
    published = identity.published
    features: dict[str, FeatureSpec | None] = dict(published.spec.features) if part == "inputs" else {}
    if part == "outputs":
        features = {
            name: None for name in (SCORE, PREDICTION) if name in published.cuts or name in published.categories
        }
        features.setdefault(SCORE, None)
    numbers: list[NumberField] = []
    categories: list[CategoryField] = []
    presences: list[PresenceField] = []
    slot = 0
    for name in sorted(features):
        field = _place(published, name, features[name], slot)
        slot += field.num_slots
        if isinstance(field, NumberField):
            numbers.append(field)
        elif isinstance(field, CategoryField):
            categories.append(field)
        else:
            presences.append(field)
    return Layout(part, tuple(numbers), tuple(categories), tuple(presences), slot + len(features))


def _place(
    published: PublishedSpec, name: str, feature: FeatureSpec | None, slot: int
) -> NumberField | CategoryField | PresenceField:
    declared = feature.type if feature is not None else None
    if name in published.categories or declared in ("category", "boolean"):
        allowed = frozenset(feature.values) if feature is not None and feature.values is not None else None
        values = published.categories.get(name) or (["0", "1"] if declared == "boolean" else [])
        return CategoryField(name, tuple(values), allowed, slot)
    if name in published.cuts or declared in ("number", None):
        minimum, maximum = (feature.min, feature.max) if feature is not None else (None, None)
        return NumberField(name, np.array(published.cuts.get(name, []), np.float64), minimum, maximum, slot)
    return PresenceField(name, slot)
