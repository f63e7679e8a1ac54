"""The broker as a whole: what handlers act on, and what has to be done from time to time."""

import fcntl
import os
import time
import uuid
from pathlib import Path

from driftloop.embedded.broker.compaction import compact
from driftloop.embedded.broker.coordinator import GroupCoordinator
from driftloop.embedded.broker.journal import Journal, Key
from driftloop.embedded.broker.offsets import CommittedOffsets
from driftloop.embedded.broker.topics import Topic, Topics
from driftloop.embedded.broker.transactions import TransactionCoordinator

NODE_ID = 1


class DataFolderInUse(RuntimeError):
    """Another process works on the data folder."""


def now_ms() -> int:
    """The clock's milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def lock_folder(folder: Path) -> int:
    """Takes the folder for this process until it ends; raises DataFolderInUse."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise DataFolderInUse(
            f"{folder} is in use by process {owner}; stop it, or choose another folder with --data"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


class Broker:
    """Everything that the data folder holds; to be made on the running event loop (members have timers)."""

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._lock = lock_folder(folder)
        self._journal = Journal(folder / "journal")
        self.cluster_id = self._get_cluster_id()
        self.topics = Topics(folder / "topics", self._journal)
        self.offsets = CommittedOffsets(self._journal)
        self.groups = GroupCoordinator(self._journal, self.offsets)
        self.transactions = TransactionCoordinator(self._journal, self.topics, self.offsets)
        self.transactions.finish_interrupted(now_ms())

    def _get_cluster_id(self) -> str:
        key: Key = ("cluster_id",)
        if key not in self._journal.facts:
            self._journal.put({key: uuid.uuid4().hex[:22]})
        return str(self._journal.facts[key])

    def delete_topic(self, topic: Topic) -> None:
        """Removes a topic and everything that refers to it."""
        self.topics.delete(topic)
        self.offsets.forget_topic(topic.name)

    async def enforce_timeouts(self) -> None:
        """Ends the transactions that are open for too long, and forgets groups of which nothing is left."""
        self.transactions.enforce_timeouts(now_ms())
        self.groups.forget_empty()

    async def enforce_retention(self) -> None:
        """Removes what topics need not keep."""
        for log in [log for topic in self.topics.by_name.values() for log in topic.partitions]:
            if not log.is_closed:
                log.enforce_retention(now_ms())
                await compact(log, now_ms())

    def close(self) -> None:
        self.topics.close()
        self._journal.close()
        os.close(self._lock)
