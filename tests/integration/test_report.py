"""Evidently's report of a window, from a real store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest

from schemas.errors import ConfigurationError
from streams.processes import ProcessPool
from streams.reporting import report_window
from tests import truth
from tests.integration.test_measuring import ROWS, SIZE_MS, START_MS, World
from tests.stored import run_store


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with run_store(tmp_path_factory.mktemp("clickhouse")) as connection:
        # Nothing is measured here.
        world = World(connection, cast("ProcessPool", None), truth.SPEC, truth.make_truth(2, ROWS))
        for window in (0, 1):
            world.send(window, ("records", "predictions"))
        yield world
        world.close()


@pytest.mark.filterwarnings("ignore")
def test_a_report_has_every_column_and_the_windows_drift(world: World) -> None:
    calm, moved = (report_window(world.ch, world.published, START_MS + window * SIZE_MS) for window in (0, 1))
    for html in (calm, moved):
        assert html.lstrip().lower().startswith("<!doctype html")
        for column in ("amount", "age", "country", "score", "prediction"):
            assert column in html
    assert count_drifted(calm) < count_drifted(moved)


def count_drifted(html: str) -> int:
    """How many columns the report says have drifted: "… is detected for X% of columns (N out of 5)"."""
    found: Any = re.search(r"\((\d+) out of 5\)", html)
    assert found is not None
    return int(found.group(1))


def test_a_window_without_rows_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="no rows of 'credit' are stored"):
        report_window(world.ch, world.published, START_MS + 10 * SIZE_MS)
