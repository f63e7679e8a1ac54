"""Importing a role's code in less time. Tricks with other people's imports stand here, and nowhere else."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def importing_quickly() -> Iterator[None]:
    """Import in this context what is needed for good: without collecting garbage meanwhile, of which there is none.

    Saves a tenth of the time; and what is there at the end is not looked through by later collections either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_faust_without_aiohttp() -> None:
    """Import Faust, with a stand-in for aiohttp, of which Faust itself only needs the name of a type.

    Aiohttp takes a quarter of the monitor's imports, half of that for reading the system's certificates. Whoever
    imports it afterwards gets the real one. A Faust that needs more than the stand-in has is not imported here, but by
    who imports it next, as ever.
    """
    if "aiohttp" in sys.modules or "faust" in sys.modules:
        return
    package, client = ModuleType("aiohttp"), ModuleType("aiohttp.client")
    client.ClientSession = type("ClientSession", (), {})  # type: ignore[attr-defined]
    sys.modules |= {"aiohttp": package, "aiohttp.client": client}
    try:
        import_module("faust.app")
    except ImportError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "faust"]:
            del sys.modules[name]
    finally:
        del sys.modules["aiohttp"], sys.modules["aiohttp.client"]


def keep_arrow_from_pandas() -> None:
    """Have PyArrow look for pandas now, and not find it, unless it is imported already.

    PyArrow imports pandas with its first conversion, only to recognise pandas' objects: that takes as long as importing
    all of Faust. Others can import pandas afterwards, and frames become tables and come back as ever. But in this
    process PyArrow will not know NaT and NA within a list: for roles that have none.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        # PyArrow's Python and C++ sides look once each: the former at what is no array of NumPy, the latter at a list.
        pa.array([None])
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Pandas is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
        return None
