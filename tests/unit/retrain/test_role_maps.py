"""Who gets which role: one champion always, nobody twice, and who loses its place is retired."""

from __future__ import annotations

import pytest

from retrain.role_maps import challenge, crown, dismiss_challenger, find_beginning, list_scored, roll_back
from schemas.events import RoleMap


def make(epoch: int, **roles: str) -> RoleMap:
    return RoleMap(model="m", epoch=epoch, roles=roles, at=epoch, changed_at=epoch)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"champion": "2", "shadow": "1"}),
        ({"champion": "1"}, {"champion": "2", "shadow": "1"}),
        ({"champion": "1", "shadow": "0"}, {"champion": "2", "shadow": "1", "retired": "0"}),
        ({"champion": "1", "challenger": "2", "shadow": "0"}, {"champion": "2", "shadow": "1", "retired": "0"}),
        ({"champion": "1", "challenger": "3"}, {"champion": "2", "shadow": "1", "retired": "3"}),
        ({"champion": "1", "retired": "2"}, {"champion": "2", "shadow": "1"}),
        ({"champion": "1", "retired": "0"}, {"champion": "2", "shadow": "1", "retired": "0"}),
    ],
)
def test_new_champion_has_the_old_one_as_its_shadow(before: dict[str, str], after: dict[str, str]) -> None:
    assert crown(before, "2", "1") == after


def test_challenger_comes_beside_champion_and_shadow() -> None:
    assert challenge({}, "2", "external") == {"champion": "external", "challenger": "2"}
    before = {"champion": "1", "shadow": "0"}
    assert challenge(before, "2", "1") == {"champion": "1", "challenger": "2", "shadow": "0"}
    before = {"champion": "1", "challenger": "2", "shadow": "0"}
    assert challenge(before, "3", "1") == {"champion": "1", "challenger": "3", "shadow": "0", "retired": "2"}
    assert dismiss_challenger(before) == {"champion": "1", "shadow": "0", "retired": "2"}


def test_rollback_gives_the_place_back() -> None:
    assert roll_back({"champion": "2", "shadow": "1"}) == {"champion": "1", "retired": "2"}


def test_retired_versions_score_nothing() -> None:
    role_map = make(1, retired="0", shadow="1", champion="2", challenger="3")
    assert list_scored(role_map) == ["2", "3", "1"]
    assert list_scored(make(1, champion="1", shadow="1")) == ["1"]


def test_beginning_is_of_the_present_run_only() -> None:
    history = [make(1, champion="1"), make(2, champion="2"), make(3, champion="1"), make(4, champion="1", shadow="2")]
    found = find_beginning(history, "champion")
    assert found is not None
    assert found.epoch == 3
    assert find_beginning(history, "challenger") is None
    assert find_beginning([], "champion") is None
