"""Finds the models in which there may be something to do: a few questions about all of them at once.

A follower that asked for its own model alone would ask all day long for nothing; with a thousand models that is all
that the store would be doing. What is found here is a hint: the look at the model decides. So one look too many does no
harm, and one too few must not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from schemas.spec import ModelHistory
from store.client import ClickHouse
from store.judgements import read_unjudged
from store.summaries import read_markers
from store.windows import read_last_labels_at, read_unmeasured
from streams.finding import find_model_horizon
from streams.logic.windows import is_in_force


class Surveyor:
    """Asks the store; for one thread. What it remembers saves looks, and is lost without harm."""

    def __init__(self, ch: ClickHouse, job: str, partitions: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """`partitions` gives the present topics' sizes by (topic, topic_id)."""
        self._ch = ch
        self._job = job
        self._partitions = partitions
        self._known: dict[str, ModelHistory] = {}
        self._labels_at: dict[str, int] = {}

    def find(self, histories: Mapping[str, ModelHistory]) -> set[str]:
        """Return those of the models with a complete window that is not measured as far as it is counted, with new
        labels, with another spec than before, and of those that were not among them before what is not judged yet.
        """
        found = {model for model, history in histories.items() if self._known.get(model, history) is not history}
        if histories.keys() - self._known.keys():
            found |= read_unjudged(self._ch) - self._known.keys()
        labels_at = read_last_labels_at(self._ch)
        found |= {model for model, at in labels_at.items() if self._labels_at.get(model) != at}
        found |= self._find_unmeasured(histories)
        self._known, self._labels_at = dict(histories), labels_at
        return found & histories.keys()

    def _find_unmeasured(self, histories: Mapping[str, ModelHistory]) -> set[str]:
        sizes = self._partitions()
        # Before the summaries: time that has come since only makes windows complete of which the next survey will know.
        markers = read_markers(self._ch, self._job, {topic for topic, _ in sizes})
        found = set()
        for model, windows in read_unmeasured(self._ch, self._job).items():
            if (history := histories.get(model)) is None:
                continue
            ends = [end for start, end in windows if is_in_force(history, start, end)]
            horizon = find_model_horizon(history, markers, sizes) if ends else None
            if horizon is not None and min(ends) <= horizon:
                found.add(model)
        return found
