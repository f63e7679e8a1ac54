"""Which offset of a partition may be committed: the first one that is not finished with."""

import threading
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Entry:
    """One message: finished when nothing of it is open any more."""

    offset: int
    num_open: int


@dataclass(slots=True)
class Ledger:
    """Messages of one partition in order; safe for several threads."""

    _entries: deque[Entry] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def open(self, offset: int, num_open: int) -> Entry:
        """Enter a message with so many things to do; messages come in order."""
        entry = Entry(offset, num_open)
        with self._lock:
            self._entries.append(entry)
        return entry

    def finish(self, entry: Entry) -> None:
        """One of the message's things is done."""
        with self._lock:
            assert entry.num_open > 0
            entry.num_open -= 1

    def take_commit(self) -> int | None:
        """The offset to commit, if it has moved since it was last asked for: nothing before it is open."""
        with self._lock:
            before = self._next
            while self._entries and self._entries[0].num_open == 0:
                # After a lost membership messages come again; that takes no commit back.
                self._next = max(self._next, self._entries.popleft().offset + 1)
            return self._next if self._next > before else None

    def __len__(self) -> int:
        return len(self._entries)
