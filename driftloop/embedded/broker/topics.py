"""The catalogue of topics: names, ids, configurations and their partitions' logs.

A topic's folder is named after its id, so a topic that is deleted and made again is another log from its first moment.
"""

import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from driftloop.embedded.broker.configs import TopicConfig, validate_options
from driftloop.embedded.broker.errors import Code, Refusal
from driftloop.embedded.broker.journal import Journal, Key
from driftloop.embedded.broker.log import Log

DEFAULT_PARTITIONS = 1
# Every partition costs files and memory; a thousand in one topic is a mistake on one machine.
MAX_PARTITIONS = 1000
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass
class Topic:
    """A topic and its partitions, by index."""

    name: str
    id: uuid.UUID
    config: TopicConfig
    partitions: list[Log] = field(default_factory=list)


def validate_name(name: str) -> None:
    """Raises Refusal(INVALID_TOPIC) for what Kafka does not take as a name."""
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise Refusal(Code.INVALID_TOPIC, f"{name!r} is no topic name: 1 to 249 letters, digits, '.', '_' or '-'")


class Topics:
    """All topics of the broker; every change is in the journal before it is answered."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.by_name: dict[str, Topic] = {}
        self.by_id: dict[uuid.UUID, Topic] = {}
        self._journal = journal
        folder.mkdir(parents=True, exist_ok=True)
        for (_, topic_id), fact in journal.select("topic"):
            topic = Topic(fact["name"], uuid.UUID(str(topic_id)), TopicConfig(fact["config"]))
            self._open_partitions(topic, fact["num_partitions"])
        self._remove_strays()

    def _remove_strays(self) -> None:
        """Removes the folders of topics whose deletion was cut short."""
        for path in self.folder.iterdir():
            if path.name not in {str(topic_id) for topic_id in self.by_id}:
                shutil.rmtree(path)

    def _open_partitions(self, topic: Topic, num_partitions: int) -> None:
        for index in range(len(topic.partitions), num_partitions):
            start_offset = self._journal.facts.get(self._start_key(topic, index), 0)
            topic.partitions.append(Log(self.folder / str(topic.id) / str(index), topic.config, start_offset))
        self.by_name[topic.name] = self.by_id[topic.id] = topic

    @staticmethod
    def _start_key(topic: Topic, index: int) -> Key:
        return ("start", str(topic.id), index)

    def _save(self, topic: Topic, num_partitions: int) -> None:
        fact = {"name": topic.name, "num_partitions": num_partitions, "config": topic.config.overrides}
        self._journal.put({("topic", str(topic.id)): fact})

    def create(
        self, name: str, num_partitions: int, overrides: Mapping[str, str | None], validate_only: bool = False
    ) -> Topic:
        """Makes a topic with a new id; `num_partitions` -1 stands for the default."""
        validate_name(name)
        if name in self.by_name:
            raise Refusal(Code.TOPIC_ALREADY_EXISTS, f"topic {name} exists")
        if num_partitions == -1:
            num_partitions = DEFAULT_PARTITIONS
        if not 1 <= num_partitions <= MAX_PARTITIONS:
            raise Refusal(Code.INVALID_PARTITIONS, f"{num_partitions} partitions: 1 to {MAX_PARTITIONS} are possible")
        topic = Topic(name, uuid.uuid4(), TopicConfig(validate_options(overrides)))
        if not validate_only:
            self._save(topic, num_partitions)
            self._open_partitions(topic, num_partitions)
        return topic

    def delete(self, topic: Topic) -> None:
        """Forgets a topic and removes its files; the offsets that groups have committed are the caller's."""
        facts: dict[Key, None] = {self._start_key(topic, index): None for index in range(len(topic.partitions))}
        self._journal.put({("topic", str(topic.id)): None, **facts})
        del self.by_name[topic.name], self.by_id[topic.id]
        for log in topic.partitions:
            log.close()
        shutil.rmtree(self.folder / str(topic.id))

    def add_partitions(self, topic: Topic, num_partitions: int, validate_only: bool = False) -> None:
        if not len(topic.partitions) < num_partitions <= MAX_PARTITIONS:
            message = f"topic {topic.name} has {len(topic.partitions)} partitions, it cannot get {num_partitions}"
            raise Refusal(Code.INVALID_PARTITIONS, message)
        if not validate_only:
            self._save(topic, num_partitions)
            self._open_partitions(topic, num_partitions)

    def configure(self, topic: Topic, overrides: Mapping[str, str | None], validate_only: bool = False) -> None:
        """Puts these overrides in the place of all others."""
        valid = validate_options(overrides)
        if not validate_only:
            topic.config.replace(valid)
            self._save(topic, len(topic.partitions))

    def delete_records(self, topic: Topic, index: int, offset: int) -> int:
        """Moves a partition's start, durably; returns where it is now."""
        log = self.get_log(topic.name, index)
        start_offset = log.delete_before(offset)
        self._journal.put({self._start_key(topic, index): start_offset})
        return start_offset

    def get(self, name: str) -> Topic:
        topic = self.by_name.get(name)
        if topic is None:
            raise Refusal(Code.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}")
        return topic

    def get_by_id(self, topic_id: uuid.UUID) -> Topic:
        topic = self.by_id.get(topic_id)
        if topic is None:
            raise Refusal(Code.UNKNOWN_TOPIC_ID, f"there is no topic with id {topic_id}")
        return topic

    def get_log(self, name: str, index: int) -> Log:
        return get_partition(self.get(name), index)

    def close(self) -> None:
        for topic in self.by_name.values():
            for log in topic.partitions:
                log.close()


def get_partition(topic: Topic, index: int) -> Log:
    """One partition's log; raises Refusal where the topic has no such partition."""
    if not 0 <= index < len(topic.partitions):
        raise Refusal(Code.UNKNOWN_TOPIC_OR_PARTITION, f"topic {topic.name} has no partition {index}")
    return topic.partitions[index]
