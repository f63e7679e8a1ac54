"""The seven packages are this repository's: other distributions use such generic names too."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["driftloop", "streams", "consumers", "retrain", "measures", "store", "schemas"])
def test_a_package_is_imported_from_this_repository(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve().parent == ROOT / name
