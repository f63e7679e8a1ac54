"""Roles import what they need and no more: a budget by names, since times say more about the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURING = {"evidently", "measures", "pandas", "plotly", "river", "scipy", "sklearn", "matplotlib", "narwhals"}
LEARNING = {"torch", "retrain", "safetensors"}
PRINTING = {"click", "rich"}

WEB = {"aiohttp", "httpx"}

# The role's own function is run, and what it imports at last is replaced by something that says what is there.
PROGRAM = """
import builtins, sys
from driftloop import roles

class Probe:
    def __init__(self, *arguments): pass
    def run(self, *arguments): tell()

def tell(*arguments):
    print(*sorted(sys.modules))

plain = builtins.__import__

def import_and_replace(name, *more, **options):
    module = plain(name, *more, **options)
    if name == "{module}":
        module.{name} = Probe if isinstance(module.{name}, type) else tell
    return module

builtins.__import__ = import_and_replace
roles.RUNS["{role}"](None, "w", None)
"""

BODIES = {"monitor": ("streams.app", "run_monitor"), "sink": ("consumers.sink", "Sink")}


def run_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(
    ("role", "forbidden"),
    [
        ("monitor", MEASURING | LEARNING | PRINTING | WEB),
        ("sink", MEASURING | LEARNING | PRINTING | WEB | {"faust", "aiokafka", "yaml"}),
    ],
)
def test_a_role_imports_nothing_that_it_does_not_need_to_begin(role: str, forbidden: set[str]) -> None:
    module, name = BODIES[role]
    imported = set(run_python(PROGRAM.format(role=role, module=module, name=name)).split())
    assert module in imported
    assert imported & forbidden == set()


WITHOUT_PANDAS = """
import sys
from driftloop.imports import keep_arrow_from_pandas
keep_arrow_from_pandas()
import numpy as np, pyarrow as pa
table = pa.table({"a": pa.array([1.5, None]), "b": pa.array(["x", "y"]), "c": np.arange(2), "d": [[1], [2, 3]]})
table.to_pylist(), table["a"].to_numpy(), table["c"].to_numpy()
print("pandas" in sys.modules)
import pandas as pd
frame = pd.DataFrame({"number": [1.5, None], "text": ["x", None], "at": [pd.Timestamp(0), pd.NaT]})
table = pa.Table.from_pandas(frame)
texts = pa.array(frame["text"])
print([column.null_count for column in table.columns], table.to_pandas().equals(frame), texts.null_count)
"""


def test_arrow_does_without_pandas_until_somebody_imports_it() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_PANDAS], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout.splitlines() == ["False", "[1, 1, 1] True 1"]


WITHOUT_AIOHTTP = """
import sys
from driftloop.imports import import_faust_without_aiohttp

class Finder:
    # As if Faust needed something that the stand-in does not have.
    num_refusals = {num_refusals}

    def find_spec(self, name, path, target=None):
        if name == "faust.types.web" and self.num_refusals:
            self.num_refusals -= 1
            raise ImportError(name)

sys.meta_path.insert(0, Finder())
import_faust_without_aiohttp()
print("faust" in sys.modules, "aiohttp" in sys.modules)
import faust
print(faust.App.__name__, "aiohttp" in sys.modules)
import aiohttp.client
print(aiohttp.client.ClientSession.__module__)
"""


@pytest.mark.parametrize(
    ("num_refusals", "expected"),
    [
        (0, ["True False", "App False", "aiohttp.client"]),
        (1, ["False False", "App True", "aiohttp.client"]),
    ],
)
def test_faust_comes_without_aiohttp_or_if_need_be_with_it(num_refusals: int, expected: list[str]) -> None:
    assert run_python(WITHOUT_AIOHTTP.format(num_refusals=num_refusals)).splitlines() == expected
