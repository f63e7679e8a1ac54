"""How far event time has come in one partition, per model and version: a pure function of the log up to an offset.

The watermark is the largest valid `ts` less the allowed lateness. Events meet the one from before their message, so
what is too late depends neither on how the log was cut into chunks nor on the order of the rows within a message, and
an offset tells the events that counted from those that came too late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.logic.runs import find_runs, measure_runs

Ints = npt.NDArray[np.int64]

# Before every instant, yet far from overflow when a retention is subtracted.
UNKNOWN_MS = -(2**62)

# A watermark message holds for every version of the model, also for those that nobody has seen yet.
EVERY_VERSION = "*"

# In predictions: the features that came along, whatever version they were scored by.
INPUTS = ""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A version's watermark and the Kafka timestamp of its last message; epoch ms."""

    watermark_ms: int
    last_append_ms: int


def run_watermark(initial_ms: int, own: Ints, offset: Ints, raised: Iterable[tuple[int, int]]) -> tuple[Ints, int]:
    """Give the watermark before each event's message (int64[n]) and the one after all of them.

    `own` is what each event alone proves, in log order; `raised` has (offset, ms) of watermark messages in between.
    """
    before = np.empty(len(own) + 1, np.int64)
    before[0] = initial_ms
    before[1:] = own
    for message_offset, ms in raised:
        position = int(np.searchsorted(offset, message_offset))
        before[position] = max(before[position], ms)
    np.maximum.accumulate(before, out=before)
    first = find_runs(offset)
    if len(first) == len(own):
        return before[:-1], int(before[-1])
    return np.repeat(before[first], measure_runs(first, len(own))), int(before[-1])


class Watermarks:
    """The watermarks of one partition."""

    def __init__(self, known: Mapping[str, Mapping[str, tuple[int, int]]] | None = None) -> None:
        self._models: dict[str, dict[str, Progressed]] = {
            model: {version: Progressed(*progressed) for version, progressed in versions.items()}
            for model, versions in (known or {}).items()
        }

    def get(self, model: str, version: str) -> int:
        """Give a version's watermark in epoch ms; `UNKNOWN_MS` where nothing of the model has come."""
        versions = self._models.get(model, {})
        known = [versions[name].watermark_ms for name in (version, EVERY_VERSION) if name in versions]
        return max(known, default=UNKNOWN_MS)

    def raise_to(self, model: str, version: str, watermark_ms: int, append_ms: int) -> None:
        """Take in that a version has come this far; a watermark never falls."""
        versions = self._models.setdefault(model, {})
        last = versions.get(version, Progressed(UNKNOWN_MS, 0))
        versions[version] = Progressed(max(last.watermark_ms, watermark_ms), max(last.last_append_ms, append_ms))

    def versions(self, model: str) -> list[str]:
        """Give the versions of a model that have been seen."""
        return [version for version in self._models.get(model, {}) if version != EVERY_VERSION]

    def models(self) -> list[str]:
        """Give the models that have been seen."""
        return list(self._models)

    def dump(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Give what a marker keeps; `Watermarks(dump)` is the same again."""
        return {
            model: {version: (p.watermark_ms, p.last_append_ms) for version, p in versions.items()}
            for model, versions in self._models.items()
        }


def list_sources(watermarks: Mapping[str, Mapping[str, tuple[int, int]]], model: str) -> dict[str, Progressed]:
    """Give a model's versions in one marker with the watermarks that hold for them; empty: not seen there.

    Watermark messages are taken into account; where nothing else has come, they are the source ''.
    """
    known = watermarks.get(model, {})
    floor_ms, floor_append_ms = known.get(EVERY_VERSION, (UNKNOWN_MS, 0))
    sources = {
        version: Progressed(max(watermark_ms, floor_ms), max(append_ms, floor_append_ms))
        for version, (watermark_ms, append_ms) in known.items()
        if version != EVERY_VERSION
    }
    if not sources and EVERY_VERSION in known:
        sources[INPUTS] = Progressed(floor_ms, floor_append_ms)
    return sources
