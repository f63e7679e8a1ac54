"""A YAML document as typed values that remember their file, line and key, for messages that name all three."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, NoReturn

import yaml

from schemas.errors import ConfigurationError
from schemas.instants import parse_instant
from schemas.units import parse_bytes, parse_duration_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_document(text: str, file: str) -> Section:
    """Read the one mapping that a file holds; ConfigurationError if it is no YAML, or something else."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else None
        raise ConfigurationError(f"this is no YAML: {error.problem}", file=file, line=line) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"this is no YAML: {str(error).splitlines()[0]}", file=file) from None
    if node is None:
        raise ConfigurationError("the file is empty", file=file, remedy="Begin with `model: NAME`.")
    return Value(node, "", file).section()


class Value:
    """One node; reading it as a type that it is not is a ConfigurationError."""

    def __init__(self, node: yaml.Node, key: str, file: str) -> None:
        self.node = node
        self.key = key
        self.file = file

    def fail(self, message: str, remedy: str | None = None) -> NoReturn:
        """Refuse this value."""
        line = self.node.start_mark.line + 1
        raise ConfigurationError(message, file=self.file, line=line, key=self.key or None, remedy=remedy) from None

    def plain(self) -> Any:
        """Give a scalar as YAML 1.1 understands it; None for null and for what is no scalar."""
        if not isinstance(self.node, yaml.ScalarNode):
            return None
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(self.node)
        except (ValueError, yaml.YAMLError) as error:
            self.fail(f"{self.node.value!r} cannot be read: {error}", "Quote it if it is a text.")
        finally:
            loader.dispose()

    def is_null(self) -> bool:
        """True for an empty value or `null`."""
        return isinstance(self.node, yaml.ScalarNode) and self.plain() is None

    def text(self) -> str:
        """Give a text; a number or date is taken as it is written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null() or self.node.value == "":
            self.fail(f"a text is expected, not {self._found()}")
        return str(self.node.value)

    def choice(self, options: Iterable[str], named: str = "one of") -> str:
        """Give a text that is one of `options`."""
        allowed = list(options)
        text = self.text()
        if text not in allowed:
            self.fail(f"{text!r} is not {named} {', '.join(allowed)}", _suggest(text, allowed))
        return text

    def flag(self) -> bool:
        """Give true or false."""
        value = self.plain()
        if not isinstance(value, bool):
            self.fail(f"true or false is expected, not {self._found()}")
        return value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """Give a finite number within [low, high]."""
        value = self.plain()
        if isinstance(value, str):
            # YAML 1.1 takes 1e-3 for a text.
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(f"a number is expected, not {self._found()}")
        if not low <= value <= high:
            self.fail(f"{value} is not between {low:g} and {high:g}")
        return float(value)

    def count(self, low: int = 1, high: int = 10**9) -> int:
        """Give a whole number within [low, high]."""
        value = self.plain()
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"a whole number is expected, not {self._found()}")
        if not low <= value <= high:
            self.fail(f"{value} is not between {low} and {high}")
        return value

    def duration_ms(self) -> int:
        """Give the milliseconds of a duration with its unit."""
        try:
            return parse_duration_ms(self.text())
        except ValueError as error:
            self.fail(str(error), "Write a number and a unit: 500ms, 30s, 15m, 1h, 30d or 1w.")

    def size_bytes(self) -> int:
        """Give the bytes of a size with its unit."""
        try:
            return parse_bytes(self.text())
        except ValueError as error:
            self.fail(str(error), "Write a number and a unit: 512MiB, 4GiB.")

    def instant(self) -> int:
        """Give the epoch ms of a date or an RFC 3339 instant; without a zone it is UTC."""
        value = self.plain()
        if isinstance(value, datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return round((moment - _EPOCH).total_seconds() * 1000)
        if isinstance(value, date):
            return (value - _EPOCH.date()).days * 86_400_000
        try:
            return parse_instant(self.text())
        except ValueError:
            self.fail(f"{self.text()!r} is no instant", "Write 2026-01-01 or 2026-01-01T00:00:00Z.")

    def items(self) -> list[Value]:
        """Give the values of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail(f"a list is expected, not {self._found()}", "Write [a, b].")
        return [Value(node, f"{self.key}[{index}]", self.file) for index, node in enumerate(self.node.value)]

    def section(self) -> Section:
        """Give a mapping."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail(f"a mapping is expected, not {self._found()}", "Write `key: value` lines, or {key: value}.")
        return Section(self.node, self.key, self.file)

    def is_section(self) -> bool:
        """True for a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    def is_list(self) -> bool:
        """True for a list."""
        return isinstance(self.node, yaml.SequenceNode)

    def _found(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return "nothing" if self.is_null() else repr(self.node.value)
        return "a list" if self.is_list() else "a mapping"


class Section(Value):
    """A mapping whose keys are asked for one by one; an empty value counts as left out."""

    def __init__(self, node: yaml.MappingNode, key: str, file: str) -> None:
        super().__init__(node, key, file)
        self._values: dict[str, Value] = {}
        for key_node, value_node in node.value:
            name = str(key_node.value)
            path = f"{key}.{name}" if key else name
            if name in self._values or not isinstance(key_node, yaml.ScalarNode):
                Value(key_node, path, file).fail("the key stands here twice" if name in self._values else "no key")
            # A value that is left empty is reported where its key stands.
            self._values[name] = Value(value_node, path, file)

    def allow(self, keys: Sequence[str]) -> Section:
        """Refuse every other key; gives itself."""
        for name, value in self._values.items():
            if name not in keys:
                value.fail(f"there is no key {name!r} here", _suggest(name, keys) or f"Allowed: {', '.join(keys)}.")
        return self

    def get(self, name: str) -> Value | None:
        """Give a key's value; None if it is left out."""
        value = self._values.get(name)
        return None if value is None or value.is_null() else value

    def require(self, name: str, remedy: str) -> Value:
        """Give a key's value, which must be there."""
        value = self.get(name)
        if value is None:
            place = Value(self.node, f"{self.key}.{name}" if self.key else name, self.file)
            place.fail("this key is missing", remedy)
        return value

    def empty(self, name: str) -> Section:
        """Give an empty section that stands where `name` would."""
        node = yaml.MappingNode("tag:yaml.org,2002:map", [], self.node.start_mark, self.node.end_mark)
        return Section(node, f"{self.key}.{name}" if self.key else name, self.file)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self._values.items())

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


def _suggest(text: str, allowed: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(text, allowed, n=1)
    return f"Did you mean {close[0]!r}?" if close else None
