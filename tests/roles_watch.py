"""A reader of `models` beside a test: whatever happens, there is exactly one champion at every instant."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.connections import Runtime
from schemas.events import RoleMap
from store.client import ClickHouse
from store.log import RoleFollower

_EVERY_S = 0.05


class RoleWatch:
    """Follows the role maps and the copy in ClickHouse; `faults` says what was ever wrong, `maps` what counted."""

    def __init__(self, runtime: Runtime) -> None:
        self.maps: list[RoleMap] = []
        self.faults: list[str] = []
        self.num_looks = 0
        self._follower = RoleFollower(runtime.kafka, runtime.topics)
        self._ch = ClickHouse(runtime.clickhouse)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="roles-watch", daemon=True)
        self._thread.start()

    def champions(self, model: str) -> list[str]:
        """The champions of a model one after the other, as the log had them."""
        return [each.roles.get("champion", "") for each in self.maps if each.model == model]

    def close(self) -> None:
        """Look once more and leave."""
        self._stop.set()
        self._thread.join(30)
        self._look()
        self._follower.close()
        self._ch.close()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        try:
            for each in self._follower.refresh(20):
                self._check(each)
            for model, epoch, num_champions in self._ch.query(
                "SELECT model, epoch, countIf(role = 'champion') FROM roles GROUP BY model, epoch"
            ):
                if num_champions != 1:
                    self.faults.append(f"{model}: in the table epoch {epoch} has {num_champions} champions")
            self.num_looks += 1
        except Exception as error:
            self.faults.append(f"cannot look: {error!r}")

    def _check(self, taken: RoleMap) -> None:
        before = [each for each in self.maps if each.model == taken.model]
        self.maps.append(taken)
        if not taken.roles.get("champion"):
            self.faults.append(f"{taken.model}: epoch {taken.epoch} has no champion: {taken.roles}")
        if len(set(taken.roles.values())) != len(taken.roles):
            self.faults.append(f"{taken.model}: epoch {taken.epoch} gives a version two roles: {taken.roles}")
        if taken.epoch != (before[-1].epoch + 1 if before else 1):
            self.faults.append(f"{taken.model}: epoch {taken.epoch} follows {before[-1].epoch if before else 0}")


@contextmanager
def watching_roles(runtime: Runtime) -> Iterator[RoleWatch]:
    """Watch while the block runs; AssertionError at its end unless there was one champion at every instant."""
    watch = RoleWatch(runtime)
    try:
        yield watch
    finally:
        watch.close()
    assert watch.num_looks > 0
    assert watch.faults == []
