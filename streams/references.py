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
from streams.logic.dependence import learn_blocks
from streams.logic.distances import SampledRows
from streams.logic.drift_tests import ReferenceCounts
from streams.logic.layouts import Part
from streams.logic.outcomes import ReferenceProfile, profile_reference
from streams.logic.reference_counts import count_reference, count_reference_windows
from streams.logic.rows import from_reference

# A reference of 100,000 rows and 20 columns takes 20 MB, its samples as much again, and once more for each segment key.
# The one in use is kept however large it is.
_NUM_BYTES_MAX = 256 << 20
_NUM_PROFILES_MAX = 64
_NUM_COUNT_BYTES_MAX = 64 << 20

Value = TypeVar("Value")


class References:
    """References and profiles by content; a hash never changes its rows, so nothing has to be invalidated."""

    def __init__(self, ch: ClickHouse) -> None:
        self._ch = ch
        self._rows: OrderedDict[Hashable, SampledRows] = OrderedDict()
        self._profiles: OrderedDict[Hashable, ReferenceProfile] = OrderedDict()
        self._counts: OrderedDict[Hashable, ReferenceCounts] = OrderedDict()

    def read_own_hashes(self, model: str) -> dict[str, str]:
        """Return the hash of the reference of every version that has its own."""
        return read_version_references(self._ch, model)

    def read(self, published: PublishedSpec, reference_hash: str) -> SampledRows:
        """Return the reference's rows, with the samples made of them so far; DriftloopError if there are none."""
        spec = published.spec

        def load() -> SampledRows:
            frame = read_reference(self._ch, reference_hash)
            if frame.empty:
                raise DriftloopError(f"no reference rows are stored under {reference_hash!r} of {published.model!r}")
            known = {key: published.segment_values.get(key, []) for key in spec.segments}
            return SampledRows(from_reference(frame, spec.segments), known)

        def is_full(memory: OrderedDict[Hashable, SampledRows]) -> bool:
            return sum(each.num_bytes for each in memory.values()) > _NUM_BYTES_MAX

        # The segments that have samples of their own are the published spec's.
        key = (published.model, published.spec_version, reference_hash)
        return _remember(self._rows, key, is_full, load)

    def profile(self, published: PublishedSpec, own_hash: str) -> ReferenceProfile:
        """Return limits and estimator of a version's own reference, or, if `own_hash` is empty, of the model's."""
        reference_hash = own_hash or published.reference_hash
        return _remember(
            self._profiles,
            (published.model, published.spec_version, reference_hash),
            lambda memory: len(memory) > _NUM_PROFILES_MAX,
            lambda: profile_reference(published, self.read(published, reference_hash).rows, is_own=bool(own_hash)),
        )

    def count(self, published: PublishedSpec, reference_hash: str, part: Part, scale: int) -> ReferenceCounts:
        """Return the reference's counts, and with `rows: blocks` what its blocks of so many windows have taught."""
        is_blocked = published.spec.drift.rows == "blocks"

        def load() -> ReferenceCounts:
            rows = self.read(published, reference_hash).rows
            counts = count_reference(published, rows, part)
            if not is_blocked:
                return ReferenceCounts(counts)
            blocks = {
                segment: learn_blocks(published, part, *count_reference_windows(published, rows, part, segment), scale)
                for segment in counts
            }
            return ReferenceCounts(counts, blocks)

        # Without blocks they are the same at every scale.
        key = (published.model, published.spec_version, reference_hash, part, scale if is_blocked else 1)

        def is_full(memory: OrderedDict[Hashable, ReferenceCounts]) -> bool:
            return sum(each.num_bytes for each in memory.values()) > _NUM_COUNT_BYTES_MAX

        return _remember(self._counts, key, is_full, load)


def _remember(
    memory: OrderedDict[Hashable, Value],
    key: Hashable,
    is_full: Callable[[OrderedDict[Hashable, Value]], bool],
    load: Callable[[], Value],
) -> Value:
    if key in memory:
        memory.move_to_end(key)
    else:
        memory[key] = load()
    while len(memory) > 1 and is_full(memory):
        memory.popitem(last=False)
    return memory[key]
