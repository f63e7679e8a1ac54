"""The examples in the docstrings say what the functions do."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import measures


@pytest.mark.parametrize("name", [each.name for each in pkgutil.iter_modules(measures.__path__)])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"measures.{name}")).failed == 0
