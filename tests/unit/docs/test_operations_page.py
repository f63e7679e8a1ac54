"""docs/operations.md names every variable and every role, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from driftloop.roles import ROLES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def test_every_variable_that_the_settings_read_is_named() -> None:
    read = set(re.findall(r"\"(DRIFTLOOP_[A-Z_]+[A-Z])\"", (ROOT / "driftloop" / "settings.py").read_text()))
    read.add("DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS")
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(DRIFTLOOP_[A-Z_]+[A-Z])`", rows)) == read


def test_every_role_is_named() -> None:
    roles = PAGE.split("## Roles", 1)[1].split("\n\n", 2)[1]
    assert tuple(re.findall(r"^\| `(\w+)`", roles, re.MULTILINE)) == ROLES
