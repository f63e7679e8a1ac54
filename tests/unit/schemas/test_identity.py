"""Values that must never change: they are stored, and compared for ever."""

from __future__ import annotations

from schemas import identity


def test_hashes_are_the_same_for_ever():
    assert identity.hash_ids("fraud", ["r1", "r2", "ü", ""]).tolist() == GOLDEN_RECORDS
    assert identity.hash_ids("fraud", []).dtype == "uint64"


def test_ids_are_the_same_for_ever():
    alert = identity.alert_id("fraud", "harm", "", 1_767_225_600_000)
    transition = identity.transition_id(alert, "firing", 1_767_225_600_000, 0)
    assert [
        alert,
        transition,
        identity.request_id("fraud", "harm", 1_767_225_600_000),
        identity.webhook_id(transition, "pager"),
    ] == GOLDEN_IDS


def test_names_cannot_be_moved_between_parts():
    assert identity.alert_id("a", "b", "", 0) != identity.alert_id("a,b", "", "", 0)
    assert identity.hash_ids("a", ["br"]).tolist() != identity.hash_ids("ab", ["r"]).tolist()


GOLDEN_RECORDS = [14603373057485606152, 778216192118409636, 9754290729503843471, 15915949196858814236]
GOLDEN_IDS = [
    "4e0431cb89af1238316dd8e4b102e552",
    "fef2affe7b4736f70a00377a4cf8bf44",
    "a72acf5cf86208cdd892221ab03134f6",
    "57d7994b005a21671a81674c3d6b1052",
]
