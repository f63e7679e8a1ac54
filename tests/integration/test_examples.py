"""docs/examples: each story is run as its page says, by its own commands, and ends as its page says.

The stories run one after the other, against one system of real processes. A page's `sh` blocks are run as they
stand; each `sql` block is followed by what it prints, and must print it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from store.client import ClickHouse
from tests.stacks import RunningStack, run_stack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
# Folder and model of each.
STORIES = {"fraud": "fraud", "images": "scans", "quality": "quality", "text": "tickets"}
STORY_S = 250.0
# A trained network's figures differ between processors and versions of PyTorch, by far less than what they tell.
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with run_stack(tmp_path_factory.mktemp("examples")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples where the repository has them, so that nothing is written into the repository."""
    copy = tmp_path_factory.mktemp("repository")
    shutil.copytree(EXAMPLES, copy / "docs" / "examples", ignore=shutil.ignore_patterns("data", "__pycache__"))
    return copy


def read_blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path, data: Path) -> str:
    """What a command prints, run where the repository would be; it must succeed."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_")}
    environ = ours | {
        "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT), "DRIFTLOOP_DATA": str(data), "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }  # fmt: skip
    ended = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=STORY_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def list_differences(printed: str, promised: str) -> list[str]:
    """Where two printed tables differ; numbers may by TOLERANCE, as a share where they are larger than 1."""
    words, expected = printed.split(), promised.split()
    if len(words) != len(expected):
        return [f"{len(words)} words, not {len(expected)}"]
    return [f"{word}, not {wanted}" for word, wanted in zip(words, expected, strict=True) if not agrees(word, wanted)]


def agrees(word: str, wanted: str) -> bool:
    try:
        value, known = float(word), float(wanted)
    except ValueError:
        return word == wanted
    return abs(value - known) <= TOLERANCE * max(1.0, abs(known))


@pytest.mark.parametrize("name", STORIES)
def test_story_goes_as_its_page_says(name: str, system: RunningStack, folder: Path) -> None:
    blocks = read_blocks((EXAMPLES / name / "README.md").read_text())
    data = Path(system.runtime.data)
    for language, content in blocks:
        if language == "sh":
            print(run(["sh", "-ec", content], folder, data))
    for (language, query), (after, promised) in pairwise(blocks):
        if language == "sql":
            assert after == "text", f"the page does not tell what this prints: {query}"
            printed = run(["driftloop", "sql", query], folder, data)
            assert not list_differences(printed, promised), f"{query}\n{printed}"
    check_what_every_story_promises(STORIES[name], ClickHouse(system.runtime.clickhouse))


def check_what_every_story_promises(model: str, store: ClickHouse) -> None:
    """One retraining for the one alert of harm, promoted, in its place, and the alert over; no event refused."""
    parameters = {"model": model}
    jobs = store.query("SELECT state, rule, version FROM jobs FINAL WHERE model = {model:String}", parameters)
    assert jobs == [("promoted", "harm", "1")]
    roles = store.query(
        "SELECT role, version FROM roles FINAL WHERE model = {model:String} AND epoch = 1 ORDER BY role", parameters
    )
    assert roles == [("champion", "1"), ("shadow", "external")]
    harm = store.query(
        "SELECT state FROM alerts WHERE model = {model:String} AND rule = 'harm' ORDER BY at, state", parameters
    )
    assert harm == [("firing",), ("resolved",)]
    # What drifted still does, and it hurts nobody any more.
    health = store.query("SELECT health, champion FROM model_health WHERE model = {model:String}", parameters)
    assert health == [("noted", "1")]
    assert store.query("SELECT count() FROM dead_letters WHERE model = {model:String}", parameters) == [(0,)]
    store.close()
