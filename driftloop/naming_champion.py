"""What `driftloop promote` and `driftloop rollback` do to the roles of a model.

Owns the checks before a person's choice counts; the log decides between two who choose at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.connecting import open_store
from driftloop.published import find_published
from retrain.promotion import Roles
from retrain.role_maps import CHAMPION, RETIRED, SHADOW, crown, roll_back
from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.events import RoleMap
from store.artifacts import DamagedArtifactError, open_artifacts
from store.client import ClickHouse
from store.jobs import read_main_version
from store.overview import read_versions
from store.versions import read_version

EXTERNAL = "external"
# `read_main_version` looks at any stored window.
_ALWAYS = (0, 1 << 47)


@contextmanager
def open_roles(runtime: Runtime) -> Iterator[tuple[ClickHouse, Roles]]:
    """The roles of all models as they are now, and the store."""
    with open_store(runtime) as store:
        roles = Roles(runtime, store, SystemClock())
        try:
            roles.refresh()
            yield store, roles
        finally:
            roles.close()


def promote_version(runtime: Runtime, model: str, version: str, reason: str) -> RoleMap:
    """Make a version the champion, the present one its shadow.

    Raises ConfigurationError for a version that there is not, that is champion already, or whose artifact is damaged,
    and LostRaceError when somebody else changed the roles first.
    """
    find_published(runtime, model)
    with open_roles(runtime) as (store, roles):
        current = roles.find_current(model)
        champion = current.roles[CHAMPION] if current else read_main_version(store, model, *_ALWAYS) or EXTERNAL
        if current is not None and champion == version:
            raise ConfigurationError(
                f"version {version} of {model} is the champion already", key="VERSION", remedy="There is nothing to do"
            )
        _check_version(runtime, store, model, version)
        return roles.change(
            model, current, crown(current.roles if current else {}, version, champion), reason, "manual"
        )


def roll_back_model(runtime: Runtime, model: str, reason: str) -> RoleMap:
    """Give the champion's place back to its shadow; raises as `promote_version`, and where there is no shadow."""
    find_published(runtime, model)
    with open_roles(runtime) as (store, roles):
        current = roles.find_current(model)
        if current is None or SHADOW not in current.roles:
            retired = current.roles.get(RETIRED) if current else None
            known = f"driftloop promote {model} {retired or 'VERSION'}"
            raise ConfigurationError(
                f"{model} has no version in the role `shadow` to go back to", key="MODEL", remedy=f"Use `{known}`"
            )
        _check_version(runtime, store, model, current.roles[SHADOW])
        return roles.change(model, current, roll_back(current.roles), reason, "manual")


def _check_version(runtime: Runtime, store: ClickHouse, model: str, version: str) -> None:
    """A champion that cannot be loaded would hold the scorer up."""
    if version == EXTERNAL:
        return
    row = read_version(store, model, version)
    if row is None:
        known = [str(each["version"]) for each in read_versions(store, model)]
        raise ConfigurationError(
            f"{model} has no version {version!r}",
            key="VERSION",
            remedy=f"There are: {', '.join([*known, EXTERNAL])}",
        )
    try:
        open_artifacts(runtime.artifacts).read(row.uri, row.sha256)
    except DamagedArtifactError as error:
        raise ConfigurationError(str(error), key="VERSION", remedy="Restore the artifact or choose another") from error
