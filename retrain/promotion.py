"""Promotion: one message on `models`, and a copy of it in ClickHouse.

Owns the change of roles. It must not decide whether a version deserves it.
"""

from __future__ import annotations

import logging

from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.events import RoleMap
from store.client import ClickHouse
from store.jobs import read_measured_to
from store.log import RoleFollower, publish_roles
from store.versions import insert_roles

log = logging.getLogger(__name__)


class ChampionChangedError(Exception):
    """Another version became champion meanwhile, so the comparison no longer says anything."""


class Roles:
    """The role maps of all models as the log has them, mirrored into ClickHouse as they are read."""

    def __init__(self, runtime: Runtime, ch: ClickHouse, clock: Clock) -> None:
        self._runtime, self._ch, self._clock = runtime, ch, clock
        self._follower = RoleFollower(runtime.kafka, runtime.topics)
        self._unmirrored: list[RoleMap] = []
        self._of_job: dict[str, RoleMap] = {}

    def refresh(self) -> None:
        """Read `models` to its present end and copy what is new; safe to repeat."""
        for role_map in self._follower.refresh():
            self._unmirrored.append(role_map)
            if role_map.job_id:
                self._of_job[role_map.job_id] = role_map
        while self._unmirrored:
            insert_roles(self._ch, self._unmirrored[0])
            self._unmirrored.pop(0)

    def find_champion(self, model: str) -> str | None:
        """Return a model's champion as of the last refresh, None if it never had roles."""
        role_map = self._follower.current(model)
        return role_map.roles.get("champion") if role_map else None

    def find_promotion(self, job_id: str) -> RoleMap | None:
        """Return the role map with which a job has promoted its version, None if it has not; as of the last refresh."""
        return self._of_job.get(job_id)

    def promote(self, model: str, version: str, champion: str, reason: str, job_id: str) -> RoleMap:
        """Make `version` the champion in place of `champion`, which becomes the shadow.

        Safe to repeat: a job that has promoted does not promote again. When another role map comes first
        it is read and decided again; raises ChampionChangedError when the champion is another one by then.
        """
        while True:
            self.refresh()
            if job_id in self._of_job:
                return self._of_job[job_id]
            current = self._follower.current(model)
            if current is not None and current.roles.get("champion", champion) != champion:
                raise ChampionChangedError(f"version {current.roles['champion']} became champion meanwhile")
            role_map = RoleMap(
                model=model,
                epoch=current.epoch + 1 if current else 1,
                roles={"champion": version, "shadow": champion},
                # Windows that start before this were, and stay, the old champion's.
                at=read_measured_to(self._ch, model) or 0,
                changed_at=self._clock.now_ms(),
                reason=reason,
                job_id=job_id,
            )
            if publish_roles(self._runtime.kafka, self._runtime.topics, role_map):
                log.info("model %s: version %s is champion, %s its shadow", model, version, champion)
            else:
                log.info("model %s: another role map came first; reading it and deciding again", model)

    def close(self) -> None:
        """Leave the broker."""
        self._follower.close()
