"""Data with published results. The files are read out of a wheel; the package itself is never imported."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


def _find_wheel() -> Path | None:
    given = os.environ.get("DRIFTLOOP_DATASETS")
    place = Path(given) if given else _REPOSITORY / ".cache" / "datasets"
    return place if place.is_file() else next(iter(sorted(place.glob("nannyml-*.whl"))), None)


@pytest.fixture(scope="session")
def read_dataset() -> Callable[[str], pd.DataFrame]:
    """A function that reads one data file (.csv or .pq) of the wheel by name; skips where there is no wheel."""
    wheel = _find_wheel()
    if wheel is None:
        pytest.skip(
            "no data: set DRIFTLOOP_DATASETS to a nannyml wheel or its folder, "
            "or run `pip download --no-deps -d .cache/datasets nannyml==0.13.1`"
        )

    def read(name: str) -> pd.DataFrame:
        with zipfile.ZipFile(wheel) as archive:
            content = io.BytesIO(archive.read(f"nannyml/datasets/data/{name}"))
        return pd.read_parquet(content) if name.endswith(".pq") else pd.read_csv(content)

    return read
