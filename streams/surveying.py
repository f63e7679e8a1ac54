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
from store.markers import Place
from store.summaries import read_markers
from store.windows import read_last_labels_at, read_unmeasured
from streams.finding import find_late_ends, find_model_horizon
from streams.logic.windows import is_in_force


class Surveyor:
    """Asks the store; for one thread. What it remembers saves looks, and is lost without harm."""

    def __init__(
        self,
        ch: ClickHouse,
        job: str,
        topic_of: Mapping[str, str],
        partitions: Callable[[], Mapping[tuple[str, str], int]],
        next_end: Callable[[str], int | None],
    ) -> None:
        """`topic_of` names the topics; `partitions` gives the sizes of the present ones by (topic, topic_id).

        `next_end` gives when (event time, epoch ms) a model's next merged window is complete; None if it has none.
        """
        self._ch = ch
        self._job = job
        self._topic_of = topic_of
        self._partitions = partitions
        self._next_end = next_end
        self._known: dict[str, ModelHistory] = {}
        self._labels_at: dict[str, int] = {}
        self._late_ends: dict[str, Mapping[Place, int]] = {}

    def find(self, histories: Mapping[str, ModelHistory]) -> set[str]:
        """Return those of the models with a complete window that is not measured as far as it is counted, with a merged
        window that has become complete, with new labels or with what came too late for anything but them, with another
        spec than before, and of those that were not among them before what is not judged yet.
        """
        found = {model for model, history in histories.items() if self._known.get(model, history) is not history}
        if histories.keys() - self._known.keys():
            found |= read_unjudged(self._ch) - self._known.keys()
        labels_at = read_last_labels_at(self._ch)
        found |= {model for model, at in labels_at.items() if self._labels_at.get(model) != at}
        late_ends = find_late_ends(self._ch, self._topic_of, self._partitions(), histories)
        found |= {model for model, ends in late_ends.items() if self._late_ends.get(model) != ends}
        found |= self._find_unmeasured(histories)
        # Of models that are others' by now nothing is kept: they may come back with something left undone.
        self._known = dict(histories)
        self._labels_at = {model: at for model, at in labels_at.items() if model in histories}
        self._late_ends = {model: ends for model, ends in (self._late_ends | late_ends).items() if model in histories}
        return found & histories.keys()

    def _find_unmeasured(self, histories: Mapping[str, ModelHistory]) -> set[str]:
        sizes = self._partitions()
        # Before the summaries: time that has come since only makes windows complete of which the next survey will know.
        markers = read_markers(self._ch, self._job, {topic for topic, _ in sizes})
        unmeasured = read_unmeasured(self._ch, self._job)
        found = set()
        for model, history in histories.items():
            ends = [end for start, end in unmeasured.get(model, ()) if is_in_force(history, start, end)]
            if (next_end := self._next_end(model)) is not None:
                ends.append(next_end)
            horizon = find_model_horizon(history, markers, sizes) if ends else None
            if horizon is not None and min(ends) <= horizon:
                found.add(model)
        return found
