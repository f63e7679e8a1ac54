"""Role maps as pure functions: who gets which role when one version takes another's place.

Owns the rules: one champion always, no version in two roles, and who loses its place is retired. It must not publish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.events import RoleMap

CHAMPION, CHALLENGER, SHADOW, RETIRED = "champion", "challenger", "shadow", "retired"
# Records are scored by the versions of these roles; the champion first.
SCORED = (CHAMPION, CHALLENGER, SHADOW)

Roles = Mapping[str, str]


def list_scored(role_map: RoleMap) -> list[str]:
    """Return the versions that score records, each once, the champion first."""
    return list(dict.fromkeys(role_map.roles[role] for role in SCORED if role in role_map.roles))


def crown(roles: Roles, version: str, champion: str) -> dict[str, str]:
    """Make `version` the champion and the present one, `champion`, its shadow."""
    return _place(roles, champion, {CHAMPION: version, SHADOW: champion})


def challenge(roles: Roles, version: str, champion: str) -> dict[str, str]:
    """Let `version` be scored beside `champion`, whose shadow stays."""
    shadow = {SHADOW: roles[SHADOW]} if roles.get(SHADOW, version) != version else {}
    return _place(roles, champion, {CHAMPION: champion, CHALLENGER: version, **shadow})


def dismiss_challenger(roles: Roles) -> dict[str, str]:
    """Retire the challenger; everybody else stays."""
    kept = {role: version for role, version in roles.items() if role in (CHAMPION, SHADOW)}
    return _place(roles, roles[CHAMPION], kept)


def roll_back(roles: Roles) -> dict[str, str]:
    """Give the champion's place back to its shadow and retire it; a challenger of it is retired no less."""
    return {CHAMPION: roles[SHADOW], RETIRED: roles[CHAMPION]}


def find_beginning(history: Sequence[RoleMap], role: str) -> RoleMap | None:
    """Return the map since which the present holder of a role has had it without a break; None if nobody has it."""
    found: RoleMap | None = None
    for role_map in reversed(history):
        if role_map.roles.get(role) is None or role_map.roles[role] != history[-1].roles.get(role):
            break
        found = role_map
    return found


def _place(before: Roles, champion: str, placed: dict[str, str]) -> dict[str, str]:
    """Add who is retired: a version that loses its place, else the one that was."""
    previous = [champion, *(before[role] for role in SCORED if role in before)]
    lost = [version for version in previous if version not in placed.values()]
    retired = lost[0] if lost else before.get(RETIRED)
    if retired is not None and retired not in placed.values():
        return {**placed, RETIRED: retired}
    return placed
