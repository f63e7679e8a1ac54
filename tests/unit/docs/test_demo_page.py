"""docs/demo.md tells the figures that the demo asserts, and names variables and folders that the code knows."""

from __future__ import annotations

from pathlib import Path

from driftloop.demo import datasets, truths

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "demo.md").read_text()


def write(value: float) -> str:
    return f"{value:.6f}".rstrip("0").removeprefix("0")


def test_the_figures_are_those_that_are_asserted() -> None:
    known = [*truths.EMPLOYMENT_REALIZED.values(), *truths.EMPLOYMENT_ESTIMATED.values()]
    known += [*truths.CAR_LOAN_REALIZED, *truths.CAR_LOAN_ESTIMATED, truths.CAR_LOAN_GAIN_MIN]
    assert [value for value in known if write(value) not in PAGE] == []
    assert f"{truths.EMPLOYMENT_WINDOWS} windows" in PAGE
    assert f"from window {truths.EMPLOYMENT_DRIFT_FROM} on" in PAGE.replace("From", "from")


def test_where_the_files_come_from_is_told() -> None:
    assert str(datasets.CACHE) in PAGE
    assert "DRIFTLOOP_DATASETS" in PAGE
