"""A change of roles: one message on `models`, and a copy of it in ClickHouse.

Owns the publishing and its optimistic concurrency: whoever saw the newest role map writes the next, and of two the
first in the log counts. It must not decide whether a version deserves its role.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from retrain.role_maps import CHAMPION, challenge, crown
from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.errors import DriftloopError
from schemas.events import RoleMap
from store.client import ClickHouse
from store.jobs import read_measured_to
from store.log import RoleFollower, publish_roles
from store.versions import insert_roles

log = logging.getLogger(__name__)


class ChampionChangedError(Exception):
    """Another version became champion meanwhile, so the comparison no longer says anything."""


class LostRaceError(DriftloopError):
    """Somebody else changed the roles first; str() says who is champion now, and why."""

    def __init__(self, winner: RoleMap) -> None:
        self.winner = winner
        super().__init__(
            f"somebody changed the roles of {winner.model} first (epoch {winner.epoch}): champion is version "
            f"{winner.roles[CHAMPION]}, because: {winner.reason or 'no reason was given'}. Nothing was changed; "
            f"look at `driftloop models {winner.model}` and decide again"
        )


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
                self._of_job.setdefault(role_map.job_id, role_map)
        while self._unmirrored:
            insert_roles(self._ch, self._unmirrored[0])
            self._unmirrored.pop(0)

    def models(self) -> list[str]:
        """Return the models that have roles, as of the last refresh."""
        return self._follower.models()

    def find_current(self, model: str) -> RoleMap | None:
        """Return a model's newest role map as of the last refresh, None if it never had one."""
        return self._follower.current(model)

    def list_history(self, model: str) -> list[RoleMap]:
        """Return every role map of a model as of the last refresh."""
        return self._follower.history(model)

    def find_champion(self, model: str) -> str | None:
        """Return a model's champion as of the last refresh, None if it never had roles."""
        role_map = self._follower.current(model)
        return role_map.roles.get(CHAMPION) if role_map else None

    def find_promotion(self, job_id: str) -> RoleMap | None:
        """Return the role map with which a job has promoted its version, None if it has not; as of the last refresh."""
        return self._of_job.get(job_id)

    def promote(self, model: str, version: str, champion: str, reason: str, job_id: str) -> RoleMap:
        """Make `version` the champion in place of `champion`, which becomes the shadow.

        Safe to repeat: a job that has changed the roles does not again. When another role map comes first it is read
        and decided again; raises ChampionChangedError when the champion is another one by then.
        """
        return self._conclude(crown, model, version, champion, reason, job_id)

    def challenge(self, model: str, version: str, champion: str, reason: str, job_id: str) -> RoleMap:
        """Make `version` the challenger of `champion`; safe to repeat, and raises, as `promote` does."""
        return self._conclude(challenge, model, version, champion, reason, job_id)

    def change(
        self,
        model: str,
        seen: RoleMap | None,
        roles: Mapping[str, str],
        reason: str,
        cause: str,
        job_id: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> RoleMap:
        """Publish the role map that follows `seen`; raises LostRaceError when another one does.

        Once it returns, the map counts for everyone and is copied.
        """
        role_map = RoleMap(
            model=model,
            epoch=seen.epoch + 1 if seen else 1,
            roles=dict(roles),
            # Windows that start before this were, and stay, the old champion's.
            at=read_measured_to(self._ch, model) or 0,
            changed_at=self._clock.now_ms(),
            reason=reason,
            job_id=job_id,
            cause=cause,
            evidence=dict(evidence or {}),
        )
        assert role_map.roles.get(CHAMPION), "a role map names a champion"
        won = publish_roles(self._runtime.kafka, self._runtime.topics, role_map)
        self.refresh()
        if won:
            log.info("model %s: roles are %s (%s)", model, role_map.roles, cause)
            return role_map
        winner = self._follower.current(model)
        assert winner is not None, "the map that came first was read"
        raise LostRaceError(winner)

    def close(self) -> None:
        """Leave the broker."""
        self._follower.close()

    def _conclude(self, place: Any, model: str, version: str, champion: str, reason: str, job_id: str) -> RoleMap:
        while True:
            self.refresh()
            if job_id in self._of_job:
                return self._of_job[job_id]
            current = self._follower.current(model)
            if current is not None and current.roles.get(CHAMPION, champion) != champion:
                raise ChampionChangedError(f"version {current.roles[CHAMPION]} became champion meanwhile")
            roles = place(current.roles if current else {}, version, champion)
            try:
                return self.change(model, current, roles, reason, "gates", job_id)
            except LostRaceError:
                log.info("model %s: another role map came first; reading it and deciding again", model)
