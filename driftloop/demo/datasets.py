"""The demo's data: files of the `nannyml` wheel, downloaded once, read out of it; the package is never installed.

Employment: American Community Survey of the US Census Bureau, Massachusetts 2015 to 2018. Car loan: synthetic.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd

from schemas.errors import DriftloopError

WHEEL = "nannyml==0.13.1"
CACHE = Path(".cache") / "datasets"
DOWNLOAD_TIMEOUT_S = 300
FOLDER = "nannyml/datasets/data/"
# Of the reference and of the later rows; employment's times are no more than a year, so both are replayed by row.
FILES = {
    "employment_reference": "employment_MA_reference.pq",
    "employment": "employment_MA_analysis.pq",
    "employment_labels": "employment_MA_analysis_target.pq",
    "car_loan_reference": "synthetic_car_loan_reference.csv",
    "car_loan": "synthetic_car_loan_analysis.csv",
    "car_loan_labels": "synthetic_car_loan_analysis_target.csv",
}


def find_wheel(cache: Path = CACHE) -> Path:
    """The wheel, from DRIFTLOOP_DATASETS, from the cache, or downloaded into it."""
    folders = [Path(folder) for folder in (os.environ.get("DRIFTLOOP_DATASETS"), cache) if folder]
    for folder in folders:
        for wheel in sorted(folder.glob("nannyml-*.whl")):
            return wheel
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check",
               "--dest", str(cache), WHEEL]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    wheels = sorted(cache.glob("nannyml-*.whl"))
    if done.returncode or not wheels:
        raise DriftloopError(
            f"the demo's data ({WHEEL}) could not be downloaded: {done.stderr.strip()[-500:]}\n"
            f"Put the wheel into {cache} by hand and start again."
        )
    return wheels[0]


def unpack_datasets(target: Path) -> dict[str, Path]:
    """Write the six tables as Parquet files into `target`; returns their paths by name."""
    target.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    with zipfile.ZipFile(find_wheel()) as wheel:
        members = {Path(name).name: name for name in wheel.namelist() if name.startswith(FOLDER)}
        for name, file in FILES.items():
            content = io.BytesIO(wheel.read(members[file]))
            frame = pd.read_parquet(content) if file.endswith(".pq") else pd.read_csv(content)
            paths[name] = target / f"{name}.parquet"
            frame.to_parquet(paths[name], index=False)
    return paths
