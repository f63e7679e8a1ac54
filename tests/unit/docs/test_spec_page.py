"""docs/spec.md names every key of the model spec, no other, and its examples parse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from schemas.declarations import FalseAlarms, ModelSpec
from schemas.spec import parse_spec
from schemas.units import parse_duration_ms

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "spec.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
# Milliseconds and bytes in memory, `1h` and `4GiB` in the file.
UNITS = ("_ms", "_bytes")
# In published specs alone: what a descriptor is.
PUBLISHED = {"features.NAME.of", "features.NAME.descriptor", "features.NAME.num_dimensions"}


def list_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every key that a type declares, as the file has it: `windows.size`, `alerts[].for`, `features.NAME.type`."""
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        name = prefix + next((field.encode_name.removesuffix(u) for u in UNITS if field.encode_name.endswith(u)),
                             field.encode_name)  # fmt: skip
        yield from list_keys_of(field.type, name)


def list_keys_of(kind: msgspec.inspect.Type, name: str) -> Iterator[str]:
    options = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    for option in options:
        if isinstance(option, msgspec.inspect.StructType) and not name.endswith(".false_alarms"):
            yield from list_keys(option.cls, f"{name}.")
            return
        if isinstance(option, msgspec.inspect.DictType) and name == "features":
            yield from list_keys_of(option.value_type, f"{name}.NAME")
            return
        if isinstance(option, msgspec.inspect.ListType) and isinstance(option.item_type, msgspec.inspect.StructType):
            yield from list_keys_of(option.item_type, f"{name}[]")
            return
    yield name


def list_documented() -> list[str]:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return [key for row in rows for key in re.findall(r"`([^`]+)`", row)]


def list_used(value: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a parsed example."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        # YAML 1.1 takes a bare `on` for true; the product's own reader does not.
        key = "features.NAME" if prefix == "features." else prefix + ("on" if name is True else str(name))
        yield key
        for item in inner if isinstance(inner, list) else [inner]:
            yield from list_used(item, f"{key}[]." if isinstance(inner, list) else f"{key}.")


def test_every_key_is_documented_once_and_no_other() -> None:
    documented = list_documented()
    assert sorted(documented) == sorted(set(list_keys(ModelSpec)) - PUBLISHED)
    assert len(documented) == len(set(documented))


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_parses(example: str) -> None:
    parse_spec(example, "docs/spec.md")


def test_the_examples_use_every_key() -> None:
    used = {key for example in EXAMPLES for key in list_used(yaml.safe_load(example))}
    assert set(list_keys(ModelSpec)) - PUBLISHED - used == {"reference.sql"}


def find_default(spec: dict[str, Any], key: str) -> Any:
    """What a spec without the key has in its place, durations in ms; None where there is nothing."""
    value: Any = spec
    for part in key.split("."):
        value = value.get(part, value.get(f"{part}_ms")) if isinstance(value, dict) else None
    return value


def test_the_defaults_are_those_of_the_code() -> None:
    spec = msgspec.to_builtins(parse_spec(EXAMPLES[0] + "retrain: {}\n", "docs/spec.md"))
    lines = [line.split("|")[1:4] for line in PAGE.splitlines() if line.startswith("| `")]
    rows = [[cell.strip().strip("`") for cell in line] for line in lines]
    checked = set()
    for key, kind, written in rows:
        default = find_default(spec, key)
        if default in (None, []) or isinstance(default, dict) or " " in written or not written:
            assert default != [] or written == "none", key
            continue  # a section, or described in words
        if kind.startswith("duration") and written != "required":
            assert default == parse_duration_ms(written), key
        elif kind != "instant" and written != "required":
            assert default == yaml.safe_load(written), key
        checked.add(key)
    assert {"exact_rows", "windows.idle", "windows.min_rows", "performance.limits", "drift.method"} <= checked
    assert {"retrain.on", "retrain.cooldown", "retrain.promote.min_gain", "retrain.resources.timeout"} <= checked
    for section in ("drift", "performance"):
        (budget,) = [written for key, _, written in rows if key == f"{section}.false_alarms"]
        parsed = parse_spec(f"{EXAMPLES[0]}{section}: {{false_alarms: {budget}}}\n", "docs/spec.md")
        assert getattr(parsed, section).false_alarms == FalseAlarms()
