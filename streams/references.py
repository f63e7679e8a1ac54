"""References as a measuring process keeps them: read once by hash, with what is derived from them; a bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

from schemas.errors import DriftloopError
from schemas.spec import PublishedSpec
from store.client import ClickHouse
from store.reference import read_reference
from store.windows import read_version_references
from streams.logic.outcomes import ReferenceProfile, profile_reference
from streams.logic.rows import Rows, from_reference

# 8 references of 100,000 rows and 20 columns take about 200 MB.
_NUM_REFERENCES_MAX = 8
_NUM_PROFILES_MAX = 64

Value = TypeVar("Value")


class References:
    """Reference rows and profiles by content; a hash never changes its rows, so nothing has to be invalidated."""

    def __init__(self, ch: ClickHouse) -> None:
        self._ch = ch
        self._rows: OrderedDict[Hashable, Rows] = OrderedDict()
        self._profiles: OrderedDict[Hashable, ReferenceProfile] = OrderedDict()

    def find_hash(self, published: PublishedSpec, model_version: str) -> tuple[str, bool]:
        """Return the hash of a version's reference, and whether it is the version's own."""
        own = read_version_references(self._ch, published.model).get(model_version) if model_version else None
        return (own, True) if own else (published.reference_hash, False)

    def read(self, published: PublishedSpec, reference_hash: str) -> Rows:
        """Return the reference rows; DriftloopError if none are stored under the hash."""
        keys = published.spec.segments

        def load() -> Rows:
            frame = read_reference(self._ch, reference_hash)
            if frame.empty:
                raise DriftloopError(f"no reference rows are stored under {reference_hash!r} of {published.model!r}")
            return from_reference(frame, keys)

        return _remember(self._rows, (reference_hash, *keys), _NUM_REFERENCES_MAX, load)

    def profile(self, published: PublishedSpec, reference_hash: str, *, is_own: bool) -> ReferenceProfile:
        """Return limits and estimator of a reference."""
        key = (published.model, published.spec_version, reference_hash)
        return _remember(
            self._profiles,
            key,
            _NUM_PROFILES_MAX,
            lambda: profile_reference(published, self.read(published, reference_hash), is_own=is_own),
        )


def _remember(memory: OrderedDict[Hashable, Value], key: Hashable, num_max: int, load: Callable[[], Value]) -> Value:
    if key in memory:
        memory.move_to_end(key)
        return memory[key]
    value = memory[key] = load()
    while len(memory) > num_max:
        memory.popitem(last=False)
    return value
