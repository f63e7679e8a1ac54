"""What groups have committed: an offset for each partition, durable before it is answered."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from driftloop.embedded.broker.journal import Journal, Key

MAX_METADATA_BYTES = 4096
Place = tuple[str, int]


class CommittedOffset(NamedTuple):
    offset: int
    leader_epoch: int
    metadata: str


def build_facts(group: str, offsets: Mapping[Place, CommittedOffset | None]) -> dict[Key, list[int | str] | None]:
    """The journal's facts for these commits; None forgets one."""
    return {
        ("offset", group, topic, index): None if committed is None else list(committed)
        for (topic, index), committed in offsets.items()
    }


class CommittedOffsets:
    """Committed offsets by group and partition."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._groups: defaultdict[str, dict[Place, CommittedOffset]] = defaultdict(dict)
        for (_, group, topic, index), fact in journal.select("offset"):
            self._groups[str(group)][str(topic), int(index)] = CommittedOffset(*fact)

    @property
    def groups(self) -> list[str]:
        return list(self._groups)

    def get(self, group: str) -> dict[Place, CommittedOffset]:
        """All that a group has committed; empty for an unknown group."""
        return dict(self._groups.get(group, {}))

    def commit(self, group: str, offsets: Mapping[Place, CommittedOffset]) -> None:
        self._journal.put(build_facts(group, offsets))
        self.note(group, offsets)

    def note(self, group: str, offsets: Mapping[Place, CommittedOffset]) -> None:
        """Takes in what is in the journal already (a transaction writes it together with its own end)."""
        if offsets:
            self._groups[group].update(offsets)

    def forget(self, group: str, places: Iterable[Place]) -> None:
        known = self._groups.get(group, {})
        gone = [place for place in places if place in known]
        self._journal.put(build_facts(group, dict.fromkeys(gone)))
        for place in gone:
            del known[place]
        if not known:
            self._groups.pop(group, None)

    def forget_topic(self, topic: str) -> None:
        """A deleted topic's offsets mean nothing to the next topic of its name."""
        for group in self.groups:
            self.forget(group, [place for place in self._groups[group] if place[0] == topic])
