"""Evidently's report of a window, from a real store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, cast

import pandas as pd
import pytest

from measures.evidently_report import make_report
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


@pytest.mark.filterwarnings("ignore")
def test_a_report_of_a_segment_is_of_its_rows_on_both_sides(world: World) -> None:
    html = report_window(world.ch, world.published, START_MS, segment="country=US")
    assert "amount" in html
    assert not any(f'"{other}"' in html for other in ("DE", "FR", "JP"))
    reference, window = (side[side.country == "US"] for side in (world.truth.reference, world.truth.stream))
    window = window[window.ts < START_MS + SIZE_MS]
    assert count_rows(html) == (len(window), len(reference))
    with pytest.raises(ConfigurationError, match="no rows of 'credit', country=XX, are stored"):
        report_window(world.ch, world.published, START_MS, segment="country=XX")


def count_rows(html: str) -> tuple[int, int]:
    """How many rows the report has of the window and of the reference."""
    found = re.search(r'\["number of rows", "(\d+)", "(\d+)"\]', html)
    assert found is not None
    return int(found.group(1)), int(found.group(2))


def test_a_window_without_rows_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="no rows of 'credit' are stored"):
        report_window(world.ch, world.published, START_MS + 10 * SIZE_MS)


class Scripts(HTMLParser):
    """The texts of a page's scripts, as a browser would take them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._is_inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._is_inside = tag == "script"
        if self._is_inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = False

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.texts[-1] += data


@pytest.mark.filterwarnings("ignore")
def test_a_value_cannot_bring_a_script_of_its_own() -> None:
    def report(value: str) -> Scripts:
        side = pd.DataFrame({"country": [value, "DE", None] * 50})
        return Scripts(make_report(side, side, [], ["country"]))

    harmless, value = report("FR"), "</script><script>alert(1)//"
    scripts = report(value)
    assert len(scripts.texts) == len(harmless.texts)
    assert not any(text.startswith("alert(1)") for text in scripts.texts)
    # It is still shown as it is.
    assert any(value.replace("<", "\\u003c") in text for text in scripts.texts)
